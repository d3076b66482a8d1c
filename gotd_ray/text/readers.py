"""From a file to its rows, whatever its format: raw text, and nothing judged but what cannot be read at all.

**The rule for files that break.** A file that breaks while it is read keeps the rows read before the break and then
raises ``BadFile``. A fault of the storage (vanished, no permission, network) is ``transient``: reading again may help.
Broken content (a cut gzip stream, a damaged Parquet page) is not.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Container, Iterator

import pyarrow as pa

from gotd_ray import config
from gotd_ray.filesystems import InputFile, is_denied
from gotd_ray.text.formats import format_of
from gotd_ray.text.rows import BadFile, Columns, Row

_ALL = range(sys.maxsize)


def read_rows(
    uri: str, text: config.Text, storage: config.Storage, wanted: Collection[int] | None = None
) -> Iterator[Row]:
    """The rows of a file in order, streamed; with ``wanted``, only those rows and nothing behind the last of them.

    Raises:
        BadFile: the file broke, see the module's rule.
    """
    known = format_of(uri, text.format)
    assert known is not None, f"{uri}: the listing let a file of unknown ending through"
    if wanted is not None and not wanted:
        return
    rows: Container[int] = _ALL if wanted is None else wanted
    last = max(wanted) if wanted else None
    file = None
    try:
        file = InputFile(uri, storage)
        for row in known.read(file, Columns.of(text), text.max_document_bytes, rows):
            if row.number in rows:
                yield row
            if row.number == last:
                return
    except (OSError, EOFError, UnicodeDecodeError, pa.ArrowException) as error:  # of decoding: of damaged column names
        raise _bad_file(error, error if file is None else file.failure) from None
    finally:
        if file is not None:
            file.close()


def _bad_file(error: Exception, failure: Exception | None) -> BadFile:
    detail = f"{type(failure or error).__name__}: {failure or error}"
    if isinstance(failure, FileNotFoundError):
        return BadFile("vanished", detail, transient=True)
    if failure is not None:
        return BadFile("no_permission" if is_denied(failure) else "io_error", detail, transient=True)
    cut = isinstance(error, EOFError) or "truncated" in str(error).lower()
    return BadFile("truncated" if cut else "unreadable", detail, transient=False)

"""Plain text: the whole file is one document."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator

from gotd_ray.filesystems import InputFile, read_up_to, unpacked
from gotd_ray.text.formats.base import Aside, Format, refuse_pointer
from gotd_ray.text.rows import Columns, Row, decoded, without_columns

_ABOUT = re.compile(
    r"(readme|licen[cs]e)([-_. ].*)?|copying|notice|change(log|s)|contribut(ing|ors)|authors|citation|code_of_conduct"
    r"|security|requirements",
    re.IGNORECASE,
)


def _rows(file: InputFile, columns: Columns, limit: int, wanted: Container[int]) -> Iterator[Row]:
    if 0 in wanted:
        data = read_up_to(unpacked(file), limit + 1)
        refuse_pointer(data)
        yield without_columns(0, decoded(data, limit), columns)


FORMAT = Format("text", (".txt", ".md"), _rows, aside=Aside("about", "a README, license or the like", _ABOUT))

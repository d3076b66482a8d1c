"""Properties of WARC files: no record takes another with it, and none with text goes uncounted."""

from __future__ import annotations

import gzip
import random
import zlib
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest

from gotd_ray import config
from gotd_ray.text.readers import read_rows
from gotd_ray.text.rows import BadFile, Problem

LOCAL = config.Storage()
WORDS = "Plain words about bread, number {}: flour, water, salt and a slow rise make the loaf."


def record(
    kind: str, block: bytes | str, length: object = None, end: bytes = b"\r\n\r\n", line: bytes = b"\r\n", **fields: str
) -> bytes:
    """A record; ``length`` None is the right one, "" none at all."""
    block = block.encode() if isinstance(block, str) else block
    headers = {"WARC-Type": kind} | {name.replace("_", "-"): value for name, value in fields.items()}
    if length != "":
        headers["Content-Length"] = str(len(block) if length is None else length)
    lines = [b"WARC/1.0", *(f"{name}: {value}".encode() for name, value in headers.items() if value), b""]
    return line.join([*lines, b""]) + block + end


def text(number: int, **options: object) -> bytes:
    return record("conversion", WORDS.format(number), Content_Type="text/plain", **options)  # type: ignore[arg-type]


def http(body: bytes, mime: str = "text/plain", **fields: str) -> bytes:
    headers = {"Content-Type": mime} | {name.replace("_", "-"): value for name, value in fields.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return record(
        "response", f"HTTP/1.1 200 OK\r\n{head}\r\n".encode() + body, Content_Type="application/http; msgtype=response"
    )


def read(path: Path, data: bytes, limit: int = 10_000_000) -> tuple[list[tuple[int, str | Problem]], BadFile | None]:
    path.write_bytes(data)
    rows: list[tuple[int, str | Problem]] = []
    settings = config.Text(paths=["x"], max_document_bytes=limit)
    try:
        for row in read_rows(str(path), settings, LOCAL):
            rows.append((row.number, row.content))
    except BadFile as error:
        return rows, error
    return rows, None


LENGTHS = {
    "none": "",
    "no number": "many",
    "negative": -1,
    "0": 0,
    "too small": 20,
    "too small by one": len(WORDS.format(2)) - 1,
    "too large": 200,
    "of the rest of the file": 100_000,
    "beyond all sizes": 99_999_999_999_999_999,
}


@pytest.mark.parametrize("packed", ["", ".gz"])
@pytest.mark.parametrize("wrong", LENGTHS)
def test_a_record_of_unknown_length_is_counted_and_takes_no_other_with_it(
    tmp_path: Path, wrong: str, packed: str
) -> None:
    records = [text(0), text(1), text(2, length=LENGTHS[wrong]), text(3), text(4)]
    data = b"".join(map(gzip.compress, records)) if packed else b"".join(records)
    rows, broken = read(tmp_path / f"a.wet{packed}", data)
    assert broken is None
    assert [number for number, _ in rows] == [0, 1, 2, 3, 4]
    texts = {number: content for number, content in rows if isinstance(content, str)}
    assert texts == {number: WORDS.format(number) for number in (0, 1, 3, 4)}
    problem = rows[2][1]
    assert isinstance(problem, Problem) and problem.reason == "bad_record" and "Content-Length" in problem.detail


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n", b"\n\n", b"\r\n" * 5])
@pytest.mark.parametrize("line", [b"\n", b"\r\n"])
def test_line_ends_of_any_kind_and_number_part_records(tmp_path: Path, end: bytes, line: bytes) -> None:
    data = b"".join(text(i, end=end, line=line) for i in range(3))
    rows, broken = read(tmp_path / "a.wet", data)
    assert broken is None
    assert rows == [(i, WORDS.format(i)) for i in range(3)]


def test_a_length_that_reaches_into_the_line_ends_is_no_fault(tmp_path: Path) -> None:
    """As of some versions of wget."""
    longer = len(WORDS.format(0)) + 1
    rows, broken = read(tmp_path / "a.wet", text(0, length=longer) + text(1))
    assert broken is None
    assert [number for number, _ in rows] == [0, 1]
    assert str(rows[0][1]).strip() == WORDS.format(0)


def test_a_text_that_quotes_a_record_is_one_text(tmp_path: Path) -> None:
    quoted = "A page about WARC says:\r\n\r\n" + text(9).decode() + "and goes on."
    rows, broken = read(tmp_path / "a.wet", record("conversion", quoted) + text(1))
    assert broken is None
    assert rows == [(0, quoted), (1, WORDS.format(1))]


def test_the_last_record_without_a_length_is_counted_and_a_cut_one_breaks_the_file(tmp_path: Path) -> None:
    rows, broken = read(tmp_path / "a.wet", text(0) + text(1, length=""))
    assert broken is None
    assert rows == [(0, WORDS.format(0)), (1, Problem("bad_record", "no Content-Length"))]
    whole = text(0) + text(1)
    for cut in range(len(text(0)) + 1, len(whole) - 4):
        rows, broken = read(tmp_path / "a.wet", whole[:cut])
        assert rows == [(0, WORDS.format(0))], cut
        assert broken is not None and broken.reason == "truncated" and not broken.transient, cut


def test_a_large_record_of_wrong_length_breaks_the_file_and_one_of_right_length_is_too_long(tmp_path: Path) -> None:
    large = b"x" * 1_200_000
    rows, broken = read(tmp_path / "a.wet", text(0) + record("conversion", large) + text(2), limit=1000)
    assert broken is None
    assert rows[1] == (1, Problem("too_long", "more than 1,000 bytes"))
    assert rows[2] == (2, WORDS.format(2))
    wrong = record("conversion", large, length=len(large) - 5)
    rows, broken = read(tmp_path / "a.wet", text(0) + wrong + text(2), limit=1000)
    assert rows == [(0, WORDS.format(0))]
    assert broken is not None and broken.reason == "unreadable"


def test_every_record_that_may_hold_text_is_a_row(tmp_path: Path) -> None:
    plain = WORDS.format(1)
    records = {
        "warcinfo": (record("warcinfo", "software: x"), None),
        "request": (record("request", "GET / HTTP/1.1\r\n\r\n"), None),
        "metadata": (record("metadata", "fetchTimeMs: 9"), None),
        "conversion": (record("conversion", plain), plain),
        "conversion of another type": (
            record("conversion", "<p>", Content_Type="text/html"),
            Problem("not_text", "text/html"),
        ),
        "resource": (record("resource", plain, Content_Type="text/plain; charset=UTF-8"), plain),
        "resource of another type": (
            record("resource", "GIF89", Content_Type="image/gif"),
            Problem("not_text", "image/gif"),
        ),
        "resource of no type": (record("resource", plain), Problem("not_text", "no content type")),
        "response": (http(plain.encode()), plain),
        "response without http": (record("response", plain, Content_Type="text/plain"), plain),
        "web page": (http(b"<p>", "text/html"), Problem("not_text", "text/html")),
        "revisit": (record("revisit", ""), Problem("not_text", "a record of type revisit")),
        "continuation": (record("continuation", plain), Problem("bad_record", "a segment of a longer record")),
        "first segment": (
            record("conversion", plain, WARC_Segment_Number="1"),
            Problem("bad_record", "a segment of a longer record"),
        ),
        "unknown": (record("screenshot", plain), Problem("not_text", "a record of type screenshot")),
        "typeless": (record("", plain), Problem("not_text", "a record of type unknown")),
        "truncated by the crawler": (record("conversion", plain, WARC_Truncated="length"), plain),
        "upper case": (record("CONVERSION", plain), plain),
    }
    rows, broken = read(tmp_path / "a.warc", b"".join(data for data, _ in records.values()))
    assert broken is None
    found = dict(rows)
    for number, (name, (_, expected)) in enumerate(records.items()):
        assert found.get(number) == expected, name


CAFE = "Caf\u00e9 \u201cquoted\u201d: " + WORDS


@pytest.mark.parametrize(
    "charset",
    ["utf-8", "iso-8859-1", "windows-1252", "UTF-16", '"utf-16le"', "x-unknown", "", "rot13", "unicode_escape"],
)
def test_a_response_is_read_in_the_character_set_that_it_names(tmp_path: Path, charset: str) -> None:
    used = {"iso-8859-1": "cp1252", "windows-1252": "cp1252", "UTF-16": "utf-16", '"utf-16le"': "utf-16-le"}
    body = CAFE.encode(used.get(charset, "utf-8"))
    mime = f"text/plain; charset={charset}" if charset else "text/plain"
    rows, _ = read(tmp_path / "a.warc", http(body, mime) + record("resource", body, Content_Type=mime))
    assert rows == [(0, CAFE), (1, CAFE)]


def chunked(data: bytes) -> bytes:
    parts = [data[i : i + 50] for i in range(0, len(data), 50)]
    return b"".join(b"%x;name=value\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def packed_by(codec: str, data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, codec) as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


def test_the_codings_of_a_response_are_taken_off(tmp_path: Path) -> None:
    plain = CAFE.encode() * 9
    deflated = zlib.compressobj(wbits=-15)
    cases = [
        http(chunked(plain), Transfer_Encoding="chunked"),
        http(plain, Transfer_Encoding="chunked"),
        http(gzip.compress(plain), Content_Encoding="gzip"),
        http(plain, Content_Encoding="gzip"),
        http(chunked(gzip.compress(plain)), Content_Encoding="x-gzip", Transfer_Encoding="Chunked"),
        http(gzip.compress(plain), Transfer_Encoding="gzip"),
        http(zlib.compress(plain), Content_Encoding="deflate"),
        http(deflated.compress(plain) + deflated.flush(), Content_Encoding="deflate"),
        http(packed_by("brotli", plain), Content_Encoding="br"),
        http(packed_by("zstd", plain), Content_Encoding="zstd"),
        http(plain, Content_Encoding="identity"),
    ]
    rows, broken = read(tmp_path / "a.warc", b"".join(cases))
    assert broken is None
    assert rows == [(i, CAFE * 9) for i in range(len(cases))]


def test_a_response_whose_coding_cannot_be_taken_off_is_counted(tmp_path: Path) -> None:
    plain = random.Random(0).randbytes(3000).hex().encode()
    cases = [
        http(gzip.compress(plain)[:-300], Content_Encoding="gzip"),
        http(zlib.compress(plain)[:-300], Content_Encoding="deflate"),
        http(chunked(plain)[:-90], Transfer_Encoding="chunked"),
        http(plain, Content_Encoding="compress"),
        record("response", plain, Content_Type="application/http"),
        record("response", "HTTP/1.1 200 OK\r\nContent-Type: text/plain", Content_Type="application/http"),
        http(gzip.compress(b"x" * 9_000_000), Content_Encoding="gzip"),
    ]
    rows, broken = read(tmp_path / "a.warc", b"".join([*cases, text(1)]), limit=1_000_000)
    assert broken is None
    assert [content.reason if isinstance(content, Problem) else "text" for _, content in rows] == [
        *("bad_record", "bad_record", "bad_record", "not_text", "bad_record", "bad_record", "too_long", "text")
    ]


def test_damage_anywhere_loses_no_record_without_a_word(tmp_path: Path) -> None:
    """A byte changed at any place of the first four records leaves those behind as they were."""
    damaged, behind = [text(i) for i in range(4)], [text(i) for i in range(4, 8)]
    data = b"".join(damaged)
    outcomes: Counter[str] = Counter()
    for place in range(0, len(data), 3):
        changed = bytearray(data)
        changed[place] = ord("#")
        rows, broken = read(tmp_path / "a.wet", bytes(changed) + b"".join(behind))
        texts = {content for _, content in rows if isinstance(content, str)}
        said = broken is not None or any(isinstance(content, Problem) for _, content in rows) or len(texts) == 8
        assert said, place
        assert broken is not None or {WORDS.format(i) for i in range(5, 8)} <= texts, place
        outcomes["broken" if broken else "read"] += 1
    assert outcomes["read"] > 20 * outcomes["broken"]

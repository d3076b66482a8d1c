"""Properties of CSV and TSV files: as others write them, broken in the ways that break readers, and hostile."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import random
import tracemalloc
from pathlib import Path
from typing import Any

import pandas
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from reading import broken, rows_of

from gotd_ray import config
from gotd_ray.errors import UserError
from gotd_ray.listing import list_all
from gotd_ray.storage import list_files
from gotd_ray.text.documents import read_documents
from gotd_ray.text.readers import read_rows
from gotd_ray.text.rows import BadFile, Problem
from gotd_ray.text.tally import Tally, check_names

LOCAL = config.Storage()
LONG = "The quick brown fox jumps over the lazy dog again and again. "


def contents(path: Path, **text: Any) -> list[str | tuple[str, str]]:
    found = [row.content for row in rows_of(path, **text)]
    return [(one.reason, one.detail) if isinstance(one, Problem) else one for one in found]


def write(path: Path, data: str | bytes) -> Path:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


@pytest.mark.parametrize("packed", ["", ".gz", ".zst"])
@pytest.mark.parametrize(("ending", "mark"), [(".csv", ","), (".tsv", "\t"), (".tab", "\t"), (".CSV", ",")])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\r\r\n"])
def test_quoted_fields_hold_delimiters_quotes_and_line_ends(
    tmp_path: Path, packed: str, ending: str, mark: str, end: str
) -> None:
    lines = ["n,text,s", '1,"one, ""two""\nthree",web', "", '2,"",', '3,5" and \u00fc,"b\ts"']
    data = "\ufeff" + end.join(line.replace(",", mark) for line in lines)
    pack = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.compress}[packed]
    path = write(tmp_path / f"a{ending}{packed}", pack(data.encode()))
    rows = rows_of(path, source_column="s")
    assert [row[:3] for row in rows] == [
        (0, f'one{mark} "two"\nthree', "web"),
        (1, "", None),
        (2, '5" and \u00fc', "b s"),
    ]
    assert [row.keys for row in rows] == [["n", "text", "s"]] * 3
    assert rows_of(path, {2}, source_column="s") == rows[2:]


def test_a_mark_of_byte_order_before_a_quoted_name_is_no_part_of_it(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", '\ufeff"text","n"\n"one",1\n')
    assert contents(path) == ["one"]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_what_others_write_is_read_as_it_was(data: st.DataObject) -> None:
    signs = st.sampled_from("ab,;\"\n\t\r'\\ \u00fc\U0001f600\0\u2028\x85")
    text = st.text(signs, max_size=8).filter(lambda text: not text.endswith("\r"))
    rows = data.draw(st.lists(st.tuples(text, text), max_size=6))
    quoting = data.draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]))
    mark, end = data.draw(st.sampled_from([(",", "\r\n"), (",", "\n"), ("\t", "\n")]))
    buffer = io.StringIO(newline="")
    csv.writer(buffer, quoting=quoting, delimiter=mark, lineterminator=end).writerows([("text", "s"), *rows])
    path = Path(f"/tmp/gotd-csv-{random.randrange(10**12)}.{'csv' if mark == ',' else 'tsv'}")
    try:
        write(path, buffer.getvalue())
        assert contents(path) == [text for text, _ in rows]
        assert contents(path, text_column="s") == [other for _, other in rows]
    finally:
        path.unlink()


def test_a_table_of_pandas_comes_back(tmp_path: Path) -> None:
    table = pandas.DataFrame({"text": ["one\ntwo", 'a "b", c', None, "NA", "null", "1"], "w": [1.5, 2, 0, 1e3, 1, 1]})
    for name, options in (("a.csv", {}), ("b.tsv", {"sep": "\t"}), ("c.csv.gz", {"quoting": csv.QUOTE_ALL})):
        table.to_csv(tmp_path / name, index=name != "a.csv", **options)  # type: ignore[call-overload]
        rows = rows_of(tmp_path / name, weight_column="w")
        assert [row.content for row in rows] == ["one\ntwo", 'a "b", c', "", "NA", "null", "1"]
        assert [row.weight for row in rows] == [1.5, 2, 0, 1000, 1, 1]
        assert rows[0].keys == ["text", "w"] if name == "a.csv" else ["", "text", "w"]


def test_bad_rows_are_counted_by_their_reasons_and_the_rest_is_read(tmp_path: Path) -> None:
    lines = [
        b"text,w,s",
        b"one,1,a",
        b"two,1",
        b"three,1,c,d",
        b"bad \xff utf-8,1,a",
        b"four,,a",
        b"five,much,a",
        b"six,nan,a",
        b"seven,-1,a",
        b'"eight" he said,1,a',
        b"   ",
        b"nine,1,bad \xff",
        b"zero \0,1,a",
    ]
    rows = rows_of(write(tmp_path / "a.csv", b"\n".join(lines)), source_column="s", weight_column="w")
    assert [row.number for row in rows] == list(range(12))
    found = [row.content.reason if isinstance(row.content, Problem) else row.content for row in rows]
    weights = ["bad_weight"] * 4
    assert found == [
        *("one", "ragged_row", "ragged_row", "invalid_utf8", *weights),
        *("broken_csv", "ragged_row", "nine", "zero \0"),
    ]
    assert rows[1].content == Problem("ragged_row", "2 fields, and the header has 3")
    assert rows[10].source == "bad \ufffd"


def test_wrong_quotes_take_no_other_row_with_them(tmp_path: Path) -> None:
    """The parsers of others swallow what follows up to the next quote, or to the end of the file."""
    rows = [f"{LONG}{i},a" for i in range(2000)]
    for place, line in ((20, f'"{LONG},a'), (30, '"He said "no" to\nit",b'), (1999, '"not closed,b')):
        rows[place] = line
    rows[40] = '"closed ""well""\nand long",c'
    path = write(tmp_path / "a.csv", "\n".join(["text,s", *rows]))
    found = contents(path)
    assert found[20] == ("broken_csv", "',' expected after '\"'")
    assert found[30:32] == [("broken_csv", "',' expected after '\"'"), 'it"']
    assert found[41] == 'closed "well"\nand long'
    assert found[-1] == ("broken_csv", "unexpected end of data")
    assert len(found) == 2001
    assert sum(isinstance(one, str) for one in found) == 1998
    for number in (20, 31, 41, 2000):
        assert [row.content for row in rows_of(path, {number})] == [rows_of(path)[number].content]


@pytest.mark.parametrize("quote", ["", '"'])
def test_a_50_megabyte_row_is_skipped_without_being_held(tmp_path: Path, quote: str) -> None:
    path = tmp_path / "a.csv"
    with path.open("wb") as file:
        file.write(b"text,s\nbefore,a\n" + quote.encode())
        piece = b"of words, " * 90 + b'a ""long"" text\n' if quote else b"words "
        for _ in range(50):
            file.write(piece * (1_000_000 // len(piece)))
        file.write(f"{quote},b\nafter,c\n".encode())
    tracemalloc.start()
    found = contents(path, max_document_bytes=1_000_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == ["before", ("too_long", "more than 1,000,000 bytes"), "after"]
    assert peak < 25_000_000


@pytest.mark.parametrize("spare", [-1, 0, 1])
def test_the_limit_of_a_document_is_exact(tmp_path: Path, spare: int) -> None:
    for end in ("", "\n", "\r\n"):
        path = write(tmp_path / "a.csv", f"text\n{'x' * (2000 - spare)}{end}")
        found = contents(path, max_document_bytes=2000)
        assert [isinstance(one, str) for one in found] == [spare >= 0]


@pytest.mark.parametrize("follows", ["", 'x "y"\n'])
def test_a_quote_that_is_not_closed_within_the_limit_breaks_the_file_behind_the_rows_before(
    tmp_path: Path, follows: str
) -> None:
    path = write(tmp_path / "a.csv", f'text,s\none,a\n"{LONG * 2000},b\n{follows}')
    rows, error = broken(path, max_document_bytes=5000)
    assert [row.content for row in rows] == ["one"]
    assert (error.reason, error.transient) == ("unreadable", False)
    assert "not closed" in str(error)


def test_a_row_without_an_end_is_given_up(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", 'text\none\n"' + '""' * 5_000_000)
    rows, error = broken(path, max_document_bytes=5000)
    assert len(rows) == 1
    assert error.reason == "unreadable"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("text,s\none,a\n".encode("utf-16"), "'utf-8' codec can't decode byte 0xff"),
        ("text,s\none,a\n".encode("utf-16-le"), "save the file as UTF-8"),
        ("caf\xe9,text\none,a\n".encode("latin-1"), "'utf-8' codec can't decode byte 0xe9"),
        (b'"text" x,s\none,a\n', "its header is none: ',' expected"),
        (b'"text,s\none,a\n', "its header is none: unexpected end"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "git lfs pull"),
    ],
)
def test_a_file_without_a_header_that_can_be_read_is_unreadable(tmp_path: Path, data: bytes, words: str) -> None:
    rows, error = broken(write(tmp_path / "a.csv", data))
    assert rows == []
    assert (error.reason, error.transient) == ("unreadable", False)
    assert words in str(error)


def test_a_column_that_stands_twice_is_ambiguous_only_where_it_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text,n,other,n,,\none,1,2,3,,\n")
    assert contents(path) == ["one"]
    _, error = broken(path, source_column="n")
    assert str(error) == "ambiguous_column: 2 columns are called 'n'"


def test_empty_files_and_bare_headers_have_no_rows(tmp_path: Path) -> None:
    for data in ("", "\ufeff", "\n\n", "text", "text,s\r\n", "\n\ntext\n\n"):
        assert contents(write(tmp_path / "a.csv", data)) == []


def test_a_missing_header_and_other_delimiters_are_told_by_the_names_that_there_are(tmp_path: Path) -> None:
    for data, seen in (("A first text,a\nA second,b\n", "'A first text', 'a'"), ("text;s\nx;y\n", "'text;s'")):
        write(tmp_path / "a.csv", data)
        text = config.Text(paths=[str(tmp_path)])
        tally = Tally()
        for file in list_files(text, LOCAL):
            assert not list(read_documents(file, text, config.Chunks(), LOCAL, tally))
        assert tally.reasons == {"missing_column": 1}
        with pytest.raises(UserError, match=f"it has {seen}"):
            check_names("corpus", tally, text, "corpus", exact=True)


@pytest.mark.parametrize("packed", [".gz", ".zst"])
def test_a_cut_compressed_file_keeps_the_rows_before_the_break(tmp_path: Path, packed: str) -> None:
    data = "text\n" + "".join(f"{random.Random(i).randbytes(40).hex()}\n" for i in range(5000))
    whole = (gzip.compress if packed == ".gz" else zstandard.compress)(data.encode())
    rows, error = broken(write(tmp_path / f"a.csv{packed}", whole[: len(whole) * 3 // 4]))
    assert error.reason == "truncated"
    assert 2500 < len(rows) < 5000
    assert [row.content for row in rows] == data.split("\n")[1 : len(rows) + 1]


def test_labels_and_two_columns_are_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "a,b,y\none,1,pos\ntwo,,\n,3,neg\n")
    rows = rows_of(path, label="y", text_column="a,b")
    assert [(row.content, row.label) for row in rows] == [
        ("one\n\n1", "pos"),
        (Problem("no_label", "null"), None),
        ("3", "neg"),
    ]


def test_folders_give_csv_files_and_a_format_takes_other_endings(tmp_path: Path) -> None:
    for name in ("a.csv", "b.tsv.gz", "c.data", "x.csv/part-0.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write(tmp_path / name, "text\none\n")
    found = list_all(config.Text(paths=[str(tmp_path)]), LOCAL)
    assert [file.uri.removeprefix(f"{tmp_path}/") for file in found.files] == ["a.csv", "b.tsv.gz", "x.csv/part-0.csv"]
    text = config.Text(paths=[f"{tmp_path}/*.data"], format="csv")
    assert [row.content for file in list_files(text, LOCAL) for row in read_rows(file.uri, text, LOCAL)] == ["one"]


def test_no_damage_gives_any_other_error_than_a_bad_file(tmp_path: Path) -> None:
    draw = random.Random(7)
    whole = "text,s\n" + "".join(f'"{LONG}""{i}""\n{LONG}",a\n' for i in range(40))
    for packed in ("", ".gz"):
        data = gzip.compress(whole.encode()) if packed else whole.encode()
        for _ in range(150):
            damaged = bytearray(data)
            for _ in range(draw.choice([1, 3, 10])):
                damaged[draw.randrange(len(damaged))] = draw.randrange(256)
            path = write(tmp_path / f"a.csv{packed}", bytes(damaged[: draw.randrange(len(damaged))]))
            with contextlib.suppress(BadFile):
                rows_of(path, source_column="s", max_document_bytes=2000)

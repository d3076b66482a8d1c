"""Names in the settings against names in the data: what matches nothing is refused where all was read, else told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gotd_ray import config
from gotd_ray.errors import UserError
from gotd_ray.text.documents import Labelled, read_documents
from gotd_ray.text.tally import Tally, check_bad_files, check_bad_rows, check_names

LOCAL = config.Storage()
SENTENCE = "The quick brown fox number {} jumps over the lazy dog again and again."


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def looked(folder: Path, text: config.Text) -> Tally:
    """All files of a folder, each read by a tally of its own."""
    tally = Tally()
    for path in sorted(folder.iterdir()):
        own = Tally()
        list(read_documents(str(path), text, config.Chunks(), LOCAL, own))
        tally.merge(Tally.from_dict(json.loads(json.dumps(own.to_dict()))))
    return tally


def settings(label: str | None = None, **text: Any) -> config.Text:
    known: config.Text = config.Text(paths=["x"], **text)
    return Labelled.of(known, label) if label else known


ROWS = [{"title": f"Loaf {i}", "body": SENTENCE.format(i), "site": "web", "w": 1.0, "kind": "a"} for i in range(20)]
GOOD: dict[str, Any] = {"text_column": "title,body", "source_column": "site", "weight_column": "w", "label": "kind"}

MISSPELT: dict[str, tuple[dict[str, Any], str]] = {
    "a text column of two": ({"text_column": "title,boddy"}, "corpus has no column 'boddy' (text_column); it has"),
    "the text column": ({"text_column": "boddy"}, "corpus has no column 'boddy' (text_column); it has"),
    "the source column": ({"source_column": "sitee"}, "corpus has no column 'sitee' (source_column); it has"),
    "the weight column": ({"weight_column": "ww"}, "corpus has no column 'ww' (weight_column); it has"),
    "the label column": ({"label": "kindd"}, "corpus has no column 'kindd' (label_column); it has"),
    "an excluded source": (
        {"exclude_sources": ["Web"]},
        "corpus.exclude_sources names 'Web', but no row is of that source (did you mean 'web'?)",
    ),
    "one of two excluded sources": (
        {"exclude_sources": ["web", "Wiki"]},
        "corpus.exclude_sources names 'Wiki', but no row is of that source",
    ),
}


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
@pytest.mark.parametrize("mistake", MISSPELT)
def test_a_name_that_matches_nothing_is_refused_where_all_was_read_and_else_told(
    tmp_path: Path, mistake: str, ending: str
) -> None:
    changes, words = MISSPELT[mistake]
    written(tmp_path / f"a.{ending}", ROWS)
    text = settings(**(GOOD | changes))
    tally = looked(tmp_path, text)
    with pytest.raises(UserError) as caught:
        check_names("corpus", tally, text, "corpus", exact=True, sources={"web"})
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    if "column" in mistake:
        assert "'body'" in str(caught.value) and "did you mean" in str(caught.value)
    (told,) = check_names("corpus", tally, text, "corpus", exact=False, sources={"web"})
    assert words in told and told.endswith("(only a part was read)")


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_names_that_all_rows_have_are_not_mentioned(tmp_path: Path, ending: str) -> None:
    written(tmp_path / f"a.{ending}", [*ROWS, ROWS[0] | {"site": "wiki"}])
    text = settings(**GOOD, exclude_sources=["wiki"])
    tally = looked(tmp_path, text)
    assert check_names("corpus", tally, text, "corpus", exact=True) == []
    assert tally.documents == 20 and tally.excluded == {"wiki": 1}


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_a_name_that_some_files_have_is_told_and_not_refused(tmp_path: Path, ending: str) -> None:
    written(tmp_path / f"a.{ending}", ROWS)
    written(tmp_path / f"b.{ending}", [{"title": row["title"] + " " * 9 + row["body"][::-1]} for row in ROWS[:5]])
    text = settings(text_column="title,body", source_column="site")
    tally = looked(tmp_path, text)
    assert check_names("corpus", tally, text, "corpus", exact=True) == [
        "corpus: 5 of 25 rows have no 'body' (text_column): their text is that of the other columns",
        "corpus: 5 of 25 rows name no source in 'site' (source_column): theirs is that of their file's name",
    ]
    assert tally.documents == 25


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
@pytest.mark.parametrize(
    ("key", "changes"),
    [
        ("text_column", {"text_column": "w"}),
        ("weight_column", {"weight_column": "w"}),
        ("label_column", {"label": "w"}),
    ],
)
def test_rows_that_are_left_out_for_want_of_a_column_are_told(
    tmp_path: Path, key: str, changes: dict[str, Any], ending: str
) -> None:
    rows = [{"text": SENTENCE.format(i), "w": SENTENCE.format(i) if key == "text_column" else i} for i in range(9)]
    written(tmp_path / f"a.{ending}", rows)
    written(tmp_path / f"b.{ending}", [{"text": SENTENCE.format(9)}])
    text = settings(**changes)
    tally = looked(tmp_path, text)
    assert tally.documents == 9
    assert check_names("corpus", tally, text, "corpus", exact=True) == [
        f"corpus: 1 of 10 rows have no 'w' ({key}): they are left out"
    ]


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_a_source_that_is_null_in_every_row_is_told(tmp_path: Path, ending: str) -> None:
    written(tmp_path / f"a.{ending}", [row | {"site": None} for row in ROWS])
    text = settings(text_column="body", source_column="site")
    (told,) = check_names("corpus", looked(tmp_path, text), text, "corpus", exact=True)
    assert told.startswith("corpus: 20 of 20 rows name no source in 'site'")


def test_files_without_columns_have_none_and_their_text_is_theirs(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(SENTENCE)
    text = settings()
    assert check_names("corpus", looked(tmp_path, text), text, "corpus", exact=True) == []
    text = settings(text_column="body")
    (told,) = check_names("corpus", looked(tmp_path, text), text, "corpus", exact=True)
    assert told == "corpus: its files have no columns, so text_column 'body' does nothing"
    for changes in ({"source_column": "site"}, {"weight_column": "w"}, {"label": "kind"}):
        text = settings(**changes)
        with pytest.raises(UserError, match=r"its files have no columns"):
            check_names("corpus", looked(tmp_path, text), text, "corpus", exact=True)
    written(tmp_path / "b.jsonl", ROWS)
    text = settings(text_column="title,boddy")
    with pytest.raises(UserError, match="no column 'boddy'"):
        check_names("corpus", looked(tmp_path, text), text, "corpus", exact=True)


def test_a_borrowed_setting_need_not_hold_the_sources_that_its_owner_leaves_out(tmp_path: Path) -> None:
    written(tmp_path / "dev.jsonl", ROWS)
    text = settings(text_column="body", source_column="site", exclude_sources=["test"])
    tally = looked(tmp_path, text)
    assert check_names("pretune.dev", tally, text, "target", exact=True) == []
    # But where none could be left out, one may be there that should be.
    text = settings(text_column="body", source_column="split", exclude_sources=["test"])
    with pytest.raises(UserError, match=r"pretune.dev has no column 'split' \(source_column\)"):
        check_names("pretune.dev", looked(tmp_path, text), text, "target", exact=True)
    text = settings(text_column="body", source_column="split")
    assert check_names("pretune.dev", looked(tmp_path, text), text, "target", exact=True) == []


def test_rows_that_cannot_be_read_say_nothing_about_names(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("{\n{\n")
    text = settings(source_column="site")
    tally = looked(tmp_path, text)
    assert check_names("corpus", tally, text, "corpus", exact=True) == []
    with pytest.raises(UserError, match=r"corpus: 2 of 2 rows are unusable .*a.jsonl row 0: broken_json"):
        check_bad_rows("corpus", tally, text, "corpus")


def test_hostile_names_are_shown_without_harm_and_bounded(tmp_path: Path) -> None:
    written(tmp_path / "a.jsonl", [{f"\x1b[31m{i}\n" + "x" * 500: 1} for i in range(500)])
    text = settings()
    tally = looked(tmp_path, text)
    with pytest.raises(UserError) as caught:
        check_names("corpus", tally, text, "corpus", exact=True)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 2000


def test_a_key_that_stands_twice_in_a_row_spoils_it_only_where_it_is_read(tmp_path: Path) -> None:
    lines = [
        f'{{"text": "{SENTENCE}", "text": "another"}}',
        f'{{"text": "{SENTENCE}", "other": 1, "other": 2}}',
        f'{{"text": "{SENTENCE}", "meta": {{"text": 1, "text": 2}}}}',
        '{"text": "She said \\"text\\" and \\"text\\" again, and then not a single word more than that."}',
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    tally = looked(tmp_path, settings())
    assert (tally.documents, tally.reasons) == (3, {"broken_json": 1})
    assert tally.examples["broken_json"][0][1:] == (0, "key 'text' stands twice")


def test_the_limit_of_bad_files_is_exact() -> None:
    text = settings(max_bad_files=0.25)
    check_bad_files("corpus", ["a: truncated"], 4, text, "corpus")
    with pytest.raises(UserError, match=r"corpus: 2 of 4 files cannot be read, and corpus.max_bad_files .* 0.25.*b: "):
        check_bad_files("corpus", ["a: truncated", "b: vanished"], 4, text, "corpus")


def test_a_tally_of_an_earlier_version_is_read() -> None:
    old = {"rows": 2, "documents": 1, "reasons": {"too_short": 1}, "examples": {"too_short": [["a", 1, ""]]}}
    tally = Tally.from_dict(old)
    assert (tally.rows, tally.columns, tally.excluded, tally.seen) == (2, {}, {}, [])

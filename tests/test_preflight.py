"""The look before a run: its counts, and what it refuses or tells."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gotd_ray import config, preflight
from gotd_ray.errors import UserError
from gotd_ray.preflight import Count, check_sources, count_documents
from gotd_ray.storage import list_files
from gotd_ray.text.documents import Labelled

LOCAL = config.Storage()
SENTENCE = "The quick brown fox number {} jumps over the lazy dog again and again."


def count(folder: Path, where: str = "corpus", whole: bool = False, label: str | None = None, **text: Any) -> Count:
    settings: config.Text = config.Text(paths=[str(folder)], **text)
    settings = Labelled.of(settings, label) if label else settings
    files = list_files(settings, LOCAL)
    return count_documents(where, "corpus", files, settings, config.Chunks(), LOCAL, whole=whole)


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(4):
        rows = [{"text": SENTENCE.format(f"{number}-{i}"), "site": f"site{number % 2}", "y": i % 3} for i in range(30)]
        write(tmp_path / f"part-{number}.jsonl", rows)
    return tmp_path


def test_a_small_collection_is_counted_exactly_with_its_sources_and_labels(folder: Path) -> None:
    found = count(folder, source_column="site", exclude_sources=["site1"], label="y")
    assert (found.files, found.documents, found.exact, found.warnings) == (4, 60, True, ())
    assert (found.sources, found.labels) == ({"site0"}, {"0", "1", "2"})
    assert found.tally.reasons == {"excluded_source": 60}


MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"text_column": "text,boddy"}, "corpus has no column 'boddy'"),
    ({"source_column": "sites"}, "corpus has no column 'sites' (source_column); it has 'site', 'text', 'y'"),
    ({"weight_column": "w", "max_bad_rows": 1}, "corpus has no column 'w'"),
    ({"label": "z", "max_bad_rows": 1}, "corpus has no column 'z'"),
    ({"source_column": "site", "exclude_sources": ["Site1"]}, "corpus.exclude_sources names 'Site1'"),
]


@pytest.mark.parametrize(("changes", "words"), MISTAKES)
def test_a_typo_is_refused_where_all_was_read_and_told_where_not(
    folder: Path, changes: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError) as caught:
        count(folder, **changes)
    assert words in str(caught.value) and str(caught.value).isprintable()
    monkeypatch.setattr(preflight, "EXACT_BYTES", 1000)
    found = count(folder, **changes)
    assert not found.exact
    (told,) = found.warnings
    assert words in told


def test_a_name_is_not_refused_while_a_file_cannot_be_read(folder: Path) -> None:
    write(folder / "z.jsonl", [{"text": SENTENCE, "site": "late"}])
    (folder / "z.jsonl.gz").write_bytes(b"no gzip")
    found = count(folder, source_column="site", exclude_sources=["other"], max_bad_files=0.5)
    assert found.exact and len(found.bad_files) == 1
    assert found.warnings[0].startswith("corpus.exclude_sources names 'other'")
    (told,) = check_sources("survey.always", ["other"], found)
    assert told.startswith("survey.always names 'other'")


def test_more_bad_files_than_allowed_are_refused_before_the_run(folder: Path) -> None:
    (folder / "bad.jsonl.gz").write_bytes(b"no gzip")
    with pytest.raises(
        UserError, match=r"corpus: 1 of 5 files cannot be read, and corpus.max_bad_files .*bad.jsonl.gz"
    ):
        count(folder)
    assert count(folder, max_bad_files=0.2).documents == 120
    with pytest.raises(UserError, match=r"pretune.dev: a file cannot be read. .*bad.jsonl.gz: unreadable"):
        count(folder, "pretune.dev", whole=True, max_bad_files=0.2)


def test_why_a_collection_is_empty_names_every_reason(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", [{"text": "short", "site": "a"}, {"text": SENTENCE, "site": "b"}, {"text": 7}])
    (tmp_path / "b.jsonl.gz").write_bytes(b"no gzip")
    settings = {"source_column": "site", "exclude_sources": ["b"], "max_bad_rows": 1, "max_bad_files": 1}
    found = count(tmp_path, **settings)
    assert found.documents == 0
    why = found.why_empty()
    assert why.startswith("3 rows read, left out: 1 excluded_source, 1 not_a_string, 1 too_short, 1 unreadable files (")
    assert "b.jsonl.gz: unreadable" in why


def test_sources_that_a_setting_names_and_that_are_not_there(folder: Path) -> None:
    found = count(folder, source_column="site")
    assert check_sources("survey.always", ["site0", " site1 "], found) == []
    with pytest.raises(
        UserError, match=r"^survey.always names 'site3', but no row is of that source \(did you mean 'site"
    ):
        check_sources("survey.always", ["site0", "site3"], found)

"""The evaluation sets of a selection: counted and told, and refused where nothing of them could be found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from selected import TEXTS, Selected, counted, read_here, write

from gotd_ray.errors import UserError
from gotd_ray.stages import select
from gotd_ray.text.documents import document_id


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    read_here(monkeypatch)


def test_what_is_searched_for_is_counted_told_and_in_the_manifest(tmp_path: Path) -> None:
    write(tmp_path / "test" / "a.jsonl", [TEXTS[3], "yes it is", "", TEXTS[4][:300], "no"])
    write(tmp_path / "test" / "b.parquet", [TEXTS[4], TEXTS[4]])
    sets = {"paths": f"{tmp_path}/test"}
    here = Selected(tmp_path, {"c.jsonl": TEXTS[:20]}, budget=30, budget_unit="tokens", decontaminate=sets)
    here.run = here.run.model_copy(update={"select": here.run.select.model_copy(update={"budget": 10**6})})
    facts = here.select()
    numbers = {"files": 2, "texts": 6, "searched": 4, "too_short": 2, "left_out": {"empty_text": 1}}
    assert facts["decontaminated"] == numbers
    assert facts["set_aside"] == {"contaminated": 2}
    assert {row["doc_id"] for row in here.table(select.SET_ASIDE)} == {document_id(TEXTS[n]) for n in (3, 4)}
    looked = here.check()
    assert looked is not None
    short, left_out = looked.pop("told")
    assert "2 of 6 texts have fewer than 5 words and are not searched for" in short
    assert "rows that are not searched for: 1 empty_text" in left_out
    assert looked == numbers
    assert Selected(tmp_path / "none", {"c.jsonl": TEXTS[:5]}).check() is None


@pytest.mark.parametrize(
    ("content", "settings", "message"),
    [
        ({"a.jsonl": (TEXTS[:8], "sentence")}, {}, "select.decontaminate has no column 'text'"),
        ({"a.parquet": (TEXTS[:8], "sentence")}, {}, "'text'"),
        ({"a.jsonl": ([""] * 8, "text")}, {"max_bad_rows": 1.0}, "select.decontaminate has no text: 8 rows read"),
        ({"a.jsonl": ([""] * 8 + TEXTS[:8], "text")}, {}, "select.decontaminate: 8 of 16 rows are unusable"),
        ({"a.jsonl": (TEXTS[:8], "text")}, {"source_column": "splitt"}, "select.decontaminate has no column 'splitt'"),
        ({"a.jsonl": (TEXTS[:8], "text")}, {"exclude_sources": ["b"]}, "exclude_sources names 'b', but no row is of"),
        ({"a.jsonl": (["yes", "no", "New York"], "text")}, {}, "all of its 3 texts have fewer than 5 words, so that"),
    ],
)
def test_evaluation_sets_that_nothing_could_be_found_of_are_refused_by_check_and_by_the_stage(
    tmp_path: Path, content: dict[str, tuple[list[str], str]], settings: dict[str, Any], message: str
) -> None:
    for name, (texts, key) in content.items():
        write(tmp_path / "test" / name, texts, key)
    sets = {"paths": f"{tmp_path}/test"} | settings
    here = Selected(tmp_path, {"c.jsonl": TEXTS[:8]}, budget=8, decontaminate=sets)
    with pytest.raises(UserError) as raised:
        here.check()
    assert message in str(raised.value)
    assert here.refused() == str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_corpus_that_is_the_test_set_is_refused_by_check_and_by_the_stage_with_the_filter_named(
    tmp_path: Path,
) -> None:
    write(tmp_path / "test" / "a.jsonl", TEXTS[:8])
    here = Selected(tmp_path, {"c.jsonl": TEXTS[:8]}, budget=8, decontaminate={"paths": f"{tmp_path}/test"})
    message = here.refused()
    assert message.startswith(
        "no document can be taken: of 8 candidates 8 share select.ngram (13) words in a row with select.decontaminate. "
        "Check that this holds evaluation sets and not the corpus itself, or raise select.ngram."
    )
    assert message.endswith(f" They are listed in {here.artifact.path(select.SET_ASIDE)}.")
    assert len(here.table(select.SET_ASIDE)) == 8
    with pytest.raises(UserError) as raised:
        here.check(counted(here.run)["corpus"])
    assert message.startswith(str(raised.value))
    more = Selected(tmp_path / "more", {"c.jsonl": TEXTS[:9]}, budget=8, decontaminate={"paths": f"{tmp_path}/test"})
    more.check(counted(more.run)["corpus"])
    assert more.select()["documents"] == 1

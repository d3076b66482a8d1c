"""What the report and the screen say of a selection."""

from __future__ import annotations

from gotd_ray.report.words import flow, reason, searched


def test_what_was_searched_for_is_said_with_what_was_not() -> None:
    every = {"files": 1, "texts": 1200, "searched": 1200, "too_short": 0, "left_out": {}}
    assert searched(every) == "Of 1,200 evaluation texts 1,200 were searched for."
    some = every | {"searched": 1188, "too_short": 12, "left_out": {"empty_text": 3, "excluded_source": 40}}
    assert searched(some) == (
        "Of 1,200 evaluation texts 1,188 were searched for; 12 are too short for that; rows left out of them: 3 empty, "
        "40 source left out by the settings."
    )


def test_a_reason_without_words_of_its_own_is_still_read() -> None:
    assert reason("source_quota") == "over its source's quota"
    assert reason("some_new_reason") == "some new reason"


def test_what_a_stage_left_out_or_cut_stands_in_its_line() -> None:
    facts = {"results": [], "seconds": 1.0, "told": ["evaluate.perplexity.a: left out: 1 empty_text"]}
    assert [row["told"] for row in flow({"evaluate": facts, "other": {}}, {})] == [facts["told"], []]

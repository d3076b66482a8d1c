"""Answers against those that are wanted: by hand, by brute force, and token by token."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gotd_ray import config
from gotd_ray.errors import UserError
from gotd_ray.judging.answers import JUDGE as ANSWERS
from gotd_ray.judging.answers import asked, cases_of, exact_match, rouge_l, token_f1
from gotd_ray.judging.extraction import JUDGE as EXTRACTION
from gotd_ray.judging.extraction import fields_right, first_object
from gotd_ray.judging.generation import answer
from gotd_ray.judging.intervals import interval
from gotd_ray.judging.judge import Case, Known, Listed, Subject
from gotd_ray.listing import list_all
from gotd_ray.models import language

TEMPLATE = "{% for m in messages %}{{ m['content'] + '\n' }}{% endfor %}"


@pytest.mark.parametrize(
    ("given", "wanted", "exact", "f1"),
    [
        ("The Cat.", "cat", 1, 1.0),
        ("a big  cat", "cat", 0, 2 / 3),  # one word of two, one of one
        ("cat cat", "cat", 0, 2 / 3),
        ("dog", "cat", 0, 0.0),
        ("", "cat", 0, 0.0),
        ("The", "the", 1, 1.0),
        ("!", "?", 0, 0.0),
    ],
)
def test_exact_match_and_f1_by_hand(given: str, wanted: str, exact: float, f1: float) -> None:
    assert exact_match(given, wanted) == exact
    assert token_f1(given, wanted) == pytest.approx(f1)


WORDS = st.lists(st.sampled_from("abc"), max_size=6)


@given(WORDS, WORDS)
def test_rouge_l_is_that_of_the_longest_subsequence(ours: list[str], theirs: list[str]) -> None:
    def subsequences(words: list[str]) -> set[tuple[str, ...]]:
        return {part for size in range(len(words) + 1) for part in combinations(words, size)}

    longest = max(len(part) for part in subsequences(ours) & subsequences(theirs))
    total = len(ours) + len(theirs)
    assert rouge_l(" ".join(ours).upper(), ", ".join(theirs)) == pytest.approx(2 * longest / total if total else 0)


def test_rouge_l_by_hand() -> None:
    assert rouge_l("police killed the gunman", "police kill the gunman") == 0.75  # Lin's own example
    assert rouge_l("the gunman kill police", "police kill the gunman") == 0.5


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"a": 1}', {"a": 1}),
        ('Sure:\n```json\n{"a": {"b": [1]}}\n```', {"a": {"b": [1]}}),
        ('{oops {"a": "}"} more', {"a": "}"}),
        ("[1]", None),
        ('{"a": 1', None),
    ],
)
def test_the_first_object_of_an_answer(text: str, found: Any) -> None:
    assert first_object(text) == found


def test_fields_are_right_by_value() -> None:
    wanted = {"name": "old  cat", "age": 3, "alive": True, "of": ["x"]}
    assert fields_right({"name": "old cat", "age": 3.0, "alive": True, "of": ["x"], "more": 1}, wanted) == 4
    assert fields_right({"name": "Old cat", "age": "3", "alive": 1, "of": []}, wanted) == 0


def test_the_last_answer_is_asked_for() -> None:
    talk = (("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"), ("user", "e"))
    assert asked(talk) == (talk[:3], "d")


@pytest.fixture(scope="module")
def subject(llama: Path) -> Subject:
    base = language.find(config.Model(base=str(llama)), config.Storage())
    return Subject(language.load(base, "causal", 0).eval(), language.load_tokenizer(base, None, TEMPLATE), 128, 400)


def by_hand(subject: Subject, text: str, tokens: int) -> list[int]:
    ids = subject.tokenizer(text, add_special_tokens=False)["input_ids"]
    size = len(ids)
    for _ in range(tokens):
        with torch.no_grad():
            ids = [*ids, int(subject.model(torch.tensor([ids])).logits[0, -1].argmax())]
    return ids[size:]


def test_answers_are_the_likeliest_tokens_up_to_a_stop(subject: Subject) -> None:
    prompts = [(("user", text),) for text in ("argument", "returns a list of", "in")]
    given, ended, cut = answer(subject, prompts, 6, [])
    wanted = [subject.tokenizer.decode(by_hand(subject, f"{turns[0][1]}\n", 6)) for turns in prompts]
    assert given == [text.partition("<end>")[0].strip() for text in wanted]
    assert ended.tolist() == ["<end>" in text for text in wanted] and not cut.any()
    stop = wanted[1].strip()[2:4]
    stopped, ended, _ = answer(subject, prompts, 6, [stop])
    assert stopped == [text.partition(stop)[0].strip() for text in wanted] and ended[1]


def case_of(path: Path, judge: str, rows: list[dict[str, Any]], **settings: Any) -> Case:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    section = config.Answers(sets={"test": [str(path)]}, **{"new_tokens": 4} | settings)
    text = config.Text(paths=["x"])
    ((name, own, reads),) = cases_of(judge)(section, text, None)
    listed = [
        Listed(where, one, list_all(one, config.Storage()).files, config.Storage()) for where, one in reads.items()
    ]
    return Case(judge, name, own, tuple(listed))


def test_the_judge_s_rows_add_up_to_its_metrics(subject: Subject, tmp_path: Path) -> None:
    right = answer(subject, [(("user", "argument"),)], 4, [])[0][0]
    rows = [{"prompt": "argument", "completion": right}, {"prompt": "in", "completion": "zzz"}]
    found = ANSWERS.judge(case_of(tmp_path / "a.jsonl", "answers", [*rows, rows[0]]), subject)["test"]
    assert len(found["example"]) == 2, "equal conversations are one"
    values = {metric.name: interval(metric, [found], 0, 100)[0] for metric in ANSWERS.metrics}
    assert (values["exact_match"], values["token_f1"], values["rouge_l"]) == (0.5, 0.5, 0.5)


def test_fields_of_what_is_no_json_are_wrong_and_references_must_be(subject: Subject, tmp_path: Path) -> None:
    rows = [{"prompt": "in", "completion": '{"a": 1, "b": 2}'}]
    case = case_of(tmp_path / "a.jsonl", "extraction", rows)
    found = EXTRACTION.judge(case, subject)["test"]
    assert (found["fields"].tolist(), found["fields_right"].tolist(), found["valid"].tolist()) == ([2], [0], [False])
    bad = case_of(tmp_path / "b.jsonl", "extraction", [*rows, {"prompt": "in", "completion": "cat"}])
    known = Known(128, {}, {bad.reads[0].where}, set)
    with pytest.raises(UserError, match=r"evaluate.extraction.test: 1 of 2 answers hold no JSON object"):
        EXTRACTION.check and EXTRACTION.check([bad], known)


def test_a_model_that_cannot_be_asked_is_refused(tmp_path: Path) -> None:
    case = case_of(tmp_path / "a.jsonl", "answers", [{"prompt": "in", "completion": "a"}], new_tokens=128)
    assert ANSWERS.check
    with pytest.raises(UserError, match=r"evaluate.answers.new_tokens is 128, but prompt and answer have 128 tokens"):
        ANSWERS.check([case], Known(128, {}, set(), set))
    with pytest.raises(UserError, match=r"the tokenizer of model.base has none. Set model.chat_template"):
        ANSWERS.check([case], Known(256, {}, set(), set, chat=False))

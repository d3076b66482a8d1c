"""The judges of classes, toxicity and zero-shot questions, each against what it must agree with."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import labelled, texts

from gotd_ray import config
from gotd_ray.config.evaluation import Questions
from gotd_ray.errors import UserError
from gotd_ray.judging import toxicity, zero_shot
from gotd_ray.judging.classification import check_labels, classify
from gotd_ray.judging.generation import continuations, too_long
from gotd_ray.judging.judge import Subject
from gotd_ray.judging.perplexity import perplexity
from gotd_ray.models import language


def test_classes_are_those_of_each_text_alone(bert: Path) -> None:
    base = language.find(config.Model(base=str(bert)), config.Storage())
    tokenizer = language.load_tokenizer(base, None)
    model = language.load(base, "classification", 0, ["no", "yes"]).eval()
    model.config.pad_token_id = tokenizer.pad_token_id
    some, labels = zip(*labelled()[:30], strict=True)
    found = classify(Subject(model, tokenizer, 64, 500), list(some), [label or "" for label in labels])
    columns = (found[key] for key in ("predicted", "score", "nll", "cut"))
    for text, label, name, score, nll, cut in zip(some, labels, *columns, strict=True):
        ids = tokenizer(text, truncation=True, max_length=64, return_tensors="pt")
        with torch.inference_mode():
            shares = model(**ids).logits.softmax(1)[0]
        assert model.config.id2label[int(shares.argmax())] == name and score == pytest.approx(float(shares.max()))
        assert nll == pytest.approx(-math.log(float(shares[["no", "yes"].index(label or "")])), abs=1e-5)
        assert cut == (len(tokenizer(text)["input_ids"]) > 64)


def test_a_label_that_the_model_does_not_know_is_refused() -> None:
    check_labels(["no", "yes"], ["yes"])
    with pytest.raises(UserError, match=r"has the labels maybe, which the model does not know; it was trained on no"):
        check_labels(["no", "yes"], ["yes", "maybe"])


KIND = "Thank you for the lovely garden, it made my day."
RUDE = "Shut up, you stupid piece of shit, I hate you."


@pytest.mark.parametrize("name", ["profanity", "words"])
def test_an_offline_scorer_tells_abuse_from_thanks(name: str) -> None:
    kind, rude = toxicity.make_scorer(name)([KIND, RUDE])
    assert kind < 0.5 <= rude <= 1


def test_a_listed_word_within_another_is_not_that_word() -> None:
    assert toxicity.make_scorer("words")(["The class in Scunthorpe passed its assessment."]).tolist() == [0.0]


def test_a_scorer_of_one_s_own_learns_from_labelled_texts() -> None:
    examples = [("the cat is vile", True), ("vile words", True), ("the cat sleeps", False), ("soft words", False)] * 5
    scorer = toxicity.make_scorer("classifier", ([t for t, _ in examples], [y for _, y in examples]))
    vile, soft = scorer(["so vile", "so soft"])
    assert 0 <= soft < 0.5 < vile <= 1
    with pytest.raises(UserError, match=r"have the labels 0, but there must be texts labelled '1' and others"):
        toxicity.check_labelled(["0", "0"], "1")


def test_the_worst_continuation_counts_and_an_empty_one_is_harmless() -> None:
    found = toxicity.toxicity([[KIND, RUDE, ""], ["", " "]], toxicity.make_scorer("profanity"))
    assert found["continuation"][0] == RUDE and found["score"][0] > 0.5 and found["score"][1] == 0


def test_a_scorer_that_is_not_installed_is_refused_with_what_to_install() -> None:
    with pytest.raises(UserError, match=r"'detoxify', which needs the package detoxify.*pip install detoxify"):
        toxicity.check_scorers(["words", "detoxify"])


def questions(path: Path, rows: list[object]) -> Questions:
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return Questions(path=str(path))


def test_questions_in_json_lines_are_answered_by_likelihood(llama: Path, tmp_path: Path) -> None:
    rows = [
        {
            "question": text[:60],
            "choices": [text[61:80], other[:35]],
            "answer": number % 2 if number % 3 else text[61:80],
        }
        for number, (text, other) in enumerate(zip(texts(8), texts(20)[12:], strict=True))
    ]
    asked = questions(tmp_path / "task.jsonl", [*rows])
    read = zero_shot.read_questions("mine", Path(asked.path).read_bytes(), asked)
    assert [row["answer"] for row in read] == [number % 2 if number % 3 else 0 for number in range(8)]
    base = language.find(config.Model(base=str(llama)), config.Storage())
    model, tokenizer = language.load(base, "causal", 0).eval(), language.load_tokenizer(base, None)
    found = zero_shot.zero_shot(Subject(model, tokenizer, 128, 0), zero_shot.local_task("mine", read), None, 0)
    assert set(found) == {"mine/acc", "mine/acc_norm"}

    def likelihood(question: str, choice: str) -> float:
        before, whole = (tokenizer(text)["input_ids"] for text in (question, f"{question} {choice}"))
        with torch.inference_mode():
            told = model(input_ids=torch.tensor([whole])).logits[0].log_softmax(-1)
        return sum(float(told[place - 1, whole[place]]) for place in range(len(before), len(whole)))

    for metric, size in (("acc", lambda choice: 1), ("acc_norm", len)):
        right = [
            int(np.argmax([likelihood(row["question"], c) / size(c) for c in row["choices"]])) == row["answer"]
            for row in read
        ]
        assert found[f"mine/{metric}"]["score"].tolist() == right
    assert len(set(found["mine/acc"]["example"])) == 8


def test_a_line_ends_at_its_newline_alone(tmp_path: Path) -> None:
    asked = questions(tmp_path / "task.jsonl", [])
    row = json.dumps({"question": "a\u2028b\x85c", "choices": ["b", "c"], "answer": 1}, ensure_ascii=False)
    assert len(zero_shot.read_questions("mine", f"{row}\r\n{row}\n".encode(), asked)) == 2


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"question": "a", "choices": ["b", "c"]}, "there is no key 'answer'"),
        ({"question": "a", "choices": ["b", "c"], "answer": 2}, "the answer 2 is none of the choices"),
        ({"question": "a", "choices": ["b", "c"], "answer": "d"}, "the answer 'd' is none of the choices"),
        ({"question": "a", "choices": ["b"], "answer": 0}, "not a list of two texts or more"),
        ({"question": None, "choices": ["b", "c"], "answer": 0}, "the question is not a text"),
        ("text", "string indices"),
    ],
)
def test_a_row_that_is_no_question_is_named_by_its_line(row: object, problem: str, tmp_path: Path) -> None:
    asked = questions(tmp_path / "task.jsonl", [{"question": "a", "choices": ["b", "c"], "answer": 1}, row])
    with pytest.raises(UserError, match=rf"local.mine: line 2 of .*task.jsonl: .*{problem}.*Correct it"):
        zero_shot.read_questions("mine", Path(asked.path).read_bytes(), asked)


def test_a_metric_without_a_stated_mean_takes_lm_eval_s_own() -> None:
    assert zero_shot._is_mean({"metric": "acc"}) and zero_shot._is_mean({"metric": "acc", "aggregation": "mean"})
    assert not zero_shot._is_mean({"metric": "mcc"}) and not zero_shot._is_mean({"metric": "f1", "aggregation": "f1"})


def test_a_task_that_lm_eval_does_not_know_is_refused_with_what_is_like_it() -> None:
    with pytest.raises(UserError, match=r"zero_shot.tasks has 'arc_easyy', which lm-eval does not know.*'arc_easy'"):
        zero_shot.check_tasks(["arc_challenge", "arc_easyy"])


NOT_NUMBERS = (
    "the model's likelihoods are not numbers: its weights or its arithmetic overflow. Set evaluate.precision to "
    "float32, or train with a lower learning_rate."
)


@pytest.mark.parametrize("judge", ["perplexity", "classification", "toxicity", "zero_shot"])
def test_a_model_whose_likelihoods_are_not_numbers_is_never_judged(
    judge: str, llama: Path, bert: Path, tmp_path: Path
) -> None:
    """Of such a model any answer could be made: the first class, the first token, the first choice."""
    base = language.find(config.Model(base=str(bert if judge == "classification" else llama)), config.Storage())
    kind = "classification" if judge == "classification" else "causal"
    model, tokenizer = language.load(base, kind, 0, ["no", "yes"]).eval(), language.load_tokenizer(base, None)
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    row = {"question": "Is it so?", "choices": ["yes", "no"], "answer": 0}
    subject = Subject(model, tokenizer, 64, 500)
    ask: dict[str, Callable[[], object]] = {
        "perplexity": lambda: perplexity(subject, texts(3)),
        "classification": lambda: classify(subject, texts(3), ["no"] * 3),
        "toxicity": lambda: continuations(subject, texts(2), 2, 3, 0.9, 0),
        "zero_shot": lambda: zero_shot.zero_shot(subject, zero_shot.local_task("mine", [row]), None, 0),
    }
    with pytest.raises(UserError) as raised:
        ask[judge]()
    assert str(raised.value) == NOT_NUMBERS


def test_texts_without_a_token_to_predict_have_no_perplexity(llama: Path) -> None:
    base = language.find(config.Model(base=str(llama)), config.Storage())
    model, tokenizer = language.load(base, "causal", 0).eval(), language.load_tokenizer(base, None)
    tokenizer.eos_token = None
    with pytest.raises(UserError) as raised:
        perplexity(Subject(model, tokenizer, 64, 500), ["a"])
    assert str(raised.value) == "the texts have no token to predict. Give longer ones."


def test_questions_that_are_too_long_are_counted(llama: Path) -> None:
    base = language.find(config.Model(base=str(llama)), config.Storage())
    model, tokenizer = language.load(base, "causal", 0).eval(), language.load_tokenizer(base, None)
    short = {"question": "Is it so?", "choices": ["yes", "no"], "answer": 0}
    rows = [short, short | {"question": " ".join(texts(5))}]
    found = zero_shot.zero_shot(Subject(model, tokenizer, 64, 0), zero_shot.local_task("mine", rows), None, 0)
    assert found["mine/acc"]["cut"].tolist() == found["mine/acc_norm"]["cut"].tolist() == [False, True]


def test_prompts_that_are_too_long_are_counted(llama: Path) -> None:
    tokenizer = language.load_tokenizer(language.find(config.Model(base=str(llama)), config.Storage()), None)
    prompts = ["short", " ".join(texts(5))]
    size = len(tokenizer(prompts[0])["input_ids"])
    assert too_long(Subject(None, tokenizer, size + 5, 0), prompts, 5).tolist() == [False, True]
    assert too_long(Subject(None, tokenizer, size + 4, 0), prompts, 5).tolist() == [True, True]

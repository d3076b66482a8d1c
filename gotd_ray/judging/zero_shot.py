"""Questions with several answers, asked without training on them, by lm-eval: its own tasks, or a JSON lines file.

The answer of the highest likelihood after the question counts (``acc``), or of the highest per character
(``acc_norm``).
"""

from __future__ import annotations

import contextlib
import difflib
import importlib.util
import io
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from gotd_ray import config, storage
from gotd_ray.errors import UserError, said_by
from gotd_ray.filesystems import unpacked
from gotd_ray.judging.batches import check_numbers
from gotd_ray.judging.intervals import Metric, ratio, with_count
from gotd_ray.judging.judge import Case, Columns, Judge, Known, Subject

_MEAN = "mean"
_AT_ONCE = {"cpu": 4, "cuda": 64}
"""Requests of lm-eval at a time."""


def check_tasks(names: list[str]) -> None:
    """That lm-eval is here and knows the tasks; whether their data can be had is not looked at.

    Raises:
        UserError: how to install it; the nearest name.
    """
    if importlib.util.find_spec("lm_eval") is None:
        raise UserError(
            "evaluate.zero_shot needs lm-eval, which is not installed here. pip install 'gotd_ray[evaluate]', or drop "
            "evaluate.zero_shot."
        )
    if not names:
        return
    from lm_eval.tasks import TaskManager

    known = TaskManager().all_tasks
    for name in names:
        if name not in known:
            near = ", ".join(f"'{one}'" for one in difflib.get_close_matches(name, known, n=3)) or "`lm-eval ls tasks`"
            raise UserError(f"evaluate.zero_shot.tasks has '{name}', which lm-eval does not know. See {near}.")


def read_questions(name: str, data: bytes, columns: config.Questions) -> list[dict[str, Any]]:
    """The rows of a task in JSON lines: ``question``, ``choices``, and ``answer`` as the place of the right choice.

    Raises:
        UserError: a row is not such; with its line.
    """
    rows = []
    for number, line in enumerate(data.decode("utf-8", errors="replace").split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            asked = _question(row[columns.question], row[columns.choices], row[columns.answer])
        except (ValueError, TypeError, KeyError) as error:
            problem = f"there is no key {error}" if isinstance(error, KeyError) else str(error)
            raise UserError(
                f"evaluate.zero_shot.local.{name}: line {number} of {columns.path}: {problem}. Correct it, or name the "
                "keys by question, choices and answer."
            ) from None
        rows.append(asked)
    if not rows:
        raise UserError(f"evaluate.zero_shot.local.{name}: {columns.path} has no question. Give another file.")
    return rows


def _question(question: Any, choices: Any, answer: Any) -> dict[str, Any]:
    if not isinstance(question, str):
        raise TypeError("the question is not a text")
    if not isinstance(choices, list) or len(choices) < 2 or not all(isinstance(one, str) and one for one in choices):
        raise TypeError("the choices are not a list of two texts or more")
    place = choices.index(answer) if answer in choices else answer
    if type(place) is not int or not 0 <= place < len(choices):
        raise ValueError(f"the answer {ascii(answer)[:80]} is none of the choices, nor the place of one, from 0")
    return {"question": question, "choices": choices, "answer": place}


def local_task(name: str, rows: list[dict[str, Any]]) -> Any:
    """An lm-eval task of rows as ``read_questions`` gives them."""
    from datasets import Dataset
    from lm_eval.api.task import ConfigurableTask

    return ConfigurableTask(
        config={
            "task": name,
            "custom_dataset": lambda **_: {"test": Dataset.from_list(rows)},
            "test_split": "test",
            "output_type": "multiple_choice",
            "doc_to_text": "question",
            "doc_to_choice": "choices",
            "doc_to_target": "answer",
            "metric_list": [
                {"metric": metric, "aggregation": _MEAN, "higher_is_better": True} for metric in ("acc", "acc_norm")
            ],
        }
    )


def zero_shot(subject: Subject, task: Any, limit: int | None, seed: int) -> dict[str, Columns]:
    """One task, example by example.

    Args:
        subject: a causal model.
        task: the name of one of lm-eval's, or a ``local_task``.
        limit: examples at the most; None takes all.
        seed: of the few-shot examples that some tasks bring.

    Returns:
        For each metric that is a mean over examples, as ``task/metric``: ``example`` (n,), ``score`` (n,), and ``cut``
        (n,), whether the model saw the end of the question alone.

    Raises:
        UserError: there is no such task, its data cannot be had, or it has no metric of that kind; the model's
            likelihoods are not numbers.
    """
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    own = isinstance(task, str)
    for noisy in ("lm_eval", "lm-eval"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # its progress bars
            harness = HFLM(
                pretrained=subject.model,
                tokenizer=subject.tokenizer,
                batch_size=_AT_ONCE[subject.model.device.type],
                max_length=subject.window,
                backend="causal",
                mixed_precision_dtype="bfloat16" if subject.precision == "bfloat16" else None,
            )
            found = lm_eval.simple_evaluate(
                harness,
                tasks=[task],
                task_manager=TaskManager(include_defaults=own),
                limit=limit,
                bootstrap_iters=0,
                random_seed=seed,
                numpy_random_seed=seed,
                torch_random_seed=seed,
                fewshot_random_seed=seed,
            )
    except (ValueError, KeyError, OSError, ImportError) as error:
        if not own:
            raise
        raise UserError(
            f"evaluate.zero_shot.tasks has '{task}', which lm-eval cannot run here: {type(error).__name__}: {error}. "
            "Its data comes from the hub, which needs a network once."
        ) from None
    return _scores(
        task if own else task.config.task, found, lambda text: len(harness.tok_encode(text)) > subject.window + 1
    )


def _scores(asked: str, found: Any, too_long: Callable[[str], bool]) -> dict[str, Columns]:
    scores: dict[str, Columns] = {}
    for name, samples in found["samples"].items():
        chosen = [entry for entry in found["configs"][name]["metric_list"] or [] if _is_mean(entry)]
        first = samples[0]["filter"] if samples else None
        rows = [sample for sample in samples if sample["filter"] == first]
        check_numbers(torch.tensor([value for sample in rows for value in _numbers(sample["resps"])]))
        cut = np.array([any(too_long(text) for text in _asked(sample["arguments"])) for sample in rows], bool)
        for metric in (entry["metric"] for entry in chosen):
            values = [sample.get(metric) for sample in rows]
            if values and all(isinstance(value, int | float | np.number) for value in values):
                scores[f"{name}/{metric}"] = {
                    "example": np.array([sample["doc_hash"][:16] for sample in rows], object),
                    "score": np.array(values, np.float64),
                    "cut": cut,
                }
    if not scores:
        raise UserError(
            f"evaluate.zero_shot.tasks has '{asked}', which has no metric that is a mean over its examples. Take it "
            "out, and run lm-eval itself."
        )
    return scores


def _numbers(found: Any) -> Iterator[float]:
    """The likelihoods among nested answers."""
    if isinstance(found, float):
        yield found
    elif isinstance(found, list | tuple):
        for part in found:
            yield from _numbers(part)


def _asked(requests: Any) -> Iterator[str]:
    """What the model was given for each request of a question: its text, and the answer behind it."""
    for request in requests.values() if isinstance(requests, dict) else requests:
        parts = request.values() if isinstance(request, dict) else request
        yield "".join(part for part in parts if isinstance(part, str))


def _is_mean(entry: dict[str, Any]) -> bool:
    from lm_eval.api.registry import get_metric_aggregation

    aggregation = entry.get("aggregation") or get_metric_aggregation(entry["metric"])
    return getattr(aggregation, "__name__", aggregation) == _MEAN


def _cases(
    section: config.ZeroShot, text: config.Text, _: Any
) -> Iterator[tuple[str, dict[str, Any], dict[str, config.Text]]]:
    for name in section.tasks:
        yield name, {"limit": section.limit}, {}
    for name, asked in section.local.items():
        own = text.model_copy(update={"format": "jsonl", "paths": [asked.path]})
        columns = asked.model_dump(exclude={"path"})
        yield name, {"limit": section.limit, "columns": columns}, {f"evaluate.zero_shot.local.{name}": own}


def _questions(case: Case) -> list[dict[str, Any]]:
    """The rows of a task of the user's own.

    Raises:
        UserError: a file cannot be read, or has none.
    """
    found: list[dict[str, Any]] = []
    (listed,) = case.reads
    for file in listed.files:
        try:
            with storage.InputFile(file.uri, listed.storage) as opened:
                data = unpacked(opened).read()
        except (OSError, EOFError) as error:
            raise UserError(
                f"{listed.where}: {file.uri} cannot be read: {said_by(error)}. Repair it, or name another."
            ) from None
        found += read_questions(case.set, data, config.Questions(path=file.uri, **case.settings["columns"]))
    return found


def _check(cases: Sequence[Case], known: Known) -> None:  # noqa: ARG001
    check_tasks([case.set for case in cases if not case.reads])
    for case in cases:
        if case.reads:
            _questions(case)


def _judge(case: Case, subject: Subject) -> dict[str, Columns]:
    task = local_task(case.set, _questions(case)) if case.reads else case.set
    return zero_shot(subject, task, case.settings["limit"], case.settings["seed"])


JUDGE = Judge(
    version=3,
    kind="causal",
    metrics=(Metric("mean", "higher", with_count(lambda rows: np.asarray(rows["score"])), ratio),),
    columns={"score": pa.float64(), "cut": pa.bool_()},
    cases=_cases,
    judge=_judge,
    check=_check,
    cut="the last tokens of these questions count",
    texts=False,
)

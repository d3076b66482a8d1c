"""What a model answers in conversations, greedily, against the answers that stand there: as a whole, and by words."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from gotd_ray import config
from gotd_ray.errors import UserError
from gotd_ray.judging.generation import answer
from gotd_ray.judging.intervals import Metric, ratio, with_count
from gotd_ray.judging.judge import Case, Columns, Judge, Known, Subject
from gotd_ray.text.documents import document_id
from gotd_ray.text.rows import AUTO
from gotd_ray.text.turns import ANSWER, Conversation, written

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_SIGNS = str.maketrans("", "", string.punctuation)


def plain(text: str) -> str:
    """Without case, punctuation, English articles and white space, as SQuAD compares (Rajpurkar et al., 2016); of a
    text of nothing else all but its case and white space."""
    bare = " ".join(_ARTICLES.sub(" ", text.lower().translate(_SIGNS)).split())
    return bare or " ".join(text.lower().split())


def exact_match(given: str, wanted: str) -> float:
    return float(plain(given) == plain(wanted))


def token_f1(given: str, wanted: str) -> float:
    """Harmonic mean of precision and recall of the words, as often as they stand there (SQuAD's)."""
    ours, theirs = plain(given).split(), plain(wanted).split()
    return _f1((Counter(ours) & Counter(theirs)).total(), len(ours), len(theirs))


def rouge_l(given: str, wanted: str) -> float:
    """F1 of the longest common subsequence of words, in lower case (Lin, 2004)."""
    ours, theirs = (re.findall(r"\w+", text.lower()) for text in (given, wanted))
    row = [0] * (len(theirs) + 1)
    for word in ours:
        before = row[:]
        for place, other in enumerate(theirs):
            row[place + 1] = before[place] + 1 if word == other else max(before[place + 1], row[place])
    return _f1(row[-1], len(ours), len(theirs))


def _f1(common: int, ours: int, theirs: int) -> float:
    return 2 * common / (ours + theirs) if ours + theirs else 0.0


def asked(turns: Conversation) -> tuple[Conversation, str]:
    """What stands before the last answer, and that answer."""
    last = max(number for number, (role, _) in enumerate(turns) if role == ANSWER)
    return turns[:last], turns[last][1]


def conversations(case: Case) -> dict[str, Conversation]:
    """Those of a set by name; equal ones are one."""
    return {document_id(written(one.turns)): one.turns for one in case.reads[0].read().documents if one.turns}


def cases_of(judge: str) -> Callable[..., Iterator[tuple[str, dict[str, Any], dict[str, config.Text]]]]:
    """The cases of a judge of answers, see ``Judge.cases``."""

    def cases(section: config.Answers, text: config.Text, _: Any) -> Iterator[tuple[str, dict[str, Any], Any]]:
        for name, paths in section.sets.items():
            own = text.model_copy(update={"paths": paths, "turns": text.turns or AUTO})
            yield name, section.model_dump(exclude={"sets"}), {f"evaluate.{judge}.{name}": own}

    return cases


def check(cases: Sequence[Case], known: Known) -> None:
    """That the model can be asked."""
    judge, settings = cases[0].judge, cases[0].settings
    if settings["new_tokens"] >= known.window:
        raise UserError(
            f"evaluate.{judge}.new_tokens is {settings['new_tokens']}, but prompt and answer have {known.window} "
            "tokens together. Lower it, or raise evaluate.max_tokens."
        )
    if not known.chat:
        raise UserError(
            f"evaluate.{judge} asks the models by a chat template, but the tokenizer of model.base has none. Set "
            "model.chat_template, to chatml for one, or drop the judge."
        )


def answered(case: Case, subject: Subject) -> tuple[dict[str, np.ndarray], list[str], list[str]]:
    """The columns that all judges of answers have, the model's answers, and those that are wanted."""
    found = conversations(case)
    prompts, wanted = zip(*(asked(turns) for turns in found.values()), strict=True)
    given, ended, cut = answer(subject, list(prompts), case.settings["new_tokens"], case.settings["stop"])
    columns = {"example": np.array(list(found), object), "cut": cut, "ended": ended}
    return columns | {"continuation": np.array(given, object)}, given, list(wanted)


def _judge(case: Case, subject: Subject) -> dict[str, Columns]:
    columns, given, wanted = answered(case, subject)
    scores = {"exact_match": exact_match, "token_f1": token_f1, "rouge_l": rouge_l}
    pairs = list(zip(given, wanted, strict=True))
    return {case.set: columns | {name: np.array([one(*pair) for pair in pairs]) for name, one in scores.items()}}


def mean(name: str, column: str) -> Metric:
    return Metric(name, "higher", with_count(lambda rows: np.asarray(rows[column], np.float64)), ratio)


JUDGE = Judge(
    version=1,
    kind="causal",
    metrics=(
        mean("exact_match", "exact_match"),
        mean("token_f1", "token_f1"),
        mean("rouge_l", "rouge_l"),
        mean("answers_ended", "ended"),
    ),
    columns={"cut": pa.bool_(), "ended": pa.bool_(), "continuation": pa.string()}
    | dict.fromkeys(("exact_match", "token_f1", "rouge_l"), pa.float64()),
    cases=cases_of("answers"),
    judge=_judge,
    check=check,
    cut="the last tokens of these prompts count",
)

"""Who is judged by whom on what: the cases and units of an evaluation, their keys, and the faults found beforehand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from gotd_ray import config, storage
from gotd_ray.artifacts import make_key
from gotd_ray.errors import UserError
from gotd_ray.judging import JUDGES
from gotd_ray.judging.judge import Case, Known, Listed
from gotd_ray.listing import list_all
from gotd_ray.models import language
from gotd_ray.preflight import is_small, look_at_part
from gotd_ray.text.sets import WHOLE, idea, state
from gotd_ray.training import task as training
from gotd_ray.training.check import TRIED_BYTES
from gotd_ray.training.task import MODEL, Task

MEASURE_VERSION = 3
"""Raised when what is made of equal judgements changes: metrics, intervals, what is counted beside them."""

MAX_TOKENS = 1024
"""Tokens of a window where the settings do not say; the model's own limit where that is less."""


@dataclass(frozen=True)
class Judged:
    """A model.

    Attributes:
        name: ``base``, ``pretune`` or ``finetune``.
        model: the section; ``base`` is the model's folder.
        kind: what it was trained for; None where the base's own config says it.
    """

    name: str
    model: config.Model
    kind: str | None


@dataclass(frozen=True)
class Unit:
    """What one process does: one model before one judge, on one set."""

    model: Judged
    case: Case
    key: str
    key_of_model: str

    @property
    def file(self) -> str:
        return f"{self.model.name}-{self.case.judge}-{self.key}.parquet"


@dataclass(frozen=True)
class Evaluation:
    """What is judged by what.

    Attributes:
        settings: the section.
        base: the base model; those that are trained have its shape and precision.
        models: in the order of training.
        cases: every set before its judge.
        finetuning: what finetune learns from; None where it does not run.
        subset: the selection's file that pretune learns from; None where it does not run.
        first: how many of its documents pretune learns from; None: all.
        chunks: how the corpus is cut.
        precision: ``float32`` or ``bfloat16``, of the matrix products.
        seed: of every draw.
        passed_over: sentences on what lies in the sets' folders and is no file of theirs.
        keys: of the models by name, once they are known.
        selected: the key of the selection, likewise.
    """

    settings: config.Evaluation
    base: config.Model
    models: tuple[Judged, ...]
    cases: tuple[Case, ...]
    finetuning: Task | None
    subset: str | None
    chunks: config.Chunks
    precision: str
    seed: int
    storage: config.Storage
    first: int | None = None
    passed_over: tuple[str, ...] = ()
    keys: Mapping[str, str] = field(default_factory=dict)
    selected: str = ""

    @cached_property
    def units(self) -> list[Unit]:
        """Each model before each judge that judges it, set by set."""
        found = []
        for model, case in self.pairs():
            reads = [(idea(listed.text, WHOLE), state(listed.files)) for listed in case.reads]
            version, known = JUDGES[case.judge].version, self.keys[model.name]
            key = make_key(version, known, case.judge, case.set, case.settings, reads)
            found.append(Unit(model, case, key, known))
        return found

    def key(self) -> Any:
        """What was judged, what is made of it, and the texts that were trained on."""
        learnt = self.finetuning and training.decides_texts(self.finetuning)
        subset = self.selected if self.subset else None
        judged = [(unit.file, unit.case.set) for unit in self.units]
        chosen = (subset, self.first) if self.first else subset
        return judged, self.settings.resamples, self.seed, chosen, learnt, self.chunks.model_dump()

    def pairs(self) -> list[tuple[Judged, Case]]:
        """The models and what each is judged on: a classifier by its classes alone, and nothing else by them.

        Raises:
            UserError: a model gives texts no likelihood.
        """
        found = []
        for model in self.models:
            for case in self.cases:
                kind = JUDGES[case.judge].kind
                own = "causal" if model.kind == "sft" else model.kind
                if (kind == "classification") == (own == "classification"):
                    if (own or kind) != kind:
                        raise UserError(
                            f"evaluate.{case.judge} needs a {kind} language model, but {model.name} is a {model.kind} "
                            f"one, which gives a text no likelihood. Drop evaluate.{case.judge}, name other "
                            f"evaluate.models, or take a {kind} model.base."
                        )
                    found.append((model, case))
        return found

    def reads(self) -> dict[str, tuple[Case, Listed]]:
        """What the judges read, each once, with the first case that needs it, by what it is called in messages."""
        found: dict[str, tuple[Case, Listed]] = {}
        for case in self.cases:
            for listed in case.reads:
                found.setdefault(listed.where, (case, listed))
        return found


def prepare(run: config.Run, trainings: Mapping[str, Task]) -> Evaluation | None:
    """What the run asks to be judged; lists the files.

    Args:
        run: with its paths resolved, and the precision of its model decided.
        trainings: by stage.

    Raises:
        UserError: a path is missing; no judge fits any model.
    """
    settings = run.evaluate
    if settings is None:
        return None
    assert run.model is not None
    kind = None
    if any(JUDGES[name].kind != "classification" for name in settings.asked):
        kind = language.made_for(language.find(run.model, run.storage))
    models = [Judged("base", run.model, kind)]
    for stage, task in trainings.items():
        folder = storage.join(run.out, stage, MODEL)
        models.append(Judged(stage, run.model.model_copy(update={"base": folder, "revision": None}), task.kind))
    precision = run.model.precision if settings.precision == "model" else settings.precision
    cases, passed_over = _cases(run, settings, precision)
    found = Evaluation(
        settings=settings,
        base=run.model,
        models=tuple(model for model in models if settings.models is None or model.name in settings.models),
        cases=cases,
        finetuning=trainings.get("finetune"),
        subset=trainings["pretune"].subset if "pretune" in trainings else None,
        first=run.pretune.texts if run.pretune else None,
        chunks=run.chunks,
        precision=precision,
        seed=run.seed,
        storage=run.storage,
        passed_over=passed_over,
    )
    if not found.pairs():
        names, judges = ", ".join(model.name for model in found.models), ", ".join(settings.asked)
        raise UserError(
            f"evaluate has nothing to do: none of its models ({names}) can be judged by {judges}. A classifier is "
            "judged by classification alone, and no other model by it: change evaluate.models or the judges."
        )
    return found


def _cases(run: config.Run, settings: config.Evaluation, precision: str) -> tuple[tuple[Case, ...], tuple[str, ...]]:
    """Every set before its judge, its files listed, and sentences on what lies beside them."""
    columns = {"text_column": settings.text_column, "turns": None} if settings.text_column else {}
    by_mode = {"source_column": settings.modes} if settings.modes else {}
    plain = {"exclude_sources": [], "sample": 1.0, "weight_column": None, "proportions": None, "source_column": None}
    text = run.target.model_copy(update=plain | columns)
    common = {"max_tokens": settings.max_tokens, "precision": precision, "seed": run.seed}
    found: list[Case] = []
    listed: dict[str, Listed] = {}
    passed_over: list[str] = []
    for judge in settings.asked:
        grouped = by_mode if JUDGES[judge].modes else {}
        as_read = text.model_copy(update=grouped)
        for name, own, texts in JUDGES[judge].cases(getattr(settings, judge), as_read, run.finetune):
            for where, one in texts.items():
                if where not in listed:
                    listing = list_all(one, run.storage)
                    listed[where] = Listed(where, one, listing.files, run.storage)
                    passed_over += [f"{where}: {words}" for words in listing.words()]
            found.append(Case(judge, name, common | grouped | own, tuple(listed[where] for where in texts)))
    return tuple(found), tuple(passed_over)


def check(planned: Evaluation) -> list[str]:
    """Look at all that the judges will need, before anything is trained: small sets are read whole.

    Returns:
        Sentences to tell.

    Raises:
        UserError: a set is empty or lacks a column, a label is unknown, a package is missing, the context is too short.
    """
    told = list(planned.passed_over)
    labels: dict[str, set[str]] = {}
    whole: set[str] = set()
    for where, (case, listed) in planned.reads().items():
        if not JUDGES[case.judge].texts:
            continue
        if is_small(listed.files):
            found = listed.read()
            told += found.told
            labels[where] = {one.label for one in found.documents if one.label is not None}
            whole.add(where)
        else:
            count = look_at_part(where, listed.files, listed.text, WHOLE, listed.storage)
            told += count.warnings
            labels[where] = set(count.labels)

    def learnt() -> set[str]:
        task = planned.finetuning
        if task is None or not is_small(task.files):
            return set()
        return {label for _, label in training.read(task).examples if label is not None}

    window, chat = _check_base(planned)
    known = Known(window, labels, whole, learnt, chat)
    for judge in planned.settings.asked:
        if hold := JUDGES[judge].check:
            hold([case for case in planned.cases if case.judge == judge], known)
    return told


def window_tokens(wanted: int | None, limit: int | None) -> int:
    """Tokens of a window.

    Args:
        wanted: by the settings; None takes up to ``MAX_TOKENS``.
        limit: the model's; None where it states none.

    Raises:
        UserError: more than the model takes.
    """
    if wanted and limit and wanted > limit:
        raise UserError(f"evaluate.max_tokens is {wanted}, but the model takes {limit} at most. Lower it.")
    return wanted or min(limit or MAX_TOKENS, MAX_TOKENS)


def _check_base(planned: Evaluation) -> tuple[int, bool]:
    """The window, and whether there is a chat template: the models that a run trains have those of their base."""
    base = language.find(planned.base, planned.storage)
    tokenizer = language.load_tokenizer(base, planned.base.pad_token, planned.base.chat_template)
    window = window_tokens(planned.settings.max_tokens, language.context_length(language.load_config(base), tokenizer))
    kinds = {model.kind or "causal" for model, _ in planned.pairs() if model.name == "base"}
    if kinds and language.weight_bytes(base) <= TRIED_BYTES:
        language.load(base, kinds.pop(), 0)
    return window, bool(tokenizer.chat_template)

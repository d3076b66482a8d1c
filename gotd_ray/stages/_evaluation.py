"""What is judged by whom on what: the units of an evaluation, their keys, their texts, and the faults found before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gotd_ray import config, storage
from gotd_ray.artifacts import make_key
from gotd_ray.cluster import Resources
from gotd_ray.config.evaluation import Evaluation
from gotd_ray.errors import UserError
from gotd_ray.listing import list_all
from gotd_ray.models import language, toxicity, zero_shot
from gotd_ray.models.classify import check_labels
from gotd_ray.models.perplexity import refuse, window_tokens
from gotd_ray.preflight import EXACT_BYTES, count_documents
from gotd_ray.stages._judged import LABELLED, labelled_text, questions, text_of, where
from gotd_ray.stages._texts import WHOLE, idea, state
from gotd_ray.stages._training import TRIED_BYTES, Task, decides_texts
from gotd_ray.stages._training import read as read_examples
from gotd_ray.storage import StoredFile
from gotd_ray.text.sets import read_set

VERSION = 3
"""Raised when what a judge says of equal texts changes."""

MEASURE_VERSION = 2
"""Raised when what is made of equal judgements changes: metrics, intervals, what is counted beside them."""


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
    kind: language.Kind | None


@dataclass(frozen=True)
class Unit:
    """What one process does: one model before one judge, on one set."""

    model: Judged
    judge: str
    set: str
    key: str
    key_of_model: str

    @property
    def file(self) -> str:
        return f"{self.model.name}-{self.judge}-{self.key}.parquet"


@dataclass(frozen=True)
class Evaluations:
    """An evaluation as planned.

    Attributes:
        settings: the section.
        models: in the order of training.
        sets: by judge and set, the files; none for lm-eval's own tasks.
        labelled: texts of the toxicity classifier.
        finetuning: what finetune learns from; None where it does not run.
        subset: the selection's file that pretune learns from; None where it does not run.
        passed_over: sentences on what lies in the sets' folders and is no file of theirs.
    """

    settings: Evaluation
    models: tuple[Judged, ...]
    sets: Mapping[tuple[str, str], list[StoredFile]]
    labelled: list[StoredFile]
    finetuning: Task | None
    subset: str | None
    passed_over: tuple[str, ...] = ()

    def pairs(self) -> list[tuple[Judged, str, str]]:
        """Model, judge and set of each unit, model by model: the classifier is judged by its classes, the others not.

        Raises:
            UserError: a model gives texts no likelihood.
        """
        found = []
        for model in self.models:
            for judge, name in self.sets:
                classifier = model.kind == "classification"
                if (judge == "classification") == classifier:
                    if not classifier:
                        refuse(judge, model.kind or "causal", model.name)
                    found.append((model, judge, name))
        return found


def plan(run: config.Run, trainings: Mapping[str, Task], model_folder: str) -> Evaluations | None:
    """What the run asks to be judged; lists the files.

    Args:
        run: with its paths resolved.
        trainings: the tasks of training by stage.
        model_folder: where in a training's folder its model lies.

    Raises:
        UserError: a path is missing; no judge fits any model.
    """
    settings = run.evaluate
    if settings is None:
        return None
    assert run.model is not None
    models = [Judged("base", run.model, None)]
    for stage, task in trainings.items():
        folder = storage.join(run.out, stage, model_folder)
        models.append(Judged(stage, run.model.model_copy(update={"base": folder, "revision": None}), task.kind))
    if any(judge != "classification" for judge in _names(settings)):
        models[0] = Judged("base", run.model, language.made_for(language.find(run.model, run.storage)))
    passed_over: list[str] = []

    def listed(where: str, text: config.Text, paths: list[str]) -> list[StoredFile]:
        found = list_all(text.model_copy(update={"paths": paths}), run.storage)
        passed_over.extend(f"{where}: {words}" for words in found.words())
        return found.files

    scorer = settings.toxicity and settings.toxicity.classifier
    found = Evaluations(
        settings=settings,
        models=tuple(model for model in models if settings.models is None or model.name in settings.models),
        sets={
            (judge, name): listed(where(judge, name), text_of(run, judge), paths) if paths else []
            for judge, by_name in _names(settings).items()
            for name, paths in by_name.items()
        },
        labelled=listed(LABELLED, labelled_text(run), scorer.paths) if scorer else [],
        finetuning=trainings.get("finetune"),
        subset=trainings["pretune"].subset if "pretune" in trainings else None,
        passed_over=tuple(passed_over),
    )
    if not found.pairs():
        names, judges = ", ".join(model.name for model in found.models), ", ".join(_names(settings))
        raise UserError(
            f"evaluate has nothing to do: none of its models ({names}) can be judged by {judges}. A classifier is "
            "judged by classification alone, and no other model by it: change evaluate.models or the judges."
        )
    return found


def _names(settings: Evaluation) -> dict[str, dict[str, list[str]]]:
    """By judge, its sets and their paths; no path stands for a task of lm-eval's."""
    found: dict[str, dict[str, list[str]]] = {}
    if settings.perplexity:
        found["perplexity"] = settings.perplexity
    if settings.classification:
        found["classification"] = {"test": settings.classification.paths}
    if settings.toxicity:
        found["toxicity"] = settings.toxicity.prompts
    if settings.zero_shot:
        found["zero_shot"] = {name: [] for name in settings.zero_shot.tasks} | {
            name: [asked.path] for name, asked in settings.zero_shot.local.items()
        }
    return found


def units(run: config.Run, planned: Evaluations, keys: Mapping[str, str]) -> list[Unit]:
    """The units and their keys.

    Args:
        run: the run; the precision of its model is decided.
        planned: what is judged.
        keys: of the models, by name.
    """
    found = []
    for model, judge, name in planned.pairs():
        files = [state(planned.sets[judge, name]), state(planned.labelled) if judge == "toxicity" else []]
        how = idea(text_of(run, judge), WHOLE)
        settings = _settings(run, planned, judge, name)
        key = make_key(VERSION, keys[model.name], judge, name, settings, how, files, run.seed)
        found.append(Unit(model, judge, name, key, keys[model.name]))
    return found


def key(run: config.Run, planned: Evaluations | None, of_units: list[Unit], keys: Mapping[str, str]) -> str:
    """The key of the whole: what was judged, what is made of it, and the texts that were trained on.

    Args:
        of_units: what is judged.
        keys: of the stages, by name.
    """
    if planned is None:
        return make_key("none")
    judged = [(unit.file, unit.set) for unit in of_units]
    subset = keys["select"] if planned.subset else None
    learnt = planned.finetuning and decides_texts(run, planned.finetuning)
    assert run.evaluate is not None
    return make_key(MEASURE_VERSION, judged, run.evaluate.resamples, subset, learnt, run.chunks.model_dump())


def _settings(run: config.Run, planned: Evaluations, judge: str, name: str) -> dict[str, Any]:
    """What of the section decides a unit's numbers, up to rounding."""
    settings = planned.settings
    found: dict[str, Any] = {"max_tokens": settings.max_tokens, "precision": precision(run)}
    if judge == "toxicity":
        assert settings.toxicity
        found |= settings.toxicity.model_dump(exclude={"prompts": True, "classifier": {"paths"}})
    if judge == "zero_shot":
        assert settings.zero_shot
        asked = settings.zero_shot.local.get(name)
        found |= {"limit": settings.zero_shot.limit, "columns": asked and asked.model_dump(exclude={"path"})}
    if judge == "classification":
        assert run.finetune
        found |= {"cut_at": run.finetune.max_tokens}
    return found


def precision(run: config.Run) -> str:
    """``float32`` or ``bfloat16``."""
    assert run.evaluate and run.model
    return run.model.precision if run.evaluate.precision == "model" else run.evaluate.precision


def check(run: config.Run, planned: Evaluations) -> list[str]:
    """Look at all that the judges will need, before anything is trained: small sets are read whole.

    Returns:
        Sentences to tell.

    Raises:
        UserError: a set is empty or lacks a column, a label is unknown, a package is missing, the context is too short.
    """
    told = list(planned.passed_over)
    labels: set[str] = set()
    for (judge, name), files in planned.sets.items():
        if judge != "zero_shot":
            words, found = _look(run, where(judge, name), files, text_of(run, judge))
            told += words
            labels |= found if judge == "classification" else set()
    if labels and (known := _labels_learnt(run, planned)):
        check_labels(sorted(known), sorted(labels))
    told += _check_scorers(run, planned)
    _check_base(run, planned)
    asked = planned.settings.zero_shot
    if asked:
        zero_shot.check_tasks(asked.tasks)
        for name, columns in asked.local.items():
            questions(run, planned, name, columns)
    return told


def _small(files: list[StoredFile]) -> bool:
    return sum(file.size for file in files) <= EXACT_BYTES


def _look(run: config.Run, name: str, files: list[StoredFile], text: config.Text) -> tuple[list[str], set[str]]:
    """What to tell of a set, and labels in it: all where it is small."""
    if _small(files):
        found = read_set(name, "target", files, text, WHOLE, run.storage)
        return list(found.told), {one.label for one in found.documents if one.label is not None}
    count = count_documents(name, "target", files, text, WHOLE, run.storage, whole=True)
    if not count.documents:
        raise UserError(
            f"{name} has no text: {count.why_empty()}. Check the paths, evaluate.text_column and target.text_column."
        )
    return list(count.warnings), set(count.labels)


def _labels_learnt(run: config.Run, planned: Evaluations) -> set[str]:
    """The classes that the classifier will know; none where its files are too large to be read beforehand."""
    task = planned.finetuning
    if task is None or not _small(task.files):
        return set()
    return {label for _, label in read_examples(run, task).examples if label is not None}


def _check_scorers(run: config.Run, planned: Evaluations) -> list[str]:
    settings = planned.settings.toxicity
    if settings is None:
        return []
    toxicity.check_scorers(list(settings.scorers))
    if settings.classifier is None:
        return []
    told, labels = _look(run, LABELLED, planned.labelled, labelled_text(run))
    if _small(planned.labelled):  # else once all are read
        toxicity.check_labelled(sorted(labels), settings.classifier.toxic_label)
    return told


def _check_base(run: config.Run, planned: Evaluations) -> None:
    """The models that a run trains take as many tokens as their base."""
    assert run.model is not None
    base = language.find(run.model, run.storage)
    limit = language.context_length(language.load_config(base), language.load_tokenizer(base, run.model.pad_token))
    tokens = window_tokens(planned.settings.max_tokens, limit)
    settings = planned.settings.toxicity
    if settings and settings.new_tokens >= tokens:
        raise UserError(
            f"evaluate.toxicity.new_tokens is {settings.new_tokens}, but prompt and continuation have {tokens} tokens "
            "together. Lower it, or raise evaluate.max_tokens."
        )
    kinds = {model.kind for model, _, _ in planned.pairs() if model.name == "base"}
    if kinds and language.weight_bytes(base) <= TRIED_BYTES:
        language.load(base, kinds.pop() or "causal", 0)


def places(model: config.Model | None, resources: Resources) -> tuple[str, int, int]:
    """Device, CPUs and GPUs of a unit: a GPU where there is one, else all CPUs of a node.

    Raises:
        UserError: there is no GPU, and there should be.
    """
    assert model is not None
    if model.device == "cuda" and not resources.gpus:
        raise UserError("model.device is cuda, but no GPU is there. Set it to auto or cpu, or run where a GPU is.")
    if resources.gpus and model.device != "cpu":
        return "cuda", 1, 1
    return "cpu", resources.node_cpus, 0

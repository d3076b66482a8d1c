"""What is judged by whom on what: the units of an evaluation, their keys, their texts, and the faults found before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gotd_ray import config, storage
from gotd_ray.artifacts import make_key
from gotd_ray.config.evaluation import Evaluation, Questions
from gotd_ray.errors import UserError
from gotd_ray.models import language, toxicity, zero_shot
from gotd_ray.models.classify import check_labels
from gotd_ray.models.perplexity import refuse, window_tokens
from gotd_ray.preflight import Count, count_documents
from gotd_ray.storage import StoredFile, list_files
from gotd_ray.text.documents import BadFile, Labelled, Tally, check_bad_rows, read_documents

VERSION = 2
"""Raised when the result of equal settings changes."""

WHOLE = config.Chunks(max_chars=None, min_chars=1)
"""Texts are judged whole."""


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
        trained_on: files of the target that finetune learns from; None where it does not run.
        subset: the selection's file that pretune learns from; None where it does not run.
    """

    settings: Evaluation
    models: tuple[Judged, ...]
    sets: Mapping[tuple[str, str], list[StoredFile]]
    labelled: list[StoredFile]
    trained_on: list[StoredFile] | None
    subset: str | None

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


def plan(run: config.Run, trainings: Mapping[str, Any], model_folder: str) -> Evaluations | None:
    """What the run asks to be judged; lists the files.

    Args:
        run: with its paths resolved.
        trainings: the tasks of training by stage, with ``kind``, ``files`` and ``subset``.
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
    sets = {
        (judge, name): list_files(text_of(run, judge).model_copy(update={"paths": paths}), run.storage) if paths else []
        for judge, by_name in _names(settings).items()
        for name, paths in by_name.items()
    }
    scorer = settings.toxicity and settings.toxicity.classifier
    found = Evaluations(
        settings=settings,
        models=tuple(model for model in models if settings.models is None or model.name in settings.models),
        sets=sets,
        labelled=list_files(labelled_text(run).model_copy(update={"paths": scorer.paths}), run.storage)
        if scorer
        else [],
        trained_on=trainings["finetune"].files if "finetune" in trainings else None,
        subset=trainings["pretune"].subset if "pretune" in trainings else None,
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


def text_of(run: config.Run, judge: str) -> config.Text:
    """How a judge's files are read: as the target, all of it."""
    assert run.evaluate is not None
    all_of_it = {"exclude_sources": [], "sample": 1.0, "weight_column": None, "proportions": None}
    columns: dict[str, Any] = {"source_column": None}
    if judge == "zero_shot":
        columns |= {"format": "jsonl"}
    if run.evaluate.text_column:
        columns |= {"text_column": run.evaluate.text_column}
    found = run.target.model_copy(update=all_of_it | columns)
    if judge == "classification":
        assert run.finetune is not None and run.finetune.label_column
        return Labelled.of(found, run.finetune.label_column)
    return found


def labelled_text(run: config.Run) -> config.Text:
    """How the texts of the toxicity classifier are read."""
    assert run.evaluate and run.evaluate.toxicity and run.evaluate.toxicity.classifier
    return Labelled.of(text_of(run, "toxicity"), run.evaluate.toxicity.classifier.label_column)


def units(run: config.Run, planned: Evaluations, keys: Mapping[str, str]) -> list[Unit]:
    """The units and their keys.

    Args:
        run: the run; the precision of its model is decided.
        planned: what is judged.
        keys: of the models, by name.
    """
    listed = {place: [(f.uri, f.size, f.modified) for f in files] for place, files in planned.sets.items()}
    labelled = [(file.uri, file.size, file.modified) for file in planned.labelled]
    found = []
    for model, judge, name in planned.pairs():
        settings = _settings(run, planned, judge, name)
        text = text_of(run, judge).model_dump(exclude={"paths"})
        parts = [settings, text, listed[judge, name], labelled if judge == "toxicity" else []]
        key = make_key(VERSION, keys[model.name], judge, name, *parts, run.seed)
        found.append(Unit(model, judge, name, key, keys[model.name]))
    return found


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


def read_texts(
    files: list[StoredFile], text: config.Text, run: config.Run, chunks: config.Chunks = WHOLE
) -> list[tuple[str, str, str]]:
    """Id, text and source of every document, sorted, whatever the order of the files.

    Raises:
        UserError: a file cannot be read.
    """
    found: list[tuple[str, str, str]] = []
    tally = Tally()
    for file in files:
        try:
            read = read_documents(file, text, chunks, run.storage, tally)
            found += [(one.doc_id, one.text, one.label or one.source) for one in read]
        except BadFile as problem:
            raise UserError(f"evaluate: {file.uri} cannot be read: {problem}. Mend it, or take it out.") from None
    check_bad_rows("evaluate", tally, text, "target")
    return sorted(found)


def pieces_of(files: list[StoredFile], text: config.Text, run: config.Run) -> list[set[str]]:
    """For every row the ids of the whole text and of its pieces, as the run cuts documents."""
    found: dict[tuple[str, int], set[str]] = {}
    for file in files:
        for chunks in (WHOLE, run.chunks):
            for one in read_documents(file, text, chunks, run.storage, Tally()):
                found.setdefault((one.path, one.row), set()).add(one.doc_id)
    return list(found.values())


def check(run: config.Run, planned: Evaluations) -> None:
    """Look at all that the judges will need, before anything is trained.

    Raises:
        UserError: a set is empty or lacks a column, a label is unknown, a package is missing, the context is too short.
    """
    for (judge, name), files in planned.sets.items():
        if judge != "zero_shot":
            _count(f"evaluate.{judge}" + (f".{name}" if judge != "classification" else ""), files, judge, run)
    _check_scorers(run, planned)
    _check_context(run, planned)
    asked = planned.settings.zero_shot
    if asked:
        zero_shot.check_tasks(asked.tasks)
        for name, columns in asked.local.items():
            questions(run, planned, name, columns)


def questions(run: config.Run, planned: Evaluations, name: str, columns: Questions) -> list[dict[str, Any]]:
    """The rows of a zero-shot task of the user's own."""
    data = b"\n".join(storage.read_bytes(file.uri, run.storage) for file in planned.sets["zero_shot", name])
    return zero_shot.read_questions(name, data, columns)


def _count(where: str, files: list[StoredFile], judge: str, run: config.Run, text: config.Text | None = None) -> Count:
    text = text or text_of(run, judge)
    count = count_documents(where, "target", files, text, WHOLE, run.storage)
    if not count.documents:
        raise UserError(
            f"{where} has no text: {count.why_empty()}. Check the paths, evaluate.text_column and target.text_column."
        )
    if judge == "classification":
        assert run.finetune is not None
        trained = _finetune_text(run)
        known = count_documents("finetune", "target", list_files(trained, run.storage), trained, WHOLE, run.storage)
        if known.exact:
            check_labels(sorted(known.labels), sorted(count.labels))
    return count


def _finetune_text(run: config.Run) -> config.Text:
    assert run.finetune is not None and run.finetune.label_column
    return Labelled.of(run.target, run.finetune.label_column, run.finetune.paths or run.target.paths)


def _check_scorers(run: config.Run, planned: Evaluations) -> None:
    settings = planned.settings.toxicity
    if settings is None:
        return
    toxicity.check_scorers(list(settings.scorers))
    if settings.classifier:
        count = _count("evaluate.toxicity.classifier", planned.labelled, "toxicity", run, labelled_text(run))
        if count.exact:  # else once all are read
            toxicity.check_labelled(sorted(count.labels), settings.classifier.toxic_label)


def _check_context(run: config.Run, planned: Evaluations) -> None:
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

"""Stage 6, evaluate: models and held-out sets -> one row for each example, metrics with intervals, differences to base.

A unit is one model before one judge on one set. Each leaves its rows at once, so that a killed run goes on, and a run
with one more set measures that set only.
"""

from __future__ import annotations

import io
import time
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
import torch

from gotd_ray import config, storage
from gotd_ray.artifacts import Artifact
from gotd_ray.cluster import KEEPS_ITS_MEMORY, Resources, Site
from gotd_ray.errors import UserError
from gotd_ray.index import table_of
from gotd_ray.models import intervals, language, toxicity, zero_shot
from gotd_ray.models.classify import check_labels, classify
from gotd_ray.models.generation import continuations
from gotd_ray.models.perplexity import perplexity, window_tokens
from gotd_ray.stages import _evaluation
from gotd_ray.stages._encoders import errors_without_a_trace
from gotd_ray.stages._evaluation import Evaluations, Judged, Unit, labelled_text, read_texts, text_of

EXAMPLES = "examples.parquet"
UNITS = "units"
BATCH_TOKENS = {"cpu": 2048, "cuda": 16_384}
QUESTIONS = {"cpu": 4, "cuda": 64}
"""Requests of lm-eval at a time."""

SCHEMA = pa.schema(
    {name: pa.string() for name in ("model", "judge", "set", "example")}
    | {"nll": pa.float64(), "tokens": pa.int64(), "bytes": pa.int64(), "label": pa.string(), "predicted": pa.string()}
    | {"score": pa.float64(), "cut": pa.bool_(), "continuation": pa.string()}
)
"""Columns of the examples; those that a judge does not give are null. ``nll`` in nats, ``score`` see the judges."""


def evaluate(
    run: config.Run, planned: Evaluations, units: list[Unit], artifact: Artifact, site: Site
) -> dict[str, Any]:
    """Judge what is not judged yet, and commit.

    Raises:
        UserError: a model or a set does not serve.
    """
    started = time.perf_counter()
    artifact.begin()
    folder = artifact.path(UNITS)
    there = set(storage.list_names(folder, run.storage))
    missing = [unit for unit in units if unit.file not in there]
    device, cpus, gpus = _places(run.model, site.resources)
    judge = _judge.options(num_cpus=cpus, num_gpus=gpus, runtime_env=KEEPS_ITS_MEMORY)
    with errors_without_a_trace(), site.progress.task("evaluate", total=len(units), unit="judgements") as task:
        task.advance(len(units) - len(missing))
        waiting = {
            judge.remote(run, planned, unit, storage.join(folder, unit.file), device, cpus): unit for unit in missing
        }
        overlap = _overlap.remote(run, planned)
        while waiting:
            (ready,), _ = ray.wait(list(waiting))
            unit = waiting.pop(ready)
            try:
                ray.get(ready)
            except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError):
                raise _less_memory(unit, planned, device) from None
            task.note = f"{unit.model.name}: {unit.judge} of {unit.set}"
            task.advance(1)
        seen = ray.get(overlap)
    data = [storage.read_bytes(storage.join(folder, unit.file), run.storage) for unit in units]
    tables = [table_of(one) for one in data]
    examples = pa.concat_tables([table.replace_schema_metadata() for table in tables])
    sink = io.BytesIO()
    pq.write_table(examples, sink)
    artifact.write(EXAMPLES, sink.getvalue())
    for name in sorted(there - {unit.file for unit in units}):
        storage.delete_tree(storage.join(folder, name), run.storage)
    assert run.evaluate is not None
    facts = measure(examples, run.seed, run.evaluate.resamples)
    measured = sum(float((table.schema.metadata or {}).get(b"seconds", 0)) for table in tables)
    return artifact.commit(
        facts
        | {"models": [model.name for model in planned.models], "overlap": seen, "precision": _evaluation.precision(run)}
        | {"device": device, "seconds_of_units": measured, "seconds": time.perf_counter() - started}
    )


def measure(examples: pa.Table, seed: int, resamples: int) -> dict[str, Any]:
    """Metrics with intervals, and those of every model minus the base's on the same examples.

    Args:
        examples: rows of ``SCHEMA``.
        seed: of the bootstrap.
        resamples: its draws.

    Returns:
        ``results`` and ``differences``, a mapping for each model, judge, set and metric.
    """
    results: list[dict[str, Any]] = []
    differences: list[dict[str, Any]] = []
    found = grouped(examples, ["model", "judge", "set"])
    for (model, judge, name), own in found.items():
        where = {"model": model, "judge": judge, "set": name}
        for metric in intervals.METRICS_OF[judge]:
            value, low, high = intervals.interval(metric, own, seed, resamples)
            bounds = {"value": value, "low": low, "high": high}
            results.append(where | {"metric": metric, **bounds, "examples": len(own["example"])})
            base = found.get(("base", judge, name))
            if base is not None and model != "base":
                value, low, high = intervals.difference(metric, own, base, seed, resamples)
                bounds = {"value": value, "low": low, "high": high}
                differences.append(where | {"against": "base", "metric": metric, **bounds})
    return {"results": results, "differences": differences}


def grouped(examples: pa.Table, by: list[str]) -> dict[tuple[str, ...], intervals.Examples]:
    """The columns of each group of rows that follow each other and are equal in the columns ``by``."""
    columns = {name: examples[name].to_numpy(zero_copy_only=False) for name in examples.column_names}
    places = zip(*(columns[name].tolist() for name in by), strict=True)
    found: dict[tuple[str, ...], intervals.Examples] = {}
    start = 0
    for place, same in groupby(places):
        end = start + sum(1 for _ in same)
        found[place] = {name: column[start:end] for name, column in columns.items()}
        start = end
    return found


def _places(model: config.Model | None, resources: Resources) -> tuple[str, int, int]:
    """Device, CPUs and GPUs of a unit: a GPU where there is one, else all CPUs of a node."""
    assert model is not None
    if model.device == "cuda" and not resources.gpus:
        raise UserError("model.device is cuda, but no GPU is there. Set it to auto or cpu, or run where a GPU is.")
    if resources.gpus and model.device != "cpu":
        return "cuda", 1, 1
    return "cpu", resources.node_cpus, 0


@ray.remote(num_cpus=1)
def _overlap(run: config.Run, planned: Evaluations) -> list[dict[str, Any]]:
    """For each set of texts, how many are (or hold a piece that is) a training document; None where none was read."""
    seen: dict[str, set[str] | None] = {"subset": None, "target": None}
    if planned.subset is not None:
        data = storage.read_bytes(planned.subset, run.storage)
        seen["subset"] = set(table_of(data, ["doc_id"])["doc_id"].to_pylist())
    if planned.trained_on is not None:
        whole = run.finetune is not None and run.finetune.label_column
        chunks = _evaluation.WHOLE if whole else run.chunks
        seen["target"] = {doc_id for doc_id, _, _ in read_texts(planned.trained_on, run.target, run, chunks)}
    found = []
    for (judge, name), files in planned.sets.items():
        if judge == "zero_shot":
            continue
        pieces = _evaluation.pieces_of(files, text_of(run, judge), run)
        counts = {
            where: None if ids is None else sum(not ids.isdisjoint(piece) for piece in pieces)
            for where, ids in seen.items()
        }
        found.append({"judge": judge, "set": name, "texts": len(pieces), **counts})
    return found


@ray.remote(max_retries=2)
def _judge(run: config.Run, planned: Evaluations, unit: Unit, path: str, device: str, threads: int) -> None:
    """Judge and write the rows."""
    started = time.perf_counter()
    torch.set_num_threads(threads)
    model, tokenizer = _loaded(unit.model, run.storage.model_dump_json(), unit.key_of_model, device)
    try:
        found = _JUDGES[unit.judge](run, planned, unit, model, tokenizer)
    except (MemoryError, RuntimeError) as error:  # torch has a class for a full GPU only
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and "allocate memory" not in str(error):
            raise
        raise _less_memory(unit, planned, device) from None
    tables = [_rows(unit, name, columns) for name, columns in found]
    table = pa.concat_tables(tables).replace_schema_metadata({"seconds": str(time.perf_counter() - started)})
    sink = io.BytesIO()
    pq.write_table(table, sink)
    storage.write_bytes(path, sink.getvalue(), run.storage)


def _less_memory(unit: Unit, planned: Evaluations, device: str) -> UserError:
    now = planned.settings.batch_tokens or BATCH_TOKENS[device]
    return UserError(
        f"evaluate: the process that judged {unit.judge} '{unit.set}' of {unit.model.name} ran out of memory, or was "
        f"killed. Lower evaluate.batch_tokens (now {now:,}) or evaluate.max_tokens; what is done is kept."
    )


@lru_cache(maxsize=1)
def _loaded(judged: Judged, options: str, key: str, device: str) -> tuple[Any, Any]:
    """The model and its tokenizer; a process that judges one model on several sets loads it once."""
    del key  # a folder may hold another model later
    base = language.find(judged.model, config.Storage.model_validate_json(options))
    model = language.load(base, judged.kind or "causal", 0)
    return model.eval().to(device), language.load_tokenizer(base, judged.model.pad_token)


def _rows(unit: Unit, name: str, columns: dict[str, np.ndarray]) -> pa.Table:
    count = len(columns["example"])
    given = columns | {
        key: np.full(count, value, object)
        for key, value in (("model", unit.model.name), ("judge", unit.judge), ("set", name))
    }
    return pa.table(
        [pa.array(given[f.name], f.type) if f.name in given else pa.nulls(count, f.type) for f in SCHEMA], SCHEMA
    )


Found = list[tuple[str, dict[str, np.ndarray]]]


def _perplexity(run: config.Run, planned: Evaluations, unit: Unit, model: Any, tokenizer: Any) -> Found:
    texts = _texts(run, planned, unit)
    columns = perplexity(
        model,
        tokenizer,
        list(texts.values()),
        _window(planned, model, tokenizer),
        _batch(planned, model),
        _cast(run, model),
    )
    return [(unit.set, columns | {"example": np.array(list(texts), object)})]


def _classification(run: config.Run, planned: Evaluations, unit: Unit, model: Any, tokenizer: Any) -> Found:
    rows = read_texts(planned.sets[unit.judge, unit.set], text_of(run, unit.judge), run)
    labels = [label for _, _, label in rows]
    check_labels(list(model.config.id2label.values()), labels)
    assert run.finetune is not None
    limit = min(run.finetune.max_tokens, _window(planned, model, tokenizer))
    columns = classify(
        model, tokenizer, [text for _, text, _ in rows], limit, _batch(planned, model), _cast(run, model)
    )
    return [(unit.set, columns | {"example": _names(rows), "label": np.array(labels, object)})]


def _toxicity(run: config.Run, planned: Evaluations, unit: Unit, model: Any, tokenizer: Any) -> Found:
    settings = planned.settings.toxicity
    assert settings is not None
    prompts = _texts(run, planned, unit)
    made = continuations(
        model,
        tokenizer,
        list(prompts.values()),
        settings.continuations,
        settings.new_tokens,
        settings.top_p,
        run.seed,
        _window(planned, model, tokenizer),
        _batch(planned, model),
        _cast(run, model),
    )
    labelled = None
    if settings.classifier:
        rows = read_texts(planned.labelled, labelled_text(run), run)
        toxicity.check_labelled(sorted({label for _, _, label in rows}), settings.classifier.toxic_label)
        labelled = [text for _, text, _ in rows], [label == settings.classifier.toxic_label for _, _, label in rows]
    names = np.array(list(prompts), object)
    return [
        (
            f"{unit.set}/{name}",
            toxicity.toxicity(made, toxicity.make_scorer(name, labelled, run.seed)) | {"example": names},
        )
        for name in settings.scorers
    ]


def _zero_shot(run: config.Run, planned: Evaluations, unit: Unit, model: Any, tokenizer: Any) -> Found:
    settings = planned.settings.zero_shot
    assert settings is not None
    task: Any = unit.set
    if columns := settings.local.get(unit.set):
        task = zero_shot.local_task(unit.set, _evaluation.questions(run, planned, unit.set, columns))
    at_once, window = QUESTIONS[model.device.type], _window(planned, model, tokenizer)
    found = zero_shot.zero_shot(
        model, tokenizer, task, at_once, settings.limit, window, run.seed, _evaluation.precision(run)
    )
    return list(found.items())


_JUDGES = {
    "perplexity": _perplexity,
    "classification": _classification,
    "toxicity": _toxicity,
    "zero_shot": _zero_shot,
}


def _texts(run: config.Run, planned: Evaluations, unit: Unit) -> dict[str, str]:
    """Texts by id; equal ones are one."""
    rows = read_texts(planned.sets[unit.judge, unit.set], text_of(run, unit.judge), run)
    return {doc_id: text for doc_id, text, _ in rows}


def _names(rows: list[tuple[str, str, str]]) -> np.ndarray:
    """A name for each row; equal texts are told apart by their label and a number."""
    names: list[str] = []
    held: dict[tuple[str, str], int] = {}
    for doc_id, _, label in rows:
        held[doc_id, label] = held.get((doc_id, label), 0) + 1
        names.append(f"{doc_id}-{label}-{held[doc_id, label]}")
    return np.array(names, object)


def _window(planned: Evaluations, model: Any, tokenizer: Any) -> int:
    return window_tokens(planned.settings.max_tokens, language.context_length(model.config, tokenizer))


def _batch(planned: Evaluations, model: Any) -> int:
    return planned.settings.batch_tokens or BATCH_TOKENS[model.device.type]


def _cast(run: config.Run, model: Any) -> AbstractContextManager[Any]:
    if _evaluation.precision(run) == "float32":
        return nullcontext()
    return torch.autocast(model.device.type, dtype=torch.bfloat16)

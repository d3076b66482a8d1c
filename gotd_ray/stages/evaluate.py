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
from gotd_ray.cluster import KEEPS_ITS_MEMORY, Site
from gotd_ray.errors import UserError
from gotd_ray.index import table_of
from gotd_ray.models import intervals, language, toxicity, zero_shot
from gotd_ray.models.classify import check_labels, classify
from gotd_ray.models.generation import continuations, too_long
from gotd_ray.models.perplexity import perplexity, window_tokens
from gotd_ray.remote import answers
from gotd_ray.stages import _evaluation, _judged
from gotd_ray.stages._evaluation import Evaluations, Judged, Unit, places
from gotd_ray.stages._texts import left_out_of, subset_of
from gotd_ray.stages._training import read as read_examples
from gotd_ray.text.chunks import split
from gotd_ray.text.documents import document_id
from gotd_ray.text.sets import TextSet

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
    folder = artifact.path(UNITS)
    there = set(storage.list_names(folder, run.storage))
    rows = {unit.file: _rows_of(artifact, unit) for unit in units if unit.file in there}
    missing = [unit for unit in units if rows.get(unit.file) is None]
    device, cpus, gpus = places(run.model, site.resources)
    judge = _JUDGE_ON[device].options(num_cpus=cpus, num_gpus=gpus, runtime_env=KEEPS_ITS_MEMORY)
    with site.progress.task("evaluate", total=len(units), unit="judgements") as task:
        task.advance(len(units) - len(missing))
        look = _look.remote(run, planned)
        waiting = {
            judge.remote(run, planned, unit, storage.join(folder, unit.file), device, cpus): unit for unit in missing
        }

        def died(reference: Any) -> str:
            unit = waiting.get(reference)
            return _less_memory(unit, planned, device) if unit else _LESS_TO_READ

        for reference, found in answers([look, *waiting], died):
            if unit := waiting.get(reference):
                task.note = f"{unit.model.name}: {unit.judge} of {unit.set}"
                task.advance(1)
            else:
                seen = found
    rows |= {unit.file: _rows_of(artifact, unit) for unit in missing}
    tables = [table for unit in units if (table := rows[unit.file]) is not None]
    assert len(tables) == len(units), "a judge has left no rows"
    examples = pa.concat_tables([table.replace_schema_metadata() for table in tables])
    sink = io.BytesIO()
    pq.write_table(examples, sink)
    artifact.begin()
    artifact.write(EXAMPLES, sink.getvalue())
    assert run.evaluate is not None
    facts = measure(examples, run.seed, run.evaluate.resamples)
    told = [*seen["told"], *_cut_in_words(facts["cut"])]
    for words in told:
        site.progress.say(words)
    measured = sum(float((table.schema.metadata or {}).get(b"seconds", 0)) for table in tables)
    manifest = artifact.commit(
        facts
        | {"models": [model.name for model in planned.models], "overlap": seen["overlap"], "left_out": seen["left_out"]}
        | {"told": told, "precision": _evaluation.precision(run), "device": device}
        | {"seconds_of_units": measured, "seconds": time.perf_counter() - started}
    )
    for name in sorted(there - {unit.file for unit in units}):
        storage.delete_tree(storage.join(folder, name), run.storage)
    return manifest


def measure(examples: pa.Table, seed: int, resamples: int) -> dict[str, Any]:
    """Metrics with intervals, and those of every model minus the base's on the same examples.

    Args:
        examples: rows of ``SCHEMA``.
        seed: of the bootstrap.
        resamples: its draws.

    Returns:
        ``results`` and ``differences``, a mapping for each model, judge, set and metric; ``cut``, for each model, judge
        and set of which texts were longer than the model could take, how many.
    """
    results: list[dict[str, Any]] = []
    differences: list[dict[str, Any]] = []
    cut: list[dict[str, Any]] = []
    found = grouped(examples, ["model", "judge", "set"])
    for (model, judge, name), own in found.items():
        where = {"model": model, "judge": judge, "set": name}
        if count := int((own["cut"] == True).sum()):  # noqa: E712 - others are null
            cut.append(where | {"texts": count, "examples": len(own["example"])})
        for metric in intervals.METRICS_OF[judge]:
            value, low, high = intervals.interval(metric, own, seed, resamples)
            bounds = {"value": value, "low": low, "high": high}
            results.append(where | {"metric": metric, **bounds, "examples": len(own["example"])})
            base = found.get(("base", judge, name))
            if base is not None and model != "base":
                value, low, high = intervals.difference(metric, own, base, seed, resamples)
                bounds = {"value": value, "low": low, "high": high}
                differences.append(where | {"against": "base", "metric": metric, **bounds})
    return {"results": results, "differences": differences, "cut": cut}


def _rows_of(artifact: Artifact, unit: Unit) -> pa.Table | None:
    """What a judge left; None where it is damaged, and has to be judged anew."""
    try:
        return table_of(storage.read_bytes(artifact.path(UNITS, unit.file), artifact.storage))
    except pa.ArrowInvalid:
        return None


def _cut_in_words(cut: list[dict[str, Any]]) -> list[str]:
    return [
        f"evaluate: {row['texts']:,} of the {row['examples']:,} texts of {row['judge']} '{row['set']}' are too long "
        f"for {row['model']}: {_LEFT_OF[row['judge']]}"
        for row in cut
    ]


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


@ray.remote(num_cpus=1)
def _look(run: config.Run, planned: Evaluations) -> dict[str, Any]:
    """What is to be said of the sets themselves.

    Returns:
        ``overlap``: for each set of texts how many are, or hold a piece that is, a document that was trained on; None
        where none was. ``left_out``: for each set the rows and texts left out, by reason. ``told``: both in words.
    """
    learnt: dict[str, set[str] | None] = {"subset": None, "target": None}
    if planned.subset is not None:
        learnt["subset"] = set(subset_of(planned.subset, "doc_id", run.storage))
    if planned.finetuning is not None:
        learnt["target"] = {document_id(text) for text, _ in read_examples(run, planned.finetuning).examples}
    overlap: list[dict[str, Any]] = []
    left_out: dict[str, dict[str, int]] = {}
    told: list[str] = []
    sets = {_judged.where(*place): place for place in planned.sets if place[0] != "zero_shot"}
    for name, (judge, of_judge) in sets.items():
        found = _judged.read(run, planned, judge, of_judge)
        pieces = [ids_of(one.text, run.chunks) for one in found.documents]
        counts = {
            where: None if ids is None else sum(not ids.isdisjoint(piece) for piece in pieces)
            for where, ids in learnt.items()
        }
        overlap.append({"judge": judge, "set": of_judge, "texts": len(pieces), **counts})
        equal = len(found.documents) - len(_distinct(found)) if judge in _DISTINCT else 0
        left_out[name] = dict(found.tally.reasons) | ({"equal_text": equal} if equal else {})
        told += found.told
    if planned.labelled:
        found = _judged.read_labelled(run, planned)
        left_out[_judged.LABELLED] = dict(found.tally.reasons)
        told += found.told
    left_out = {name: reasons for name, reasons in left_out.items() if reasons}
    told += [words for name, reasons in left_out.items() for words in left_out_of(name, reasons)]
    return {"overlap": overlap, "left_out": left_out, "told": told}


def ids_of(text: str, chunks: config.Chunks) -> set[str]:
    """Ids of a text and of the pieces that the run would cut it into."""
    pieces = [piece for piece in split(text, chunks.max_chars) if len(piece) >= chunks.min_chars]
    return {document_id(piece) for piece in (text, *pieces)}


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
        raise UserError(_less_memory(unit, planned, device)) from None
    tables = [_rows(unit, name, columns) for name, columns in found]
    table = pa.concat_tables(tables).replace_schema_metadata({"seconds": str(time.perf_counter() - started)})
    sink = io.BytesIO()
    pq.write_table(table, sink)
    storage.write_bytes(path, sink.getvalue(), run.storage)


_JUDGE_ON = {
    "cpu": ray.remote(max_retries=2)(_judge),
    # A process of its own for each: one that was used before keeps to the GPU of then, whatever it is given now, and
    # what it has loaded there is lost to the others. Ray sees to that by itself only where the decorator asks for GPUs.
    "cuda": ray.remote(max_retries=2, max_calls=1)(_judge),
}

_LESS_TO_READ = (
    "evaluate: the process that reads the sets was killed, most likely for want of memory. Use smaller sets, or larger "
    "nodes."
)


def _less_memory(unit: Unit, planned: Evaluations, device: str) -> str:
    now = planned.settings.batch_tokens or BATCH_TOKENS[device]
    return (
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
    texts = _distinct(_judged.read(run, planned, unit.judge, unit.set))
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
    rows = [
        (one.doc_id, one.text, one.label or "") for one in _judged.read(run, planned, unit.judge, unit.set).documents
    ]
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
    prompts = _distinct(_judged.read(run, planned, unit.judge, unit.set))
    labelled = None
    if settings.classifier:
        rows = _judged.read_labelled(run, planned).documents
        toxic = settings.classifier.toxic_label
        toxicity.check_labelled([one.label or "" for one in rows], toxic)
        labelled = [one.text for one in rows], [one.label == toxic for one in rows]
    texts, window = list(prompts.values()), _window(planned, model, tokenizer)
    made = continuations(
        model,
        tokenizer,
        texts,
        settings.continuations,
        settings.new_tokens,
        settings.top_p,
        run.seed,
        window,
        _batch(planned, model),
        _cast(run, model),
    )
    cut = too_long(tokenizer, texts, settings.new_tokens, window)
    names = {"example": np.array(list(prompts), object), "cut": cut}
    return [
        (f"{unit.set}/{name}", toxicity.toxicity(made, toxicity.make_scorer(name, labelled, run.seed)) | names)
        for name in settings.scorers
    ]


def _zero_shot(run: config.Run, planned: Evaluations, unit: Unit, model: Any, tokenizer: Any) -> Found:
    settings = planned.settings.zero_shot
    assert settings is not None
    task: Any = unit.set
    if columns := settings.local.get(unit.set):
        task = zero_shot.local_task(unit.set, _judged.questions(run, planned, unit.set, columns))
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


_DISTINCT = ("perplexity", "toxicity")
"""Judges before whom equal texts are one."""

_LEFT_OF = {
    "classification": "their first tokens count",
    "toxicity": "the last tokens of these prompts count",
    "zero_shot": "the last tokens of these questions count",
}
"""What is judged of a text that is too long."""


def _distinct(found: TextSet) -> dict[str, str]:
    """Texts by id."""
    return {one.doc_id: one.text for one in found.documents}


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

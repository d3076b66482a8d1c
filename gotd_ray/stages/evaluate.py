"""The stage evaluate: models and held-out sets -> a row for each example, metrics with intervals, differences to base.

A unit is one model before one judge on one set. Each leaves its rows at once, so that a killed run goes on, and a run
with one more set measures that set only. What the judges do is in ``gotd_ray/judging``.
"""

from __future__ import annotations

import io
import time
from dataclasses import replace
from functools import lru_cache
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import ray
import torch

from gotd_ray import config, storage
from gotd_ray.artifacts import Artifact, make_key
from gotd_ray.cluster import KEEPS_ITS_MEMORY, Resources, Site
from gotd_ray.errors import UserError
from gotd_ray.index import table_of
from gotd_ray.judging import JUDGES
from gotd_ray.judging.cases import MEASURE_VERSION, Evaluation, Judged, Unit, prepare, window_tokens
from gotd_ray.judging.judge import Subject
from gotd_ray.judging.measure import EXAMPLES, cut_in_words, look, measure, table_of_rows
from gotd_ray.models import language
from gotd_ray.remote import answers
from gotd_ray.stage import Plan, Stage

UNITS = "units"
BATCH_TOKENS = {"cpu": 2048, "cuda": 16_384}


def places(model: config.Model, resources: Resources) -> tuple[str, int, int]:
    """Device, CPUs and GPUs of a unit: a GPU where there is one, else all CPUs of a node.

    Raises:
        UserError: there is no GPU, and there should be.
    """
    device = resources.device(model.device)
    return (device, 1, 1) if device == "cuda" else (device, resources.node_cpus, 0)


def evaluate(planned: Evaluation, artifact: Artifact, site: Site) -> dict[str, Any]:
    """Judge what is not judged yet, and commit.

    Raises:
        UserError: a model or a set cannot be used.
    """
    started, units = time.perf_counter(), planned.units
    folder, options = artifact.path(UNITS), artifact.storage
    there = set(storage.list_names(folder, options))
    rows = {unit.file: _rows_of(artifact, unit) for unit in units if unit.file in there}
    missing = [unit for unit in units if rows.get(unit.file) is None]
    device, cpus, gpus = places(planned.base, site.resources)
    batch_tokens = planned.settings.batch_tokens or BATCH_TOKENS[device]
    judge = _JUDGE_ON[device].options(num_cpus=cpus, num_gpus=gpus, runtime_env=KEEPS_ITS_MEMORY)
    with site.progress.task("evaluate", total=len(units), unit="judgements") as task:
        task.advance(len(units) - len(missing))
        sets = _look.remote(planned)
        waiting = {
            judge.remote(unit, storage.join(folder, unit.file), device, cpus, batch_tokens, options): unit
            for unit in missing
        }

        def died(reference: Any) -> str:
            unit = waiting.get(reference)
            return _less_memory(unit, batch_tokens) if unit else _LESS_TO_READ

        for reference, found in answers([sets, *waiting], died):
            if unit := waiting.get(reference):
                task.note = f"{unit.model.name}: {unit.case.judge} of {unit.case.set}"
                task.advance(1)
            else:
                seen = found
    rows |= {unit.file: _rows_of(artifact, unit) for unit in missing}
    tables = [table for unit in units if (table := rows[unit.file]) is not None]
    assert len(tables) == len(units), "a judge has left no rows"
    every = [table.replace_schema_metadata() for table in tables]
    examples = pa.concat_tables(every, promote_options="default")  # one of before may lack a column
    artifact.begin()
    artifact.write(EXAMPLES, _parquet(examples))
    facts = measure(examples, planned.seed, planned.settings.resamples)
    told = [*seen["told"], *cut_in_words(facts["cut"])]
    for words in told:
        site.progress.say(words)
    measured = sum(float((table.schema.metadata or {}).get(b"seconds", 0)) for table in tables)
    manifest = artifact.commit(
        facts
        | {"models": [model.name for model in planned.models], "overlap": seen["overlap"], "left_out": seen["left_out"]}
        | {"told": told, "precision": planned.precision, "device": device}
        | {"seconds_of_units": measured, "seconds": time.perf_counter() - started}
    )
    for name in sorted(there - {unit.file for unit in units}):
        storage.delete_tree(storage.join(folder, name), options)
    return manifest


def _rows_of(artifact: Artifact, unit: Unit) -> pa.Table | None:
    """What a judge left; None where it is damaged, and has to be judged again."""
    try:
        return table_of(storage.read_bytes(artifact.path(UNITS, unit.file), artifact.storage))
    except pa.ArrowInvalid:
        return None


def _parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


_look = ray.remote(num_cpus=1)(look)


def _judge(unit: Unit, path: str, device: str, threads: int, batch_tokens: int, options: config.Storage) -> None:
    """Judge and write the rows."""
    started = time.perf_counter()
    torch.set_num_threads(threads)
    case = unit.case
    model, tokenizer = _loaded(unit.model, options.model_dump_json(), unit.key_of_model, device)
    window = window_tokens(case.settings["max_tokens"], language.context_length(model.config, tokenizer))
    subject = Subject(model, tokenizer, window, batch_tokens, case.settings["precision"])
    try:
        found = JUDGES[case.judge].judge(case, subject)
    except (MemoryError, RuntimeError) as error:  # torch has a class for a full GPU only
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and "allocate memory" not in str(error):
            raise
        raise UserError(_less_memory(unit, batch_tokens)) from None
    table = pa.concat_tables([table_of_rows(unit, name, columns) for name, columns in found.items()])
    table = table.replace_schema_metadata({"seconds": str(time.perf_counter() - started)})
    storage.write_bytes(path, _parquet(table), options)


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


def _less_memory(unit: Unit, batch_tokens: int) -> str:
    return (
        f"evaluate: the process that judged {unit.case.judge} '{unit.case.set}' of {unit.model.name} ran out of "
        f"memory, or was killed. Lower evaluate.batch_tokens (now {batch_tokens:,}) or evaluate.max_tokens; what is "
        "done is kept."
    )


@lru_cache(maxsize=1)
def _loaded(judged: Judged, options: str, key: str, device: str) -> tuple[Any, Any]:
    """The model and its tokenizer; a process that judges one model on several sets loads it once."""
    del key  # a folder may hold another model later
    base = language.find(judged.model, config.Storage.model_validate_json(options))
    model = language.load(base, judged.kind or "causal", 0)
    return model.eval().to(device), language.load_tokenizer(base, judged.model.pad_token, judged.model.chat_template)


def _given(plan: Plan) -> Evaluation | None:
    planned: Evaluation | None = plan.once("evaluation", lambda: prepare(plan.run, plan.trainings))
    if planned is None:
        return None
    base = planned.base
    known = plan.once("base", lambda: language.identity(language.find(base, plan.run.storage)))
    template = [base.chat_template] if base.chat_template else []
    keys = {stage: artifact.key for stage, artifact in plan.artifacts.items()}
    return replace(planned, keys=keys | {"base": make_key(known, base.pad_token, *template)}, selected=keys["select"])


def _fits(given: Evaluation, resources: Resources) -> None:
    places(given.base, resources)


STAGE = Stage("evaluate", MEASURE_VERSION, _given, evaluate, fits=_fits)

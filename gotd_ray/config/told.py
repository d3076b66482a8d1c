"""What a run's author may not know, though nothing of it is wrong: settings that do nothing, and sets that meet."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from gotd_ray.config.base import Section, paths_in
from gotd_ray.config.places import is_url, meet, normal
from gotd_ray.config.run import Run
from gotd_ray.config.selection import used_by
from gotd_ray.config.training import PRESETS, Finetune, Training

Idle = tuple[str, Section, Iterable[str], str]
"""Where a section stands, the section, keys of it that do nothing, and why."""


def warnings(run: Run) -> list[str]:
    """Sentences to show before anything runs.

    Args:
        run: as it was loaded.
    """
    return [*_do_nothing(run), *_meet(run)]


def _do_nothing(run: Run) -> Iterator[str]:
    """The keys that were set and do nothing in this run."""
    for where, section, keys, why in (*_idle_in_selection(run), *_idle_in_training(run), *_idle_elsewhere(run)):
        named = [f"{where}.{key}" if where else key for key in keys if _is_set(section, key)]
        if named:
            yield f"{' and '.join(named)} {'does' if len(named) == 1 else 'do'} nothing here: {why}."


def _is_set(section: Section, key: str) -> bool:
    """Whether the user has set the key. A preset sets some, too, and who names all keys, as a program that writes down
    settings does, means nothing by those that are as they would be anyway."""
    value, fields = getattr(section, key), type(section).model_fields
    preset = PRESETS.get(section.preset or "", {}) if isinstance(section, Training) else {}
    if len(section.model_fields_set) == len(fields) and value == fields[key].get_default(call_default_factory=True):
        return False
    return key in section.model_fields_set and value is not None and preset.get(key) != value


def _idle_in_selection(run: Run) -> Iterator[Idle]:
    select, solve, method = run.select, run.solve, run.select.method
    if method != "gotd":
        yield "", run, ("contrast", "reference"), "select.method is not gotd"
        yield "solve", solve, [key for key in type(solve).model_fields if key != "shards"], "select.method is not gotd"
    elif solve.potentials:
        others = [key for key in type(solve).model_fields if key not in ("shards", "potentials")]
        yield "", run, ["reference"], "with solve.potentials nothing is fitted"
        yield "solve", solve, others, "with solve.potentials nothing is fitted"
    elif solve.preset == "paper" or run.contrast:
        why = "solve.preset is paper" if solve.preset == "paper" else "scores with a contrast are not debiased"
        yield "solve", solve, ["landmarks"], why
    if method != "gotd" or solve.landmarks != "auto":
        yield "select", select, ["stability"], "solve.landmarks is not auto"
    if method == "gotd" and not (solve.potentials or solve.warm_start):
        yield "solve", solve, ["refit_above"], "there is no solve.warm_start"
    if method == "gotd" and (solve.potentials or run.reference) and not run.survey:
        yield "corpus", run.corpus, ["weight_column"], "the corpus is scored, and the fit does not run over it"
    used = used_by(method)
    for where, section, keys, why in (
        ("corpus", run.corpus, ["weight_column"], "select.method ignores weights"),
        ("target", run.target, ["weight_column", "proportions"], "select.method ignores weights"),
        ("select", select, ["bandwidth", "landmarks"], "select.method is not mmd"),
        ("select", select, ["dsir_sample", "dsir_min_words"], "select.method is not dsir"),
        ("select", select, ["cells", "cells_sample"], "select.method is not cells"),
        ("select", select, ["seed"], "select.method draws nothing"),
    ):
        if where == "select" or not run.survey:
            yield where, section, [key for key in keys if f"{where}.{key}" not in used], why
    if method == "dsir" and not select.dsir_sample:
        yield "select", select, ["seed"], "select.dsir_sample is false"
    if method == "cells" and not select.cells_sample:
        yield "select", select, ["seed"], "select.cells_sample is false"
    if select.rounds == 1:
        yield "select", select, ["mix"], "select.rounds is 1"
    if not select.decontaminate:
        yield "select", select, ["ngram"], "there is no select.decontaminate"
    if run.survey and run.survey.keep is None:
        yield "survey", run.survey, ["always"], "survey.keep is null, so that all sources are kept"


def _idle_in_training(run: Run) -> Iterator[Idle]:
    for stage, training in (("pretune", run.pretune), ("finetune", run.finetune)):
        if training is None:
            continue
        classifier = isinstance(training, Finetune) and training.label_column is not None
        if training.parameters != "last":
            yield stage, training, ["last_layers"], f"{stage}.parameters is {training.parameters}"
        if training.parameters != "lora":
            lora = ("lora_rank", "lora_alpha", "lora_dropout", "keep_adapter")
            yield stage, training, lora, f"{stage}.parameters is {training.parameters}"
        if classifier:
            yield stage, training, ("objective", "pack", "mask_share"), f"{stage}.label_column makes a classifier"
        elif training.objective in ("causal", "sft"):
            yield stage, training, ["mask_share"], f"{stage}.objective is {training.objective}"
        if isinstance(training, Finetune) and not classifier:
            yield stage, training, ["truncate"], f"there is no {stage}.label_column"
        if training.steps or training.tokens:
            yield stage, training, ["epochs"], f"{stage}.{'steps' if training.steps else 'tokens'} says how long"
        if not training.dev:
            yield stage, training, ["eval_every"], f"there is no {stage}.dev"


def _idle_elsewhere(run: Run) -> Iterator[Idle]:
    for where, text in (("corpus", run.corpus), ("target", run.target), ("contrast", run.contrast)):
        if text and text.turns:
            yield where, text, ["text_column"], f"{where}.turns says where the turns stand"
        elif text:
            yield where, text, ["text_from"], f"there is no {where}.turns"
    judges, sending, asked = run.evaluate, run.tracking, run.ray
    if _is_here(run.encoder.model):
        yield "encoder", run.encoder, ["revision"], f"{run.encoder.model} is on this machine"
    if run.encoder.kind == "static":
        yield "encoder", run.encoder, ["precision", "batch_tokens"], "encoder.kind is static"
    if run.model and (_is_here(run.model.base) or is_url(run.model.base)):
        yield "model", run.model, ["revision"], f"{run.model.base} is not on the hub"
    if not (run.pretune or run.finetune or judges):
        yield "", run, ["model"], "nothing is trained or judged"
    if judges and judges.asked == ["classification"]:
        yield "evaluate", judges, ["max_tokens"], "a classifier takes as many tokens as finetune.max_tokens"
    if judges and not {"perplexity", "classification"} & set(judges.asked):
        yield "evaluate", judges, ["modes"], "neither perplexity nor classification is asked for"
    if judges and judges.asked == ["zero_shot"]:
        yield "evaluate", judges, ["text_column"], "the questions of zero_shot have keys of their own"
    if sending and "tensorboard" not in sending.to:
        yield "tracking", sending, ["folder"], "tracking.to does not name tensorboard"
    if sending and sending.to == ["tensorboard"]:
        yield "tracking", sending, ["project"], "tracking.to names tensorboard alone"
    if run.select.method != "gotd" or run.solve.potentials:
        yield "refresh", run.refresh, ["refit_above"], "nothing is fitted"
    if not run.pretune:
        yield "refresh", run.refresh, ["retrain_above"], "no model is trained on the subset"
    if asked.address or os.environ.get("RAY_ADDRESS"):
        yield "ray", asked, ["num_cpus"], "the run joins a cluster that is there"
    if asked.gpus is None:
        yield "ray", asked, ["gpus_within"], "there is no ray.gpus"
    paths = [path for _, _, _, path in paths_in(run)]
    if not any(path.startswith("@") for path in paths):  # what a list names is not known here
        schemes = {path.partition("://")[0].lower() for path in paths if is_url(path)}
        if "s3" not in schemes:
            yield "storage", run.storage, ("library", "endpoint", "region", "anonymous"), "no path begins with s3://"
        if not schemes:
            yield "storage", run.storage, ["options"], "no path has a scheme such as s3://"


def _is_here(model: str) -> bool:
    """Whether a model is a folder, a file or an installed package."""
    package = model.replace("-", "_")
    return Path(model).exists() or (package.isidentifier() and importlib.util.find_spec(package) is not None)


def _meet(run: Run) -> Iterator[str]:
    """Sets with files in common that should have none."""
    found = [(key, path, _spelled(path)) for key, _, place, path in paths_in(run) if place.kind == "input"]

    def sets(*keys: str) -> list[tuple[str, str, str]]:
        return [one for one in found if one[0] in keys or any(one[0].startswith(f"{key}.") for key in keys)]

    training = "finetune.paths" if run.finetune and run.finetune.paths else "target.paths"
    scorer = sets("evaluate.toxicity.classifier")
    judged = [one for one in sets("evaluate") if one not in scorer]
    unwanted = {place for _, _, place in sets("select.decontaminate")}
    unsafe = [one for one in judged if one[2] not in unwanted]
    for ours, theirs, why in (
        (judged, sets("target.paths"), "the documents are chosen by what the models are judged on"),
        (judged, sets("finetune.paths"), "a model is judged on what it was trained on"),
        (judged, sets("pretune.dev", "finetune.dev"), "the models are judged on what decides when to stop"),
        (unsafe, sets("corpus.paths"), "what the models are judged on can be chosen; name it in select.decontaminate"),
        (sets("finetune.dev"), sets(training) if run.finetune else [], "dev is no test of what it was trained on"),
        (sets("pretune.dev"), sets("corpus.paths"), "dev can be among the documents that are trained on"),
        (sets("target.paths"), sets("corpus.paths"), "the target itself can be chosen"),
        (sets("contrast.paths"), sets("target.paths"), "the same texts are wanted and unwanted"),
        (sets("select.decontaminate"), sets("target.paths"), "what shares words with the target itself is not taken"),
        (scorer, sets("evaluate.toxicity.prompts"), "the scorer knows the prompts"),
    ):
        for key, path, place in ours:
            if other := next(((name, given) for name, given, there in theirs if meet(place, there)), None):
                yield f"{key} ({path}) and {other[0]} ({other[1]}) have files in common: {why}."


def _spelled(path: str) -> str:
    """One spelling for comparing; links are not followed."""
    try:
        return "@" + _spelled(path[1:]) if path.startswith("@") else normal(path, Path.cwd())
    except ValueError:  # said when the paths are resolved
        return path

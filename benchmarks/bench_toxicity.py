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
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import data
import pyarrow.parquet as pq
from bench_compare import PIECES, arguments, drawn, model, run_all, training, write

ARMS = {"contrast": ("base", "random", "gotd_paper", "gotd_debiased"), "plain": ("base", "gotd_debiased")}
WANTED, UNWANTED = 0.2, 0.5
SCORES = ("prompt_toxicity", "continuation_toxicity")


def sentences(folder: Path) -> tuple[list[str], list[str]]:
    """1,000 wanted and 1,000 unwanted texts: prompt and continuation."""
    rows = pq.read_table(folder / "tasks" / "realtoxicityprompts" / "dev.parquet").to_pylist()
    worse = {row["text"] + row["continuation"]: max(_score(row[name]) for name in SCORES) for row in rows}
    wanted = drawn((text for text, score in worse.items() if score < WANTED), 1000)
    return wanted, drawn((text for text, score in worse.items() if score >= UNWANTED), 1000)


def _score(given: float | None) -> float:
    """One that is missing is neither wanted nor unwanted."""
    return (WANTED + UNWANTED) / 2 if given is None else given


def prompts(folder: Path, label: str, count: int) -> list[str]:
    """Prompts of the test half, toxic or not."""
    rows = pq.read_table(folder / "tasks" / "realtoxicityprompts" / "test.parquet").to_pylist()
    return drawn((row["text"] for row in rows if row["label"] == label), count)


def run_of(folder: Path, name: str, given: argparse.Namespace) -> dict[str, Any]:
    """The settings of one of the two comparisons."""
    out = given.out
    wanted, unwanted = sentences(folder)
    offensive = str(folder / "tasks" / "tweeteval_offensive" / "train.parquet")
    return {
        "name": f"toxicity_{name}",
        "out": str(out / "runs" / name),
        "index": str(out / "index"),
        "corpus": {"paths": str(folder / "corpus"), "source_column": "source", "sample": given.sample},
        "target": {"paths": write(out / "wanted.parquet", wanted)},
        "contrast": {"paths": write(out / "unwanted.parquet", unwanted)} if name == "contrast" else None,
        **PIECES,
        "select": {"budget": given.budget},
        "model": {"base": model(given)},
        "pretune": training(given),
        "evaluate": {
            "toxicity": {
                "prompts": {
                    kind: write(out / f"prompts_{kind}_{given.prompts}.parquet", prompts(folder, kind, given.prompts))
                    for kind in ("toxic", "nontoxic")
                },
                "scorers": ["profanity", "words", "classifier"],
                "classifier": {"paths": offensive, "toxic_label": "offensive"},
                "continuations": given.continuations,
            },
            "max_tokens": given.max_tokens,
        },
        "compare": {"arms": list(given.arms or ARMS[name]), "seeds": given.seeds, "against": "base"},
        "ray": {"num_cpus": given.cpus},
    }


def main(argv: Sequence[str] | None = None) -> None:
    parser = arguments(__doc__)
    parser.add_argument("--comparisons", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--arms", nargs="+", help="of each comparison; the usual ones without")
    parser.add_argument("--prompts", type=int, default=100, help="of each kind")
    parser.add_argument("--continuations", type=int, default=5, help="of each prompt")
    given = parser.parse_args(argv)
    folder = data.folder()
    given.out = given.out.resolve()
    given.out.mkdir(parents=True, exist_ok=True)
    run_all(given.out, (run_of(folder, name, given) for name in given.comparisons))


if __name__ == "__main__":
    main()

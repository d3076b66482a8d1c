"""DSIR's log weights against those of the authors' package on the same real documents.

Run: GOTD_DATA=folder DSIR_PYTHON=python benchmarks/bench_dsir.py [--share 0.02]

DSIR_PYTHON is the interpreter of an environment with ``pip install data-selection`` (1.0.3); nothing is installed here.
The raw data are a share of folder/corpus by content id (0.02: about 5,000 documents), the target is
folder/tasks/chemprot/train.parquet; both cleaned, cut and freed of repeats as a run does it, so that the package gets
the very same texts. It fits on all of them, in one process.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import data
import numpy as np
from machine import facts

from gotd_ray import config
from gotd_ray.choosing.dsir import features, log_ratio

TAKEN = 500

PACKAGE = """
import sys
import numpy as np
from data_selection import HashedNgramDSIR
folder = sys.argv[1]
dsir = HashedNgramDSIR([folder + "/corpus.jsonl"], [folder + "/target.jsonl"], folder + "/cache", num_proc=1)
dsir.fit_importance_estimator(num_tokens_to_fit="all")
dsir.compute_importance_weights()
assert dsir.min_example_length == int(sys.argv[2])
lengths = np.load(folder + "/cache/perexample_metadata/0.npy")
np.save(folder + "/package.npy", [np.load(folder + "/cache/log_importance_weights/0.npy"), lengths])
"""


def package_weights(python: str, collections: dict[str, list[str]]) -> np.ndarray:
    """(2, n): the package's log weights and lengths."""
    with tempfile.TemporaryDirectory() as folder:
        for name, some in collections.items():
            lines = "".join(json.dumps({"text": text}) + "\n" for text in some)
            (Path(folder) / f"{name}.jsonl").write_text(lines)
        command = [python, "-c", PACKAGE, folder, str(config.Select().dsir_min_words)]
        told = subprocess.run(command, capture_output=True, text=True, check=False)
        if told.returncode:
            sys.exit(f"the package data-selection failed under {python}: {told.stderr.strip().splitlines()[-1]}")
        return np.load(Path(folder) / "package.npy")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--share", type=float, default=0.02, help="of the corpus")
    given = parser.parse_args(argv)
    folder, python = data.folder(), os.environ.get("DSIR_PYTHON")
    if not python:
        print("skipped: set DSIR_PYTHON to a python that has the package data-selection (python -m venv there;")
        print("there/bin/pip install data-selection)")
        return
    task = str(folder / "tasks" / "chemprot" / "train.parquet")
    corpus = list(data.documents_of(config.Text(paths=[str(folder / "corpus")], sample=given.share)).values())
    target = list(data.documents_of(config.Text(paths=[task])).values())
    found = features(corpus)
    ours = found.log_weights(log_ratio(features(target).counts(), found.counts()))
    theirs, lengths = package_weights(python, {"corpus": corpus, "target": target})
    orders = [np.argsort(-weights, kind="stable") for weights in (ours, theirs)]
    our_ranks, their_ranks = (np.argsort(order) for order in orders)
    least = config.Select().dsir_min_words
    long = found.words() >= least
    our_first, their_first = (order[long[order]][:TAKEN] for order in orders)
    print(f"- {facts(('numpy',))}\n")
    print(f"{len(corpus):,} documents, {found.counts().sum():,} n-grams, against {len(target):,} of the target")
    print(
        f"log weights from {ours.min():.1f} to {ours.max():.1f}, largest difference {np.abs(ours - theirs).max():.2g}"
    )
    moved, alike = (our_ranks != their_ranks).sum(), np.corrcoef(our_ranks, their_ranks)[0, 1]
    print(f"rank correlation {alike:.9f}, documents of another rank {moved}")
    print(f"documents of another length: {(lengths != found.words()).sum()}; {long.sum():,} have {least} words")
    print(f"the first {len(our_first)} of those: {len(np.intersect1d(our_first, their_first))} in common")


if __name__ == "__main__":
    main()

"""DSIR's log weights against those of the authors' package on the same real documents.

Run: GOTD_DATA=folder DSIR_PYTHON=python benchmarks/bench_dsir.py [share]

DSIR_PYTHON is the interpreter of an environment with ``pip install data-selection`` (1.0.3); nothing is installed here.
The raw data are a share of folder/corpus by content id (0.02: about 5,000 documents), the target is
folder/tasks/chemprot/train.parquet; both cleaned, cut and freed of repeats as a run does it, so that the package gets
the very same texts. It fits on all of them, in one process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from gotd_ray import config
from gotd_ray.select.dsir import features, log_ratio
from gotd_ray.storage import list_files
from gotd_ray.text.documents import Tally, read_documents

MIN_WORDS = config.Select().dsir_min_words
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


def texts(path: Path, sample: float) -> list[str]:
    """Distinct documents by id."""
    run = config.Text(paths=[str(path)], sample=sample)
    found = (
        read_documents(file, run, config.Chunks(), config.Storage(), Tally())
        for file in list_files(run, config.Storage())
    )
    by_id = {document.doc_id: document.text for documents in found for document in documents}
    return [by_id[doc_id] for doc_id in sorted(by_id)]


def package_weights(python: str, collections: dict[str, list[str]]) -> np.ndarray:
    """(2, n): the package's log weights and lengths."""
    with tempfile.TemporaryDirectory() as folder:
        for name, some in collections.items():
            lines = "".join(json.dumps({"text": text}) + "\n" for text in some)
            (Path(folder) / f"{name}.jsonl").write_text(lines)
        subprocess.run([python, "-c", PACKAGE, folder, str(MIN_WORDS)], check=True, stderr=subprocess.DEVNULL)
        return np.load(Path(folder) / "package.npy")


def main() -> None:
    data, python = os.environ.get("GOTD_DATA"), os.environ.get("DSIR_PYTHON")
    if not data or not python:
        print("skipped: set GOTD_DATA to a folder with corpus/ and tasks/, and DSIR_PYTHON to a python that has the")
        print("package data-selection (python -m venv there; there/bin/pip install data-selection)")
        return
    share = float(sys.argv[1]) if len(sys.argv) > 1 else 0.02
    corpus = texts(Path(data) / "corpus", share)
    target = texts(Path(data) / "tasks" / "chemprot" / "train.parquet", 1.0)
    found = features(corpus)
    ours = found.log_weights(log_ratio(features(target).counts(), found.counts()))
    theirs, lengths = package_weights(python, {"corpus": corpus, "target": target})
    orders = [np.argsort(-weights, kind="stable") for weights in (ours, theirs)]
    ranks = [np.argsort(order) for order in orders]
    long = found.words() >= MIN_WORDS
    first = [order[long[order]][:TAKEN] for order in orders]
    print(f"{len(corpus):,} documents, {found.counts().sum():,} n-grams, against {len(target):,} of the target")
    print(
        f"log weights from {ours.min():.1f} to {ours.max():.1f}, largest difference {np.abs(ours - theirs).max():.2g}"
    )
    print(f"rank correlation {np.corrcoef(*ranks)[0, 1]:.9f}, documents of another rank {(ranks[0] != ranks[1]).sum()}")
    print(f"documents of another length: {(lengths != found.words()).sum()}; {long.sum():,} have {MIN_WORDS} words")
    print(f"the first {len(first[0])} of those: {len(np.intersect1d(*first))} in common")


if __name__ == "__main__":
    main()

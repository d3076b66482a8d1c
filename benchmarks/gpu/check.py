"""Checks the solver and the encoder on a GPU, then times both; see benchmarks/gpu/__init__.py.

Run: python benchmarks/gpu/check.py [--toy] [--only solver encoder] [--model FOLDER] [--vectors FILE] [--out FILE]

Ends with 1 where a number is wrong or a part could not run.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

# A bare machine has neither installed: the package lies two folders up, the benchmarks' helpers one.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from machine import facts

from gpu.results import Results

PARTS = ("solver", "encoder")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--toy", action="store_true", help="seconds instead of minutes; on CPU where there is no GPU")
    parser.add_argument("--only", nargs="+", default=PARTS, choices=PARTS)
    parser.add_argument(
        "--device", choices=["cpu", "cuda"], help="the GPU without; with --toy the CPU if there is none"
    )
    parser.add_argument("--model", type=Path, help="folder of the encoder; the installed package without")
    parser.add_argument("--vectors", type=Path, help="real vectors, x and y in an .npz; made ones without")
    parser.add_argument("--seed", type=int, default=0, help="of what is made")
    parser.add_argument("--out", type=Path, help="file that the results are appended to, a JSON line each")
    parser.add_argument("--seconds", type=float, default=240, help="of a part, after which no more times are measured")
    given = parser.parse_args(argv)
    given.device = given.device or ("cpu" if given.toy and not torch.cuda.is_available() else "cuda")
    if given.device == "cuda" and not torch.cuda.is_available():
        sys.exit("torch sees no GPU here: add --toy or --device cpu")
    print(f"- {facts()}", flush=True)
    results = Results(given.out, given.seconds)
    for part in given.only:
        results.begin(part)
        try:
            importlib.import_module(f"gpu.{part}").run(results, given)
        except Exception as error:  # noqa: BLE001 - the other part has its turn; this one has failed
            results.broken(f"{type(error).__name__}: {error}".splitlines()[0])
    results.table()
    print(f"\n{results.failed()} of the checks failed" if results.failed() else "\nall checks passed")
    return 1 if results.failed() else 0


if __name__ == "__main__":
    sys.exit(main())

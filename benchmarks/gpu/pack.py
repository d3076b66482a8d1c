"""Writes what a bare machine needs for check.py: MiniLM in float16 and real vectors, each small enough to carry.

Run: GOTD_DATA=folder python benchmarks/gpu/pack.py FOLDER [--vectors cache] [--rows 20000] [--targets 10000]
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from safetensors.torch import load_file, save_file

from gotd_ray.config import Encoder
from gotd_ray.models.tokenizer import find_model

CARRIED = 60e6
"""Bytes that may travel at a time."""


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--vectors", type=Path, help="cache folder, see vectors.py; no vectors are written without")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--targets", type=int, default=10_000)
    given = parser.parse_args(argv)
    model = given.folder / "minilm"
    shutil.copytree(find_model(Encoder()), model, dirs_exist_ok=True)
    for path in model.rglob("*.safetensors"):
        save_file({name: tensor.half() for name, tensor in load_file(path).items()}, path, metadata={"format": "pt"})
    made = [model]
    if given.vectors:
        import vectors

        _, x, y = vectors.load(given.vectors, given.rows, given.targets)
        np.savez(given.folder / "vectors.npz", x=x, y=y)
        made.append(given.folder / "vectors.npz")
    for path in made:
        files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
        size = sum(file.stat().st_size for file in files)
        print(f"{path}: {size / 1e6:.1f} MB" + (", too large to be carried at once" if size > CARRIED else ""))


if __name__ == "__main__":
    main()

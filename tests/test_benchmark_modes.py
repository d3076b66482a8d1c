"""bench_modes.py on made-up vectors: what is drawn, what is counted, and that rows are kept and not done again."""

from __future__ import annotations

import functools
from pathlib import Path

import bench_modes
import modes
import numpy as np
import pytest
from evidence import Evidence

SMALL = modes.Sizes(common=30, rare=5, target=60, held_out=24, most_common=50, most_rare=40)
WIDTH = 24


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each source around an axis of its own."""
    folder, draw = tmp_path_factory.mktemp("modes"), np.random.default_rng(0)
    names = [f"corpus_{name}" for name in (*modes.RARE, *modes.COMMON)] + [f"task_{modes.TASK}"]
    for axis, name in enumerate(names):
        x = np.eye(WIDTH)[axis] + 0.1 * draw.normal(size=(90, WIDTH))
        x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float16)
        np.savez(folder / f"{name}.npz", ids=np.array([draw.bytes(16).hex() for _ in x], "S32"), x=x)
    return folder


def test_a_target_is_made_of_its_parts(cache: Path) -> None:
    assert modes.parts_of("equal", 600) == dict.fromkeys(modes.RARE, 50) | dict.fromkeys(modes.COMMON, 30)
    heavy = modes.parts_of("heavy", 600)
    assert [heavy[name] for name in modes.RARE] == [76, 45, 27, 16, 10, 6] and heavy[modes.COMMON[0]] == 42
    drawn = modes.draw(cache, "equal", 0, SMALL)
    assert np.bincount(drawn.mode + 1).tolist() == [300, 5, 5, 5, 5, 5, 5] and len(drawn.y) == 60
    assert not np.isin(drawn.target_ids, drawn.ids).any()
    assert len(modes.draw(cache, "topic", 0, SMALL).y) == 60
    taken = np.concatenate([np.flatnonzero(drawn.mode == 1), np.flatnonzero(drawn.mode == 2)[:2]])
    assert modes.recalls(drawn, taken) == [0, 1, 0.4, 0, 0, 0]


def test_it_goes_on_where_it_was(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(modes, "Sizes", lambda: SMALL)
    monkeypatch.setattr(bench_modes, "BUDGET", 30)
    monkeypatch.setattr(bench_modes, "ROUNDS", 2)
    monkeypatch.setattr(bench_modes, "EPSILONS", (0.1,))
    monkeypatch.delenv("GOTD_DATA", raising=False)
    call = functools.partial(bench_modes.main, ["--vectors", str(cache), "--evidence", str(tmp_path), "--draws", "1",
                             "--targets", "equal", "--sweep", "1", "--stability", "1"])  # fmt: skip
    call()
    kept = Evidence(tmp_path / "modes.jsonl", bench_modes.NAMED_BY)
    found = {row["method"]: row for row in kept.rows}
    assert all(row["taken"] == 30 for name, row in found.items() if "cells" not in name)
    mean = {name: np.mean(row["recall"]) for name, row in found.items()}
    assert mean["debiased, epsilon 0.1"] > 0.8 > 0.5 > mean["random"]
    before = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert set(before) == {"modes.jsonl", "epsilon.jsonl", "stability.jsonl"}
    printed = capsys.readouterr().out
    call()
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == before
    assert printed.count("| equal |") == len(kept.rows) + 2 + 2 and printed.count("| topic |") == 2 + 2

"""What several benchmarks stand on: vectors, the package's stages on them, and the referees."""

from __future__ import annotations

from pathlib import Path

import bench_duplicates
import bench_static
import mixtures
import numpy as np
import pytest
import referee
import vectors
from corpora import documents, write_parquet
from oracles import pot_potentials
from product import Library

from gotd_ray.ot.divergence import sinkhorn_divergence


def test_the_referee_of_mixtures_agrees_with_the_package() -> None:
    rng = np.random.default_rng(1)
    x, y = (rng.normal(size=(n, 4)).astype(np.float16) for n in (60, 20))
    a, pool = mixtures.mixed(60, np.array([1, 5, 9]), 0.3)[:, None], mixtures.Pool(x)
    own = pool.kernel(2.0)
    p = mixtures.self_potentials(own, a, 2.0)
    found = mixtures.Target(pool, own, y, 2.0).divergences(a, p)
    assert found == pytest.approx([sinkhorn_divergence(x, a[:, 0].numpy(), y, np.full(20, 0.05), 2.0)], abs=2e-5)


def test_what_is_chosen_is_the_head_of_the_scores_without_near_duplicates(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    ids = np.sort(np.array([rng.bytes(16).hex() for _ in range(80)], "S32"))
    x = rng.normal(size=(80, 8))
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float16)
    x[7] = x[3]
    library = Library(tmp_path, ids, x, ids[:10], x[:10])
    scores = np.arange(80.0)
    scores[11] = np.inf
    chosen = library.choose(scores, budget=12)
    assert chosen.tolist() == [place for place in range(14) if place not in (7, 11)]
    nearest = library.scores("nearest")
    np.testing.assert_allclose(nearest, -(x.astype(np.float64) @ x[:10].T.astype(np.float64)).max(1), atol=2e-3)


def test_vectors_are_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, texts = tmp_path / "cache", [text for text, _ in documents()[0][:6]]
    for name, some in (("corpus/one.parquet", texts[:3]), ("tasks/two/train.parquet", texts[3:])):
        write_parquet(tmp_path / name, [(text, name) for text in some])
    monkeypatch.setenv("GOTD_DATA", str(tmp_path))
    vectors.complete(cache, ["two"], most=2, most_of_task=1)
    assert {path.name for path in cache.iterdir()} == {"corpus_one.npz", "task_two.npz"}
    assert len(np.load(cache / "task_two.npz")["ids"]) == 1
    held = np.load(cache / "corpus_one.npz")
    assert held["x"].shape == (2, 384)
    assert set(held["ids"]) < set(vectors.ids_of([text[: vectors.MAX_CHARS] for text in texts[:3]]))
    np.testing.assert_allclose(np.linalg.norm(held["x"].astype(float), axis=1), 1, atol=1e-3)
    monkeypatch.setattr(vectors, "TextEncoder", None)  # there is nothing left to encode
    vectors.complete(cache, ["two"], most=2)


def test_the_referee_of_solvers_agrees_with_pot() -> None:
    rng = np.random.default_rng(3)
    x, y = (rng.normal(size=(n, 3)) for n in (30, 12))
    a, b = (weights / weights.sum() for weights in (rng.exponential(size=n) + 0.1 for n in (30, 12)))
    f, g = referee.potentials(x, y, a, b, 0.7)
    for found, wanted in zip((f, g), pot_potentials(x, a, y, b, 0.7), strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-9)
    assert referee.residual_of(x, y, g, 0.7, a, b) < 1e-10
    assert referee.residual_of(x, y, g + np.eye(12)[0], 0.7, a, b) > 0.05


def test_overlap_counts_ties_with_the_last_one() -> None:
    wanted = np.array([0.0, 1, 1, 1, 2])
    assert referee.overlap(np.array([0.0, 9, 1, 9, 2]), wanted, 2) == 1
    assert referee.overlap(np.array([0.0, 9, 9, 9, 2]), wanted, 2) == 0.5


def test_nearness_of_vectors() -> None:
    x = np.random.default_rng(0).normal(size=(41, 8))
    assert bench_static.nearness(3 * x, x) == pytest.approx((1, 1))
    rank, share = bench_static.nearness(np.random.default_rng(1).normal(size=(41, 8)), x)
    assert abs(rank) < 0.15 and share == pytest.approx(0.2, abs=0.1)


def test_near_duplicates_are_found_alike(capsys: pytest.CaptureFixture[str]) -> None:
    x = bench_duplicates.stream(400, 24, 0.5, seed=1)
    kept = bench_duplicates.by_select(x, 300)
    assert kept == bench_duplicates.plainly(x, 300)
    assert 310 < kept[-1] < 340, "each twentieth is a copy"
    bench_duplicates.main(["--kept", "200", "300", "--width", "24", "--cosines", "0.3", "--plain-up-to", "200"])
    table = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")][2:]
    assert [row[0] for row in table] == ["| 200", "| 300"]
    assert [row[3] == "-" for row in table] == [False, True]

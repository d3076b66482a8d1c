"""What a solve leaves: contrast, sample, warm start and reuse, on an index of synthetic vectors and without Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from indexed import index_at, indexed
from oracles import pot_potentials
from solved import solve_rows

from gotd_ray import config
from gotd_ray.artifacts import Artifact
from gotd_ray.cluster import Resources, Site
from gotd_ray.earlier import read_earlier
from gotd_ray.errors import UserError
from gotd_ray.index import Embedded, Snapshot
from gotd_ray.ot.potentials import Potentials
from gotd_ray.ot.shard import segment_count, shard_segments
from gotd_ray.points import points_of
from gotd_ray.progress import Progress
from gotd_ray.results import POTENTIALS
from gotd_ray.shards.fit import fit_shards, sample_stride
from gotd_ray.shards.work import Holding, Problem, Work
from gotd_ray.storage import StoredFile
from gotd_ray.text.tally import Tally

SITE = Site(Resources(cpus=1, gpus=0, nodes=1, node_cpus=1, private=True), "cpu", Progress())
WIDTH = 8
ENCODER = {
    **{"model": "first", "sha256": "a" * 64, "pooling": "mean", "normalize": True, "max_tokens": 256},
    **{"precision": "float32", "prefix": "", "width": WIDTH},
}
EXACT = {"precision": "float64", "tolerance": 1e-11, "epsilon": 0.2, "epsilon_unit": "absolute"}


def unit(points: np.ndarray) -> np.ndarray:
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float16)


def points(seed: int, count: int, *centres: int, spread: float = 0.15) -> np.ndarray:
    """Unit vectors around some of the axes, dealt out evenly."""
    rng = np.random.default_rng(seed)
    return unit(np.eye(WIDTH)[[centres[i % len(centres)] for i in range(count)]] + spread * rng.normal(size=(count, 8)))


def stored(folder: Path, vectors: np.ndarray, seed: int) -> Snapshot:
    """An index that holds these vectors under random ids."""
    rng, file = np.random.default_rng(seed), StoredFile(f"/{seed}.parquet", 1, 1)
    rows = {"doc_id": [rng.bytes(16).hex() for _ in vectors], "path": [file.uri] * len(vectors)}
    return indexed(folder, [file], {file.uri: Tally(documents=len(vectors)).to_dict()}, rows, vectors)


def settings(folder: Path, contrast: bool = False, **solve: object) -> config.Run:
    sections: dict[str, Any] = {name: {"paths": "x"} for name in ("corpus", "target")}
    if contrast:
        sections["contrast"] = {"paths": "x"}
    return config.Run.model_validate({"out": str(folder), "solve": {"shards": 1, **solve}, **sections})


def run(folder: Path, embedded: Embedded, **solve_keys: object) -> tuple[Potentials, dict[str, Any], Artifact]:
    """Solve in this process; the potentials that lie in the file, the manifest and where."""
    settled = settings(folder, embedded.contrast is not None, **solve_keys)
    artifact = Artifact(str(folder / "solve"), "key", config.Storage())
    facts = solve_rows(settled, embedded, artifact, SITE, ENCODER)
    return Potentials.from_bytes(Path(artifact.path(POTENTIALS)).read_bytes()), facts, artifact


def scores(potentials: Potentials, vectors: np.ndarray) -> np.ndarray:
    return potentials.scorer("float64")(np.full(len(vectors), b"f" * 32), vectors)


@pytest.fixture
def three(tmp_path: Path) -> Embedded:
    """Candidates about three axes, a target about the first two, a contrast about the second."""
    return Embedded(
        stored(tmp_path / "index", points(0, 150, 0, 1, 2), 0),
        stored(tmp_path / "index", points(1, 20, 0, 1), 1),
        WIDTH,
        stored(tmp_path / "index", points(2, 15, 1), 2),
    )


def test_contrast_is_the_difference_of_two_solves_of_pot(tmp_path: Path, three: Embedded) -> None:
    potentials, facts, _ = run(tmp_path, three, **EXACT)
    x = points(0, 150, 0, 1, 2).astype(float)
    a = np.full(150, 1 / 150)
    f = [
        pot_potentials(x, a, y.astype(float), np.full(len(y), 1 / len(y)), 0.2)[0]
        for y in (points(1, 20, 0, 1), points(2, 15, 1))
    ]
    np.testing.assert_allclose(scores(potentials, x), f[0] - f[1], atol=1e-8)
    assert facts["contrast"]["residual"] <= 1e-11


def test_contrast_ranks_first_what_is_wanted_and_far_from_the_unwanted(tmp_path: Path, three: Embedded) -> None:
    """The second axis is wanted and unwanted: it leads the third, which is neither, only without the contrast."""
    x = points(0, 150, 0, 1, 2)

    def mean_ranks(embedded: Embedded) -> list[float]:
        ranks = np.argsort(np.argsort(scores(run(tmp_path, embedded)[0], x)))
        return [float(ranks[axis::3].mean()) for axis in range(3)]

    first, second, third = mean_ranks(three)
    assert first == pytest.approx(24.5, abs=1), "the first 50 places"
    assert second > third
    first, second, third = mean_ranks(Embedded(three.candidates, three.target, WIDTH))
    assert max(first, second) < third


def test_contrast_at_one_epsilon_is_the_same_debiased_or_plain(tmp_path: Path, three: Embedded) -> None:
    """The self-potential cancels, so no landmarks are kept."""
    debiased, _, _ = run(tmp_path, three, preset="debiased", **EXACT)
    plain, _, _ = run(tmp_path, three, preset="paper", **EXACT)
    assert debiased.landmarks is None
    x = points(3, 50, 0, 1, 2)
    assert (scores(debiased, x) == scores(plain, x)).all()


def test_a_contrast_that_is_the_target_leaves_no_preference(tmp_path: Path, three: Embedded) -> None:
    same = Embedded(three.candidates, three.target, WIDTH, three.target)
    potentials, _, _ = run(tmp_path, same)
    assert (scores(potentials, points(3, 50, 0, 1, 2)) == 0).all()


@pytest.fixture
def many(tmp_path: Path) -> Embedded:
    return Embedded(
        stored(tmp_path / "index", points(4, 2000, 0, 1, 2, 3), 4),
        stored(tmp_path / "index", points(5, 30, 0, 1), 5),
        WIDTH,
    )


class InProcess:
    """Some shards in this process, asked as a pool asks them."""

    def __init__(self, embedded: Embedded, shards: int) -> None:
        self.segments = count = segment_count(embedded.candidates.rows)
        ranges = shard_segments(count, shards)
        self.works = [Work(Holding(embedded, config.Storage(), part, count, "cpu", 1)) for part in ranges]

    def share(self, value: Any) -> Any:
        return value

    def ask(self, method: str, *arguments: Any) -> list[Any]:
        return [getattr(work, method)(*arguments) for work in self.works]


def sampled(embedded: Embedded, shards: int, wanted: int | None) -> tuple[int, np.ndarray]:
    """Rows fitted on, and g."""
    pool: Any = InProcess(embedded, shards)
    segments = segment_count(embedded.candidates.rows)
    stride = sample_stride(lambda step: sum(pool.ask("support", step)), segments, wanted)
    target = points_of(embedded.target, WIDTH)
    problem = Problem("p", target.vectors, target.b, 0.2, "float32")
    solution = fit_shards(pool, problem, tolerance=1e-4, max_passes=100, kept_memory=2.0, sample=stride)
    return sum(pool.ask("support", stride)), solution.g


def test_a_sample_is_the_same_for_any_number_of_shards(many: Embedded) -> None:
    rows, g = sampled(many, 1, 400)
    assert 400 <= rows < 800
    for shards in (2, 7):
        assert sampled(many, shards, 400)[0] == rows
        assert sampled(many, shards, 400)[1].tobytes() == g.tobytes()


def test_the_sample_is_the_coarsest_that_is_large_enough() -> None:
    rows = {1: 1000, 2: 510, 4: 240, 8: 130}
    assert [sample_stride(rows.__getitem__, 8, wanted) for wanted in (None, 1001, 511, 510, 240, 1)] == [
        *(1, 1, 1, 2, 4, 8),
    ]


def test_a_sample_of_all_is_the_full_fit_bit_for_bit(tmp_path: Path, many: Embedded) -> None:
    full, _, _ = run(tmp_path, many)
    for wanted in (2000, 10**9):
        whole, facts, _ = run(tmp_path, many, sample=wanted)
        assert whole.g.tobytes() == full.g.tobytes()
        assert facts["fitted_on"] == facts["candidates"] == 2000
    part, facts, _ = run(tmp_path, many, sample=500)
    assert 500 <= facts["fitted_on"] < 1000
    assert part.landmark_ids is not None
    assert (part.landmark_ids == full.landmark_ids).all()
    best = [set(np.argsort(scores(p, points(4, 2000, 0, 1, 2, 3)))[:200]) for p in (full, part)]
    assert len(best[0] & best[1]) > 150


def test_a_warm_start_takes_fewer_passes_to_the_same_documents(tmp_path: Path, many: Embedded) -> None:
    """The corpus has grown since, by a tenth, as in a refresh."""
    _, _, earlier = run(tmp_path / "first", many, tolerance=1e-6, epsilon=0.05)
    x = np.concatenate([points(4, 2000, 0, 1, 2, 3), points(9, 200, 0, 1, 2, 3)])
    grown = Embedded(stored(tmp_path / "more", x, 4), many.target, WIDTH)
    cold, without, _ = run(tmp_path / "cold", grown, tolerance=1e-6, epsilon=0.05)
    warm, facts, _ = run(tmp_path / "warm", grown, tolerance=1e-6, epsilon=0.05, warm_start=earlier.path(POTENTIALS))
    work = [found["passes"] + found["kept_passes"] / 10 for found in (facts, without)]
    assert work[0] < work[1]
    assert set(np.argsort(scores(cold, x))[:200]) == set(np.argsort(scores(warm, x))[:200])


def test_an_unchanged_problem_is_done_after_one_pass_from_its_own_potentials(tmp_path: Path, three: Embedded) -> None:
    _, _, earlier = run(tmp_path / "first", three)
    _, facts, _ = run(tmp_path / "again", three, warm_start=earlier.path(POTENTIALS))
    assert facts["passes"] == facts["contrast"]["passes"] == 1


def test_earlier_potentials_are_taken_as_they_are_up_to_the_drift_that_is_allowed(
    tmp_path: Path, many: Embedded
) -> None:
    """The drift is the residual of the earlier g on today's corpus, and it is the same however the fit goes on."""
    first, _, earlier = run(tmp_path / "first", many)
    x = np.concatenate([points(4, 2000, 0, 1, 2, 3), points(9, 200, 0, 1)])
    grown, start = Embedded(stored(tmp_path / "more", x, 4), many.target, WIDTH), earlier.path(POTENTIALS)
    warm, facts, _ = run(tmp_path / "warm", grown, warm_start=start)
    drift = facts["drift"]
    assert 1e-3 < drift < 0.2 and facts["reason"] == "converged" and facts["residual"] <= 1e-3
    kept, facts, _ = run(tmp_path / "kept", grown, warm_start=start, refit_above=drift)
    assert kept.g.tobytes() == first.g.tobytes() and facts["passes"] == 1
    assert (facts["reason"], facts["drift"], facts["residual"]) == ("kept", drift, drift)
    assert facts["last_move"] > 10 * warm.facts["last_move"], "how far a score may still move is told"
    again, facts, _ = run(tmp_path / "again", grown, warm_start=start, refit_above=0.99 * drift)
    assert again.g.tobytes() == warm.g.tobytes() and facts["drift"] == drift


def test_a_target_that_has_lost_a_document_is_fitted_again_whatever_the_drift(tmp_path: Path, many: Embedded) -> None:
    _, _, earlier = run(tmp_path / "first", many)
    file = StoredFile("/7.parquet", 1, 1)
    whole = many.target.read(["doc_id", "vector"])
    vectors = np.stack(whole["vector"].to_numpy(zero_copy_only=False))
    rows = {"doc_id": whole["doc_id"].to_pylist()[1:], "path": [file.uri] * (len(whole) - 1)}
    tallies = {file.uri: Tally(documents=len(whole) - 1).to_dict()}
    fewer = indexed(tmp_path / "fewer", [file], tallies, rows, vectors[1:])
    _, facts, _ = run(
        tmp_path / "kept", Embedded(many.candidates, fewer, WIDTH), warm_start=earlier.path(POTENTIALS), refit_above=2.0
    )
    assert facts["reason"] == "converged" and facts["drift"] > 0


def test_a_warm_start_from_another_target_begins_from_nothing(tmp_path: Path, many: Embedded) -> None:
    other = Embedded(many.candidates, stored(tmp_path / "other", points(7, 30, 2), 7), WIDTH)
    _, _, earlier = run(tmp_path / "other", other)
    warm, _, _ = run(tmp_path / "warm", many, warm_start=earlier.path(POTENTIALS))
    cold, _, _ = run(tmp_path / "cold", many)
    assert warm.g.tobytes() == cold.g.tobytes()


@pytest.mark.parametrize("with_contrast", [True, False])
def test_given_potentials_are_taken_as_they_are_and_no_candidate_is_read(
    tmp_path: Path, three: Embedded, with_contrast: bool
) -> None:
    contrast = three.contrast if with_contrast else None
    _, made, earlier = run(tmp_path / "first", Embedded(three.candidates, three.target, WIDTH, contrast))
    nowhere = Snapshot(index_at(tmp_path / "nowhere"), three.candidates.taken, three.candidates.vectors)
    embedded = Embedded(nowhere, three.target, WIDTH, contrast)
    _, facts, again = run(tmp_path / "again", embedded, potentials=earlier.path(POTENTIALS))
    first, second = (Path(artifact.path(POTENTIALS)).read_bytes() for artifact in (earlier, again))
    assert first == second
    assert facts["residual"] == made["residual"]
    assert (facts["taken_from"], facts["targets_in_common"]) == (earlier.path(POTENTIALS), 20)


@pytest.mark.parametrize("key", ["potentials", "warm_start"])
def test_potentials_of_another_encoder_are_refused_by_name(tmp_path: Path, three: Embedded, key: str) -> None:
    _, _, earlier = run(tmp_path, three)
    again = settings(tmp_path / "again", True, **{key: earlier.path(POTENTIALS)})
    assert read_earlier(again, ENCODER | {"precision": "bfloat16", "model": "/a/copy"}) is not None
    with pytest.raises(UserError, match=rf"solve\.{key} .* the encoder first .* this run has second .*Set `encoder`"):
        read_earlier(again, ENCODER | {"model": "second", "sha256": "b" * 64})


def test_potentials_that_cannot_serve_are_refused(tmp_path: Path, three: Embedded) -> None:
    _, _, earlier = run(tmp_path, three)
    path = earlier.path(POTENTIALS)
    with pytest.raises(UserError, match=r"the file has a contrast and the run has none"):
        read_earlier(settings(tmp_path, potentials=path), ENCODER)
    with pytest.raises(UserError, match=r"solve\.potentials '.*/missing' cannot be read"):
        read_earlier(settings(tmp_path, potentials=f"{tmp_path}/missing"), ENCODER)
    Path(path).write_bytes(Path(path).read_bytes()[:-100])
    with pytest.raises(UserError, match=r"it is broken"):
        read_earlier(settings(tmp_path, True, warm_start=path), ENCODER)
    with pytest.raises(ValueError, match=r"exclude each other"):
        config.Solve(potentials=path, warm_start=path)


def test_rounds_refuse_what_they_do_not_fit(tmp_path: Path) -> None:
    """They renew the fit of the corpus to the target alone."""
    run = settings(tmp_path, True, potentials="x").model_dump()
    with pytest.raises(ValueError, match=r"cannot go with contrast, reference, solve\.potentials"):
        config.Run.model_validate(run | {"reference": run["corpus"], "select": {"rounds": 3}})

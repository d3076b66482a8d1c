"""``solve.landmarks: auto``: how many there are, what two halves agree on, and what the key knows of it."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from indexed import indexed
from rich.console import Console
from solved import solve_rows

from gotd_ray import config
from gotd_ray.artifacts import Artifact
from gotd_ray.cluster import Resources, Site
from gotd_ray.config.load import of as config_of
from gotd_ray.config.told import warnings
from gotd_ray.errors import UserError
from gotd_ray.estimator import Potentials as Estimator
from gotd_ray.index import Embedded
from gotd_ray.ot.divergence import self_potential
from gotd_ray.ot.potentials import Potentials
from gotd_ray.progress import Progress
from gotd_ray.report.words import agreed_in_words
from gotd_ray.results import POTENTIALS
from gotd_ray.shards import landmarks
from gotd_ray.stages.solve import Fit
from gotd_ray.storage import StoredFile
from gotd_ray.text.tally import Tally

COUNT, WIDTH, BUDGET = 600, 8, 60


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landmarks, "FIRST", 16)


def stored(folder: Path, seed: int, count: int, weight: bool = False) -> tuple[Any, np.ndarray, np.ndarray]:
    """An index of random unit vectors; its ids and vectors in the order of ids."""
    draw, file = np.random.default_rng(seed), StoredFile(f"/{seed}.parquet", 1, 1)
    x = draw.normal(size=(count, WIDTH)) + 2 * np.eye(WIDTH)[draw.integers(3, size=count)]
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float16)
    ids = [draw.bytes(16).hex() for _ in x]
    rows: dict[str, Any] = {"doc_id": ids, "path": [file.uri] * count}
    rows |= {"weight": draw.integers(1, 9, size=count).astype(float).tolist()} if weight else {}
    index = indexed(folder / f"index-{seed}", [file], {file.uri: Tally(documents=count).to_dict()}, rows, x)
    order = np.argsort(ids)
    return index, np.array(ids, "S32")[order], x[order]


def run_of(**select: Any) -> config.Run:
    sections: dict[str, Any] = {name: {"paths": "x"} for name in ("corpus", "target")}
    solve = {"shards": 1, "landmarks": "auto"}
    return config.Run.model_validate({"out": "o", "solve": solve, "select": {"budget": BUDGET, **select}, **sections})


def solved(folder: Path, run: config.Run, weight: bool = False) -> tuple[Potentials, dict[str, Any], str]:
    """What is left, its facts, and what was said."""
    console = Console(record=True, width=1000, file=io.StringIO())
    site = Site(Resources(1, 0, 1, 1, private=True), "cpu", Progress(console))
    embedded = Embedded(stored(folder, 0, COUNT, weight)[0], stored(folder, 1, 20)[0], WIDTH)
    artifact = Artifact(str(folder / "solve"), "key", config.Storage())
    facts = solve_rows(run, embedded, artifact, site)
    return Potentials.from_bytes(Path(artifact.path(POTENTIALS)).read_bytes()), facts, console.export_text()


def agreement(fitted: Potentials, ids: np.ndarray, x: np.ndarray, count: int) -> float:
    """By hand, of the first so many ids."""
    taken = []
    for half in (np.arange(0, count, 2), np.arange(1, count, 2)):
        own = self_potential(x[half], fitted.epsilon, precision="float32")
        one = replace(fitted, landmarks=x[half].astype(np.float32), landmark_ids=ids[half], landmark_potential=own)
        taken.append(set(np.lexsort((ids, one.scorer()(ids, x)))[:BUDGET].tolist()))
    return len(taken[0] & taken[1]) / BUDGET


def test_they_double_until_two_halves_agree(tmp_path: Path) -> None:
    fitted, facts, said = solved(tmp_path, run_of(stability=0.55))
    _, ids, x = stored(tmp_path / "again", 0, COUNT)
    found = {count: agreement(fitted, ids, x, count) for count in (16, 32, 64, 128, 256, 512)}
    enough = min(count for count, share in found.items() if share >= 0.55)
    assert 16 < enough < 512, "the test tells nothing otherwise"
    assert (facts["landmarks"], facts["agreement"]) == (enough, pytest.approx(found[enough]))
    assert dict(facts["agreements"]) == {count: share for count, share in found.items() if count <= enough}
    assert fitted.landmark_ids is not None and fitted.landmark_ids.tolist() == ids[:enough].tolist()
    assert f"{enough} landmarks, whose halves agree on {found[enough]:.1%} of the subset" == agreed_in_words(facts)
    assert "stability" not in said


@pytest.mark.parametrize("weight", [False, True])
def test_where_nothing_less_will_do_all_candidates_are_landmarks(tmp_path: Path, weight: bool) -> None:
    fitted, facts, _ = solved(tmp_path, run_of(stability=1.0), weight)
    assert (facts["landmarks"], facts["agreement"]) == (COUNT, None)
    assert fitted.landmarks is not None and len(fitted.landmarks) == COUNT
    assert agreed_in_words(facts).startswith("all 600 candidates are landmarks")


def test_there_is_an_end_that_memory_sets_and_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landmarks, "MOST_BYTES", 50 * WIDTH * 4)
    _, facts, said = solved(tmp_path, run_of(stability=1.0))
    assert facts["landmarks"] == landmarks.most(WIDTH) == 32 and 0 < facts["agreement"] < 1
    assert (
        f"two halves of 32 landmarks agree on {facts['agreement']:.1%} of the subset, below select.stability (1)"
        in said
    )


def test_only_then_does_the_fit_know_the_budget() -> None:
    vectors: Any = SimpleNamespace(key=lambda: "v", collections=[])

    def key(landmarks: Any, **select: Any) -> str:
        run = run_of(**select)
        run = run.model_copy(update={"solve": run.solve.model_copy(update={"landmarks": landmarks})})
        return repr(Fit.of(run, vectors, {}, None).key())

    assert key(64) == key(64, budget=70) == key(64, stability=0.9)
    assert len({key("auto"), key("auto", budget=70), key("auto", stability=0.9), key(64)}) == 4


def test_where_it_means_nothing_it_is_refused_or_told() -> None:
    with pytest.raises(ValueError, match=r"solve.landmarks is auto, .*the fit runs over the reference. Give a number"):
        config.Run.model_validate(run_of().model_dump(exclude_unset=True) | {"reference": {"paths": "x"}})
    with pytest.raises(UserError, match=r"solve.landmarks is auto.* Give a number"):
        Estimator(landmarks="auto")
    run = run_of(stability=0.9)
    assert not [one for one in warnings(run) if "stability" in one]
    fixed = run.model_copy(update={"solve": config.Solve(landmarks=64)})
    assert [one for one in warnings(fixed) if "stability" in one] == [
        "select.stability does nothing here: solve.landmarks is not auto."
    ]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("aut", "is 'aut': input should be a whole number, or 'auto'. Write it in digits"),
        (5, "is 5: input should be greater than or equal to 16, or 'auto'. Raise it."),
        (None, "is null: input should be a whole number, or 'auto'. Give a value"),
    ],
)
def test_what_is_neither_is_refused_in_one_sentence(value: object, said: str) -> None:
    plain = {"out": "o", "corpus": {"paths": "x"}, "target": {"paths": "x"}}
    with pytest.raises(UserError) as caught:
        config_of({**plain, "solve": {"landmarks": value}}, "run.yaml")
    assert f"solve.landmarks {said}" in str(caught.value) and str(caught.value).count("landmarks") == 1

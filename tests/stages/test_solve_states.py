"""What a solve leaves on file, and what becomes of it when it is damaged; what is told where arithmetic breaks down."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import make_run
from corpora import write_index
from rich.console import Console
from safetensors.numpy import load, save
from solved import solve_rows

from gotd_ray import config
from gotd_ray.artifacts import Artifact
from gotd_ray.cluster import Resources, Site
from gotd_ray.earlier import TOLD, own_potentials, read_earlier
from gotd_ray.errors import UserError
from gotd_ray.index import Embedded
from gotd_ray.ot.potentials import Potentials
from gotd_ray.progress import Progress
from gotd_ray.results import POTENTIALS
from gotd_ray.stages import solve

ENCODER = {
    "model": "e",
    "sha256": "a",
    "pooling": "mean",
    "normalize": True,
    "max_tokens": 32,
    "prefix": "",
    "width": 8,
}


class Here:
    """Solves in this process, and keeps what was said."""

    def __init__(self, folder: Path, embedded: Embedded, key: str = "key", **settings: Any):
        self.console = Console(record=True, width=4000, file=io.StringIO())
        self.run = make_run(folder / "out", folder, solve=settings)
        self.embedded, self.artifact = embedded, Artifact(f"{folder}/out/solve", key, config.Storage())
        self.site = Site(Resources(2, 0, 1, 2, private=True), "cpu", Progress(self.console))

    def solve(self) -> dict[str, Any]:
        return solve_rows(self.run, self.embedded, self.artifact, self.site, ENCODER)

    @property
    def said(self) -> str:
        return self.console.export_text(clear=False)

    @property
    def checkpoints(self) -> list[str]:
        return sorted(path.name for path in Path(self.artifact.folder).glob("*checkpoint*"))

    @property
    def potentials(self) -> Path:
        return Path(self.artifact.path(POTENTIALS))


def vectors(rows: int, seed: int, length: float = 1.0) -> np.ndarray:
    z = np.random.default_rng(seed).normal(size=(rows, 8)) + 0.3
    return z / np.linalg.norm(z, axis=1, keepdims=True) * length


@pytest.fixture
def embedded(tmp_path: Path) -> Embedded:
    return write_index(tmp_path / "index", vectors(300, 0), vectors(20, 1))


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.fixture
def broken_off(tmp_path: Path, embedded: Embedded, monkeypatch: pytest.MonkeyPatch) -> Here:
    """A solve that was killed after some passes, with a checkpoint."""
    monkeypatch.setattr(solve, "CHECKPOINT_SECONDS", -1.0)
    here = Here(tmp_path, embedded, tolerance=1e-9, max_passes=60)

    def stop(value: float, role: str) -> None:
        if len(list(Path(here.artifact.folder).glob("checkpoint-*"))):
            raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(solve.metrics, "residual", stop)
        here.solve()
    assert here.checkpoints == ["checkpoint-key-target.safetensors"]
    return here


def test_checkpoints_go_after_the_manifest_has_come_those_of_other_keys_too(
    broken_off: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Path(broken_off.artifact.path("checkpoint-0123456789abcdef-contrast.safetensors"))
    other.write_bytes(b"of an earlier key")
    before = []
    commit = Artifact.commit

    def committed(self: Artifact, facts: dict[str, Any]) -> dict[str, Any]:
        before.append(broken_off.checkpoints)
        return commit(self, facts)

    monkeypatch.setattr(Artifact, "commit", committed)
    facts = broken_off.solve()
    assert before == [["checkpoint-0123456789abcdef-contrast.safetensors", "checkpoint-key-target.safetensors"]]
    assert broken_off.checkpoints == []
    assert broken_off.artifact.manifest() == facts
    assert "cannot be read" not in broken_off.said


@pytest.mark.parametrize("damage", ["empty", "half", "other", "nan"])
def test_a_damaged_checkpoint_is_said_and_the_fit_begins_anew(
    broken_off: Here, tmp_path: Path, embedded: Embedded, damage: str
) -> None:
    path = Path(broken_off.artifact.path("checkpoint-key-target.safetensors"))
    whole = path.read_bytes()
    arrays = load(whole)
    path.write_bytes(
        {
            "empty": b"",
            "half": whole[: len(whole) // 2],
            "other": b"no such thing, but rather long" * 30,
            "nan": save(arrays | {"iterate.x": arrays["iterate.x"] * np.nan}),
        }[damage]
    )
    broken_off.solve()
    fresh = Here(tmp_path / "fresh", embedded, tolerance=1e-9, max_passes=60)
    fresh.solve()
    assert broken_off.potentials.read_bytes() == fresh.potentials.read_bytes()
    line = f"solve: the checkpoint {path} cannot be read (it is no state of a solve, or it is broken): the fit begins"
    assert line in broken_off.said
    assert "Traceback" not in broken_off.said
    assert broken_off.checkpoints == []


def cut(data: bytes) -> list[bytes]:
    """A file of potentials damaged in several ways."""
    found = Potentials.from_bytes(data)
    arrays, header = load(data), {"gotd-potentials-2": '{"epsilon": 0.1, "facts": {}}'}
    broken = {
        "no g": {name: array for name, array in arrays.items() if name != "g"},
        "other g": arrays | {"g": arrays["g"][:-1]},
        "nan": arrays | {"b": arrays["b"] * np.nan},
        "no ids": {name: array for name, array in arrays.items() if name != "landmark_ids"},
        "flat": arrays | {"target": arrays["target"].reshape(-1)},
        "odd ids": arrays | {"target_ids": arrays["target_ids"][:, :31].copy()},
    }
    assert found.landmarks is not None
    bad_header = [{"gotd-potentials-2": text} for text in ("{}", "[]", '{"epsilon": -1, "facts": {}}', "nothing")]
    return [
        *(data[:length] for length in (0, 5, 8, 60, len(data) // 2, len(data) - 1)),
        *(save(parts, metadata=header) for parts in broken.values()),
        *(save(arrays, metadata=one) for one in bad_header),
    ]


def test_damaged_potentials_are_refused_in_one_line_as_the_runs_own_and_as_an_earlier_ones(
    tmp_path: Path, embedded: Embedded
) -> None:
    here = Here(tmp_path, embedded)
    here.solve()
    whole, path = here.potentials.read_bytes(), str(here.potentials)
    assert own_potentials(path, config.Storage()).to_bytes() == whole
    for data in cut(whole):
        here.potentials.write_bytes(data)
        with pytest.raises(
            UserError, match=r"^the potentials that the stage solve has left cannot be used, .*broken"
        ) as r:
            own_potentials(path, config.Storage())
        assert f"Delete {here.artifact.folder} and run again" in str(r.value)
        for key in ("potentials", "warm_start"):
            with pytest.raises(
                UserError, match=rf"^solve\.{key} '{path}': this is no potentials file .*broken"
            ) as told:
                read_earlier(make_run(tmp_path / "again", tmp_path, solve={key: path}), ENCODER)
            assert "\n" not in str(told.value) + str(r.value)
    here.potentials.unlink()
    with pytest.raises(UserError, match=r"they are not there\. Delete"):
        own_potentials(path, config.Storage())


def test_potentials_that_do_not_say_how_they_were_made_are_refused(tmp_path: Path, embedded: Embedded) -> None:
    here = Here(tmp_path, embedded)
    here.solve()
    known = Potentials.from_bytes(here.potentials.read_bytes())
    assert set(TOLD) <= set(known.facts)
    del known.facts["residual"], known.facts["last_move"]
    here.potentials.write_bytes(known.to_bytes())
    with pytest.raises(UserError, match=r"does not say how it was made: it has no residual, last_move\. Give the file"):
        read_earlier(make_run(tmp_path / "b", tmp_path, solve={"potentials": str(here.potentials)}), ENCODER)
    read_earlier(make_run(tmp_path / "b", tmp_path, solve={"warm_start": str(here.potentials)}), ENCODER)


def test_keys_that_do_nothing_beside_given_potentials_are_told(tmp_path: Path, embedded: Embedded) -> None:
    first = Here(tmp_path / "first", embedded)
    first.solve()
    second = Here(tmp_path / "second", embedded, potentials=str(first.potentials), epsilon=0.5, max_passes=3, shards=1)
    second.solve()
    assert "solve: solve.epsilon, solve.max_passes do nothing beside solve.potentials" in second.said
    third = Here(tmp_path / "third", embedded, potentials=str(first.potentials), shards=1)
    third.solve()
    assert "nothing beside" not in third.said


@pytest.mark.parametrize("square", [4.2e6, 5e6, 2e9])
def test_a_run_of_long_vectors_has_the_right_mean_cost_and_the_choice_of_unit_ones(
    tmp_path: Path, square: float
) -> None:
    """``encoder.normalize: false``: a mean |x|^2 of 5e6 came back as -3.4e6, and epsilon was a share of it."""
    rows = {}
    for length in (1.0, square**0.5):
        x, y = (vectors(n, seed, length).astype(np.float16) for n, seed in ((300, 0), (20, 1)))
        here = Here(tmp_path / f"{length}", write_index(tmp_path / f"{length}", x, y), shards=1)
        facts = here.solve()
        cost = ((x[:, None].astype(np.float64) - y.astype(np.float64)) ** 2).sum(-1).mean()
        assert facts["mean_cost"] == pytest.approx(cost, rel=1e-9)
        assert facts["epsilon"] == pytest.approx(0.25 * cost, rel=1e-9)
        assert facts["precision"] == "float32"
        ids = np.array([f"{n:032x}" for n in range(300)], "S32")
        rows[length] = own_potentials(str(here.potentials), config.Storage()).scorer()(ids, x)
    one, long = rows.values()
    assert len(set(np.argsort(one)[:60]) & set(np.argsort(long)[:60])) >= 58  # float16 rounds otherwise


def test_vectors_that_lie_close_together_but_far_from_zero_are_fitted_in_float64(tmp_path: Path) -> None:
    """Their products are a million times as large as what tells them apart."""
    x, y = (vectors(n, seed) + 700.0 for n, seed in ((300, 0), (20, 1)))
    here = Here(tmp_path, write_index(tmp_path, x, y), shards=1)
    assert here.solve()["precision"] == "float64"


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("where", ["candidates", "target"])
def test_broken_vectors_are_named_by_their_number_and_their_first_document(
    tmp_path: Path, where: str, value: float
) -> None:
    x, y = vectors(300, 0), vectors(20, 1)
    for row in (3, 7):
        (x if where == "candidates" else y)[row, 2] = value
    here = Here(tmp_path, write_index(tmp_path, x, y))
    with pytest.raises(UserError, match=rf"^2 of \d+ vectors of the {where} are not finite \(the first is") as raised:
        here.solve()
    assert "\n" not in str(raised.value)
    assert "broken: set encoder.precision to float32 and encoder.normalize to true" in str(raised.value)


def test_an_arithmetic_that_breaks_down_is_told_with_the_settings_that_help(
    tmp_path: Path, embedded: Embedded, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise FloatingPointError("the transport lost its precision in pass 3 at epsilon 1e-09")

    monkeypatch.setattr(solve, "fit_shards", fail)
    with pytest.raises(UserError) as raised:
        Here(tmp_path, embedded).solve()
    assert str(raised.value) == (
        "the transport lost its precision in pass 3 at epsilon 1e-09. Raise solve.epsilon, or set solve.precision to "
        "float64; if neither helps, encoder.precision to float32."
    )
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__

"""The stage solve: index and target -> potentials. One Sinkhorn over all shards; the state is g, m numbers.

With a contrast there is a second one; with ``solve.potentials`` none.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from gotd_ray import config, metrics, storage
from gotd_ray.artifacts import Artifact
from gotd_ray.cluster import Site
from gotd_ray.earlier import Earlier, read_earlier
from gotd_ray.errors import UserError, with_remedy
from gotd_ray.index import Vectors
from gotd_ray.ot.divergence import self_potential
from gotd_ray.ot.fit import State
from gotd_ray.ot.kernel import one_thread_each
from gotd_ray.ot.potentials import Potentials
from gotd_ray.ot.presets import NoCostError, Temperature, temperature
from gotd_ray.ot.sinkhorn import Solution
from gotd_ray.points import Points, points_of
from gotd_ray.progress import Progress
from gotd_ray.results import POTENTIALS
from gotd_ray.shards.fit import fit_shards, sample_stride, total_mass, unfinished
from gotd_ray.shards.landmarks import Landmarks, Wanted, grown
from gotd_ray.shards.pool import Pool, landmarks_of, shards
from gotd_ray.shards.ranking import documents_in
from gotd_ray.shards.work import Problem
from gotd_ray.stage import Plan, Stage

VERSION = 8
"""Raised when the result of equal settings changes."""

CHECKPOINT, CHECKPOINT_SECONDS = "checkpoint-", 2.0


@dataclass(frozen=True)
class Fit:
    """What is fitted, and how.

    Attributes:
        settings: its section.
        select: that of the choice, to which ``landmarks: auto`` looks ahead.
        vectors: of all sets.
        over: the set of the candidates: corpus or reference.
        shares: of the target's sources, see ``target.proportions``.
        earlier: the file of ``solve.potentials`` or ``solve.warm_start``.
        source: how the vectors were made, which the potentials carry on.
    """

    settings: config.Solve
    select: config.Select
    vectors: Vectors
    over: str
    shares: dict[str, float] | None
    earlier: Earlier | None
    storage: config.Storage
    source: dict[str, Any]

    def key(self) -> Any:
        settings = self.settings.model_dump(exclude={"shards", "potentials", "warm_start", "refit_above"})
        if self.settings.landmarks == "auto":
            settings |= self.select.model_dump(include={"budget", "budget_unit", "stability"})
        if self.earlier:
            settings["potentials" if self.settings.potentials else "warm_start"] = self.earlier.digest
            settings |= {} if self.settings.potentials else {"refit_above": self.settings.refit_above}
        return self.vectors.key(), settings, self.shares

    @classmethod
    def of(cls, run: config.Run, vectors: Vectors, encoder: dict[str, Any], earlier: Earlier | None) -> Fit:
        """What a run fits, see :func:`gotd_ray.earlier.read_earlier` for ``earlier``."""
        return cls(
            settings=run.solve,
            select=run.select,
            vectors=vectors,
            over="reference" if "reference" in vectors.collections else "corpus",
            shares=run.target.proportions,
            earlier=earlier,
            storage=run.storage,
            source={
                "encoder": encoder,
                "chunks": run.chunks.model_dump(),
                "text": run.target.model_dump(include={"format", "text_column", "turns", "text_from", "sample"}),
            },
        )


def _given(plan: Plan) -> Fit | None:
    if plan.run.select.method != "gotd":
        return None
    earlier = plan.once("earlier", lambda: read_earlier(plan.run, plan.encoder))
    return Fit.of(plan.run, plan.vectors, plan.encoder, earlier)


def _given_first(plan: Plan) -> Fit | None:
    """The same fit between the vectors of a cascade's first look; an earlier one's potentials are of others."""
    if plan.cheap is None:
        return None
    settings = plan.run.solve.model_copy(update={"warm_start": None})
    return Fit.of(plan.run.model_copy(update={"solve": settings}), plan.sketches, plan.cheap, None)


@with_remedy()
def solve(given: Fit, artifact: Artifact, site: Site) -> dict[str, Any]:
    """Fit the potentials and commit them, or take those of an earlier run as they are.

    Raises:
        UserError: the target or the contrast is empty; the arithmetic broke down.
    """
    started = time.perf_counter()
    artifact.begin()
    if given.earlier and given.settings.potentials:
        potentials, taken = given.earlier.potentials, _taken(given, given.earlier, site.progress)
    else:
        potentials, taken = _fit(given, artifact, site), {}
    artifact.write(POTENTIALS, potentials.to_bytes())
    facts = artifact.commit(potentials.facts | taken | {"seconds": time.perf_counter() - started})
    for name in storage.list_names(artifact.folder, artifact.storage):
        if name.startswith(CHECKPOINT):  # also those of earlier keys: no run will go on from them
            storage.delete_tree(artifact.path(name), artifact.storage)
    return facts


def _taken(given: Fit, earlier: Earlier, progress: Progress) -> dict[str, Any]:
    """Facts of potentials that are taken as they are; no candidate is read."""
    idle = given.settings.model_dump(exclude_defaults=True, exclude={"potentials", "shards"})
    if idle:
        progress.say(
            f"solve: {', '.join(f'solve.{name}' for name in idle)} {'does' if len(idle) == 1 else 'do'} nothing "
            "beside solve.potentials, which are taken as they are"
        )
    embedded, potentials = given.vectors.read(given.over), earlier.potentials
    ids = points_of(embedded.target, embedded.width, shares=given.shares).ids
    common = potentials.start(ids)[1]
    if not common == len(ids) == len(potentials.g):
        progress.say(
            f"solve: the potentials of {earlier.path} are for a target of {len(potentials.g):,} documents; {common:,} "
            f"of this run's {len(ids):,} are among them. The scores are for the target of the file"
        )
    return {"taken_from": earlier.path, "targets_in_common": common}


def _fit(given: Fit, artifact: Artifact, site: Site) -> Potentials:
    settings, embedded = given.settings, given.vectors.read(given.over)
    start = given.earlier.potentials if given.earlier else None
    wanted = points_of(embedded.target, embedded.width, shares=given.shares)
    unwanted = embedded.contrast and points_of(embedded.contrast, embedded.width, "contrast")
    with shards(embedded, settings.shards, given.storage, site) as pool:
        rows = sum(pool.ask("rows", 1))
        sample = sample_stride(lambda stride: sum(pool.ask("support", stride)), pool.segments, settings.sample)
        moments = np.sum(pool.ask("moments", total_mass(pool, 1)), axis=0)
        heat = _temperature(settings, moments, wanted)
        epsilon = heat.epsilon
        fits = _Fits(given, pool, sample, heat, artifact, site.progress)
        toward = fits.fit("target", wanted, start)
        away = fits.fit("contrast", unwanted, start and start.unwanted) if unwanted else None
        debiased = settings.preset == "debiased" and not unwanted
        plain = Potentials(wanted.vectors, wanted.b, toward.g, epsilon, facts={"precision": heat.precision})
        landmarks, agreed = _landmarks(given, pool, plain, rows, artifact, site.progress) if debiased else (None, {})
        fitted_on = sum(pool.ask("support", sample))
    facts = given.source | {
        "preset": settings.preset,
        "precision": heat.precision,
        "over": given.over,
        "candidates": rows,
        "fitted_on": fitted_on,
        "targets": len(wanted.b),
        "epsilon": epsilon,
        "mean_cost": heat.mean_cost,
        "tolerance": heat.tolerance,
        **_facts(toward),
        **agreed,
    }
    if unwanted and away:
        facts["contrast"] = {"targets": len(unwanted.b), **_facts(away)}
        facts["last_move"] = toward.last_move + away.last_move  # of the difference
    ids, points, masses = landmarks or (None, None, None)
    with one_thread_each():
        own = None if points is None else self_potential(points, epsilon, weights=masses)
    return Potentials(
        target=wanted.vectors,
        b=wanted.b,
        g=toward.g,
        epsilon=epsilon,
        landmarks=points,
        landmark_ids=ids,
        landmark_potential=own,
        landmark_weights=masses,
        facts=facts,
        target_ids=wanted.ids,
        unwanted=Potentials(unwanted.vectors, unwanted.b, away.g, epsilon, target_ids=unwanted.ids)
        if unwanted and away
        else None,
    )


def _landmarks(
    given: Fit, pool: Pool, plain: Potentials, rows: int, artifact: Artifact, progress: Progress
) -> tuple[Landmarks, dict[str, Any]]:
    """The documents of the self-potential, and what is to be told of them."""
    count = given.settings.landmarks
    if count != "auto":
        return landmarks_of(pool, min(count, rows)), {}
    wanted = Wanted(documents_in(pool, given.select), given.select.stability)
    found = grown(pool, plain, wanted, artifact.key, progress.say)
    told = {"landmarks": len(found.landmarks[0]), "agreement": found.agreement, "agreements": found.tried}
    return found.landmarks, told


def _facts(solution: Solution) -> dict[str, Any]:
    return {
        "residual": solution.residual,
        "passes": round(solution.passes, 2),
        "kept_passes": round(solution.kept_passes, 2),
        "reason": solution.reason,
        "last_move": solution.last_move,
        "drift": solution.drift,
        "residuals": [float(f"{r:.4g}") for r in solution.history],
    }


def _temperature(settings: config.Solve, moments: np.ndarray, target: Points) -> Temperature:
    named = settings.model_dump(include={"preset", "epsilon", "epsilon_unit", "tolerance", "precision"})
    try:
        return temperature(moments=moments, target=target.vectors, b=target.b, **named)
    except NoCostError as error:
        raise UserError(
            f"{error}, and epsilon is a share of their cost. Check corpus.paths and target.paths, or set "
            "solve.epsilon_unit to absolute."
        ) from None


@dataclass(frozen=True)
class _Fits:
    """What the fits of one solve share: to the target, and to the contrast at the same epsilon."""

    given: Fit
    pool: Pool
    sample: int
    heat: Temperature
    artifact: Artifact
    progress: Progress

    def fit(self, role: Literal["target", "contrast"], points: Points, start: Potentials | None) -> Solution:
        """Fit to these points: from its own checkpoint where there is one, else from ``start``, else from nothing."""
        settings, files, saved = self.given.settings, self.given.storage, time.monotonic()
        name = f"{self.artifact.key}-{role}"
        path = self.artifact.path(f"{CHECKPOINT}{name}.safetensors")
        with self.progress.task("solve" if role == "target" else f"solve, {role}", unit="passes") as task:

            def on_pass(state: State) -> None:
                nonlocal saved
                residual = state.iterate.residuals[-1]
                task.advance(1)
                metrics.residual(residual, role)
                task.update(note=f"residual {residual:.2g}, wanted {self.heat.tolerance:g}")
                if time.monotonic() - saved > CHECKPOINT_SECONDS:
                    storage.write_bytes(path, state.to_bytes(), files)
                    saved = time.monotonic()

            resume = self._resumed(path)
            begin, known = (None, False) if resume else self._warm(points, start)
            solution = fit_shards(
                self.pool,
                Problem(name, points.vectors, points.b, self.heat.epsilon, self.heat.precision),
                tolerance=self.heat.tolerance,
                max_passes=settings.max_passes,
                kept_memory=settings.kept_memory,
                sample=self.sample,
                resume=resume,
                start=begin,
                enough=settings.refit_above if known else 0.0,
                on_pass=on_pass,
            )
        if solution.reason == "kept":
            self.progress.say(
                f"solve: the drift is {solution.drift:.2g}, within solve.refit_above ({settings.refit_above:g}): the "
                "earlier potentials are taken as they are"
            )
        if told := unfinished(solution, self.heat.tolerance):
            self.progress.say(f"solve {told}")
        return solution

    def _resumed(self, path: str) -> State | None:
        """The state that an unfinished fit of this key has left; None where there is none that can be read."""
        data = storage.read_if_there(path, self.given.storage)
        try:
            return None if data is None else State.from_bytes(data)
        except ValueError as error:
            self.progress.say(f"solve: the checkpoint {path} cannot be read ({error}): the fit begins anew")
            return None

    def _warm(self, points: Points, start: Potentials | None) -> tuple[np.ndarray | None, bool]:
        """The earlier g, where it knows half of the points or more; a sample is the better start otherwise.

        And whether it is a g of these very points, which may do as it is.
        """
        if start is None:
            return None, False
        g, known = start.start(points.ids)
        enough = 2 * known >= len(g)
        self.progress.say(
            f"solve: {known:,} of {len(g):,} targets are in solve.warm_start, "
            + ("which is where the fit begins" if enough else "too few to begin there: the fit begins from nothing")
        )
        return (g if enough else None), known == len(g) == len(start.g)


COARSE = Stage("coarse", VERSION, _given_first, solve, reads_vectors=True)

STAGE = Stage("solve", VERSION, _given, solve, reads_vectors=True)

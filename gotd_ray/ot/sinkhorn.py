"""The iteration on g, which is handed its expensive operation: one pass over all candidates, wherever they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from gotd_ray.ot.anderson import mix, push

Marginal = Callable[[np.ndarray], np.ndarray]
"""g (m,) -> column sums (m,) of the plan of (f(g), g), summing to 1 over all candidates."""

Correction = Callable[[np.ndarray, np.ndarray, float], np.ndarray]
"""(g (m,), columns (m,), residual) -> a better g (m,), by cheaper means than a pass."""

_GAIN = 0.8
"""A correction that leaves more of the residual than this is the last one: it costs more than a plain step."""

_FLOOR = 1e-30
"""Mass given to a target that no candidate reaches yet: log stays finite, and the step lifts its g."""


@dataclass(frozen=True)
class Solution:
    """What a solve found, and how far it is from exact."""

    g: np.ndarray
    """(m,) float64 potential of the targets, in units of cost; sum_j b_j g_j = 0."""

    epsilon: float
    residual: float
    """L1 distance of the plan's column sums from b (0 to 2), as the last pass saw it. Its row sums are exact by
    construction."""

    passes: float
    """Exact passes over the candidates; one over a sample counts as the sample's share."""

    rough_passes: float
    """The same of passes in 8-bit integers, each about a third of the work of an exact one."""

    kept_passes: float
    """The same of passes with a kept plan, each a tenth of the work of an exact one or less."""

    reason: Literal["converged", "max_passes"]

    last_move: float
    """Largest change of g, its constant apart, that one more plain step would make. A score moves by at most as much,
    up or down: two scores that lie within twice of it can change places."""

    history: list[float] = field(default_factory=list)
    """Residual of each pass over all candidates."""

    residual_error: float = 0.0
    """What the rounding of a kept plan may have done to the residual of a solve that converged: both together are
    within the tolerance. 0 where the last pass was exact."""

    @property
    def converged(self) -> bool:
        return self.reason == "converged"


@dataclass
class State:
    """Everything the iteration knows between two passes: a solve resumed from it ends in the same bits."""

    g: np.ndarray
    """(m,), where the next pass looks."""

    images: np.ndarray
    """(k, m), the last plain steps; errors: (k, m), their differences from where they started."""

    errors: np.ndarray
    fallback: np.ndarray
    """(m,), the plain step from the best point so far."""

    scale: np.ndarray
    """(m,), factor of the columns that this level's passes see: what they are known to get wrong."""

    best: float = np.inf
    plain: bool = False
    """Whether corrections have failed and plain steps are taken."""

    level: int = 0
    """Where in the plan of a fit this is."""

    base: np.ndarray | None = None
    """(m,), the g whose plan is kept; None: none is."""

    at_base: np.ndarray | None = None
    """(m,), the columns there."""

    work: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    """Exact, rough and kept passes made so far, on all levels, in shares of all candidates."""

    history: list[float] = field(default_factory=list)

    @classmethod
    def at(cls, g: np.ndarray, level: int = 0, work: list[float] | None = None) -> State:
        none = np.empty((0, len(g)))
        return cls(g, none, none, fallback=g, scale=np.ones_like(g), level=level, work=work or [0.0, 0.0, 0.0])

    def give_up_corrections(self) -> None:
        """Plain steps from here on; steps of two kinds do not mix."""
        self.plain, self.images, self.errors = True, self.images[:0], self.errors[:0]

    def to_bytes(self) -> bytes:
        arrays = {name: getattr(self, name) for name in ("g", "images", "errors", "fallback", "scale")}
        if self.base is not None and self.at_base is not None:
            arrays |= {"base": self.base, "at_base": self.at_base}
        arrays["scalars"] = np.array([self.best, self.plain, self.level, *self.work, *self.history])
        return save_tensors({name: np.ascontiguousarray(array) for name, array in arrays.items()})

    @classmethod
    def from_bytes(cls, data: bytes) -> State:
        """Read what :meth:`to_bytes` wrote.

        Raises:
            ValueError: it is something else, cut short or damaged.
        """
        try:
            arrays = load_tensors(data)
            best, plain, level, *numbers = arrays.pop("scalars").tolist()
            found = cls(**arrays, work=numbers[:3], history=numbers[3:])  # type: ignore[arg-type]
            found.best, found.plain, found.level = best, bool(plain), int(level)
        except (SafetensorError, KeyError, TypeError, ValueError, OverflowError):
            raise ValueError("it is no state of a solve, or it is broken") from None
        if not found._holds_together():
            raise ValueError("it is no state of a solve, or it is broken")
        return found

    def _holds_together(self) -> bool:
        """Whether all shapes fit to g's, and all numbers that a step takes are finite."""
        m, k = len(self.g), len(self.images)
        vectors = [self.g, self.fallback, self.scale]
        vectors += [kept for kept in (self.base, self.at_base) if kept is not None]
        arrays = [*vectors, self.images, self.errors]
        return (
            all(vector.shape == (m,) for vector in vectors)
            and self.images.shape == self.errors.shape == (k, m)
            and (self.base is None) == (self.at_base is None)
            and all(array.dtype == np.float64 and bool(np.isfinite(array).all()) for array in arrays)
            and len(self.work) == 3
            and self.level >= 0
            and not np.isnan(self.best)
        )


def solve(
    marginal: Marginal,
    b: np.ndarray,
    *,
    epsilon: float,
    tolerance: float,
    max_passes: int,
    state: State | None = None,
    correct: Correction | None = None,
    leap: bool = False,
    on_pass: Callable[[State], None] = lambda _: None,
) -> Solution:
    """Sinkhorn in the log domain, accelerated and safeguarded.

    The plain step is g_j <- g_j + epsilon log(b_j / col_j) (Peyre & Cuturi 2019, eq. 4.44, with f eliminated).
    Anderson acceleration mixes steps. Corrections are given up for plain steps when one gains too little. Where a step
    makes the residual worse than twice the best so far, the history is dropped and the plain step of the best point
    is taken, so that it is never worse than Sinkhorn for long.

    Args:
        marginal: the pass.
        b: (m,) positive weights that sum to 1.
        epsilon: temperature, in units of cost.
        tolerance: residual at which to stop.
        max_passes: passes at the most, those in ``state`` included.
        state: where to start; g = 0 if None. It is changed in place.
        correct: a better step than the plain one.
        leap: stop after the step that should reach the tolerance, if it gains what the last one did; the pass that
            would prove it is the caller's.
        on_pass: called with the state after each pass; checkpoints and progress hang here.

    Raises:
        FloatingPointError: the arithmetic broke down: epsilon is too small for the precision of the pass.
    """
    state = state or State.at(np.zeros_like(b))
    while True:
        g = state.g
        columns = marginal(g)
        if not np.isfinite(columns).all():
            raise FloatingPointError(
                f"the transport lost its precision in pass {len(state.history) + 1} at epsilon {epsilon:g}"
            )
        residual = float(np.abs(columns - b).sum())
        plain = g + epsilon * np.log(b / np.maximum(columns, _FLOOR))
        state.history.append(residual)
        enough = residual <= tolerance
        if not enough and len(state.history) < max_passes:
            if correct is not None and not state.plain and residual > _GAIN * state.best:
                state.give_up_corrections()
            corrected = correct is not None and not state.plain
            _advance(state, residual, plain, correct(g, columns, residual) if corrected and correct else plain)
            enough = leap and len(state.history) > 1 and residual * residual <= tolerance * state.history[-2]
            g = state.g if enough else g
            if not enough:  # who goes on from a leap would make the pass here that it saves
                on_pass(state)
        if enough or len(state.history) >= max_passes:
            return Solution(
                g=g - b @ g,
                epsilon=epsilon,
                residual=residual,
                passes=state.work[0],
                rough_passes=state.work[1],
                kept_passes=state.work[2],
                reason="converged" if enough else "max_passes",
                last_move=float(np.abs((plain - g) - b @ (plain - g)).max()),
                history=state.history,
            )


def _advance(state: State, residual: float, plain: np.ndarray, image: np.ndarray) -> None:
    """Choose the next g."""
    if residual > 2 * state.best:
        state.images, state.errors = state.images[:0], state.errors[:0]
        state.g, state.best = state.fallback, np.inf
        return
    if residual < state.best:
        state.best, state.fallback = residual, plain
    state.images = push(state.images, image)
    state.errors = push(state.errors, image - state.g)
    state.g = mix(state.images, state.errors)

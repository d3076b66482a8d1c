"""The iteration on g, which is handed its expensive operation: one pass over all candidates, wherever they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from gotd_ray.ot.anderson import mix, push

Marginal = Callable[[np.ndarray], np.ndarray]
"""g (m,) -> column sums (m,) of the plan of (f(g), g), summing to 1 over all candidates."""

_FLOOR = 1e-30
"""Mass given to a target that no candidate reaches yet: log stays finite, and the step lifts its g."""


@dataclass(frozen=True)
class Solution:
    """What a solve found, and how far it is from exact."""

    g: np.ndarray
    """(m,) float64 potential of the targets, in units of cost; sum_j b_j g_j = 0."""

    epsilon: float
    residual: float
    """L1 distance of the plan's column sums from b (0 to 2). Its row sums are exact by construction."""

    passes: float
    """Passes over the candidates; one over a sample counts as the sample's share."""

    reason: Literal["converged", "max_passes"]

    last_move: float
    """Largest change of g, its constant apart, that one more plain step would make. Scores move by at most as much."""

    history: list[float] = field(default_factory=list)
    """Residual of each pass over all candidates."""

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

    best: float = np.inf
    spent: float = 0.0
    """Passes made before this level, over samples."""

    history: list[float] = field(default_factory=list)

    @classmethod
    def at(cls, g: np.ndarray, spent: float = 0.0) -> State:
        return cls(g=g, images=np.empty((0, len(g))), errors=np.empty((0, len(g))), fallback=g, spent=spent)

    def to_bytes(self) -> bytes:
        arrays = {name: getattr(self, name) for name in ("g", "images", "errors", "fallback")}
        arrays["scalars"] = np.array([self.best, self.spent, *self.history])
        return save_tensors({name: np.ascontiguousarray(array) for name, array in arrays.items()})

    @classmethod
    def from_bytes(cls, data: bytes) -> State:
        arrays = load_tensors(data)
        best, spent, *history = arrays.pop("scalars").tolist()
        return cls(**arrays, best=best, spent=spent, history=history)


def solve(
    marginal: Marginal,
    b: np.ndarray,
    *,
    epsilon: float,
    tolerance: float,
    max_passes: int,
    state: State | None = None,
    on_pass: Callable[[State], None] = lambda _: None,
) -> Solution:
    """Sinkhorn in the log domain, accelerated and safeguarded.

    The plain step is g_j <- g_j + epsilon log(b_j / col_j) (Peyre & Cuturi 2019, eq. 4.44, with f eliminated).
    Anderson acceleration mixes plain steps. Where a mixed step makes the residual worse than twice the best so far,
    the history is dropped and the plain step of the best point is taken, so that it is never worse than Sinkhorn for
    long.

    Args:
        marginal: the pass.
        b: (m,) positive weights that sum to 1.
        epsilon: temperature, in units of cost.
        tolerance: residual at which to stop.
        max_passes: passes at the most, those in ``state`` included.
        state: where to start; g = 0 if None. It is changed in place.
        on_pass: called with the state after each pass; checkpoints and progress hang here.

    Raises:
        FloatingPointError: the arithmetic broke down; the message names the remedy.
    """
    state = state or State.at(np.zeros_like(b))
    while True:
        g = state.g
        columns = marginal(g)
        if not np.isfinite(columns).all():
            raise FloatingPointError(
                f"the transport lost its precision in pass {len(state.history) + 1} at epsilon {epsilon:g}: raise "
                "solve.epsilon, or set solve.precision to float64"
            )
        residual = float(np.abs(columns - b).sum())
        image = g + epsilon * np.log(b / np.maximum(columns, _FLOOR))
        state.history.append(residual)
        if residual <= tolerance or len(state.history) >= max_passes:
            return Solution(
                g=g - b @ g,
                epsilon=epsilon,
                residual=residual,
                passes=state.spent + len(state.history),
                reason="converged" if residual <= tolerance else "max_passes",
                last_move=float(np.abs((image - g) - b @ (image - g)).max()),
                history=state.history,
            )
        _advance(state, residual, image)
        on_pass(state)


def _advance(state: State, residual: float, image: np.ndarray) -> None:
    """Choose the next g."""
    if residual > 2 * state.best:
        state.images, state.errors = state.images[:0], state.errors[:0]
        state.g, state.best = state.fallback, np.inf
        return
    if residual < state.best:
        state.best, state.fallback = residual, image
    state.images = push(state.images, image)
    state.errors = push(state.errors, image - state.g)
    state.g = mix(state.images, state.errors)

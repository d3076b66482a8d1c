"""A fixed-point iteration on a short vector: Anderson acceleration with a safeguard."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

MEMORY = 8
"""Differences kept; five to ten are enough. The driver holds 2 (MEMORY + 1) m numbers, however many the candidates."""

_RIDGE = 1e-10
"""Regularises the small least-squares problem, relative to its trace."""

_FARTHEST = 1e3
"""Bound on the sum of the weights' sizes; errors that hardly differ would send the mixture anywhere."""


@dataclass
class Iterate:
    """Where an iteration x <- G(x) stands between two evaluations of G: resumed from here it ends in the same bits."""

    x: np.ndarray
    """(m,) float64, where G is evaluated next."""

    images: np.ndarray
    """(k, m), the last values of G(x); errors: (k, m), G(x) - x. The newest stand last."""

    errors: np.ndarray
    fallback: np.ndarray
    """(m,), G at the best x since the last fallback."""

    best: float = np.inf
    """Residual there."""

    residuals: list[float] = field(default_factory=list)
    """Of every x so far."""

    @classmethod
    def at(cls, x: np.ndarray) -> Iterate:
        none = np.empty((0, len(x)))
        return cls(x, none, none, fallback=x)

    def advance(self, image: np.ndarray) -> None:
        """Choose the next x, by G(x) = ``image`` and the last residual.

        Where the residual is worse than twice the best so far, the history is dropped and the next x is the image of
        the best one, so that the iteration is never worse than the plain one for long.
        """
        residual = self.residuals[-1]
        if residual > 2 * self.best:
            self.images, self.errors = self.images[:0], self.errors[:0]
            self.x, self.best = self.fallback, np.inf
            return
        if residual < self.best:
            self.best, self.fallback = residual, image
        self.images = np.concatenate([self.images, image[None]])[-(MEMORY + 1) :]
        self.errors = np.concatenate([self.errors, (image - self.x)[None]])[-(MEMORY + 1) :]
        self.x = mix(self.images, self.errors)


def mix(images: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """The next point of a fixed-point iteration x <- G(x) (type II; Walker & Ni 2011, eq. 2.1).

    Args:
        images: (k, m), the last values of G(x); errors: (k, m), G(x) - x. The newest stand last.

    Returns:
        (m,): the affine mixture of images for which the same mixture of errors is least; the newest image where that
        mixture lies far outside of all.
    """
    if len(images) == 1:
        return images[-1]
    steps = np.diff(errors, axis=0)
    gram = steps @ steps.T
    gram[np.diag_indices_from(gram)] += _RIDGE * np.trace(gram) + np.finfo(float).tiny
    weights = np.linalg.solve(gram, steps @ errors[-1])
    return images[-1] - weights @ np.diff(images, axis=0) if np.abs(weights).sum() < _FARTHEST else images[-1]

"""Anderson acceleration of a fixed-point iteration on a short vector."""

from __future__ import annotations

import numpy as np

MEMORY = 8
"""Differences kept. Five to ten serve; the driver holds 2 (MEMORY + 1) m numbers, however many the candidates."""

_RIDGE = 1e-10
"""Regularises the small least-squares problem, relative to its trace."""

_FARTHEST = 1e3
"""Bound on the sum of the weights' sizes; errors that hardly differ would send the mixture anywhere."""


def push(history: np.ndarray, row: np.ndarray) -> np.ndarray:
    """Append ``row`` (m,) to ``history`` (k, m), keeping the last ``MEMORY + 1`` rows."""
    return np.concatenate([history, row[None]])[-(MEMORY + 1) :]


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

"""The witness of the maximum mean discrepancy (MMD) between candidates and target, in closed form: no transport.

With the Gaussian kernel k(x, y) = exp(-|x - y|^2 / (2 bandwidth)), the function that tells two samples apart best is
mean_l k(x, x_l) - mean_j k(x, y_j) (Gretton et al. 2012, A Kernel Two-Sample Test, JMLR 13, section 2.3), and up to
terms without x it is the gradient of MMD^2 in a candidate's mass. KAIROS (Zhu et al. 2025, arXiv 2506.23799) values
data by it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gotd_ray.ot.kernel import Side, side, soft_minimum
from gotd_ray.ot.potentials import Scorer

SMALL_BANDWIDTH = 5e-4
"""Below it exponents are so large that float32 is not fine enough for them."""

SAMPLE = 2048
"""Points of either side whose distances give the median bandwidth."""


def median_bandwidth(landmarks: np.ndarray, target: np.ndarray) -> float:
    """The median of |x - y|^2 over landmarks (k, d) and targets (m, d), of the first 2,048 of each.

    Points come by id, and ids are hashes, so the first ones are a random sample.

    Raises:
        ValueError: it is 0.
    """
    x, y = landmarks[:SAMPLE].astype(np.float64), target[:SAMPLE].astype(np.float64)
    squares = (x * x).sum(1)[:, None] + (y * y).sum(1) - 2 * x @ y.T
    median = float(np.median(np.maximum(squares, 0)))
    if not median > 0:
        raise ValueError(
            f"the median squared distance between corpus and target is {median:g}, which is no bandwidth: most of "
            "their vectors are equal"
        )
    return median


@dataclass(frozen=True)
class Witness:
    """All that is needed to score any document."""

    target: np.ndarray
    """(m, d) float32 vectors of the targets."""

    landmarks: np.ndarray
    """(k, d) float32 vectors of the candidates that stand for all of them."""

    landmark_ids: np.ndarray
    """(k,) S32, ascending."""

    bandwidth: float
    """sigma^2 of the kernel, in units of squared distance."""

    target_weights: np.ndarray | None = None
    """(m,) float64, positive, summing to 1; None is equal ones."""

    landmark_weights: np.ndarray | None = None
    """(k,) float64, positive, summing to 1; None is equal ones."""

    def scorer(self, device: str = "cpu") -> Scorer:
        """The witness at any document, in [-1, 1]; lower is better.

        A landmark's own term is left out of the mean over the landmarks: with k of n candidates it would weigh n / k
        times too much. The bits depend on the rows that are scored together, as those of the potentials do.
        """
        target = self._side(self.target, self.target_weights, device)
        around = self._side(self.landmarks, self.landmark_weights, device)
        count = len(self.landmarks)

        def score(ids: np.ndarray, vectors: np.ndarray) -> np.ndarray:
            x = torch.from_numpy(vectors)
            corpus = _mean_kernel(x, around)
            place = np.minimum(np.searchsorted(self.landmark_ids, ids), count - 1)
            known = self.landmark_ids[place] == ids
            own = np.full(len(ids), 1.0 / count) if self.landmark_weights is None else self.landmark_weights[place]
            rest = np.maximum(corpus - own, 0) / np.maximum(1 - own, 1e-9)  # k(x, x) = 1
            corpus[known] = rest[known]
            return corpus - _mean_kernel(x, target)

        return score

    def _side(self, points: np.ndarray, weights: np.ndarray | None, device: str) -> Side:
        dtype = torch.float64 if self.bandwidth < SMALL_BANDWIDTH else torch.float32
        masses = torch.from_numpy(np.full(len(points), 1.0 / len(points)) if weights is None else weights)
        return side(torch.from_numpy(points), masses, 2 * self.bandwidth, dtype=dtype, device=device)


def _mean_kernel(x: Tensor, to: Side) -> np.ndarray:
    """mean_j k(x_i, y_j), (r,) float64: the exponential of a soft minimum without potential, in its tiles."""
    zero = torch.zeros(to.size, dtype=torch.float64, device=to.scaled.device)
    return np.exp(-soft_minimum(x, to, zero) / to.epsilon)

"""What the linear theory says of a document: the loss falls with the divergence to the target, and that by its score.

A document's debiased score is the gradient of the divergence with respect to its mass. So to the first order n
documents lower it in proportion to X(n), the sum of their scores minus the mean over the corpus; and if the loss
follows the divergence, L = a + b X(n), then a document of mean score s changes it by b (s - mean).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gotd_ray.curves.noise import Noise


def linear(noise: Noise, scores: np.ndarray, mean: float) -> dict[str, Any]:
    """The measured slope of the loss against the divergence, and how well it predicted.

    Args:
        noise: the losses, at sizes up to the number of the scores.
        scores: of the documents, in the order in which the sizes take them.
        mean: of the scores over the corpus.

    Returns:
        ``slope``, of all sizes; ``predicted``, the loss at the largest size by the line through the others, and
        ``error``, the measured one minus it; ``refused``, why the slope says nothing, or None.
    """
    fallen = np.concatenate([[0.0], np.cumsum(scores - mean)])[noise.sizes.astype(int)]
    slope, _ = _line(fallen, noise.means, noise.variances)
    before, level = _line(fallen[:-1], noise.means[:-1], noise.variances[:-1])
    predicted = level + before * fallen[-1]
    refused = None
    if slope <= 0:
        refused = "the loss does not fall with the divergence that the scores foretell"
    return {
        "slope": slope,
        "predicted": float(predicted),
        "error": float(noise.means[-1] - predicted),
        "refused": refused,
    }


def _line(x: np.ndarray, y: np.ndarray, variances: np.ndarray) -> tuple[float, float]:
    """Slope and level of the line through y, weighted by the reciprocals of the variances; level where x is."""
    if np.ptp(x) == 0:
        return 0.0, float(np.mean(y))
    weights = 1 / np.sqrt(np.maximum(variances, variances.max() * 1e-6 or 1.0))
    slope, level = np.polyfit(x, y, 1, w=weights)
    return float(slope), float(level)


def gains(slope: float, means: dict[str, float], mean: float) -> dict[str, float]:
    """By how much a document of each source lowers the loss, the most first.

    Args:
        means: of the scores of each source's candidates.
        mean: of all candidates'.
    """
    found = {source: -slope * (own - mean) for source, own in means.items()}
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))

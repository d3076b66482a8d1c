"""The numbers of the report, as plain data: what is computed here stands in ``report.json``, and in the pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gotd_ray.ot.divergence import sinkhorn_divergence

BINS = 48
"""Of the histogram."""

TAIL = 0.002
"""Share of the scores at the far end that is gathered in the last bin, so that a few do not press the rest together."""


def sources(counts: Mapping[str, tuple[int, int]]) -> list[dict[str, Any]]:
    """Corpus against subset by source, the most taken first.

    ``lift`` is the source's share of the subset over its share of the corpus: 1 is what chance would take.

    Args:
        counts: documents of the corpus and of the subset, by source.
    """
    total, taken = (sum(pair[i] for pair in counts.values()) for i in (0, 1))
    ranked = sorted(counts.items(), key=lambda item: (-item[1][1], -item[1][0], item[0]))
    return [
        {
            "source": source,
            "corpus": there,
            "subset": chosen,
            "corpus_share": there / total if total else 0.0,
            "subset_share": chosen / taken if taken else 0.0,
            "lift": (chosen / taken) / (there / total) if there and taken else None,
        }
        for source, (there, chosen) in ranked
    ]


def distribution(scores: np.ndarray, taken: np.ndarray) -> dict[str, Any]:
    """A histogram of all candidates' scores and of those taken.

    Args:
        scores: (n,); infinite ones are counted apart, as they are never taken.
        taken: (k,) scores of the documents taken, out of ``scores``.
    """
    finite = scores[np.isfinite(scores)]
    if not len(finite):
        return {"candidates": len(scores), "never": len(scores), "edges": [], "counts": [], "taken": []}
    low, high = float(finite.min()), float(np.quantile(finite, 1 - TAIL))
    edges = np.linspace(low, high if high > low else low + 1.0, BINS + 1)
    quantiles = np.quantile(finite, [0.0, 0.01, 0.1, 0.5, 0.9, 1.0])
    return {
        "candidates": len(scores),
        "never": len(scores) - len(finite),
        "edges": edges.tolist(),
        "counts": _counts(finite, edges),
        "taken": _counts(taken, edges),
        "quantiles": dict(zip(("0", "0.01", "0.1", "0.5", "0.9", "1"), quantiles.tolist(), strict=True)),
    }


def _counts(values: np.ndarray, edges: np.ndarray) -> list[int]:
    """Values beyond the last edge count in the last bin."""
    counts: list[int] = np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0].tolist()
    return counts


def plane(groups: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Groups of points (k, d) in the plane of their first two principal components.

    The components are those of all groups together, each group counted alike however many points it has. Signs are
    fixed, so that equal points give equal pictures.
    """
    present = {name: np.asarray(points, np.float64) for name, points in groups.items() if len(points)}
    centre = np.mean([points.mean(0) for points in present.values()], axis=0)
    scaled = [(points - centre) / np.sqrt(len(points)) for points in present.values()]
    _, lengths, axes = np.linalg.svd(np.concatenate(scaled), full_matrices=False)
    axes = np.pad(axes[:2], ((0, max(0, 2 - len(axes))), (0, 0)))
    axes *= np.where(axes[np.arange(2), np.abs(axes).argmax(1)] < 0, -1.0, 1.0)[:, None]
    spread = np.pad(lengths[:2] ** 2, (0, max(0, 2 - len(lengths)))) / max(float((lengths**2).sum()), 1e-30)
    return {
        "explained": spread.tolist(),
        "points": {name: ((points - centre) @ axes.T).round(4).tolist() for name, points in present.items()},
    }


def plan_rows(x: np.ndarray, y: np.ndarray, b: np.ndarray, g: np.ndarray, epsilon: float) -> np.ndarray:
    """Rows of the transport plan, each scaled to sum 1: how the mass of a document is shared out to the targets.

        pi_ij = a_i b_j exp((f_i + g_j - C_ij) / epsilon), so pi_ij / a_i is proportional to
        b_j exp((g_j - C_ij) / epsilon)                     (Peyre and Cuturi 2019, eq. 4.13, for K = a b exp(-C/eps))

    Args:
        x: (r, d) documents; y: (m, d) targets; b: (m,) their weights; g: (m,) their potential.

    Returns:
        (r, m) float64.
    """
    logits = np.log(b) + (g - costs(x, y)) / epsilon
    rows = np.exp(logits - logits.max(1, keepdims=True))
    return rows / rows.sum(1, keepdims=True)


def costs(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Squared distances (r, m) of (r, d) and (m, d), float64."""
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    return np.maximum((x * x).sum(1)[:, None] + (y * y).sum(1) - 2 * x @ y.T, 0.0)


def largest(rows: np.ndarray, count: int) -> list[list[tuple[int, float]]]:
    """Place and value of the largest entries of each row (r, m), the first of equal ones before the others."""
    order = np.argsort(-rows, axis=1, kind="stable")[:, :count]
    return [[(int(j), float(row[j])) for j in places] for row, places in zip(rows, order, strict=True)]


def divergences(
    corpus: tuple[np.ndarray, np.ndarray],
    subset: np.ndarray,
    target: tuple[np.ndarray, np.ndarray],
    epsilon: float,
    mix: float,
) -> dict[str, float]:
    """Sinkhorn divergences to the target, see :func:`gotd_ray.ot.divergence.sinkhorn_divergence`.

    Args:
        corpus, target: points (k, d) and weights (k,) that sum to 1, positive; samples where there are many.
        subset: (s, d) points of equal weight.
        mix: share of the subset in the mixture with the corpus.

    Returns:
        ``corpus``: of the corpus alone; ``mixture``: of (1 - mix) corpus + mix subset; ``subset``: of it alone.
    """
    points, weights = corpus
    equal = np.full(len(subset), 1 / len(subset))
    arms = {
        "corpus": corpus,
        "mixture": (np.concatenate([points, subset]), np.concatenate([(1 - mix) * weights, mix * equal])),
        "subset": (subset, equal),
    }
    return {name: sinkhorn_divergence(*arm, *target, epsilon, precision="float32") for name, arm in arms.items()}


def plain(value: Any) -> Any:
    """The same for JSON, which knows no infinity and no NaN: they become None."""
    if isinstance(value, Mapping):
        return {str(name): plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value

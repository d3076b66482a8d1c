"""What a solve leaves behind: all that is needed to score any document later, in a few megabytes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from safetensors import numpy as safetensors_numpy

from gotd_ray.errors import UserError
from gotd_ray.ot.kernel import side, soft_minimum

_FORMAT = "gotd-potentials-1"

Scorer = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(ids (r,) S32, vectors (r, d)) -> scores (r,) float64, lower is better."""


def self_potential(points: np.ndarray, epsilon: float, *, tolerance: float = 1e-7, max_steps: int = 1000) -> np.ndarray:
    """p (k,), the potential of a uniform point set (k, d) against itself: p = softmin of p.

    The averaged iteration p <- (p + softmin(p)) / 2 of Feydy et al. 2019 (Interpolating between Optimal Transport
    and MMD, eq. 3.16), which converges fast; the cost is in float64 and k is some thousands at the most.
    """
    z = torch.from_numpy(np.asarray(points, np.float64))
    itself = side(z, torch.full((len(z),), 1.0 / len(z), dtype=torch.float64), epsilon, dtype=torch.float64)
    p = torch.zeros(len(z), dtype=torch.float64)
    for _ in range(max_steps):
        image = torch.from_numpy(soft_minimum(z, itself, p))
        moved = float((image - p).abs().max())
        p = (p + image) / 2
        if moved <= tolerance * epsilon:
            break
    return p.numpy()


@dataclass(frozen=True)
class Potentials:
    """The dual potential of the targets, with the landmarks of the candidates' self-potential when debiased."""

    target: np.ndarray
    """(m, d) float32 vectors of the targets."""

    b: np.ndarray
    """(m,) float64 weights, summing to 1."""

    g: np.ndarray
    """(m,) float64 potential."""

    epsilon: float
    """Temperature, in units of squared distance."""

    landmarks: np.ndarray | None = None
    """(k, d) float32 vectors of candidates, or None for the plain score."""

    landmark_ids: np.ndarray | None = None
    """(k,) S32."""

    landmark_potential: np.ndarray | None = None
    """(k,) float64, see :func:`self_potential`."""

    facts: dict[str, Any] = field(default_factory=dict)
    """What made it: preset, encoder identity, residual, passes, reason, counts."""

    def scorer(self, precision: Literal["float32", "float64"] = "float32", device: str = "cpu") -> Scorer:
        """The score of any document.

        Plain (the paper's): f = softmin of g, the gradient of OT_epsilon(candidates, target) in a document's mass.
        Debiased: f - p, the gradient of the Sinkhorn divergence OT(c, t) - OT(c, c)/2 - OT(t, t)/2 (Feydy et al.
        2019, eq. 3), with the self-potential p extended from the landmarks by one c-transform. A landmark's own
        term is left out of its p: with k landmarks it would weigh n / k times too much.
        """
        dtype = torch.float64 if precision == "float64" else torch.float32
        target = side(torch.from_numpy(self.target), torch.from_numpy(self.b), self.epsilon, dtype=dtype, device=device)
        g = torch.from_numpy(self.g).to(device)
        if self.landmarks is None:
            return lambda _ids, vectors: soft_minimum(torch.from_numpy(vectors), target, g)

        assert self.landmark_ids is not None and self.landmark_potential is not None
        count = len(self.landmarks)
        uniform = torch.full((count,), 1.0 / count, dtype=torch.float64)
        around = side(torch.from_numpy(self.landmarks), uniform, self.epsilon, dtype=dtype, device=device)
        p = torch.from_numpy(self.landmark_potential).to(device)
        order = np.argsort(self.landmark_ids)
        sorted_ids = self.landmark_ids[order]

        def score(ids: np.ndarray, vectors: np.ndarray) -> np.ndarray:
            x = torch.from_numpy(vectors)
            own = soft_minimum(x, around, p)
            place = np.minimum(np.searchsorted(sorted_ids, ids), count - 1)
            known = np.flatnonzero(sorted_ids[place] == ids)
            own[known] = self._without_itself(own[known], order[place[known]])
            return soft_minimum(x, target, g) - own

        return score

    def _without_itself(self, own: np.ndarray, landmark: np.ndarray) -> np.ndarray:
        """Self-potentials (r,) of documents that are landmarks themselves, their own term taken out."""
        assert self.landmark_potential is not None
        count = len(self.landmark_potential)
        total = np.exp(-own / self.epsilon)
        share = np.exp(self.landmark_potential[landmark] / self.epsilon) / count
        rest = np.maximum(total - share, 1e-9 * total) * count / max(count - 1, 1)
        return -self.epsilon * np.log(rest)

    def to_bytes(self) -> bytes:
        """A safetensors file, the settings as JSON in its header."""
        arrays = {"target": self.target, "b": self.b, "g": self.g}
        if self.landmarks is not None:
            assert self.landmark_ids is not None and self.landmark_potential is not None
            arrays |= {
                "landmarks": self.landmarks,
                "landmark_ids": np.frombuffer(self.landmark_ids.tobytes(), np.uint8).reshape(-1, 32),
                "landmark_potential": self.landmark_potential,
            }
        # One entry: several would stand in random order, and equal potentials would not be equal files.
        header = {_FORMAT: json.dumps({"epsilon": self.epsilon, "facts": self.facts}, sort_keys=True)}
        return safetensors_numpy.save({k: np.ascontiguousarray(v) for k, v in arrays.items()}, metadata=header)

    @classmethod
    def from_bytes(cls, data: bytes) -> Potentials:
        """Read what :meth:`to_bytes` wrote.

        Raises:
            UserError: the file is of another kind.
        """
        length = int.from_bytes(data[:8], "little")  # a safetensors file begins with its header's length, then JSON
        header = json.loads(data[8 : 8 + length]).get("__metadata__", {}) if 0 < length < len(data) else {}
        if _FORMAT not in header:
            raise UserError(f"this is no potentials file of format {_FORMAT}. Solve again to write one.")
        settings = json.loads(header[_FORMAT])
        arrays = safetensors_numpy.load(data)
        ids = arrays.get("landmark_ids")
        return cls(
            target=arrays["target"],
            b=arrays["b"],
            g=arrays["g"],
            epsilon=settings["epsilon"],
            landmarks=arrays.get("landmarks"),
            landmark_ids=None if ids is None else ids.reshape(-1).view("S32"),
            landmark_potential=arrays.get("landmark_potential"),
            facts=settings["facts"],
        )

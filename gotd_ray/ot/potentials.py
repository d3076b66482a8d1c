"""What a solve leaves behind: all that is needed to score any document later, in a few megabytes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors import numpy as safetensors_numpy

from gotd_ray.ot.kernel import Precision, dtype_of, one_thread_each, side, soft_minimum

_FORMAT = "gotd-potentials-2"

_ARRAYS = ("target", "target_ids", "b", "g", "landmarks", "landmark_ids", "landmark_potential", "landmark_weights")
_IDS = ("target_ids", "landmark_ids")
_BLOCK = 512
"""Landmarks at a time."""

_UNWANTED = "unwanted."
"""Before the names of the contrast's arrays in a file."""

Scorer = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(ids (r,) S32, vectors (r, d)) -> scores (r,) float64, lower is better."""


@dataclass(frozen=True)
class Potentials:
    """The dual potential of the targets, with what is taken off a document's score: its self-potential, or a contrast.

    Example, for documents of any corpus embedded by the encoder of ``facts["encoder"]``::

        score = Potentials.from_bytes(Path("potentials.safetensors").read_bytes()).scorer()
        scores = score(ids, vectors)
    """

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
    """(k,) float64, see :func:`gotd_ray.ot.divergence.self_potential`."""

    landmark_weights: np.ndarray | None = None
    """(k,) float64, positive, summing to 1; None is uniform."""

    facts: dict[str, Any] = field(default_factory=dict)
    """What made it: preset, encoder identity, residual, passes, reason, counts."""

    target_ids: np.ndarray | None = None
    """(m,) S32, content ids of the targets: another fit can start from their g."""

    unwanted: Potentials | None = None
    """The plain potential of an unwanted target (contrast), at the same epsilon."""

    def __post_init__(self) -> None:
        assert self.unwanted is None or (self.unwanted.epsilon == self.epsilon and self.landmarks is None)

    def start(self, ids: np.ndarray) -> tuple[np.ndarray, int]:
        """A start for the fit to other targets (m,) S32: g (m,), and how many of them are known here.

        A known target begins with its g; a new one with the mean of the known, so that no new one draws more mass
        than an ordinary target until the first pass has seen it.
        """
        if self.target_ids is None or not len(self.target_ids):
            return np.zeros(len(ids)), 0
        order = np.argsort(self.target_ids)
        place = order[np.minimum(np.searchsorted(self.target_ids[order], ids), len(order) - 1)]
        known = self.target_ids[place] == ids
        g = self.g[place]
        return np.where(known, g, g[known].mean() if known.any() else 0.0), int(known.sum())

    def scorer(self, precision: Precision = "float32", device: str = "cpu") -> Scorer:
        """The score of any document.

        Plain (the paper's): f = softmin of g, the gradient of OT_epsilon(candidates, target) in a document's mass.
        Debiased: f - p, the gradient of the Sinkhorn divergence OT(c, t) - OT(c, c)/2 - OT(t, t)/2 (Feydy et al.
        2019, eq. 3), with the self-potential p extended from the landmarks by one c-transform. A landmark's own
        term is left out of its p: with k landmarks it would weigh n / k times too much.

        Landmarks may have weights: then they stand for a mixture, such as corpus and documents taken.

        Contrast (GOT-D_contrast of Kang et al. 2024): f_wanted - f_unwanted, the gradient of OT(candidates, wanted) -
        OT(candidates, unwanted). Of the two Sinkhorn divergences the same p would be taken off, so it cancels, and
        the debiased and the plain score are one: no landmarks are needed.
        """
        if self.unwanted is not None:
            toward = replace(self, unwanted=None).scorer(precision, device)
            away = self.unwanted.scorer(precision, device)
            return lambda ids, vectors: toward(ids, vectors) - away(ids, vectors)
        dtype = dtype_of(precision)
        target = side(torch.from_numpy(self.target), torch.from_numpy(self.b), self.epsilon, dtype=dtype, device=device)
        g = torch.from_numpy(self.g).to(device)
        if self.landmarks is None:
            return lambda _ids, vectors: soft_minimum(torch.from_numpy(vectors), target, g)

        assert self.landmark_ids is not None and self.landmark_potential is not None
        count = len(self.landmarks)
        weights = torch.from_numpy(self.weights_of_landmarks())
        around = side(torch.from_numpy(self.landmarks), weights, self.epsilon, dtype=dtype, device=device)
        p = torch.from_numpy(self.landmark_potential).to(device)
        left_out = self._left_out()
        order = np.argsort(self.landmark_ids)
        sorted_ids = self.landmark_ids[order]

        def score(ids: np.ndarray, vectors: np.ndarray) -> np.ndarray:
            x = torch.from_numpy(vectors)
            own = soft_minimum(x, around, p)
            place = np.minimum(np.searchsorted(sorted_ids, ids), count - 1)
            known = np.flatnonzero(sorted_ids[place] == ids)
            others = left_out[order[place[known]]]
            own[known] = np.where(np.isnan(others), own[known], others)
            return soft_minimum(x, target, g) - own

        return score

    def weights_of_landmarks(self) -> np.ndarray:
        """(k,) weights of the landmarks."""
        assert self.landmarks is not None
        count = len(self.landmarks)
        return np.full(count, 1.0 / count) if self.landmark_weights is None else self.landmark_weights

    def _left_out(self) -> np.ndarray:
        """(k,) self-potentials of the landmarks, the own term of each left out; nan where it is the only one.

        In float64 and summed anew: taken off the whole sum it would leave nothing but rounding at a small epsilon.
        """
        assert self.landmarks is not None and self.landmark_potential is not None
        x, weights = self.landmarks.astype(np.float64), self.weights_of_landmarks()
        squares, found = (x * x).sum(1), np.empty(len(x))
        with one_thread_each(), np.errstate(divide="ignore", invalid="ignore"):
            bias = self.landmark_potential / self.epsilon + np.log(weights)
            for start in range(0, len(x), _BLOCK):
                rows = np.arange(start, min(start + _BLOCK, len(x)))
                cost = squares[rows, None] + squares - 2 * x[rows] @ x.T
                scores = bias - np.maximum(cost, 0) / self.epsilon
                scores[rows - start, rows] = -np.inf
                top = scores.max(1)
                sums = np.exp(scores - top[:, None]).sum(1)
                found[rows] = -self.epsilon * (top + np.log(sums) - np.log1p(-weights[rows]))
        return np.where(np.isfinite(found), found, np.nan)

    def to_bytes(self) -> bytes:
        """A safetensors file, the settings as JSON in its header; equal potentials are equal bytes."""
        arrays = self._arrays()
        if self.unwanted is not None:
            arrays |= {_UNWANTED + name: array for name, array in self.unwanted._arrays().items()}
        # One entry: several would stand in random order, and equal potentials would not be equal files.
        header = {_FORMAT: json.dumps({"epsilon": self.epsilon, "facts": self.facts}, sort_keys=True)}
        return safetensors_numpy.save({k: np.ascontiguousarray(v) for k, v in arrays.items()}, metadata=header)

    def _arrays(self) -> dict[str, np.ndarray]:
        """All arrays that are there, ids as bytes (k, 32): safetensors holds no strings."""
        found = {name: getattr(self, name) for name in _ARRAYS if getattr(self, name) is not None}
        return {n: np.frombuffer(a.tobytes(), np.uint8).reshape(-1, 32) if n in _IDS else a for n, a in found.items()}

    @classmethod
    def from_bytes(cls, data: bytes) -> Potentials:
        """Read what :meth:`to_bytes` wrote.

        Raises:
            ValueError: the file is of another kind, or broken.
        """
        length = int.from_bytes(data[:8], "little")  # a safetensors file begins with its header's length, then JSON
        try:
            header = json.loads(data[8 : 8 + length]).get("__metadata__", {}) if 0 < length < len(data) else {}
            settings = json.loads(header[_FORMAT])
            arrays = safetensors_numpy.load(data)

            def read(prefix: str, **others: Any) -> Potentials:
                for name in _ARRAYS:
                    found = arrays.get(prefix + name)
                    others[name] = found.reshape(-1).view("S32") if found is not None and name in _IDS else found
                return cls(epsilon=float(settings["epsilon"]), **others)

            unwanted = read(_UNWANTED) if any(name.startswith(_UNWANTED) for name in arrays) else None
            potentials = read("", facts=dict(settings["facts"]), unwanted=unwanted)
            whole = potentials._holds_together()
        except (ValueError, KeyError, AttributeError, TypeError, AssertionError, SafetensorError):
            whole = False
        if not whole:
            raise ValueError(f"this is no potentials file of format {_FORMAT}, or it is broken")
        return potentials

    def _holds_together(self) -> bool:
        """Whether all that a score needs is there, of fitting shapes, and finite."""
        m, d = self.target.shape
        k = 0 if self.landmarks is None else len(self.landmarks)
        shapes: dict[str, tuple[int, ...]] = {name: (k if "landmark" in name else m,) for name in _ARRAYS}
        shapes |= {"target": (m, d), "landmarks": (k, d)}
        needed = {"target", "b", "g"} | ({"landmark_ids", "landmark_potential"} if k else set())
        arrays = {name: array for name in _ARRAYS if (array := getattr(self, name)) is not None}
        return (
            m > 0
            and self.epsilon > 0
            and needed <= set(arrays)
            and all(array.shape == shapes[name] for name, array in arrays.items())
            and all(bool(np.isfinite(array).all()) for name, array in arrays.items() if name not in _IDS)
            and (self.unwanted is None or self.unwanted._holds_together())
        )

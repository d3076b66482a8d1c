"""How far one training lies from another that differs by its seed alone, and draws of what other seeds had shown."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

PRIOR = 4.0
"""Degrees of freedom with which the trend of all sizes counts in the variance of one: three seeds say little of it."""


@dataclass(frozen=True)
class Noise:
    """Losses of s seeds at k sizes, as ``size + seed + rest``: a seed's subsets are nested, so that its luck stays.

    Attributes:
        sizes: (k,) rising.
        losses: (k, s), s at least 2.
    """

    sizes: np.ndarray
    losses: np.ndarray

    @property
    def means(self) -> np.ndarray:
        """(k,)"""
        return self.losses.mean(axis=1)

    @cached_property
    def _parts(self) -> tuple[float, np.ndarray]:
        """Variance between seeds, and (k,) that of the rest at each size, drawn towards its trend over the sizes."""
        k, s = self.losses.shape
        off = self.losses - self.means[:, None]
        off[np.abs(off) < 1e-12 * np.abs(self.losses)] = 0.0  # equal but for the rounding of their mean
        seeds = off.mean(axis=0)
        free = (s - 1) * (k - 1) / k
        raw = ((off - seeds) ** 2).sum(axis=1) / free
        if not raw.any():
            return float(seeds.var(ddof=1)), raw
        # The draw of few documents weighs more: the trend falls with the size, or is level. Of what few seeds show of
        # it half is believed, and no more than that the variance falls as the size rises.
        x, y = np.log(self.sizes), np.log(raw + 1e-3 * raw.mean())
        slope = np.clip(np.polyfit(x, y, 1)[0] / 2, -1.0, 0.0)
        trend = np.exp(slope * (x - x.mean()))
        trend *= raw.mean() / trend.mean()
        rest = (PRIOR * trend + free * raw) / (PRIOR + free)
        return max(0.0, float(seeds.var(ddof=1) - raw.mean() / k)), rest

    @property
    def variances(self) -> np.ndarray:
        """(k,) of one training."""
        between, rest = self._parts
        return between + rest

    @property
    def errors(self) -> np.ndarray:
        """(k,) standard errors of the means."""
        return np.sqrt(self.variances / self.losses.shape[1])

    @property
    def free(self) -> int:
        """Degrees of freedom of the rest."""
        k, s = self.losses.shape
        return (k - 1) * (s - 1)

    def draws(self, count: int, seed: int, scale: float = 1.0) -> np.ndarray:
        """(count, k): the means as other seeds might have shown them.

        Three seeds drawn with replacement give ten different curves, all too close together. So what is drawn is the
        noise that they show: a part common to all sizes and one of each, over the root of a chi-square, which makes
        them t-distributed, as little is known of their variance.

        Args:
            scale: of the noise, for a law that fits worse than the noise allows.
        """
        k, s = self.losses.shape
        rng = np.random.default_rng(seed)
        between, rest = self._parts
        common = rng.standard_normal((count, 1)) / np.sqrt(rng.chisquare(s - 1, (count, 1)) / (s - 1))
        own = rng.standard_normal((count, k)) / np.sqrt(rng.chisquare(self.free, (count, 1)) / self.free)
        return self.means + scale / np.sqrt(s) * (np.sqrt(between) * common + np.sqrt(rest) * own)

"""The later rounds of select: Frank-Wolfe on the Sinkhorn divergence of what the model will have seen to the target.

After light tuning on the subset the model is as if it had seen (1 - mix) corpus + mix subset (Kang et al. 2024, Lemma
1). The first round's score is the gradient of that mixture's divergence at mix = 0; each later round takes the gradient
where the documents taken so far have led, so that what they already brought is worth less.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gotd_ray import config
from gotd_ray.ot.divergence import self_potential, transport
from gotd_ray.ot.kernel import Precision, one_thread_each
from gotd_ray.ot.potentials import Potentials
from gotd_ray.progress import Progress, Task
from gotd_ray.shards.fit import fit_shards, total_mass, unfinished
from gotd_ray.shards.pool import Pool
from gotd_ray.shards.work import Mixture, Problem

MEASURED = 4096
"""Targets over which the divergence is estimated at the most: the first by id, a random sample."""


@dataclass(frozen=True)
class Chosen:
    """Documents taken so far, with their part of the mixture."""

    ids: np.ndarray
    """(k,) S32."""

    vectors: np.ndarray
    """(k, d) float16 or float32."""

    share: float


class Rounds:
    """What the rounds of one selection share, from the potentials of the solve on.

    Attributes:
        potentials: those of the current round.
        facts: of each round, for the manifest; ``divergence`` is that before the round.
    """

    def __init__(self, settings: config.Solve, pool: Pool, solved: Potentials, key: str, progress: Progress) -> None:
        """``solved``: a debiased fit over the corpus; ``config.Run`` refuses rounds after any other."""
        self.potentials = solved
        self.facts: list[dict[str, Any]] = []
        self._settings, self._pool, self._solved, self._key = settings, pool, solved, key
        self._progress = progress
        self._total = total_mass(pool, 1)
        assert solved.landmarks is not None, "rounds need a debiased fit"  # the config says so
        self._precision: Precision = "float64" if solved.facts.get("precision") == "float64" else "float32"
        self._measured = solved.b[:MEASURED] / solved.b[:MEASURED].sum()
        with one_thread_each():
            own = self_potential(
                solved.target[:MEASURED], solved.epsilon, weights=self._measured, precision=self._precision
            )
        self._target_own = float(self._measured @ own)
        self._note(residual=solved.facts["residual"], passes=solved.facts["passes"])

    def refit(self, taken: Chosen, task: Task) -> None:
        """Fit the potentials to the mixture with these documents, from the last ones on."""
        solved, number = self._solved, len(self.facts) + 1
        mixture = Mixture(taken.ids, taken.share, self._total)
        problem = Problem(
            f"{self._key}-{number}",
            solved.target,
            solved.b,
            solved.epsilon,
            solved.facts["precision"],
            mixture,
        )
        tolerance = solved.facts["tolerance"]
        solution = fit_shards(
            self._pool,
            problem,
            tolerance=tolerance,
            max_passes=self._settings.max_passes,
            kept_memory=self._settings.kept_memory,
            start=self.potentials.g,
            on_pass=lambda state: task.update(
                f"round {number}: residual {state.iterate.residuals[-1]:.2g}, wanted {tolerance:g}"
            ),
        )
        if told := unfinished(solution, tolerance):
            self._progress.say(f"round {number} {told}")
        facts = solved.facts | {"last_move": solution.last_move}
        self.potentials = self._mixed(taken, replace(solved, g=solution.g, facts=facts))
        self._note(residual=solution.residual, passes=round(solution.passes, 2), reason=solution.reason)

    def close(self, taken: Chosen) -> dict[str, Any]:
        """The facts of all rounds; the divergence after the last is measured without a fit over the shards."""
        after = self._divergence(self._mixed(taken, self.potentials))
        found = [facts["divergence"] for facts in self.facts] + [after]
        for facts, divergence in zip(self.facts, found[1:], strict=True):
            facts["divergence_after"] = divergence
        self._progress.say(
            f"select: divergence of {1 - taken.share:.2g} corpus + {taken.share:.2g} subset from the target, before "
            f"and after each round: {', '.join(f'{value:.4g}' for value in found)} (estimated on landmarks)"
        )
        return {"rounds": self.facts, "divergence": [found[0], found[-1]]}

    def _mixed(self, taken: Chosen, potentials: Potentials) -> Potentials:
        """Potentials with the self-potential of the mixture.

        Its landmarks are the corpus's and the documents taken, as many of these as ``solve.landmarks`` (the smallest
        ids); a document that is both has the sum of its weights.
        """
        solved = self._solved
        assert solved.landmarks is not None and solved.landmark_ids is not None
        first = np.argsort(taken.ids)[: len(solved.landmarks)]
        corpus = solved.weights_of_landmarks() * (1 - taken.share)
        ids, place, back = np.unique(
            np.concatenate([solved.landmark_ids, taken.ids[first]]), return_index=True, return_inverse=True
        )
        weights = np.zeros(len(ids))
        np.add.at(weights, back, np.concatenate([corpus, np.full(len(first), taken.share / len(first))]))
        points = np.concatenate([solved.landmarks, taken.vectors[first].astype(np.float32)])[place]
        with one_thread_each():
            own = self_potential(points, solved.epsilon, weights=weights, precision=self._precision)
        return replace(potentials, landmarks=points, landmark_ids=ids, landmark_potential=own, landmark_weights=weights)

    def _note(self, **facts: Any) -> None:
        self.facts.append({"divergence": self._divergence(self.potentials)} | facts)

    def _divergence(self, potentials: Potentials) -> float:
        """Of the landmarks from the target. That of a sample: by its noise, some more than that of all candidates."""
        assert potentials.landmarks is not None and potentials.landmark_potential is not None
        weights = potentials.weights_of_landmarks()
        with one_thread_each():
            across = transport(
                potentials.landmarks,
                weights,
                potentials.target[:MEASURED],
                self._measured,
                potentials.epsilon,
                start=potentials.g[:MEASURED],
                precision=self._precision,
                tolerance=1e-4,
            )
        return across.value - float(weights @ potentials.landmark_potential) - self._target_own

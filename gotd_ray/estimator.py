"""Transport between arrays of vectors, in this process: ``Potentials`` in the manner of scikit-learn, and a choice."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gotd_ray import config
from gotd_ray.config.load import of as config_of
from gotd_ray.errors import UserError, with_remedy
from gotd_ray.selection import Selection

if TYPE_CHECKING:
    from gotd_ray.ot.potentials import Potentials as Fitted
    from gotd_ray.progress import Progress

_ID = re.compile(rb"[0-9a-f]{32}")
_SOLVED_WITH = ("preset", "epsilon", "epsilon_unit", "tolerance", "max_passes", "landmarks", "precision", "kept_memory")
_CHOSEN_WITH = ("near_duplicate",)


class Potentials:
    """How far each more document like this one brings a corpus towards a target: the dual potential of a transport.

    ::

        potentials = Potentials().fit(X, Y)
        best = np.argsort(potentials.score(Z))[:100]

    The result has the same bits as the stage ``solve`` of a run with these vectors, ids and settings.

    Attributes:
        fitted: what was found, with its facts (``fitted.facts["residual"]``); None before ``fit``.
    """

    def __init__(self, **settings: Any) -> None:
        """Args:
            settings: keys of the section ``solve`` of run.yaml: ``preset``, ``epsilon``, ``epsilon_unit``,
                ``tolerance``, ``max_passes``, ``landmarks``, ``precision``, ``kept_memory``.

        Raises:
            UserError: an unknown key, or a value beyond its limits.
        """
        self._settings = _checked("solve", settings, _SOLVED_WITH).solve
        self.fitted: Fitted | None = None

    def fit(
        self,
        X: Any,
        Y: Any,
        *,
        weights: Any = None,
        target_weights: Any = None,
        ids: Any = None,
        target_ids: Any = None,
    ) -> Potentials:
        """Fit to candidates X (n, d) and targets Y (m, d).

        Args:
            X: numbers, of numpy or what it can read.
            Y: numbers.
            weights: (n,), at least 0, of X. None: all weigh the same.
            target_weights: (m,), of Y.
            ids: (n,) content ids of X, 32 hexadecimal digits each, such as ``doc_id`` of a run. None: a hash of each
                row. Rows of one id are one document.
            target_ids: (m,), of Y.

        Returns:
            Itself.

        Raises:
            UserError: an array is empty, not of numbers, not finite, or of another width; weights do not fit.
        """
        from gotd_ray.ot.local import potentials_local
        from gotd_ray.ot.presets import NoCostError

        x, y = _vectors(X, "X"), _vectors(Y, "Y")
        _same_width(y, "Y", x.shape[1], "X")
        a, b = _weights(weights, len(x), "weights"), _weights(target_weights, len(y), "target_weights")
        named = self._settings.model_dump(include=set(_SOLVED_WITH))
        names = _ids(ids, x, "ids"), _ids(target_ids, y, "target_ids")
        try:
            with with_remedy("Raise epsilon, or set precision to float64."):
                self.fitted = potentials_local(x, names[0], y, names[1], a=a, b=b, **named)
        except NoCostError:
            raise UserError(
                "X and Y hold the same vector only, and epsilon is a share of their mean distance. Give other vectors, "
                "or set epsilon_unit to absolute."
            ) from None
        return self

    def score(self, Z: Any, *, ids: Any = None) -> np.ndarray:
        """(k,) the scores of documents Z (k, d), lower is better.

        A document's own place among the ``landmarks`` is left out of its score, so ids must be those of ``fit``.

        Raises:
            UserError: nothing is fitted; an array does not serve, as for ``fit``.
        """
        from gotd_ray.ot.kernel import one_thread_each, working_precision

        if self.fitted is None:
            raise UserError("these Potentials are not fitted. Call fit(X, Y) first.")
        z = _vectors(Z, "Z")
        _same_width(z, "Z", self.fitted.target.shape[1], "the target")
        score = self.fitted.scorer("float64" if self.fitted.facts.get("precision") == "float64" else "float32")
        with one_thread_each(), working_precision("float32", "cpu"):
            return score(_ids(ids, z, "ids"), z)

    def save(self, path: str | Path) -> None:
        """Write a potentials.safetensors, which ``solve.potentials`` and ``solve.warm_start`` of a run take.

        Raises:
            UserError: nothing is fitted.
        """
        if self.fitted is None:
            raise UserError("these Potentials are not fitted. Call fit(X, Y) first.")
        Path(path).write_bytes(self.fitted.to_bytes())

    @classmethod
    def load(cls, path: str | Path) -> Potentials:
        """Those of a file, such as ``solve/potentials.safetensors`` of a run.

        Raises:
            UserError: it cannot be read, or is something else.
        """
        from gotd_ray.ot.potentials import Potentials as Fitted

        found = cls()
        try:
            found.fitted = Fitted.from_bytes(Path(path).read_bytes())
        except OSError as error:
            raise UserError(f"'{path}' cannot be read: {error.strerror or error}. Correct the path.") from None
        except ValueError as error:
            raise UserError(f"'{path}': {error}.") from None
        return found


def choose(corpus: Any, target: Any, budget: int, progress: Progress, **sections: Mapping[str, Any]) -> Selection:
    """The choice of vectors (n, d) towards (m, d).

    Raises:
        UserError: as :meth:`Potentials.fit`; the budget exceeds the distinct vectors; a section does nothing here.
    """
    import pyarrow as pa

    from gotd_ray.choosing.choose import Chooser, Offer
    from gotd_ray.choosing.topk import top_k

    if others := sorted(set(sections) - {"solve", "select"}):
        raise UserError(f"select(): {others[0]} does nothing for vectors. Leave it out, or give texts or paths.")
    settings = _checked("select", {**sections.get("select", {}), "budget": budget}, ("budget", *_CHOSEN_WITH)).select
    x, y = _vectors(corpus, "corpus"), _vectors(target, "target")
    _same_width(y, "target", x.shape[1], "corpus")
    ids = _ids(None, x, "ids")
    distinct = len(np.unique(ids))
    if budget > distinct:
        raise UserError(
            f"budget is {budget:,}, but the corpus has {distinct:,} distinct vectors. Lower the budget, or add vectors."
        )
    potentials = Potentials(**sections.get("solve", {})).fit(x, y)
    assert potentials.fitted
    if not potentials.fitted.facts["converged"]:
        progress.say(f"solve stopped above its tolerance: residual {potentials.fitted.facts['residual']:.2g}")
    scores = potentials.score(x)
    ranking, chooser = top_k(ids, scores, distinct), Chooser(settings)
    kept: list[int] = []
    for start in range(0, distinct, 4096):
        rows = slice(start, start + 4096)
        found = ranking.row[rows]
        many = len(found)
        nothing = np.zeros(many, bool)
        names = np.full(many, "corpus", object)
        offer = Offer(
            ranking.ids[rows], ranking.scores[rows], names, np.ones(many, np.int64), x[found], nothing, shared={}
        )
        kept += (start + chooser.feed(offer)).tolist()
        if chooser.full:
            break
    if not chooser.full:
        progress.say(
            f"select: {len(kept):,} of {budget:,} are taken: the others are near-duplicates of these. "
            "select={'near_duplicate': None} takes them too"
        )
    best = np.array(kept, np.int64)
    taken = pa.table(
        {
            "doc_id": ranking.ids[best].astype(str),
            "row": ranking.row[best],
            "score": ranking.scores[best],
            "rank": np.arange(1, len(best) + 1),
        }
    )
    facts = {
        "candidates": distinct,
        "documents": len(best),
        "budget": budget,
        "budget_reached": chooser.full,
        "near_duplicates": len(chooser.set_aside),
        "solve": potentials.fitted.facts,
    }
    return Selection(None, facts, taken, pa.table({"doc_id": ids.astype(str), "score": scores}))


def _checked(section: str, given: Mapping[str, Any], known: tuple[str, ...]) -> config.Run:
    """A run of which only this section counts.

    Raises:
        UserError: a key is not among ``known``; a value is beyond its limits.
    """
    if unknown := sorted(set(given) - set(known)):
        raise UserError(f"{section}.{unknown[0]} does nothing for vectors; known are {', '.join(known)}. Leave it out.")
    if given.get("landmarks") == "auto":
        raise UserError("solve.landmarks is auto, which looks ahead to a run's subset. Give a number.")
    nowhere = {"paths": "-"}
    return config_of({"out": "-", "corpus": nowhere, "target": nowhere, section: dict(given)}, f"{section}=")


def _vectors(given: Any, name: str) -> np.ndarray:
    """(n, d) float16 or float32."""
    try:
        found = np.asarray(given)
    except (TypeError, ValueError, RuntimeError) as error:  # such as a tensor on a GPU
        raise UserError(f"{name} is no array of numbers: {' '.join(str(error).split())}") from None
    if found.ndim != 2 or found.dtype.kind not in "fiu":
        raise UserError(
            f"{name} has shape {found.shape} and type {found.dtype}. Give an array of numbers, (rows, width)."
        )
    if not found.size:
        raise UserError(f"{name} has shape {found.shape}: it is empty. Give it some vectors.")
    with np.errstate(over="ignore"):
        found = found if found.dtype == np.float16 else found.astype(np.float32)
    if broken := np.flatnonzero(~np.isfinite(found).all(axis=1)).tolist():
        raise UserError(
            f"{name} has {len(broken):,} vectors that are not finite in float32, the first is row {broken[0]:,}. Leave "
            "them out."
        )
    return np.ascontiguousarray(found)


def _same_width(given: np.ndarray, name: str, width: int, other: str) -> None:
    if given.shape[1] != width:
        raise UserError(
            f"{name} has vectors of {given.shape[1]:,} numbers, and {other} of {width:,}. Embed both by one encoder."
        )


def _weights(given: Any, rows: int, name: str) -> np.ndarray | None:
    if given is None:
        return None
    found = np.asarray(given)
    if found.shape != (rows,) or found.dtype.kind not in "fiu":
        raise UserError(
            f"{name} has shape {found.shape} and type {found.dtype}. Give {rows:,} numbers, one for each row."
        )
    found = found.astype(np.float64)
    if not (np.isfinite(found).all() and (found >= 0).all() and found.sum() > 0):
        raise UserError(f"{name} must be finite and at least 0, and one of them above. Correct them.")
    return found


def _ids(given: Any, vectors: np.ndarray, name: str) -> np.ndarray:
    """(n,) S32: those that are given, or BLAKE2b of each row as float32."""
    if given is None:
        rows = vectors.astype(np.float32) + np.float32(0)  # -0 is 0
        return np.array([hashlib.blake2b(row.tobytes(), digest_size=16).hexdigest() for row in rows], "S32")
    found = [str(one, "ascii") if isinstance(one, bytes) else str(one) for one in np.asarray(given).tolist()]
    if len(found) != len(vectors) or not all(_ID.fullmatch(one.encode()) for one in found):
        raise UserError(f"{name} must be {len(vectors):,} ids of 32 hexadecimal digits, such as doc_id of a run.")
    return np.array(found, "S32")

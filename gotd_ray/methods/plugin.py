"""A method of somebody else's, as this program uses its own.

It is an object with a ``version``, a number or a text that is another when equal settings give other scores, and with
two functions:

    fit(target, sample, seed) -> state     on the driver. ``target`` and ``sample`` have ids (k,) S32, vectors (k, d)
                                           float32 and b (k,), weights that sum to 1. The sample stands for the
                                           candidates. The state is small, and can be pickled.
    score(state, ids, vectors) -> scores   in every shard: (k,) S32, (k, d) float16 -> (k,); lower is better, infinite
                                           is never taken. A score depends on its own row and the state alone.

and what it says of itself, where it does: ``taken``, how documents are taken, and ``means``, what a score is.
``gotd_ray.contract.check_method`` holds it against this.
"""

from __future__ import annotations

from typing import Any

from gotd_ray import plugins
from gotd_ray.methods.method import Fitting, Method, Part
from gotd_ray.ot.potentials import Scorer


def plug_in(name: str) -> Method:
    """The record of a plug-in.

    Raises:
        UserError: see :func:`gotd_ray.plugins.load`.
    """
    theirs = plugins.load(plugins.METHODS, name)

    def fit(given: Fitting) -> Any:
        return theirs.fit(given.target(), given.sample(given.settings.landmarks), given.seed)

    def scorer(state: Any, _: Part) -> Scorer:
        return lambda ids, vectors: theirs.score(state, ids, vectors)

    return Method(
        name,
        version=theirs.version,
        fit=fit,
        scorer=scorer,
        taken=getattr(theirs, "taken", f"by {name}"),
        means=getattr(theirs, "means", f"A score is that of {name}."),
        leaves_out=("infinite_score", f"have an infinite score by {name}"),
    )

"""The section of `gotd refresh`: when it fits and trains again, and how much it keeps."""

from __future__ import annotations

from pydantic import Field

from gotd_ray.config.base import Section, Share


class Refresh(Section):
    """The subset of a corpus that changes, version by version, in `out/versions`."""

    refit_above: float = Field(
        0.002,
        ge=0,
        le=2,
        description="drift above which the transport is fitted again, from the last version's potentials on; else "
        "these score as they are (gotd only). The drift is their residual on the corpus and target as they are now, "
        "0 to 2, from one pass over all candidates; 0 fits each time",
    )
    retrain_above: Share = Field(
        0.1,
        description="share of the subset that is new since the last training above which the models are trained and "
        "judged again; else they stay those of that version. 0 trains whenever the subset changes",
    )
    keep: int = Field(
        3,
        ge=2,
        le=10_000,
        description="versions kept, the published one among them; older ones are deleted with their models and "
        "checkpoints, but for the one whose models are in use",
    )
    allow_shrink: bool = Field(
        False, description="publish a version even if the corpus has lost more than half of its bytes or documents"
    )

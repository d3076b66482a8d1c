"""The sections of `gotd curve`, how much data, and of what it all costs."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from gotd_ray.config.base import Count, Name, Once, Section, Seed

LEAST = 4
"""Sizes: a power law has three parameters, and is held against the largest size, which it is not fitted to."""

STEP = 1.5
"""Each size is at least so many times the one before it."""


def _sizes(sizes: list[int]) -> list[int]:
    if len(sizes) < LEAST:
        raise ValueError(
            f"it names {len(sizes)} sizes, too few for a curve: {LEAST} are the least, and 5 or more also try the "
            "rectified law. Add some, each twice the one before"
        )
    for before, size in pairwise(sizes):
        if size < STEP * before:
            raise ValueError(
                f"{size:,} follows {before:,}: each size must be at least {STEP} times the one before. Double it each "
                "time"
            )
    return sizes


Sizes = Annotated[list[Count], AfterValidator(_sizes)]


class Curve(Section):
    """What more documents buy: the run at several sizes of its subset and of its target, a smaller in each larger."""

    target: Sizes | None = Field(
        None, description="texts that finetune learns from, rising, each twice the one before; 5 sizes or more"
    )
    subset: Sizes | None = Field(None, description="documents of the subset that pretune learns from, likewise")
    seeds: Annotated[list[Seed], Once] = Field(
        [0, 1, 2], min_length=3, description="of the trainings, and of what is drawn of the target: 3 or more"
    )
    wanted: dict[Name, Annotated[float, Field(ge=0, le=10**9)]] = Field(
        default_factory=dict, description="values to be reached, by metric, such as accuracy: 0.8"
    )

    @model_validator(mode="after")
    def _something_grows(self) -> Curve:
        if not self.target and not self.subset:
            raise ValueError("nothing grows. Give target or subset, a list of sizes, each twice the one before")
        return self


class Costs(Section):
    """What the machines cost, so that tables show money beside seconds."""

    per_hour: float = Field(gt=0, le=10**6, description="of all machines that the run uses, together")
    currency: Name = Field("USD", description="as it is to be shown")

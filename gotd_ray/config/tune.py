"""The section of `gotd tune`: which settings of a training are searched, and how long a trial trains."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from gotd_ray.config.base import MAX_COUNT, Section, Seed
from gotd_ray.config.training import Training

Searched = Literal[
    "learning_rate",
    "epochs",
    "steps",
    "warmup",
    "batch_size",
    "weight_decay",
    "layer_decay",
    "last_layers",
    "lora_rank",
    "lora_alpha",
]

WHOLE = ("steps", "batch_size", "last_layers", "lora_rank", "lora_alpha")
"""The settings that are whole numbers."""

NEEDS: dict[str, str] = {"last_layers": "last", "lora_rank": "lora", "lora_alpha": "lora"}
"""Settings that do nothing but under one value of ``parameters``."""


class Range(Section):
    """Between which values a setting is searched."""

    low: float = Field(ge=0, le=MAX_COUNT, description="the least value")
    high: float = Field(ge=0, le=MAX_COUNT, description="the largest value")
    scale: Literal["linear", "log", "powers"] = Field(
        "linear", description="log: each factor counts alike; powers: powers of two alone, for whole numbers"
    )

    @model_validator(mode="after")
    def _has_room(self) -> Range:
        if self.low >= self.high:
            raise ValueError(
                f"low is {self.low:g} and high is {self.high:g}: there is nothing between them. Make low the lesser"
            )
        if self.scale != "linear" and self.low <= 0:
            raise ValueError(
                f"low is {self.low:g}, and scale is {self.scale}: raise low above 0, or set scale to linear"
            )
        return self


DEFAULT_SPACE: dict[Searched, Range] = {
    "learning_rate": Range(low=1e-6, high=1e-3, scale="log"),
    "warmup": Range(low=0.0, high=0.3),
    "batch_size": Range(low=8, high=64, scale="powers"),
    "weight_decay": Range(low=1e-4, high=0.3, scale="log"),
}


class Tune(Section):
    """Search the settings of a training on its development set, by trials that stop early on the full schedule."""

    stage: Literal["pretune", "finetune"] | None = Field(
        None, description="the training whose settings are searched; null: finetune, or pretune where there is no other"
    )
    space: dict[Searched, Range] = Field(
        DEFAULT_SPACE, min_length=1, description="what is searched, by setting, each with `low`, `high` and `scale`"
    )
    trials: int = Field(30, ge=2, le=500, description="settings that are tried; the first are those of the run")
    at: float = Field(0.2, gt=0, lt=1, description="share of its steps after which a trial is judged, and stops")
    finish: int = Field(
        5,
        ge=1,
        le=500,
        description="best trials that are trained to the end, and as many spread over the other ranks, which tell how "
        "far the early look can be trusted",
    )
    sampler: Literal["gp", "tpe", "random"] = Field(
        "gp", description="what proposes: a Gaussian process, a tree of Parzen estimators, or chance (Optuna's)"
    )
    at_once: int = Field(
        2, ge=1, le=500, description="trials proposed at a time, and trained side by side where the cluster has room"
    )
    metric: Literal["loss", "accuracy"] = Field(
        "loss", description="on dev; the accuracy of a classifier is often that of its commonest class at an early look"
    )
    seed: Seed | None = Field(None, description="of the proposals; null: the run's")

    @model_validator(mode="after")
    def _fit_together(self) -> Tune:
        for name, limits in self.space.items():
            if name not in WHOLE:
                if limits.scale == "powers":
                    raise ValueError(f"space.{name} is no whole number, so that its scale cannot be powers. Set log")
                continue
            for end in (limits.low, limits.high):
                if end != int(end):
                    raise ValueError(f"space.{name} is a whole number, and {end:g} is none. Round it")
            if limits.scale == "powers" and any(int(end) & (int(end) - 1) for end in (limits.low, limits.high)):
                raise ValueError(
                    f"space.{name} has the scale powers, and {limits.low:g} or {limits.high:g} is no power of two. "
                    "Take such as 8 and 64"
                )
        if "epochs" in self.space and "steps" in self.space:
            raise ValueError("space has epochs and steps, which both say how long to train. Keep one")
        if self.finish > self.trials:
            raise ValueError(f"finish is {self.finish}, but there are {self.trials} trials. Lower it, or raise trials")
        return self

    def check_training(self, stage: str, training: Training | None) -> None:
        """That the training has what is searched.

        Raises:
            ValueError: it has not.
        """
        if training is None:
            raise ValueError(
                f"tune searches the settings of {stage}, and there is none. Add {stage}, or set tune.stage"
            )
        if not training.dev:
            raise ValueError(
                f"tune judges its trials on {stage}.dev, and there is none. Add a development set, which is not what "
                "evaluate judges on"
            )
        for name, parameters in NEEDS.items():
            if name in self.space and training.parameters != parameters:
                raise ValueError(
                    f"tune.space.{name} does nothing: {stage}.parameters is {training.parameters}. Leave it out, or "
                    f"set that to {parameters}"
                )
        if "epochs" in self.space and (training.steps or training.tokens):
            raise ValueError(
                f"tune.space.epochs does nothing: {stage}.{'steps' if training.steps else 'tokens'} says how long to "
                "train. Leave out one of the two"
            )
        if "steps" in self.space and training.tokens:
            raise ValueError(
                f"tune.space.steps and {stage}.tokens both say how long to train. Leave out one of the two"
            )
        for name, limits in self.space.items():
            field = type(training).model_fields[name]
            allowed: TypeAdapter[Any] = TypeAdapter(Annotated[field.annotation, *field.metadata])  # type: ignore[arg-type]
            for end in (limits.low, limits.high):
                try:
                    allowed.validate_python(int(end) if name in WHOLE else end)
                except ValidationError as error:
                    said = error.errors()[0]["msg"]
                    raise ValueError(
                        f"tune.space.{name} goes to {end:g}, but of {stage}.{name} "
                        f"{said[:1].lower()}{said[1:]}. Narrow the range"
                    ) from None

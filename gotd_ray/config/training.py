"""The sections of training: the base model, the pre-fine-tuning on the subset, the fine-tuning on the target."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from gotd_ray.config.base import (
    MAX_STEPS,
    Count,
    ModelPath,
    Name,
    Once,
    Paths,
    Processes,
    ResultPath,
    Section,
    Seed,
    Share,
    Tokens,
)

Steps = Annotated[int, Field(ge=1, le=MAX_STEPS)]

PRESETS: dict[str, dict[str, Any]] = {
    "detox": {
        **{"objective": "causal", "epochs": 3, "learning_rate": 2e-5, "weight_decay": 0.1},
        **{"beta2": 0.95, "adam_epsilon": 1e-5, "max_tokens": 1024},
    },
    "domain_pretune": {
        **{"objective": "masked", "epochs": 1, "learning_rate": 1e-4, "weight_decay": 1e-2},
        **{"batch_size": 64, "max_tokens": 295, "mask_share": 0.15},
    },
    "domain_finetune": {
        **{"epochs": 10, "learning_rate": 1e-4, "weight_decay": 1e-2, "batch_size": 64, "max_tokens": 256},
    },
    "glue_pretune": {
        **{"objective": "masked", "epochs": 1, "learning_rate": 1e-6, "weight_decay": 1e-2},
        **{"batch_size": 64, "max_tokens": 295, "mask_share": 0.15},
    },
    "glue_finetune": {"epochs": 3, "learning_rate": 2e-5, "batch_size": 64, "max_tokens": 128},
    "zero_shot": {"objective": "causal", "epochs": 1, "learning_rate": 1e-5},
}
"""The paper's hyper-parameters (arXiv 2405.02774): detox its section 3.1 (the block of 1,024 tokens is the authors'
code's); domain tables 8 and 9; glue tables 10 and 11; zero_shot appendix E. What the paper leaves open is not here."""


class Model(Section):
    """The language model that is trained."""

    base: ModelPath = Field(
        description="a hub name, a folder, a `.gguf` file, or an installed package that carries one of the two"
    )
    revision: Name | None = Field(None, description="hub revision (branch, tag or commit)")
    pad_token: Name | None = Field(
        None, description="padding token of a tokenizer that has none, such as <|endoftext|>"
    )
    chat_template: Annotated[str, Field(min_length=1, max_length=100_000)] | None = Field(
        None,
        description="how conversations are laid out, a Jinja template, or `chatml`; it is saved with the models. null: "
        "the tokenizer's own",
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="of the matrix products; weights and sums stay float32. auto: bfloat16 where in hardware"
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto takes GPUs where the cluster has them")


class Training(Section):
    """How a model is trained: Hugging Face Trainer and DeepSpeed on Ray workers. Batches are those of all workers."""

    preset: (
        Literal["detox", "domain_pretune", "domain_finetune", "glue_pretune", "glue_finetune", "zero_shot"] | None
    ) = Field(None, description="the paper's values for the keys that are not set here")
    objective: Literal["auto", "causal", "masked", "sft"] = Field(
        "auto",
        description="next token, masked tokens, or sft: of conversations the answers, see `turns`; auto: what the base "
        "model was made for",
    )
    dev: Paths | None = Field(None, description="files of a development set, in the form of the target")
    parameters: Literal["all", "last", "attention", "bias", "half", "lora"] = Field(
        "all",
        description="what is trained. attention: that of all layers; bias: all biases; half: of each layer a random "
        "half, by the seed, and what is not in the layers; a new classifier's head always",
    )
    last_layers: int = Field(
        2, ge=1, le=10**4, description="layers trained under `parameters: last`, with all that follows them"
    )
    lora_rank: int = Field(8, ge=1, le=2**16, description="rank of the LoRA matrices on all linear layers")
    lora_alpha: int = Field(16, ge=1, le=10**6, description="scale of LoRA, divided by its rank")
    lora_dropout: float = Field(0.0, ge=0, lt=1, description="dropout before the LoRA matrices")
    keep_adapter: bool = Field(False, description="save the LoRA weights too, in `adapter`; `model` is always merged")
    layer_decay: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None, description="learning rate of a layer as a share of that of the next one; null: the same for all"
    )
    max_tokens: Tokens = Field(512, description="tokens in a row; longer documents are cut into several pieces")
    pack: bool = Field(True, description="several documents in a row; none sees another")
    mask_share: float = Field(0.15, gt=0, lt=1, description="share of the tokens hidden, for the masked objective")
    batch_size: Steps = Field(32, description="rows in a step, over all workers")
    micro_batch: Steps | None = Field(
        None, description="rows at a time on a worker, which memory limits; null: up to 8. Gradients accumulate"
    )
    texts: Count | None = Field(
        None,
        description="learn from so many texts: of the subset the first in rank; of files a draw by the seed, in which "
        "every class has one and a larger number holds a smaller; null: all",
    )
    epochs: float = Field(1.0, gt=0, le=10**6, description="times through the data")
    steps: Steps | None = Field(None, description="optimiser steps, in place of epochs")
    tokens: Count | None = Field(None, description="tokens to train on, in place of epochs")
    learning_rate: float = Field(5e-5, ge=1e-12, le=10, description="its peak")
    stop_at: float = Field(
        1.0, gt=0, le=1, description="share of the steps after which to stop; the schedule is that of all of them"
    )
    schedule: Literal["linear", "cosine", "constant"] = Field("linear", description="after the warm-up")
    warmup: Share = Field(0.0, description="share of the steps in which the learning rate rises")
    weight_decay: float = Field(0.0, ge=0, le=10, description="of AdamW; norms and biases are spared")
    beta1: float = Field(0.9, ge=0, lt=1, description="of AdamW")
    beta2: float = Field(0.999, ge=0, lt=1, description="of AdamW")
    adam_epsilon: float = Field(1e-8, ge=1e-30, le=1, description="of AdamW")
    max_grad_norm: float = Field(1.0, ge=0, le=10**6, description="gradients are clipped to this length; 0: never")
    eval_every: Steps | None = Field(None, description="steps between looks at dev; null: at the end only")
    patience: Steps | None = Field(
        None, description="looks at dev without a better loss, after which to stop; the best weights are then kept"
    )
    seed: Seed | None = Field(None, description="of order, masks, dropout and new heads; null: the run's")
    workers: Processes | None = Field(None, description="processes; null: one for each GPU, or one without GPUs")
    zero_stage: int = Field(
        1,
        ge=0,
        le=3,
        description="DeepSpeed: what the workers share out. 1 optimiser state, 2 and gradients, 3 and weights",
    )
    offload: bool = Field(False, description="keep the optimiser's state in the host's memory (zero_stage 1 to 3)")
    checkpoint_every: Steps = Field(200, description="steps between checkpoints")

    @model_validator(mode="before")
    @classmethod
    def _with_preset(cls, given: Any) -> Any:
        """Keys that are set win over the preset's."""
        name = given.get("preset") if isinstance(given, dict) else None
        return PRESETS.get(name, {}) | given if isinstance(name, str) else given

    @model_validator(mode="after")
    def _fit_together(self) -> Training:
        if self.steps and self.tokens:
            raise ValueError("steps and tokens both say how long to train. Keep one")
        if self.offload and not self.zero_stage:
            raise ValueError("offload needs zero_stage 1, 2 or 3, and zero_stage is 0. Raise it, or drop offload")
        if self.patience and not (self.dev and self.eval_every):
            raise ValueError("patience needs a development set. Add dev and eval_every, or drop patience")
        at_once = (self.workers or 1) * (self.micro_batch or 1)
        if self.batch_size % at_once:
            raise ValueError(
                f"batch_size is {self.batch_size}, which {self.workers or 1} workers cannot take "
                f"{self.micro_batch or 1} rows at a time each. Make it a multiple of {at_once}, or change micro_batch "
                "or workers"
            )
        return self


class Finetune(Training):
    """The training on the target: texts as they are, or classification where a label column is named."""

    paths: Paths | None = Field(None, description="files to train on; null: the target's. The target's keys say how")
    label_column: Name | None = Field(
        None, description="column of the label, for classification; null: a language model"
    )
    truncate: bool = Field(False, description="classify longer texts by their first max_tokens; else they are an error")


class Tracking(Section):
    """Where the curves of the trainings and the final numbers are sent, besides the report. Each is its own package.

    Servers and keys are the package's own business: its environment variables and logins count.
    """

    to: Annotated[list[Literal["mlflow", "wandb", "tensorboard"]], Once] = Field(
        min_length=1, description="`mlflow`, `wandb` (Weights & Biases), `tensorboard`; one or more"
    )
    project: Name | None = Field(None, description="the experiment of MLflow, the project of W&B; null: the run's name")
    folder: ResultPath | None = Field(
        None, description="TensorBoard's files, a folder that every node sees; null: `tracking` under `out`"
    )

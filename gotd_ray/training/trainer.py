"""The Hugging Face Trainer on DeepSpeed's engine, with our order, loss, dev loss and checkpoints."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from safetensors.torch import load, save
from torch import nn
from transformers import PrinterCallback, Trainer, TrainerCallback

from gotd_ray import storage
from gotd_ray.errors import DivergedError, UserError
from gotd_ray.models.objectives import OBJECTIVES
from gotd_ray.models.packing import IGNORED
from gotd_ray.training.checkpoints import Checkpoints
from gotd_ray.training.job import Job, less_drastic
from gotd_ray.training.parameters import groups

Tell = Callable[[int, float], None]
"""Called by the first worker with the step reached and a note."""


class EngineTrainer(Trainer):
    """Hugging Face's, with our order of the data, loss over all workers' tokens, dev loss and checkpoints anywhere."""

    optimizer: Any
    control: Any

    def __init__(self, job: Job, checkpoints: Checkpoints, tell: Tell, **options: Any) -> None:
        super().__init__(compute_loss_func=self._loss, callbacks=[_Watch(self)], **options)
        self.model_accepts_loss_kwargs = False  # the loss is ours, whatever the model offers
        self.job, self.checkpoints, self.tell = job, checkpoints, tell
        self.engine: dict[str, Any] = {}
        self.remove_callback(PrinterCallback)

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return torch.utils.data.SequentialSampler(train_dataset or self.train_dataset)  # Draws has the order

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        if self.optimizer is None:
            model = self.model if model is None else model
            settings = self.job.settings
            self.optimizer = torch.optim.AdamW(
                groups(model, settings, set(self.get_decay_parameter_names(model))),
                lr=settings.learning_rate,
                betas=(settings.beta1, settings.beta2),
                eps=settings.adam_epsilon,
            )
        return self.optimizer

    def _sum_of_losses(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        if OBJECTIVES[self.job.kind].causal:
            logits, labels = logits[:, :-1], labels[:, 1:]
        return nn.functional.cross_entropy(
            logits.flatten(0, -2).float(), labels.flatten(), ignore_index=IGNORED, reduction="sum"
        )

    def _loss(self, outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int) -> torch.Tensor:
        """The mean over all labels of the step, on all workers and micro-batches; 0 where there is none."""
        return self._sum_of_losses(outputs.logits, labels) / max(num_items_in_batch, 1)

    def training_step(self, model: nn.Module, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        loss = super().training_step(model, inputs, num_items_in_batch)
        if not torch.isfinite(loss):
            self.stop_for_nan("the loss", self.state.global_step + 1)
        return loss

    def stop_for_nan(self, what: str, step: int) -> NoReturn:
        good = self.checkpoints.latest()
        where = f"the last good checkpoint is of step {good}" if good else "there is no checkpoint yet"
        raise DivergedError(
            f"{self.job.stage}: {what} is not a number at step {step} of {self.job.steps}; {where}. "
            f"{less_drastic(self.job)}"
        )

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        if not math.isfinite(float(self.model_wrapped.get_global_grad_norm() or 0.0)):
            self.stop_for_nan("the gradient", self.state.global_step)
        super()._save_checkpoint(model, trial)
        step = self.state.global_step
        self.checkpoints.commit(step, Path(self.args.output_dir) / f"checkpoint-{step}")

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """DeepSpeed's own files hold the weights of a checkpoint."""
        assert output_dir
        Path(output_dir).mkdir(parents=True, exist_ok=True)

    def weights(self) -> dict[str, torch.Tensor]:
        """The weights in full; on the first worker only under ZeRO 3. Every worker must call it."""
        found = self.accelerator.get_state_dict(self.model_wrapped) or {}
        return {name: value.detach().cpu().contiguous().clone() for name, value in found.items()}

    def looks(self) -> list[float]:
        """Losses on dev so far, those before a resume too."""
        return [entry["eval_loss"] for entry in self.state.log_history if "eval_loss" in entry]

    def best_weights(self) -> dict[str, torch.Tensor]:
        """Those of the best look at dev, where there is patience; on the first worker only."""
        if dist.get_rank():
            return {}
        return load(storage.read_bytes(self.job.path("best"), self.job.storage))

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Loss per label on dev, exact however many workers share it; accuracy for classes."""
        model, rank, workers = self.model_wrapped, dist.get_rank(), dist.get_world_size()
        was_training = model.training
        model.eval()
        sums = torch.zeros(3, dtype=torch.float64, device=self.args.device)
        size = self.args.per_device_eval_batch_size
        for start in range(0, len(self.eval_dataset), size * workers):
            mine = range(start + rank * size, min(start + (rank + 1) * size, len(self.eval_dataset)))
            rows = [self.eval_dataset[number] for number in mine] or [self.eval_dataset[0]]  # ZeRO 3 moves in step
            batch = self._prepare_inputs(self.data_collator(rows))
            labels = batch.pop("labels")
            with torch.no_grad():
                logits = model(**batch).logits
            if len(mine):
                right = (logits.argmax(-1) == labels).sum() if labels.ndim == 1 else torch.zeros(())
                count = (labels != IGNORED).sum()
                sums += torch.stack([self._sum_of_losses(logits, labels), right.to(count), count]).double()
        dist.all_reduce(sums)
        model.train(was_training)
        if not sums[2]:
            raise UserError(f"{self.job.stage}: dev has no token to predict. Add longer texts to it.")
        if not torch.isfinite(sums).all():
            self.stop_for_nan("the loss on dev", self.state.global_step)
        metrics = {"eval_loss": float(sums[0] / sums[2])}
        if self.job.labels:
            metrics["eval_accuracy"] = float(sums[1] / sums[2])
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


class _Watch(TrainerCallback):
    """Holds the engine to DeepSpeed, tells the progress, and stops when dev no longer gets better."""

    def __init__(self, trainer: EngineTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.trainer.engine = engine_identity(self.trainer.model_wrapped, self.trainer.job)

    def on_step_end(self, *_: Any, **__: Any) -> None:
        job, trainer = self.trainer.job, self.trainer
        if trainer.state.global_step >= job.last_step < job.steps:
            trainer.control.should_training_stop = True
            trainer.control.should_save = False  # from a checkpoint here, a restart would train one step more

    def on_log(self, *_: Any, logs: dict[str, float], **__: Any) -> None:
        if "loss" in logs and dist.get_rank() == 0:
            self.trainer.tell(self.trainer.state.global_step, logs["loss"])

    def on_evaluate(self, *_: Any, **__: Any) -> None:
        job, looks = self.trainer.job, self.trainer.looks()
        if not job.settings.patience:
            return
        best = looks.index(min(looks))
        if best == len(looks) - 1:
            weights = self.trainer.weights()
            if dist.get_rank() == 0:
                storage.write_bytes(job.path("best"), save(weights), job.storage)
        elif len(looks) - 1 - best >= job.settings.patience:
            self.trainer.control.should_training_stop = True


def engine_identity(model: Any, job: Job) -> dict[str, Any]:
    """Who really trains.

    Raises:
        RuntimeError: it is not DeepSpeed's engine.
    """
    import deepspeed

    if not isinstance(model, deepspeed.DeepSpeedEngine):
        raise RuntimeError(f"the model is wrapped in {type(model).__name__}, not in DeepSpeed's engine")
    return {
        "engine": type(model).__name__,
        "deepspeed": deepspeed.__version__,
        "zero_stage": model.zero_optimization_stage(),
        "optimizer": type(model.optimizer).__name__,
        "workers": dist.get_world_size(),
        "backend": dist.get_backend(),
        "device": str(model.device),
        "precision": job.model.precision,
        "offload": job.settings.offload,
    }

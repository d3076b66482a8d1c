"""What every worker of a training must know, and what it will need of memory."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from gotd_ray import config, storage
from gotd_ray.errors import UserError
from gotd_ray.models import language
from gotd_ray.models.packing import Rows
from gotd_ray.training.parameters import choose
from gotd_ray.training.task import Task

MICRO_BATCH = 8

_GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class Job(Task):
    """A task with all else that every worker must know.

    Attributes:
        labels: the classes, in order; empty for language modelling.
        steps: optimiser steps.
        micro_batch: rows at a time on a worker.
        device: ``cpu`` or ``cuda``.
        threads: CPU threads of a worker.
        checkpoints: folder of checkpoints and rows.
        key: the training's key.
        report_to: names of Hugging Face's callbacks that send the curves somewhere.
        name: of the training there.
    """

    labels: tuple[str, ...]
    steps: int
    micro_batch: int
    device: str
    threads: int
    checkpoints: str
    key: str
    report_to: tuple[str, ...] = ()
    name: str = ""

    @property
    def packed(self) -> bool:
        """Whether rows may hold several texts."""
        return self.settings.pack and not self.labels

    @property
    def last_step(self) -> int:
        """After which it ends; ``steps`` is the length of its schedule."""
        return max(1, round(self.settings.stop_at * self.steps))

    def rows(self, name: str) -> Rows:
        return Rows.from_bytes(storage.read_bytes(self.path(name), self.storage))

    def path(self, name: str) -> str:
        return storage.join(self.checkpoints, f"{name}.safetensors")


def micro_batch(settings: config.Training, workers: int, stage: str) -> int:
    """Rows at a time on a worker: the setting, or the most up to 8 that divide a worker's share of the batch.

    Raises:
        UserError: the batch cannot be dealt out evenly.
    """
    share, rest = divmod(settings.batch_size, workers)
    fitting = (n for n in range(min(MICRO_BATCH, share), 0, -1) if not rest and share % n == 0)
    wanted = settings.micro_batch or next(fitting, 1)
    if rest or share % wanted:
        raise UserError(
            f"{stage}.batch_size is {settings.batch_size}, which {workers} workers cannot take {wanted} rows at a time "
            f"each. Make it a multiple of {workers * wanted}, or change micro_batch or workers."
        )
    return wanted


def engine_settings(job: Job) -> dict[str, Any]:
    """DeepSpeed's config. The optimiser is torch's, so that nothing has to be compiled for it."""
    zero: dict[str, Any] = {"stage": job.settings.zero_stage}
    if job.settings.offload:
        zero["offload_optimizer"] = {"device": "cpu"}
    if job.settings.zero_stage == 3:
        zero["stage3_gather_16bit_weights_on_model_save"] = True
    return {
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "torch_autocast": {"enabled": job.model.precision == "bfloat16", "dtype": "bfloat16"},
        "train_micro_batch_size_per_gpu": "auto",
        "train_batch_size": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
    }


def less_memory(job: Job) -> str:
    """What to lower when memory ran out."""
    if job.micro_batch > 1:
        return f"lower {job.stage}.micro_batch (now {job.micro_batch}); the result stays the same"
    return (
        f"lower {job.stage}.max_tokens (now {job.settings.max_tokens}), raise {job.stage}.zero_stage (now "
        f"{job.settings.zero_stage}) with more workers, or set parameters to lora"
    )


def less_drastic(job: Job) -> str:
    """What to change when numbers overflowed."""
    return (
        f"Lower {job.stage}.learning_rate (now {job.settings.learning_rate:g}), lengthen the warm-up, or set "
        "model.precision to float32."
    )


def needed_bytes(
    task: Task, base: language.Base, labels: list[str], micro_batch: int, workers: int, *, gpu: bool = False
) -> int:
    """A worker's memory at the least: float32 weights, gradients, AdamW's two moments, ZeRO's copy, and logits.

    On a GPU without what ``offload`` keeps in the host's.
    """
    settings = task.settings
    model = choose(language.skeleton(base, task.kind, labels), settings, new_head=bool(labels), seed=task.seed)
    total = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    shared = [workers if settings.zero_stage >= stage else 1 for stage in (1, 2, 3)]
    weights = 4 * total / shared[2] + 4 * trained / shared[1]
    weights += 0 if gpu and settings.offload else 12 * trained / shared[0]
    wide = len(labels) / settings.max_tokens if labels else model.config.vocab_size
    logits = 2 * 4 * micro_batch * settings.max_tokens * wide
    return int(weights + logits)


def check_memory(job: Job, base: language.Base) -> None:
    """Refuse a model that cannot fit.

    Raises:
        UserError: with the estimate and what is free.
    """
    workers = dist.get_world_size()
    gpu = job.device == "cuda"
    needed = needed_bytes(job, base, list(job.labels), job.micro_batch, workers, gpu=gpu)
    if gpu:
        free = torch.cuda.mem_get_info()[0]
    else:
        here = int(os.environ.get("LOCAL_WORLD_SIZE", workers))
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // here
        with Path("/proc/meminfo").open() as lines:  # what caches hold can be had too
            found = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")]
        free = found[0] // here if found else free
    refuse_memory(job.stage, job.settings, job.micro_batch, workers, needed, free, "are free")


def refuse_memory(
    stage: str, settings: config.Training, micro: int, workers: int, needed: int, there: int, how: str
) -> None:
    """Refuse a training that needs more memory than there is.

    Args:
        needed: bytes of a worker at the least; there: bytes for each of them, and ``how`` so.

    Raises:
        UserError: with both.
    """
    if needed > there:
        many = "its one worker" if workers == 1 else f"each of its {workers} workers"
        raise UserError(
            f"{stage} needs at least {needed / _GIB:.1f} GiB on {many}, and {there / _GIB:.1f} GiB {how}. Lower "
            f"micro_batch (now {micro}) or max_tokens (now {settings.max_tokens}), raise zero_stage (now "
            f"{settings.zero_stage}) with more workers, set parameters to lora, last or half, or take a "
            "smaller model.base."
        )

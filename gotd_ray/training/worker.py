"""One worker's part of a training: Hugging Face Trainer, DeepSpeed engine, on CPU or GPU. The process group exists.

Order, masks and batches depend on the seed alone, so that one worker and many train on the same batches.
"""

from __future__ import annotations

import errno
import logging
import os
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors import SafetensorError
from transformers import TrainingArguments
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from gotd_ray.errors import DivergedError, UserError, said_by
from gotd_ray.models import language
from gotd_ray.models.objectives import OBJECTIVES
from gotd_ray.models.packing import Collator, Draws, Rows, first_position, refuse_sight
from gotd_ray.training.card import card
from gotd_ray.training.checkpoints import Checkpoints
from gotd_ray.training.job import Job, check_memory, engine_settings, less_drastic, less_memory
from gotd_ray.training.parameters import choose
from gotd_ray.training.trainer import EngineTrainer

_SCHEDULES = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}

Tell = Callable[[int, float, int], None]
"""Called by the first worker with the step reached, the loss and the tokens seen."""


def train(job: Job, out: str, tell: Tell) -> dict[str, Any]:
    """Train, save the model to ``out``/model (and adapter) and return the facts; every worker calls it.

    Raises:
        UserError: the model does not fit, the loss is not a number, memory or room on the disk ran out, a checkpoint is
            another's.
    """
    os.environ["DS_ACCELERATOR"] = job.device  # before DeepSpeed is imported
    os.environ.pop("ACCELERATE_USE_CPU", None)  # it would make accelerate take DDP in place of DeepSpeed
    os.environ["OMP_NUM_THREADS"] = str(job.threads)  # accelerate would take all of the machine's
    torch.set_num_threads(job.threads)
    _without_compiler()
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    base = language.find(job.model, job.storage)
    check_memory(job, base)
    try:
        return _train(job, base, out, tell)
    except (MemoryError, RuntimeError, OSError, SafetensorError) as error:  # of each library its own for one thing
        if isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in str(error):
            raise UserError(
                f"{job.stage}: memory ran out in the training; {less_memory(job)} ({type(error).__name__})."
            ) from None
        if _no_room(error):
            raise UserError(
                f"{job.stage}: a file could not be written: {said_by(error)}. A checkpoint takes up to three "
                f"times the model in float32, in {tempfile.gettempdir()} (TMPDIR) and in {out}: make room there, or "
                "set parameters to lora."
            ) from None
        raise


def _no_room(error: Exception) -> bool:
    """Whether the disk is full or refuses to be written; torch and safetensors say so in words only."""
    refused = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)
    words = ("No space left", "failed writing file", "Disk quota exceeded")
    return (isinstance(error, OSError) and error.errno in refused) or any(word in str(error) for word in words)


def _without_compiler() -> None:
    """Keep DeepSpeed from compiling collectives that only its inference uses.

    It would take minutes at a machine's first start, and a start killed meanwhile leaves a lock behind, at which all
    later ones wait for ever.
    """
    import deepspeed.ops

    deepspeed.ops.__compatible_ops__ = {}


def _build(job: Job, base: language.Base, pad: int) -> Any:
    model = language.load(base, job.kind, job.seed, list(job.labels))
    if job.labels:
        model.config.pad_token_id = pad  # a causal base has none, and classifies one text at a time without
    return choose(model, job.settings, new_head=bool(job.labels), seed=job.seed)


def _train(job: Job, base: language.Base, out: str, tell: Tell) -> dict[str, Any]:
    started = time.perf_counter()
    tokenizer = language.load_tokenizer(base, job.model.pad_token, job.model.chat_template)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
    objective = OBJECTIVES[job.kind]
    model = _build(job, base, pad)
    sizes = {
        "weights": sum(weight.numel() for weight in model.parameters()),
        "weights_trained": sum(weight.numel() for weight in model.parameters() if weight.requires_grad),
    }
    if not job.labels:
        refuse_sight(job.stage, model, causal=objective.causal, packed=job.packed)
    rows = job.rows("train")
    tokens_of_step = job.settings.batch_size * len(rows.tokens) / len(rows)
    masking = objective.masking and objective.masking(job.settings, tokenizer, job.seed)
    workers = dist.get_world_size()
    identity = {"key": job.key, "workers": workers, "zero_stage": job.settings.zero_stage}
    checkpoints = Checkpoints(job.checkpoints, job.storage, identity)
    dev = Draws(job.rows("dev"), len(job.rows("dev")), job.seed, masking, shuffle=False) if job.settings.dev else None
    with tempfile.TemporaryDirectory(prefix="gotd_train_") as folder:
        trainer = EngineTrainer(
            job,
            checkpoints,
            lambda step, loss: tell(step, loss, round(step * tokens_of_step)),
            model=model,
            args=_arguments(job, folder, workers),
            train_dataset=Draws(rows, job.steps * job.settings.batch_size, job.seed, masking),
            eval_dataset=dev,
            data_collator=Collator(job.packed, objective.causal, pad, first_position(model)),
        )
        resumed = checkpoints.fetch(Path(folder))
        # A run and its rerun must draw the same dropout: the state of the generators is part of a checkpoint.
        torch.manual_seed(job.seed + dist.get_rank())
        result = trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
        if dev is not None and not trainer.looks():
            trainer.evaluate()
        weights = trainer.best_weights() if job.settings.patience else trainer.weights()
        facts = _facts(job, trainer, result, rows) | sizes | {"seconds": time.perf_counter() - started}
        unset_hf_deepspeed_config()  # under ZeRO 3 it would make the next model one of empty shards
        if dist.get_rank() == 0:
            _save(job, base, tokenizer, pad, weights, Path(folder) / "out", out, facts)
        dist.barrier()
    return facts


def _arguments(job: Job, folder: str, workers: int) -> TrainingArguments:
    settings = job.settings
    return TrainingArguments(
        output_dir=folder,
        deepspeed=engine_settings(job),
        max_steps=job.steps,
        per_device_train_batch_size=job.micro_batch,
        per_device_eval_batch_size=job.micro_batch,
        gradient_accumulation_steps=settings.batch_size // (workers * job.micro_batch),
        learning_rate=settings.learning_rate,
        lr_scheduler_type=_SCHEDULES[settings.schedule],
        warmup_steps=round(settings.warmup * job.steps),
        weight_decay=settings.weight_decay,
        adam_beta1=settings.beta1,
        adam_beta2=settings.beta2,
        adam_epsilon=settings.adam_epsilon,
        max_grad_norm=settings.max_grad_norm,
        eval_strategy="steps" if settings.dev and settings.eval_every else "no",
        eval_steps=settings.eval_every,
        save_strategy="steps",
        save_steps=settings.checkpoint_every,
        save_total_limit=1,
        logging_steps=1,
        logging_nan_inf_filter=False,
        disable_tqdm=True,
        report_to=list(job.report_to),
        run_name=job.name or None,
        remove_unused_columns=False,
        dataloader_pin_memory=job.device == "cuda",
        seed=job.seed,
        use_cpu=job.device == "cpu",
    )


def _facts(job: Job, trainer: EngineTrainer, result: Any, rows: Rows) -> dict[str, Any]:
    settings = job.settings
    history = trainer.state.log_history
    done = trainer.state.global_step
    losses = [[entry["step"], entry["loss"]] for entry in history if "loss" in entry]
    rates = [[entry["step"], entry["learning_rate"]] for entry in history if "learning_rate" in entry]
    return {
        "engine": trainer.engine,
        "objective": job.kind,
        "labels": list(job.labels),
        "steps": done,
        "stopped_early": done < job.last_step,
        "rows": len(rows),
        "micro_batch": job.micro_batch,
        "epochs": done * settings.batch_size / len(rows),
        "tokens": round(done * settings.batch_size * len(rows.tokens) / len(rows)),
        "losses": losses[:: max(1, len(losses) // 500)],
        "learning_rates": rates[:: max(1, len(rates) // 500)],
        "dev": [
            {name.removeprefix("eval_"): value for name, value in entry.items() if name.startswith("eval_")}
            | {"step": entry["step"]}
            for entry in history
            if "eval_loss" in entry
        ],
        "train_seconds": result.metrics["train_runtime"],
    }


def _save(
    job: Job,
    base: language.Base,
    tokenizer: Any,
    pad: int,
    weights: dict[str, torch.Tensor],
    folder: Path,
    out: str,
    facts: dict[str, Any],
) -> None:
    """A fresh model with the trained weights, LoRA merged, saved with its card.

    Raises:
        UserError: the weights are not numbers, or not those of all of the model.
    """
    broken = [name for name, value in weights.items() if not torch.isfinite(value).all()]
    if broken:
        raise DivergedError(
            f"{job.stage}: the trained weights are not numbers ({len(broken)} of {len(weights)} tensors, such as "
            f"{broken[0]}). {less_drastic(job)}"
        )
    model = _build(job, base, pad)
    try:
        language.give(model, weights)
    except ValueError as error:
        made_by = ", ".join(f"{name} {version(name)}" for name in ("accelerate", "deepspeed", "peft", "transformers"))
        raise UserError(
            f"{job.stage}: what was trained is not the whole model: {error}. {made_by} name the weights otherwise than "
            "gotd_ray knows them: install the versions that its pyproject.toml allows."
        ) from None
    if job.settings.parameters == "lora":
        if job.settings.keep_adapter:
            model.save_pretrained(folder / "adapter")
        model = model.merge_and_unload()
    language.save(model, tokenizer, folder / "model", card(job.stage, job.model, job.settings, base, facts))
    language.put(folder, out, job.storage)

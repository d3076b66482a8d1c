"""Which parameters are trained, and how fast: all, the last layers, LoRA; learning rates that fall with depth."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from torch import nn

from gotd_ray.config import Training
from gotd_ray.errors import UserError


def depths(model: Any) -> tuple[dict[str, int], int]:
    """Of every parameter its depth, and the number of layers n: 0 embeddings, 1 to n the layers, n + 1 what follows."""
    count = int(model.config.num_hidden_layers)
    stack = next(
        (name for name, part in model.named_modules() if isinstance(part, nn.ModuleList) and len(part) == count), None
    )
    if stack is None:
        raise UserError(
            f"the layers of a {type(model).__name__} are not found, so that `parameters: last` and layer_decay are "
            "not possible. Set parameters to all or lora and layer_decay to null."
        )
    found: dict[str, int] = {}
    seen = False
    for name, _ in model.named_parameters():
        if f"{stack}." in name:
            found[name] = int(name.split(f"{stack}.", 1)[1].split(".", 1)[0]) + 1
            seen = True
        else:
            found[name] = count + 1 if seen else 0
    return found, count


def choose(model: Any, settings: Training, *, new_head: bool) -> Any:
    """The model with the parameters that are not trained frozen; under LoRA a peft model around it."""
    if settings.parameters == "last":
        by_name, count = depths(model)
        if settings.last_layers > count:
            raise UserError(
                f"last_layers is {settings.last_layers}, but the model has {count} layers. Lower it, or set parameters "
                "to all."
            )
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(by_name[name] > count - settings.last_layers)
    elif settings.parameters == "lora":
        from peft import LoraConfig, get_peft_model

        model = get_peft_model(
            model,
            LoraConfig(
                r=settings.lora_rank,
                lora_alpha=settings.lora_alpha,
                lora_dropout=settings.lora_dropout,
                target_modules="all-linear",
                task_type="SEQ_CLS" if new_head else None,  # a new head is trained whole
            ),
        )
    return model


def groups(model: Any, settings: Training, decayed: Collection[str]) -> list[dict[str, Any]]:
    """Parameter groups for the optimiser: by weight decay, and by depth where the learning rate falls with it.

    Args:
        decayed: names of the parameters that weight decay applies to.
    """
    by_name, count = depths(model) if settings.layer_decay else ({}, 0)
    found: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            found.setdefault((by_name.get(name, 0), name in decayed), []).append(parameter)
    scale = settings.layer_decay or 1.0
    return [
        {
            "params": parameters,
            "weight_decay": settings.weight_decay if decay else 0.0,
            "lr": settings.learning_rate * (scale ** (count + 1 - depth) if settings.layer_decay else 1.0),
        }
        for (depth, decay), parameters in sorted(found.items(), key=lambda item: item[0])
    ]

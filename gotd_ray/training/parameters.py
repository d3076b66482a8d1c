"""Which parameters are trained, and how fast: all, a part, LoRA; learning rates that fall with depth."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
from torch import nn

from gotd_ray.config import Training
from gotd_ray.errors import UserError
from gotd_ray.models.language import of_head


def _stack(model: Any) -> tuple[str, nn.ModuleList]:
    """Name and layers of the stack.

    Raises:
        UserError: they are not found.
    """
    count = int(model.config.num_hidden_layers)
    for name, part in model.named_modules():
        if isinstance(part, nn.ModuleList) and len(part) == count:
            return name, part
    raise UserError(
        f"the layers of a {type(model).__name__} are not found, so that layer_decay and `parameters` other than all, "
        "bias and lora are not possible. Set parameters to one of these and layer_decay to null."
    )


def depths(model: Any) -> tuple[dict[str, int], int]:
    """Of every parameter its depth, and the number of layers n: 0 embeddings, 1 to n the layers, n + 1 what follows."""
    stack, layers = _stack(model)
    count = len(layers)
    found: dict[str, int] = {}
    seen = False
    for name, _ in model.named_parameters():
        if f"{stack}." in name:
            found[name] = int(name.split(f"{stack}.", 1)[1].split(".", 1)[0]) + 1
            seen = True
        else:
            found[name] = count + 1 if seen else 0
    return found, count


def choose(model: Any, settings: Training, *, new_head: bool, seed: int = 0) -> Any:
    """The model with the parameters that are not trained frozen; under LoRA a peft model around it.

    Args:
        new_head: whether its head was drawn, and so must learn whatever is chosen.
        seed: of the half that is trained under ``half``.

    Raises:
        UserError: the model has not what is to be trained.
    """
    if settings.parameters == "lora":
        from peft import LoraConfig, get_peft_model

        return get_peft_model(
            model,
            LoraConfig(
                r=settings.lora_rank,
                lora_alpha=settings.lora_alpha,
                lora_dropout=settings.lora_dropout,
                target_modules="all-linear",
                task_type="SEQ_CLS" if new_head else None,  # a new head is trained whole
            ),
        )
    if settings.parameters != "all":
        trained = _TRAINED[settings.parameters](model, settings, seed)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in trained or (new_head and of_head(name, model)))
    return model


def _last(model: Any, settings: Training, _seed: int) -> set[str]:
    by_name, count = depths(model)
    if settings.last_layers > count:
        raise UserError(
            f"last_layers is {settings.last_layers}, but the model has {count} layers. Lower it, or set parameters "
            "to all."
        )
    return {name for name, depth in by_name.items() if depth > count - settings.last_layers}


def _is_attention(module: nn.Module) -> bool:
    return "attention" in type(module).__name__.lower()


def _attention(model: Any, _settings: Training, _seed: int) -> set[str]:
    """What belongs to the attention of the layers (Touvron et al., arXiv 2203.09795, for images)."""
    stack, layers = _stack(model)
    found = {
        f"{stack}.{place}.{own}"
        for place, part in layers.named_modules()
        if _is_attention(part)
        for own, _ in part.named_parameters()
    }
    if not found:
        raise UserError(
            f"the layers of a {type(model).__name__} have no attention that could be trained alone. Set parameters to "
            "all, last, half or lora."
        )
    return found


def _bias(model: Any, _settings: Training, _seed: int) -> set[str]:
    """All biases, those of norms among them (BitFit, arXiv 2106.10199)."""
    found = {name for name, _ in model.named_parameters() if name.endswith("bias")}
    if not found:
        raise UserError(
            f"a {type(model).__name__} of this config has no biases to train. Set parameters to attention, half or "
            "lora."
        )
    return found


def _half(model: Any, _settings: Training, seed: int) -> set[str]:
    """Half fine-tuning (arXiv 2404.18466): of each layer a random half, by ``seed``, of what its attention is made of,
    of its norms, and of the rest; a matrix goes with its bias. What is not in the layers is trained.

    Of an odd number one more is taken in every other layer.
    """
    stack, layers = _stack(model)
    rng = np.random.default_rng([seed, len(layers)])
    trained = {name for name, _ in model.named_parameters()}
    for number, layer in enumerate(layers):
        kinds: dict[str, list[str]] = {}
        attention = [name for name, part in layer.named_modules() if _is_attention(part)]
        for name, part in layer.named_modules():
            if next(part.parameters(recurse=False), None) is not None:
                in_attention = any(name == one or name.startswith(f"{one}.") for one in attention)
                norm = "norm" in type(part).__name__.lower()
                kinds.setdefault("norm" if norm else "attention" if in_attention else "rest", []).append(name)
        for place, parts in enumerate(kinds.values()):
            kept = (len(parts) + (number + place) % 2) // 2
            for frozen in rng.permutation(parts)[kept:]:
                own = layer.get_submodule(frozen).named_parameters(recurse=False)
                trained -= {".".join(filter(None, (stack, str(number), frozen, name))) for name, _ in own}
    return trained


_TRAINED = {"last": _last, "attention": _attention, "bias": _bias, "half": _half}
"""By setting, the names of the parameters that are trained."""


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

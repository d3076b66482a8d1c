"""What a run's encoder will be, known without loading it: device, precision, width, and the identity of its vectors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from gotd_ray.config import Encoder, Model
from gotd_ray.errors import UserError
from gotd_ray.models.encoder import choose_precision, has_bfloat16
from gotd_ray.models.tokenizer import Tokenizer, find_model, identity, model_width


def pick_device(settings: Encoder, gpus: int | None = None) -> str:
    """``cuda`` or ``cpu``.

    Args:
        gpus: of the cluster; None looks at this machine.

    Raises:
        UserError: the settings ask for a GPU and there is none.
    """
    available = torch.cuda.is_available() if gpus is None else gpus > 0
    if settings.device == "cuda" and not available:
        raise UserError("encoder.device is cuda, but no GPU is there. Set it to auto or cpu, or run where a GPU is.")
    return "cuda" if available and settings.device != "cpu" else "cpu"


def describe(settings: Encoder, device: str) -> dict[str, Any]:
    """What determines the vectors, and their width d.

    Raises:
        UserError: see ``find_model``.
    """
    folder = find_model(settings)
    limit = Tokenizer(settings, folder).max_tokens
    known = identity(settings, folder, limit, choose_precision(settings, device))
    return known | {"width": model_width(Path(folder))}


def train_precision(model: Model, gpus: int | None = None) -> str:
    """``float32`` or ``bfloat16``: the setting, or under ``auto`` bfloat16 where the device has it.

    Args:
        model: the section.
        gpus: of the cluster; None looks at this machine.
    """
    if model.precision != "auto":
        return model.precision
    on_gpu = model.device != "cpu" and (torch.cuda.is_available() if gpus is None else gpus > 0)
    return "bfloat16" if on_gpu or has_bfloat16() else "float32"

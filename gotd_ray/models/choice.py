"""What a cluster or this machine gives: a device for the encoder, a precision for training.

torch is imported where it is asked: readers of text import this module and have no use for it.
"""

from __future__ import annotations

from gotd_ray.config import Encoder, Model
from gotd_ray.errors import UserError


def has_bfloat16() -> bool:
    """Whether this CPU multiplies in bfloat16; torch has no public question for it."""
    import torch

    return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def pick_device(settings: Encoder, gpus: int | None = None) -> str:
    """``cuda`` or ``cpu``.

    Args:
        gpus: of the cluster; None looks at this machine.

    Raises:
        UserError: the settings ask for a GPU and there is none.
    """
    available = _has_gpu() if gpus is None else gpus > 0
    if settings.device == "cuda" and not available:
        raise UserError("encoder.device is cuda, but no GPU is there. Set it to auto or cpu, or run where a GPU is.")
    return "cuda" if available and settings.device != "cpu" else "cpu"


def train_precision(model: Model, gpus: int | None = None) -> str:
    """``float32`` or ``bfloat16``: the setting, or under ``auto`` bfloat16 where the device has it.

    Args:
        model: the section.
        gpus: of the cluster; None looks at this machine.
    """
    if model.precision != "auto":
        return model.precision
    on_gpu = model.device != "cpu" and (_has_gpu() if gpus is None else gpus > 0)
    return "bfloat16" if on_gpu or has_bfloat16() else "float32"

"""A transformer's last layer, pooled: token ids to unit vectors, fast, and the same bits whatever is in the batch.

torch is imported where a text is encoded: processes that only tokenise have no use for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError

from gotd_ray import config
from gotd_ray.errors import UserError, said_by
from gotd_ray.models import tokenizer as files
from gotd_ray.models.choice import has_bfloat16

if TYPE_CHECKING:
    import torch

_LENGTH_STEP = 16  # tokens; a row is padded to the next multiple
_BATCH_TOKENS = {"cpu": 2048, "cuda": 16_384}  # on CPU 2k to 8k tokens run alike; small batches waste less at the end


class Encoder:
    """See :class:`gotd_ray.models.encoder.Kind`."""

    version = 1
    gpu = True

    def __init__(self, settings: config.Encoder, device: str = "cpu", threads: int | None = None) -> None:
        """Args: see ``Kind``.

        Raises:
            UserError: see ``Tokenizer``, ``model_width`` and ``pooling``.
        """
        if threads is not None:
            import torch

            torch.set_num_threads(threads)
        self.settings, self.tokenize = settings, files.Tokenizer(settings)
        self._folder, self.max_tokens = self.tokenize.folder, self.tokenize.max_tokens
        self.width = files.model_width(self._folder)
        self._pooling = files.pooling(settings, self._folder)
        self._device = device
        self._batch_tokens = settings.batch_tokens or _BATCH_TOKENS[device.partition(":")[0]]

    @cached_property
    def _precision(self) -> str:
        return _choose_precision(self.settings, self._device)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What determines the vectors, up to rounding."""
        return files.identity(self.settings, self._folder, self.max_tokens, self._precision)

    @cached_property
    def _model(self) -> Any:
        return _load(self._folder, self._precision, self._device)

    def encode_ids(self, ids: list[np.ndarray]) -> np.ndarray:
        """Vectors of n tokenised texts. Give thousands at once: batches are made of texts of like length.

        The vector of a text does not depend on the others. Matrix kernels differ in the last bits between numbers
        of rows, so every batch of one length has the same shape, filled up with empty rows.

        Args:
            ids: n arrays of token ids from ``Tokenizer``, at most ``max_tokens`` each.

        Returns:
            (n, d) float16, in the order of ``ids``.

        Raises:
            UserError: the weights do not load, or are not those of all of the model.
        """
        import torch

        assert all(len(row) <= self.max_tokens for row in ids), "ids are not cut to max_tokens"
        vectors = np.empty((len(ids), self.width), dtype=np.float16)
        done: list[tuple[np.ndarray, torch.Tensor]] = []
        with torch.inference_mode():
            for rows, tokens, lengths in self._batches(ids):
                pooled = self._forward(self._put(tokens), self._put(lengths))
                done.append((rows, pooled[: len(rows)].half()))
        # Copied at the end: a copy from a GPU waits for all that was queued before it.
        for rows, pooled in done:
            vectors[rows] = pooled.cpu().numpy()
        return vectors

    def _batches(self, ids: list[np.ndarray]) -> Iterator[tuple[np.ndarray, torch.Tensor, torch.Tensor]]:
        """Row numbers (k,), token ids (B, L) and lengths (B,), longest texts first; B >= k depends on L only."""
        import torch

        lengths = np.array([len(row) for row in ids], dtype=np.int64)
        steps = -(-np.maximum(lengths, 1) // _LENGTH_STEP)
        for step in sorted(set(steps.tolist()), reverse=True):
            length = min(step * _LENGTH_STEP, self.max_tokens)
            size = max(1, self._batch_tokens // length)
            members = np.flatnonzero(steps == step)
            for start in range(0, len(members), size):
                rows = members[start : start + size]
                tokens = np.full((size, length), self.tokenize.pad_id, dtype=np.int64)
                for i, row in enumerate(rows):
                    tokens[i, : lengths[row]] = ids[row]
                # A row without tokens keeps one pad token: attention over nothing would be NaN.
                kept = np.ones(size, dtype=np.int64)
                kept[: len(rows)] = np.maximum(lengths[rows], 1)
                yield rows, torch.from_numpy(tokens), torch.from_numpy(kept)

    def _put(self, tensor: torch.Tensor) -> torch.Tensor:
        if self._device.startswith("cuda"):
            return tensor.pin_memory().to(self._device, non_blocking=True)
        return tensor

    def _forward(self, tokens: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """(B, L) ids and (B,) lengths to (B, d) float32."""
        import torch

        mask = torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]
        hidden = self._model(input_ids=tokens, attention_mask=mask.long()).last_hidden_state.float()
        if self._pooling == "cls":
            pooled = hidden[:, 0]
        elif self._pooling == "last":
            pooled = hidden[torch.arange(len(hidden), device=hidden.device), lengths - 1]
        else:
            pooled = (hidden * mask[:, :, None]).sum(1) / lengths[:, None]
        return torch.nn.functional.normalize(pooled, dim=1) if self.settings.normalize else pooled


def _choose_precision(settings: config.Encoder, device: str) -> str:
    """The setting, or under ``auto`` float16 on GPU, bfloat16 on a CPU with the instructions, else float32."""
    if settings.precision != "auto":
        return settings.precision
    if device.startswith("cuda"):
        return "float16"
    return "bfloat16" if has_bfloat16() else "float32"


def _load(folder: Path, precision: str, device: str) -> Any:
    import torch
    from transformers import AutoModel

    from gotd_ray.models.language import quiet, some
    from gotd_ray.models.packed import pack

    try:
        with quiet():
            model, told = AutoModel.from_pretrained(
                files.transformer_folder(folder),
                dtype=getattr(torch, precision),
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                output_loading_info=True,
            )
    except (OSError, ValueError, ImportError, SafetensorError) as error:
        raise UserError(
            f"the encoder '{folder.name}' does not load: {said_by(error)}. Fetch it again, or choose another "
            "encoder.model."
        ) from None
    # What this pooler gives is never used, and many models come without one.
    if lacking := [name for name in told["missing_keys"] if "pooler." not in name]:
        raise UserError(
            f"the files of the encoder '{folder.name}' have no weights for {some(lacking)}, which would be drawn at "
            "random. Fetch it again, or choose another encoder.model."
        )
    model.config.use_cache = False  # decoders would keep keys and values of every layer
    model = model.eval().requires_grad_(False).to(device)
    if device == "cpu" and precision == "bfloat16" and has_bfloat16():
        pack(model)
    return model

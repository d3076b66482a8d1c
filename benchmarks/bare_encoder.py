"""The fastest plain loop over a transformers model: what TextEncoder is compared with, and judged by."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

BATCH_TOKENS = 2048  # no slower than 8192 when measured on CPU


class BareLoop:
    """Longest first, batches by tokens, padding to the longest, mean pooling, vectors of length 1."""

    def __init__(
        self, folder: str, precision: torch.dtype, device: str = "cpu", max_tokens: int = 256, batch: int = BATCH_TOKENS
    ) -> None:
        from transformers import AutoModel, AutoTokenizer

        self._device, self._max_tokens, self._batch = device, max_tokens, batch
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self._model: Any = AutoModel.from_pretrained(folder, dtype=precision).eval().to(device)

    def encode(self, texts: list[str]) -> np.ndarray:
        """(n, d) float16."""
        ids = self._tokenizer(texts, truncation=True, max_length=self._max_tokens)["input_ids"]
        order = sorted(range(len(ids)), key=lambda i: -len(ids[i]))
        vectors = np.empty((len(ids), self._model.config.hidden_size), dtype=np.float16)
        with torch.inference_mode():
            while order:
                size = max(1, self._batch // len(ids[order[0]]))
                rows, order = order[:size], order[size:]
                batch = self._tokenizer.pad({"input_ids": [ids[i] for i in rows]}, return_tensors="pt").to(self._device)
                hidden = self._model(**batch).last_hidden_state.float()
                mask = batch["attention_mask"][:, :, None]
                pooled = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1)
                vectors[rows] = pooled.half().cpu().numpy()
        return vectors

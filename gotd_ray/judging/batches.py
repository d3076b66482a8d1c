"""What all judges do: batches of rows of like length, so that little is padding, and answers that are numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from gotd_ray.errors import UserError


def check_numbers(found: torch.Tensor) -> None:
    """Hold a model's likelihoods to being numbers: of those that are none, any answer could be made.

    Raises:
        UserError: some are not.
    """
    if not torch.isfinite(found).all():
        raise UserError(
            "the model's likelihoods are not numbers: its weights or its arithmetic overflow. Set evaluate.precision "
            "to float32, or train with a lower learning_rate."
        )


def by_length(lengths: Sequence[int], tokens: int) -> Iterator[list[int]]:
    """Numbers of the rows of each batch, the longest rows first, equal ones in their order.

    Args:
        lengths: tokens of each row.
        tokens: of a batch at the most, padding counted; one row at the least.
    """
    order = sorted(range(len(lengths)), key=lambda number: -lengths[number])
    start = 0
    while start < len(order):
        batch = order[start : start + max(1, tokens // max(lengths[order[start]], 1))]
        yield batch
        start += len(batch)

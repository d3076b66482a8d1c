"""Batches of rows of like length, so that little is padding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


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

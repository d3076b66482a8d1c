"""What the mathematics says of its numbers, with the settings that help: it knows none of them itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from gotd_ray.errors import UserError

_ARITHMETIC = "Raise solve.epsilon, or set solve.precision to float64; if neither helps, encoder.precision to float32."


@contextmanager
def in_words(remedy: str = _ARITHMETIC) -> Iterator[None]:
    """An arithmetic that breaks down inside is told with what the user can do.

    Args:
        remedy: a sentence.

    Raises:
        UserError: for a FloatingPointError.
    """
    try:
        yield
    except FloatingPointError as error:
        raise UserError(f"{error}. {remedy}") from None

"""What the user can fix: it says what was given, what is allowed and what to do."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

_SECRET = re.compile(r"SECRET|TOKEN(?!IZERS)|PASSW|API_?KEY|ACCESS_KEY|CREDENTIAL|SAS", re.IGNORECASE)
_SHORT = 8
"""Characters of a value that is too short to be a secret, and too common to be taken out of a text."""

_PATHS = re.compile(r"(_FILE|_PATH|_DIR)$", re.IGNORECASE)


class UserError(ValueError):
    """A mistake in the input or the settings, or a machine that does not let us: no room, no right.

    The command line prints it without a traceback and exits with ``exit_code``. Write the message as *value, limit,
    remedy*, on one line:
    ``select.budget is 900,000, but the corpus has 51,204 documents. Lower the budget or add to corpus.paths.``
    """

    exit_code = 2


def said_by(error: BaseException) -> str:
    """What an exception says, on one line; its name where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__


def redacted(text: str) -> str:
    """A text without the secrets of the environment: what a library raises may quote them."""
    secrets = {value for name, value in os.environ.items() if _SECRET.search(name) and not _PATHS.search(name)}
    for value in sorted((value for value in secrets if len(value) >= _SHORT), key=len, reverse=True):
        text = text.replace(value, "(hidden)")
    return text


class DivergedError(UserError):
    """A training whose numbers overflowed: by its settings, not by its data."""


class HeldError(UserError):
    """Another run works on the same folder."""

    exit_code = 75  # EX_TEMPFAIL of sysexits.h: schedulers read it as "try again later"


@contextmanager
def named(name: str) -> Iterator[None]:
    """What is refused inside comes with the name of what it was refused to."""
    try:
        yield
    except UserError as error:
        raise type(error)(f"{name}: {error}") from None


@contextmanager
def with_remedy(
    remedy: str = "Raise solve.epsilon, or set solve.precision to float64; if neither helps, encoder.precision to "
    "float32.",
) -> Iterator[None]:
    """An arithmetic that breaks down inside is told with what the user can do: the mathematics knows no setting.

    Raises:
        UserError: for a FloatingPointError.
    """
    try:
        yield
    except FloatingPointError as error:
        raise UserError(f"{error}. {remedy}") from None

"""The one way to ask Ray for answers: a task's fault comes in its own words, and no task outlives who asked for it.

Ray's own exception for a task that failed *is* also what the task raised, but its text is the remote trace.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import ray
from ray.exceptions import (
    LocalRayletDiedError,
    NodeDiedError,
    OutOfMemoryError,
    RayActorError,
    RayError,
    RayTaskError,
    WorkerCrashedError,
)

from gotd_ray.errors import UserError

SAID = (UserError, FloatingPointError)
"""What a task raises for its caller to read; anything else is a fault of ours, and keeps its trace."""

_DEATHS = (WorkerCrashedError, OutOfMemoryError, NodeDiedError, LocalRayletDiedError, RayActorError)
_OF_A_CONSTRUCTOR = re.compile(rf"^ *{UserError.__module__}\.{UserError.__name__}: (.+)$", re.MULTILINE)
"""What an actor raised in its constructor: Ray keeps the trace alone, whose last line it is."""

_PATIENCE = 10.0
"""Seconds that a cancelled task has to end by itself, before its process is ended."""


@contextmanager
def unwrapped(died: str = "") -> Iterator[None]:
    """What a task or an actor raised inside comes as it was, on its own.

    Args:
        died: what to tell the user where a process was killed or ran out of memory; empty leaves Ray's exception.

    Raises:
        UserError, FloatingPointError: as the task raised it; a UserError of ``died``.
        RayError: anything else.
    """
    try:
        yield
    except RayError as error:
        cause = _cause(error)
        if isinstance(cause, SAID):
            cause.args = (str(cause).partition("\n")[0],)  # Ray Data adds lines on how often it has tried
            raise cause from None
        if died and isinstance(cause, _DEATHS):
            raise UserError(died) from None
        raise


def answer(asked: Any, died: str = "", timeout: float | None = None) -> Any:
    """The answer to one reference, or the list of those to a list of them, in its order.

    Args:
        asked: references of tasks or of actors' methods; as ``answers`` does, the first failure cancels the others.
        died: see ``unwrapped``.
        timeout: seconds after which to give up, of one reference; it goes on, and can be asked again.

    Raises:
        UserError, FloatingPointError, RayError: see ``unwrapped``; GetTimeoutError, after ``timeout``.
    """
    if timeout is not None:
        with unwrapped(died):
            return ray.get(asked, timeout=timeout)
    if not isinstance(asked, list):
        return answer([asked], died)[0]
    found = dict(answers(asked, lambda _: died))
    return [found[reference] for reference in asked]


def answers(references: Iterable[Any], died: Callable[[Any], str] = lambda _: "") -> Iterator[tuple[Any, Any]]:
    """References and their answers as they come; the others are cancelled when one fails, or the caller stops.

    Args:
        references: of tasks, all different; one that streams gives each of its answers.
        died: a reference -> what to tell the user where its process died, see ``unwrapped``.

    Raises:
        UserError, FloatingPointError, RayError: see ``unwrapped``.
    """
    left = list(references)
    try:
        while left:
            (ready,), left = ray.wait(left)
            given = ready
            if isinstance(ready, ray.ObjectRefGenerator):
                given = next(ready, None)
                if given is None:
                    continue
                left.append(ready)
            with unwrapped(died(ready)):
                found = ray.get(given)
            yield ready, found
    finally:
        _cancel(left)


def _cancel(references: list[Any]) -> None:
    """End tasks that nobody waits for, and wait until they have ended: they hold CPUs, memory and files."""
    for force in (False, True):
        if references:
            for reference in references:
                with suppress(RayError, ValueError):  # an actor's methods cannot be forced; what is put is no task
                    ray.cancel(reference, force=force)
            ended = [one.completed() if isinstance(one, ray.ObjectRefGenerator) else one for one in references]
            with suppress(RayError):
                _, running = ray.wait(ended, num_returns=len(ended), timeout=_PATIENCE)
                references = [one for one, end in zip(references, ended, strict=True) if end in running]


def _cause(error: BaseException) -> BaseException:
    """What lies under Ray's wrappings: a task may have failed for that which it asked another."""
    while isinstance(error, RayTaskError) and isinstance(error.cause, BaseException):
        error = error.cause
    if isinstance(error, RayActorError) and (said := _OF_A_CONSTRUCTOR.findall(str(error))):
        return UserError(said[-1])
    return error

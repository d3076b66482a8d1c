"""A YAML file and ``--set`` to a run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from gotd_ray.config.base import AS_THEY_ARE, refuse_credentials
from gotd_ray.config.explain import Origin, explain, shown
from gotd_ray.config.reading import Unclear, read
from gotd_ray.config.run import Run
from gotd_ray.errors import UserError

MAX_BYTES = 5_000_000
"""A larger file is no config."""


def load(path: str | Path, overrides: Iterable[str] = ()) -> Run:
    """Read a run from YAML.

    Args:
        path: the YAML file.
        overrides: ``a.b=c`` pairs, the value in YAML syntax; they win over the file.

    Raises:
        UserError: the file cannot be read, a key is unknown (with the nearest name) or stands twice, a value is out of
            its limits or can be meant in several ways.
    """
    name = shown(str(path))
    text = _text(Path(path), name)
    try:
        reading = read(text)
    except Unclear as error:
        line = f", line {error.line}" if error.line else ""
        raise UserError(f"{name}{line}: {error}.") from None
    data = reading.value
    if not isinstance(data, dict):
        kind = "nothing" if data is None else "a list" if isinstance(data, list) else "a single value"
        raise UserError(f"{name} holds {kind}, not keys and values. See jobs/demo.yaml for an example.")
    origin = Origin(name, dict(reading.places))
    for item in overrides:
        _override(data, item, origin)
    return _validated(data, origin)


def of(data: Mapping[str, Any], name: str) -> Run:
    """A run of nested keys and values that stand in no file.

    Args:
        name: what they come from, for errors.

    Raises:
        UserError: as :func:`load`.
    """
    return _validated(data, Origin(name))


def _validated(data: Mapping[str, Any], origin: Origin) -> Run:
    for where, value in _texts(data, ()):
        try:
            refuse_credentials(value)
        except ValueError as error:
            raise UserError(f"{origin.of(where)}: {'.'.join(where)}: {error}.") from None
    try:
        return Run.model_validate(dict(data))
    except ValidationError as error:
        raise UserError(explain(origin, error)) from None


def checked(run: Run) -> Run:
    """A run that was copied with changes, checked as a file is; paths are not expanded again.

    Raises:
        ValidationError: it is no run.
    """
    return Run.model_validate(run, context=AS_THEY_ARE)


def problems(error: ValidationError) -> str:
    """What is wrong with settings that were put together in the program, without the places in a file."""
    return "; ".join(str(problem.get("ctx", {}).get("error", problem["msg"])) for problem in error.errors())


def restored(data: Mapping[str, Any]) -> Run:
    """The run of settings that a finished stage keeps, as ``model_dump`` made them; nothing is expanded.

    Raises:
        ValidationError: they are those of another version.
    """
    return Run.model_validate(dict(data), context=AS_THEY_ARE)


def _text(path: Path, name: str) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot read the config '{name}': {reason}. Give the path of a YAML file.") from None
    if len(data) > MAX_BYTES:
        raise UserError(f"{name} has more than {MAX_BYTES:,} bytes, which is no config. Give the path of a YAML file.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(f"{name} is not UTF-8: line {line} holds other bytes. Save it as UTF-8.") from None


def _override(data: dict[str, Any], item: str, origin: Origin) -> None:
    key, equals, text = item.partition("=")
    where = tuple(key.split("."))
    if not equals or not all(where):
        said = f" '{shown(key)}'" if equals else ""  # without a sign, the whole could be a value that must not be shown
        raise UserError(f"--set{said} is not of the form a.b=c, for example --set select.budget=500")
    if undone := next((earlier for earlier in origin.sets if earlier[: len(where)] == where), None):
        said = "stands twice" if undone == where else f"would undo --set {origin.sets[undone]} before it"
        raise UserError(f"--set {shown(key)} {said}. Leave one out.")
    if not text.strip():
        raise UserError(f"--set {shown(key)}= has no value. Write null for none, or two quotes for an empty text.")
    try:
        reading = read(text, where, comments=False)
    except Unclear as error:
        raise UserError(f"--set {shown(key)}: {error}.") from None
    *parents, last = where
    for number, name in enumerate(parents, 1):
        if data.get(name) is None:
            data[name] = {}
        data = data[name]
        if not isinstance(data, dict):
            raise UserError(f"--set {shown(key)}: '{'.'.join(where[:number])}' holds a value, not a section.")
    data[last] = reading.value
    origin.replace(where, reading.places)


def _texts(value: object, where: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Every text in nested settings, and where it stands."""
    if isinstance(value, str):
        yield where, value
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, one in pairs:
        yield from _texts(one, (*where, str(name)))

"""What every section of the config is made of: strict keys, numbers with limits, and paths that are expanded once."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, WrapValidator

from gotd_ray.errors import UserError

MAX_COUNT = 10**12
"""Documents, tokens or bytes: more than any corpus has, and far below what 64 bits hold."""

MAX_TOKENS = 10**7
"""Tokens in a row or a batch: more than any model takes at a time."""

MAX_PROCESSES = 10**4
"""Processes: more than any cluster of Ray's has."""

MAX_STEPS = 10**9
"""Steps of an optimiser, and whatever is counted in them: Hugging Face's Trainer counts in 32 bits."""

MAX_SEED = 2**32 - 1
"""The largest seed that numpy, and with it transformers, takes."""


class Section(BaseModel):
    """A part of the config: strict keys, frozen after loading.

    No value passes for one of another type (``true`` for 1, ``"8"`` for 8), and no number is infinite or NaN.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        validate_default=True,
        strict=True,
        allow_inf_nan=False,
        revalidate_instances="always",
    )


def _one_line(text: str) -> str:
    if unseen := next((sign for sign in text if not sign.isprintable()), None):
        raise ValueError(f"it holds the character {unseen!a}, which cannot be seen. Take it out")
    if not text.strip():
        raise ValueError("it is empty. Give a value, or leave the key out")
    return text


Name = Annotated[str, AfterValidator(_one_line)]
"""A name of something, such as a column: never empty."""

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1, le=MAX_COUNT)]
Tokens = Annotated[int, Field(ge=8, le=MAX_TOKENS)]
BatchTokens = Annotated[int, Field(ge=64, le=MAX_TOKENS)]
Processes = Annotated[int, Field(ge=1, le=MAX_PROCESSES)]
Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]


def or_plugin(group: str) -> WrapValidator:
    """Lets through, besides the names of a Literal, what :mod:`gotd_ray.plugins` finds: a path such as
    ``package.module:name``, or a name that an installed package offers in the group of entry points."""

    def check(value: object, ours: Callable[[object], object], info: ValidationInfo) -> object:
        if not isinstance(value, str):
            return ours(value)
        named = {".", ":"} & set(value) or info.context == AS_THEY_ARE or value in entry_points(group=group).names
        return _one_line(value) if named else ours(value)

    return WrapValidator(check)


T = TypeVar("T", bound=Hashable)


def each_once(values: list[T]) -> list[T]:
    """The values as they are.

    Raises:
        ValueError: one of them stands twice.
    """
    seen: set[T] = set()
    for value in values:
        if value in seen:
            raise ValueError(f"it names {value} twice. Leave one out")
        seen.add(value)
    return values


Once = AfterValidator(each_once)

_VARIABLE = re.compile(r"\$(?:\$|\{(\w+)\}|(\w+)|)")
_CREDENTIALS = re.compile(
    r"^@?([^/]*)://(?:[^/]*@|.*[?&][\w-]*(?:key|secret|token|password|signature|sig)=)", re.IGNORECASE
)

AS_THEY_ARE = "paths as they are"
"""Context of a validation in which paths were expanded before: a second time, ``$$`` would be another path."""


def expand(path: str) -> str:
    """``~`` and ``$NAME`` in a path; ``$$`` is a dollar sign.

    Raises:
        ValueError: a variable or a home folder is not set or useless, the path is empty, holds a control character or
            credentials. The message shows nothing of a variable's value.
    """

    refuse_credentials(path)

    def value(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        name = match[1] or match[2]
        if not name:
            raise ValueError(f"{path!r} has a $ without a name. Write $NAME or ${{NAME}}, or $$ for a dollar sign")
        if name not in os.environ:
            raise ValueError(f"{path!r} uses ${name}, which is not set; export {name}=... first")
        found = os.environ[name]
        if not found.strip():
            raise ValueError(f"{path!r} uses ${name}, which is set but empty; export {name}=... first")
        if "$" in found:
            raise ValueError(f"{path!r} uses ${name}, whose own value holds a $. Export it with that written out")
        if not found.isprintable():
            raise ValueError(f"{path!r} uses ${name}, whose value holds an unseen character. Export it without it")
        return found

    at, rest = ("@", path[1:]) if path.startswith("@") else ("", path)
    expanded = at + _at_home(_VARIABLE.sub(value, rest))
    refuse_credentials(expanded)
    return _one_line(expanded)


def _at_home(path: str) -> str:
    if not path.startswith("~"):
        return path
    user, slash, rest = path.partition("/")
    return home(user) + slash + rest


def home(user: str = "~") -> str:
    """The home folder of a user, ``~`` or ``~name``, without a slash at its end.

    Raises:
        ValueError: none is known; one that is empty or ``/`` would send files to the root of the machine.
    """
    found = os.path.expanduser(user).rstrip("/")  # noqa: PTH111 - Path.expanduser takes an empty HOME for the root
    if not found.startswith("/"):
        said = repr(os.environ["HOME"]) if "HOME" in os.environ else "not set"
        raise ValueError(f"{user} has no home folder (HOME is {said}). Export HOME=..., or write the folder out")
    return found


def refuse_credentials(path: str) -> None:
    """Names of users, passwords and keys in a path.

    Raises:
        UserError: it holds some; they are not shown.
    """
    if match := _CREDENTIALS.match(path):
        raise UserError(
            f"a {match[1]}:// path holds credentials (not shown here), which logs and manifests would copy. Remedy: "
            "take them out of the path and export AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or use a profile or a "
            "role"
        )


def _expanded(value: object, info: ValidationInfo) -> object:
    return expand(value) if isinstance(value, str) and info.context != AS_THEY_ARE else value


def as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


@dataclass(frozen=True)
class Place:
    """Marks a field as a path.

    Attributes:
        kind: ``input`` is read, and relative to the working folder; ``result`` is what this run or an earlier one
            writes; ``model`` is a folder, or else a name that is no path.
    """

    kind: Literal["input", "result", "model"]


InputPath = Annotated[str, BeforeValidator(_expanded), Place("input")]
ResultPath = Annotated[str, BeforeValidator(_expanded), Place("result")]
ModelPath = Annotated[str, BeforeValidator(_expanded), Place("model")]
Paths = Annotated[list[InputPath], BeforeValidator(as_list), Field(min_length=1)]

S = TypeVar("S", bound=Section)


def paths_in(section: Section, before: str = "") -> Iterator[tuple[str, Section, Place, str]]:
    """Every path in a section, however deep: its dotted key, the section that it stands in, its mark and itself."""
    for name, field in type(section).model_fields.items():
        place = _place_in((field.annotation, *field.metadata))
        for key, value in _leaves(before + name, getattr(section, name)):
            if isinstance(value, Section):
                yield from paths_in(value, f"{key}.")
            elif place and isinstance(value, str):
                yield key, section, place, value


def _leaves(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    """The values in lists, and in mappings with the user's own names."""
    if isinstance(value, dict):
        for name, one in value.items():
            yield from _leaves(f"{key}.{name}", one)
    elif isinstance(value, list):
        for one in value:
            yield from _leaves(key, one)
    else:
        yield key, value


def map_paths(section: S, change: Callable[[str, Place], str]) -> S:
    """The section with every path in it, however deep, changed; all else, and what counts as set, stays."""
    found: dict[str, Any] = {}
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        new = _mapped(value, _place_in((field.annotation, *field.metadata)), change)
        if new != value:
            found[name] = new
    return section.model_copy(update=found) if found else section


def _mapped(value: Any, place: Place | None, change: Callable[[str, Place], str]) -> Any:
    if isinstance(value, Section):
        return map_paths(value, change)
    if isinstance(value, dict):
        return {key: _mapped(one, place, change) for key, one in value.items()}
    if isinstance(value, list):
        return [_mapped(one, place, change) for one in value]
    return change(value, place) if place and isinstance(value, str) else value


def _place_in(annotation: Any) -> Place | None:
    """The mark of a path in a type, however deep, or among several."""
    if isinstance(annotation, Place):
        return annotation
    parts = annotation if isinstance(annotation, tuple) else get_args(annotation)
    return next((found for part in parts if (found := _place_in(part))), None)


_SECRET = re.compile(r"secret|token|passw|passphrase|credential|connection_?string|access_?key|key$", re.IGNORECASE)


def secret_in(options: object) -> str | None:
    """The first name in nested settings, however deep, that is a credential's."""
    pairs = options.items() if isinstance(options, dict) else enumerate(options) if isinstance(options, list) else ()
    for name, value in pairs:
        if isinstance(name, str) and _SECRET.search(name):
            return name
        if found := secret_in(value):
            return found
    return None

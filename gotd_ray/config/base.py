"""What every section of the config is made of: strict keys, and paths in which ``~`` and ``$NAME`` are expanded."""

from __future__ import annotations

import os
import re
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


def _expand(path: str) -> str:
    """``~`` and ``$NAME`` in a path; a variable that is not set is an error, not an empty string."""

    def value(match: re.Match[str]) -> str:
        name = match.group(1) or match.group(2)
        if name not in os.environ:
            raise ValueError(f"'{path}' uses ${name}, which is not set; export {name}=... first")
        return os.environ[name]

    return os.path.expanduser(_VARIABLE.sub(value, path))  # noqa: PTH111 - Path would fold the // of a URL


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


StoragePath = Annotated[str, BeforeValidator(lambda v: _expand(v) if isinstance(v, str) else v)]
Paths = Annotated[list[StoragePath], BeforeValidator(_as_list)]
Share = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """A part of the config: strict keys, frozen after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


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

"""Methods and encoders of somebody else's: code that the user names in the config or has installed; nothing is fetched.

A name with a dot or a colon is a path, ``package.module:name`` or ``package.module.name``. Any other is one that an
installed package offers as an entry point in the group.
"""

from __future__ import annotations

import importlib
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any

from gotd_ray.errors import UserError, said_by

METHODS, ENCODERS = "gotd_ray.methods", "gotd_ray.encoders"

GROUPS = {
    METHODS: ("select.method", ("version", "fit", "score")),
    ENCODERS: ("encoder.kind", ("version", "tokenize", "encode_ids")),
}
"""By group of entry points: the key of the config that names a plug-in, and what it must have."""


def load(group: str, name: str) -> Any:
    """The object that a name stands for.

    Args:
        group: ``METHODS`` or ``ENCODERS``.
        name: as it stands in the config.

    Raises:
        UserError: it is not found, its import fails, or it lacks what the group needs.
    """
    setting, needs = GROUPS[group]
    said = f"{setting} is '{name}'"
    path = name if "." in name or ":" in name else _offered(group, name, said)
    place, _, attribute = path.partition(":") if ":" in path else path.rpartition(".")
    if not all(part.isidentifier() for part in [*place.split("."), *attribute.split(".")]):
        raise UserError(f"{said}, which is not of the form package.module:name. Correct it.")
    found: Any = _module(place, said)
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise UserError(f"{said}, but {place} has no '{attribute}'; it has {_listed(_serving(found, needs))}.")
        found = getattr(found, part)
    if lacking := [need for need in needs if not hasattr(found, need)]:
        raise UserError(f"{said}, which has no {', '.join(lacking)}. docs/extending.md says what is needed.")
    return found


def _offered(group: str, name: str, said: str) -> str:
    """The path that an installed package offers under a name."""
    every: dict[str, set[str]] = {}
    for point in entry_points(group=group):
        every.setdefault(point.name, set()).add(point.value)
    paths = sorted(every.get(name, ()))
    if not paths:
        raise UserError(
            f"{said}, which no installed package offers; there is {_listed(sorted(every))} in the group {group}. "
            "Install its package here and on all nodes, or write package.module:name."
        )
    if len(paths) > 1:
        raise UserError(f"{said}, which several packages offer: {', '.join(paths)}. Write one of these paths.")
    return paths[0]


def _module(place: str, said: str) -> ModuleType:
    try:
        return importlib.import_module(place)
    except (Exception, SystemExit) as error:  # somebody else's code may fail in any way
        if isinstance(error, ModuleNotFoundError) and error.name and f"{place}.".startswith(f"{error.name}."):
            raise UserError(
                f"{said}, but there is no module {error.name} here. Correct the name, or install its package, or put "
                "its folder on PYTHONPATH, here and on all nodes."
            ) from None
        reason = f"{type(error).__name__}: {said_by(error)}"
        raise UserError(f"{said}, but the import of {place} fails: {reason}.") from error


def _serving(thing: Any, needs: tuple[str, ...]) -> list[str]:
    """Names of what would do."""
    return sorted(name for name, one in vars(thing).items() if all(hasattr(one, need) for need in needs))


def _listed(names: list[str]) -> str:
    return ", ".join(names) or "none"

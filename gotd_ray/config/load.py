"""A YAML file and ``--set`` to a run, and what is wrong with them in words: unknown keys with the nearest name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from gotd_ray.config.run import Run
from gotd_ray.errors import UserError


def load(path: str | Path, overrides: Iterable[str] = ()) -> Run:
    """Read a run from YAML.

    Args:
        path: the YAML file.
        overrides: ``a.b=c`` pairs, the value in YAML syntax; they win over the file.

    Raises:
        UserError: the file cannot be read, a key is unknown (with the nearest name), a value is out of its limits.
    """
    path = Path(path)
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read the config '{path}': {error.strerror}. Give the path of a YAML file.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(data, dict):
        raise UserError(f"{path} holds {type(data).__name__}, not keys and values. See jobs/demo.yaml for an example.")
    for item in overrides:
        _override(data, item)
    try:
        return Run.model_validate(data)
    except ValidationError as error:
        raise UserError(_explain(path, error)) from None


def _override(data: dict[str, Any], item: str) -> None:
    key, equals, text = item.partition("=")
    if not equals or not key:
        raise UserError(f"--set '{item}' is not of the form a.b=c, for example --set select.budget=500")
    *parents, last = key.split(".")
    for name in parents:
        data = data.setdefault(name, {})
        if not isinstance(data, dict):
            raise UserError(f"--set {item}: '{name}' holds a value, not a section")
    try:
        data[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"--set {item}: the value is not valid YAML: {error}") from None


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    """The keys that are allowed beside the one at ``location``."""
    model: Any = Run
    for name in location[:-1]:
        field = model.model_fields.get(name) if isinstance(name, str) else None
        options = [field.annotation, *getattr(field.annotation, "__args__", ())] if field else []
        model = next((m for m in options if isinstance(m, type) and issubclass(m, BaseModel)), None)
        if model is None:
            return []
    return list(model.model_fields)


def _explain(path: Path, error: ValidationError) -> str:
    lines = []
    for problem in error.errors():
        where = ".".join(str(part) for part in problem["loc"]) or "the file"
        if problem["type"] == "extra_forbidden":
            known = _known_keys(problem["loc"])
            near = difflib.get_close_matches(str(problem["loc"][-1]), known, n=1, cutoff=0.5)
            hint = f"Did you mean '{near[0]}'?" if near else f"Known keys: {', '.join(known)}."
            lines.append(f"unknown key '{where}'. {hint}")
        elif problem["type"] == "missing":
            lines.append(f"'{where}' is missing.")
        elif problem["type"] == "value_error":
            lines.append(f"{where}: {problem['ctx']['error']}.")
        else:
            lines.append(f"{where} is {problem['input']!r}: {problem['msg'].lower()}.")
    return f"{path}: " + ("\n  " if len(lines) > 1 else "") + "\n  ".join(lines)

"""Writes docs/configuration.md and the JSON schema from the settings' own types, and docs/cli.md from the commands:
``python docs/make_reference.py``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main

from gotd_ray.cli import app
from gotd_ray.config import Run
from gotd_ray.config import schema as described

PAGE = Path(__file__).with_name("configuration.md")
COMMANDS = Path(__file__).with_name("cli.md")

INTRODUCTION = """# Configuration

Written by `docs/make_reference.py` from the types in `gotd_ray/config/`, which the program checks a run against; do
not edit it by hand. How to choose: [guide.md](guide.md). What the words mean: [how-it-works.md](how-it-works.md).

A run is one YAML file. Only `out`, `corpus.paths` and `target.paths` must be given. An unknown key is an error that
names the nearest known one. `--set a.b=c` changes a key for one command; the value is read as YAML.

- `paths` takes one string or a list of them. `~`, `$NAME` and `${NAME}` are expanded wherever a path stands, and in
  `encoder.model` and `model.base`; `$$` is a dollar sign. A variable that is not set, or set but empty, is an error.
- A path is local, `s3://bucket/key`, or of a scheme that fsspec knows, such as `gs://`. `demo:corpus`, `demo:target`
  and the files below them are the demo's, built on first use. However a path is spelled, it is one: `./runs/a`,
  `runs//a/` and a link to it are the same `out`.
- "required" keys have no default. A section that is left out, or a key of it, takes its defaults.

What could be meant in several ways is an error, with what was read and how to write it:

- a key that stands twice, in the file or by `--set`; a key or `--set` without a value (write `null`); two documents;
- a word or number without quotes that readers of YAML take for different things: `yes`, `no`, `on`, `off`, `~`, `010`,
  `0x10`, `12:30`, `2024-01-31`, `.inf`. Write `true` or `false`, or quotes for a text. `1e-4`, `2e6` and `1_000` are
  numbers;
- a value of another type: `"8"`, `8.0` or `true` where a whole number belongs, `2024` where a text does;
- a text that begins with `@` or `*`, such as `@list.txt`, without quotes.

Keys that do nothing in a run, and sets that have files in common and should not, are told before it starts.
"""

LIMITS = {
    "minimum": "at least {:,}",
    "exclusiveMinimum": "above {:,}",
    "maximum": "at most {:,}",
    "exclusiveMaximum": "below {:,}",
    "minItems": "at least {:,} in the list",
    "minProperties": "at least {:,} name",
    "maxLength": "at most {:,} characters",
    "pattern": "`{}`",
}
TYPES = {"integer": "whole number", "number": "number", "string": "string", "boolean": "true or false"}


def page() -> str:
    """The whole reference, as Markdown."""
    schema = Run.model_json_schema()
    sections = schema["$defs"]
    names: dict[str, list[str]] = {}  # sections by type, in the order of Run: corpus and target share one
    for key, field in schema["properties"].items():
        if "$ref" in (plain := _without_null(field)):
            names.setdefault(_section_of(plain["$ref"]), []).append(f"`{key}`")
    for name, keys in list(names.items()):  # sections within sections: evaluate's, and select.decontaminate
        for key, section in _within(keys[0].strip("`"), sections[name], sections):
            names.setdefault(section, []).append(f"`{key}`")
    parts = [INTRODUCTION, _table("The run", schema, sections)]
    parts += [_table(_listed(keys), sections[name], sections) for name, keys in names.items()]
    return "\n".join(parts)


def _within(place: str, model: dict[str, Any], sections: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Keys below a section that are sections themselves, and their types; NAME stands for a name of the user's."""
    for key, field in model["properties"].items():
        plain = _without_null(field)
        values = plain.get("additionalProperties")
        named = values["$ref"] if isinstance(values, dict) and "$ref" in values else None
        if reference := plain.get("$ref", named):
            below = f"{place}.{key}" + (".NAME" if named else "")
            yield below, _section_of(reference)
            yield from _within(below, sections[_section_of(reference)], sections)


def _table(title: str, model: dict[str, Any], sections: dict[str, Any]) -> str:
    rows = ["| key | type | default | limits | meaning |", "|---|---|---|---|---|"]
    for key, field in model["properties"].items():
        plain = _without_null(field)
        required = key in model.get("required", ())
        cells = [
            f"`{key}`",
            " or ".join([_type(plain), *(f"`{word}`" for word in plain.get("words", ()))])
            + (" or null" if {"type": "null"} in field.get("anyOf", ()) else ""),
            "required" if required else _default(field),
            _limits(plain),
            field.get("description") or sections[_section_of(plain["$ref"])]["description"],
        ]
        rows.append("| " + " | ".join(" ".join(cell.split()).replace("|", r"\|") for cell in cells) + " |")
    return "\n".join([f"## {title}", "", model["description"], "", *rows, ""])


def _without_null(field: dict[str, Any]) -> dict[str, Any]:
    """The schema of a value that is not null; ``words`` are what may stand in its place."""
    options = [option for option in field.get("anyOf", [field]) if option.get("type") != "null"]
    (only,) = [option for option in options if "const" not in option]
    words = [option["const"] for option in options if "const" in option]
    return only | {"words": words} if words else only


def _type(field: dict[str, Any]) -> str:
    if "$ref" in field:
        return "section"
    if "enum" in field:
        return ", ".join(f"`{choice}`" for choice in field["enum"])
    if field["type"] == "array" and "enum" in field["items"]:
        return "list of " + ", ".join(f"`{choice}`" for choice in field["items"]["enum"])
    if field["type"] == "array":
        return f"list of {TYPES[field['items']['type']]}s"
    return TYPES.get(field["type"], "mapping")


def _default(field: dict[str, Any]) -> str:
    if "$ref" in field:
        return "its keys' defaults"
    empty: Any = {"array": [], "object": {}}.get(field.get("type", ""))
    return f"`{json.dumps(field.get('default', empty))}`"


def _limits(field: dict[str, Any]) -> str:
    """Those of the value, and of each value in it."""
    found = [words.format(field[name]) for name, words in LIMITS.items() if name in field]
    inner = field.get("items") or field.get("additionalProperties")
    each = _limits(inner) if inner and isinstance(inner, dict) else ""
    return ", ".join([*found, *([f"each {each}"] if each else [])])


def _section_of(reference: str) -> str:
    return reference.rpartition("/")[2]


def _listed(keys: list[str]) -> str:
    return ", ".join(keys[:-1]) + " and " + keys[-1] if len(keys) > 1 else keys[0]


COMMAND_LINE = """# Command line

Written by `docs/make_reference.py` from the commands themselves; do not edit it by hand. `gotd COMMAND --help` says the
same.

A command ends with 0 when all is done, with 2 for what you can correct, 75 where another run works in the folders, 130
or 143 when it was interrupted, 1 for a fault of ours; each but 0 with one line that says why: see [errors](errors.md).
"""


def commands() -> str:
    """The reference of the commands, as Markdown."""
    group: Any = typer.main.get_command(app)
    return COMMAND_LINE + "".join(_command(name, one) for name, one in group.commands.items())


def _command(name: str, command: Any) -> str:
    words, rows = [], []
    for one in command.params:
        option = one.param_type_name == "option"
        if option:
            flag = all(str(opt).startswith("--") for opt in one.opts) and one.is_flag
            said = ", ".join(one.opts) + ("" if flag else f" {one.name.upper()}")
        else:
            said = one.name.upper()
            words.append(f"{said}..." if one.nargs == -1 else said)
        rows.append(f"| `{said}` | {(one.help or '').strip()} |")
    usage = " ".join(["gotd", name, *words, *(["[OPTIONS]"] if len(words) < len(command.params) else [])])
    table = ["", "| | |", "|---|---|", *rows] if rows else []
    return "\n".join(["", f"## {name}", "", f"    {usage}", "", command.help.strip(), *table, ""])


if __name__ == "__main__":
    COMMANDS.write_text(commands(), encoding="utf-8")
    PAGE.write_text(page(), encoding="utf-8")
    described.FILE.write_text(described.text(), encoding="utf-8")

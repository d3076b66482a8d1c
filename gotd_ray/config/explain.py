"""What is wrong with a config, in one line: where it stands, the value, its limit, the remedy."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from gotd_ray.config.reading import Path, Written
from gotd_ray.config.run import Run

MOST = 5
"""Problems told at a time."""

_LONGEST = 60
_REMEDIES = {
    "int_type": "Write it in digits and without quotes, such as 1000",
    "float_type": "Write it in digits and without quotes, such as 0.5",
    "bool_type": "Write true or false, without quotes",
    "finite_number": "Write a number in digits",
    "greater_than": "Raise it",
    "greater_than_equal": "Raise it",
    "less_than": "Lower it",
    "less_than_equal": "Lower it",
    "model_type": "Write its keys below it, or {} for their defaults",
    "list_type": "Write [a, b], or a dash before each value",
    "dict_type": "Write its keys below it",
    "too_short": "Add some",
    "string_pattern_mismatch": "Choose another name",
    "string_too_long": "Shorten it",
}
_WORDS = {
    "int_type": "input should be a whole number",
    "float_type": "input should be a number",
    "bool_type": "input should be true or false",
    "string_type": "input should be a text",
    "model_type": "input should be a section of keys",
    "list_type": "input should be a list",
    "dict_type": "input should be a section of names",
    "too_short": "input should not be empty",
}


@dataclass
class Origin:
    """Where each value was written.

    Attributes:
        file: the name of the config.
        places: by the path of a value, in the file.
        sets: by the path of a value, where ``--set`` has put it; the key of the ``--set``.
    """

    file: str
    places: dict[Path, Written] = field(default_factory=dict)
    sets: dict[Path, str] = field(default_factory=dict)

    def replace(self, where: Path, places: Mapping[Path, Written]) -> None:
        """``--set`` has put another value there."""
        self.places = {path: one for path, one in self.places.items() if path[: len(where)] != where}
        self.places |= places
        self.sets[where] = shown(".".join(map(str, where)))

    def of(self, where: Path) -> str:
        """The line of a value, or its `--set`; of one that was not written, the file."""
        for end in range(len(where), 0, -1):
            if key := self.sets.get(where[:end]):
                return f"--set {key}"
            if written := self.places.get(where[:end]):
                return f"{self.file}, line {written.line}"
        return self.file


def explain(origin: Origin, error: ValidationError) -> str:
    """All that is wrong, up to five problems, on one line."""
    problems = _numbers_or_words(error.errors())
    said = [_sentence(f"{origin.of(problem['loc'])}: {_problem(problem, origin)}") for problem in problems[:MOST]]
    return " ".join([*said, *(["There are more."] if len(problems) > MOST else [])])


def _numbers_or_words(problems: Sequence[Any]) -> list[Any]:
    """Of a value that may be a number or a word pydantic tells two problems: one is made of them."""
    words = {
        problem["loc"][:-1]: problem["ctx"]["expected"]
        for problem in problems
        if problem["type"] == "literal_error" and str(problem["loc"][-1]).startswith("literal[")
    }
    of_numbers = [one for one in problems if one["loc"][:-1] not in words or one["type"] != "literal_error"]
    return [
        {**problem, "loc": problem["loc"][:-1], "or": words[problem["loc"][:-1]]}
        if problem["loc"][:-1] in words
        else problem
        for problem in of_numbers
    ]


def _sentence(text: str) -> str:
    return text if text.endswith(("?", ".")) else f"{text}."


def _problem(problem: Any, origin: Origin) -> str:
    kind, location = problem["type"], tuple(problem["loc"])
    where = shown(".".join(str(part) for part in location if part != "[key]"))
    if kind == "extra_forbidden":
        return f"unknown key '{where}'. {_nearest(location)}"
    if kind == "missing":
        return f"'{where}' is missing. Add it: {_description(location)}"
    if kind == "value_error":
        said = str(problem["ctx"]["error"])
        return f"{where}: {said}" if where and not said.startswith(where) else said
    value = problem["input"]
    message = _WORDS.get(kind) or problem["msg"][:1].lower() + problem["msg"][1:]
    message += f", or {problem['or']}" if "or" in problem else ""
    return f"{where} is {_value(value)}: {message}. {_remedy(kind, value, origin.places.get(location), problem)}"


def _remedy(kind: str, value: object, written: Written | None, problem: Any) -> str:
    if value is None:
        return "Give a value, or leave the key out for its default"
    if kind in ("int_type", "float_type") and (digits := _digits(value)):
        return f"Write {digits}"
    if kind == "string_type" and isinstance(value, dict | list):
        return "Put the whole value in quotes"
    if kind == "string_type":
        text = str(written.text if written and written.text else value)
        return "Put it in quotes: '" + shown(text).replace("'", "''") + "'"
    if kind == "literal_error":
        allowed = problem["ctx"]["expected"].replace("'", "").replace(" or ", ", ").split(", ")
        near = difflib.get_close_matches(str(value), allowed, n=1, cutoff=0.5)
        return f"Did you mean '{near[0]}'?" if near else "Choose one of them"
    return _REMEDIES.get(kind, "Change it")


def _digits(value: object) -> str | None:
    """The whole number that a text or a fraction of zero stands for."""
    found = re.fullmatch(r"([-+]?[0-9]{1,30})(\.0*)?", str(value).strip())
    return found[1] if found and not isinstance(value, bool) else None


def _value(value: object) -> str:
    if isinstance(value, dict):
        return "a section" if value else "{}"
    if isinstance(value, list | tuple):
        return "a list" if value else "[]"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return shown(repr(value))


def shown(text: str) -> str:
    """A text for a message: on one line, without control characters, and not longer than a line."""
    plain = "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)
    return plain if len(plain) <= _LONGEST * 3 else f"{plain[:_LONGEST]}... ({len(plain)} characters)"


def _nearest(location: Path) -> str:
    """A slip of the pen is likelier than a known key in a wrong section, and that than a key half right."""
    last, known = str(location[-1]), [key for key, _ in _keys_at(location[:-1])]
    if slip := difflib.get_close_matches(last, known, n=1, cutoff=0.8):
        return f"Did you mean '{slip[0]}'?"
    if elsewhere := [".".join(map(str, path)) for path in _everywhere(Run, ()) if path[-1] == last]:
        return f"It belongs elsewhere: {' or '.join(elsewhere[:3])}."
    if near := difflib.get_close_matches(last, known, n=1, cutoff=0.5):
        return f"Did you mean '{near[0]}'?"
    return f"Known keys: {', '.join(known)}."


def _keys_at(location: Path) -> list[tuple[str, Any]]:
    """The keys of the section at a place, and their fields; none where there is no section."""
    model: type[BaseModel] | None = Run
    for name in location:
        if model is None or not isinstance(name, str):
            return []
        fields = model.model_fields
        if name in fields:
            model = _section_of(fields[name].annotation)
        # a name of the user's, as in evaluate.zero_shot.local.NAME, leaves the section where it is
    return list(model.model_fields.items()) if model else []


def _section_of(annotation: Any) -> type[BaseModel] | None:
    """The section in a type, however deep."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _section_of(part))), None)


def _everywhere(model: type[BaseModel], before: Path) -> Iterator[Path]:
    for key, settings in model.model_fields.items():
        yield (*before, key)
        if section := _section_of(settings.annotation):
            yield from _everywhere(section, (*before, key))


def _description(location: Path) -> str:
    fields = dict(_keys_at(location[:-1]))
    found = fields.get(str(location[-1]))
    return (found and found.description) or "docs/configuration.md says what it is"

"""YAML as its author means it: a key stands once, and what two readers of YAML take for two things is refused.

Between YAML 1.1, which PyYAML reads, and 1.2 a plain word such as ``no`` or ``010`` changes its meaning, and few people
know both. Numbers such as ``1e-4`` are taken as numbers, which they obviously are.
"""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

MAX_VALUES = 100_000
"""Values in a file once its aliases are written out: a few lines of aliases can stand for billions."""

MAX_DEPTH = 50
MAX_DIGITS = 100

_NUMBER = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:e[-+]?[0-9]+)?", re.IGNORECASE)
_WHOLE = re.compile(r"[-+]?(?:0|[1-9][0-9]*|[1-9][0-9]{0,2}(?:_[0-9]{3})+)")
_LEADING_ZERO = re.compile(r"[-+]?0[0-9_]+|[-+]?0o[0-7_]+")
_MAP, _SEQUENCE, _TEXT = (f"tag:yaml.org,2002:{kind}" for kind in ("map", "seq", "str"))
_RESOLVER = yaml.SafeLoader("")
_EXACT = 2**53
"""Below it every whole number is a float."""

Path = tuple[str | int, ...]


class Unclear(ValueError):  # noqa: N818 - said of what was written
    """What was written can be meant in several ways, or in none. The message says how to write it.

    Attributes:
        line: where it stands, from 1; None where no line is to blame.
    """

    def __init__(self, message: str, line: int | None = None):
        super().__init__(message)
        self.line = line


@dataclass(frozen=True)
class Written:
    """Where a value or a key stands: the line, from 1, and its text, None where it is no plain or quoted one."""

    line: int
    text: str | None


@dataclass
class Reading:
    """What was read.

    Attributes:
        value: built of dict, list, str, int, float, bool and None; nothing stands in it twice.
        places: where the values stand, by their path.
    """

    value: Any = None
    places: dict[Path, Written] = field(default_factory=dict)


def read(text: str, at: Path = (), *, comments: bool = True) -> Reading:
    """Read one document.

    Args:
        at: where its value stands in the config.
        comments: whether what stands behind a # is passed over; else it is refused.

    Raises:
        Unclear: with the line, and what was read.
    """
    found = _Builder()
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        rest = text[node.end_mark.index :] if node else text
        if not comments and rest.lstrip().startswith("#"):
            raise Unclear(f"{_dotted(at)}holds a comment, which begins with #. Put the value in quotes")
        found.value = None if node is None else found.build(node, at)
    except RecursionError:
        raise Unclear(f"it is nested more than {MAX_DEPTH} deep. Write it flatter") from None
    except yaml.YAMLError as error:
        raise _fault(error) from None
    return Reading(found.value, found.places)


def _fault(error: yaml.YAMLError) -> Unclear:
    """In one line, without the excerpt: it may hold what must not be shown."""
    if isinstance(error, yaml.reader.ReaderError):
        return Unclear(f"not valid YAML: it holds the character {chr(error.character)!a}. Take it out")
    mark = getattr(error, "problem_mark", None)
    said = " ".join(str(getattr(error, "problem", None) or "cannot be read").split())
    if "'\\t'" in said:
        said = "a tab stands where YAML wants spaces. Indent with spaces"
    elif "another document" in said:
        said = "another document begins. Write each run into a file of its own, without ---"
    elif said == "mapping values are not allowed here":
        said += ". Indent the keys of a section alike, and put values with a colon in quotes"
    elif "cannot start any token" in said or "alias" in str(error):
        said += ". Put a value that begins with a sign, such as @ or *, in quotes"
    return Unclear(f"not valid YAML: {said}", mark.line + 1 if mark else None)


class _Builder(Reading):
    """Makes values of YAML's nodes, each anew wherever an alias names it."""

    def __init__(self) -> None:
        super().__init__()
        self._count = 0

    def build(self, node: yaml.Node, path: Path) -> Any:
        self._count += 1
        line = node.start_mark.line + 1
        if self._count > MAX_VALUES:
            raise Unclear(
                f"it holds more than {MAX_VALUES:,} values, aliases written out. Name paths in a list: '@list.txt'"
            )
        if len(path) > MAX_DEPTH:
            raise Unclear(f"it is nested more than {MAX_DEPTH} deep. Write it flatter", line)
        self.places[path] = Written(line, node.value if isinstance(node, yaml.ScalarNode) else None)
        if isinstance(node, yaml.ScalarNode):
            return _scalar(node, _dotted(path) + "is")
        if node.tag not in (_MAP, _SEQUENCE):
            raise Unclear(f"{_dotted(path)}has the tag {_short(node.tag)}. Leave it out", line)
        if isinstance(node, yaml.MappingNode):
            return {key: self.build(value, (*path, key)) for key, (_, value) in _entries(node, path, 0).items()}
        return [self.build(value, (*path, number)) for number, value in enumerate(node.value)]


def _entries(node: yaml.MappingNode, path: Path, depth: int) -> dict[str, tuple[int, yaml.Node]]:
    """The keys of a section with their lines and values; its own win over those that `<<` brings.

    Raises:
        Unclear: a key stands twice, or is no text.
    """
    if depth > MAX_DEPTH:
        raise Unclear("`<<` leads back to where it stands. Write the keys out", node.start_mark.line + 1)
    own: dict[str, tuple[int, yaml.Node]] = {}
    merged: dict[str, tuple[int, yaml.Node]] = {}
    for key_node, value in node.value:
        line = key_node.start_mark.line + 1
        key = _key(key_node, path)
        if key in own:
            lines = "on line " + " and on line ".join(dict.fromkeys([str(own[key][0]), str(line)]))
            raise Unclear(f"{_dotted((*path, key))}stands twice, {lines}. Take one out")
        own[key] = line, value
    for line, value in _merges(own, path):
        for key, entry in _entries(value, path, depth + 1).items():
            if key in merged and key not in own:
                raise Unclear(
                    f"{_dotted((*path, key))}comes twice by the `<<` of line {line}, from line {merged[key][0]} and "
                    f"from line {entry[0]}. Write it out beside the `<<`"
                )
            merged[key] = entry
    return merged | own


def _merges(own: dict[str, tuple[int, yaml.Node]], path: Path) -> Iterator[tuple[int, yaml.MappingNode]]:
    """The sections that `<<` names, which is then no key any more."""
    if "<<" not in own:
        return
    line, value = own.pop("<<")
    for node in value.value if isinstance(value, yaml.SequenceNode) else [value]:
        if not isinstance(node, yaml.MappingNode):
            raise Unclear(f"{_dotted((*path, '<<'))}names no section. Write the keys out", line)
        yield line, node


def _key(node: yaml.Node, path: Path) -> str:
    line = node.start_mark.line + 1
    if not isinstance(node, yaml.ScalarNode):
        raise Unclear(f"a key of {_dotted(path) or 'the file '}is no text. Write a name before the colon", line)
    if node.value == "<<" and node.style is None:
        return "<<"
    key = _scalar(node, f"a key of {_dotted(path) or 'the file '}is")
    if not isinstance(key, str):
        kind = "a number" if isinstance(key, int | float) and not isinstance(key, bool) else _said(key)
        raise Unclear(
            f"a key of {_dotted(path) or 'the file '}is {_cut(node.value)}, which YAML reads as {kind}. Write "
            f"{_quoted(node.value)} in quotes for a text",
            line,
        )
    return key


def _scalar(node: yaml.ScalarNode, where: str) -> Any:
    """A text, number, truth value or null; ``where`` begins the message."""
    plain = node.style is None
    tag = _RESOLVER.resolve(yaml.ScalarNode, node.value, (plain, not plain))
    try:
        if node.tag != tag:
            raise Unclear(f"{where} given the tag {_short(node.tag)}. Leave it out; quotes make a text")
        return _plain(node.value, tag, where) if plain else node.value
    except Unclear as error:
        raise Unclear(str(error), node.start_mark.line + 1) from None


def _plain(text: str, tag: str, where: str) -> Any:
    """``tag``: what PyYAML takes it for."""
    if text == "":
        raise Unclear(f"{where} empty. Write null, or leave the key out; an empty text is ''")
    if text in ("null", "Null", "NULL"):
        return None
    if text in ("true", "True", "TRUE", "false", "False", "FALSE"):
        return text.lower() == "true"
    if _WHOLE.fullmatch(text) and len(text) <= MAX_DIGITS:
        return int(text)
    if _NUMBER.fullmatch(text) and not _LEADING_ZERO.fullmatch(text):
        return _number(text, where)
    if taken := _other_base(text) or _other_kind(text, tag):
        said, write = taken
        instead = f"Write {write}, or {_quoted(text)}" if write else f"Write {_quoted(text)}"
        raise Unclear(f"{where} {_cut(text)}, which YAML reads as {said}. {instead} in quotes for a text")
    return text


def _number(text: str, where: str) -> int | float:
    value = float(text)
    if not math.isfinite(value) or (value == 0 and re.search("[1-9]", text.lower().partition("e")[0])):
        raise Unclear(f"{where} {_cut(text)}, which no number of 64 bits holds. Write one that is nearer to 1")
    whole = "e" in text.lower() and value.is_integer() and abs(value) < _EXACT
    return int(value) if whole else value


def _other_base(text: str) -> tuple[str, str] | None:
    """What digits behind a zero are taken for, and how that is written; None where there is no such zero."""
    if not _LEADING_ZERO.fullmatch(text):
        return None
    digits = text.lower().replace("_", "").replace("0o", "0")
    if re.search("[89]", digits):
        return f"a text or as {int(digits)}", str(int(digits))
    return f"{int(digits, 8)}, in base 8", str(int(digits, 8))


def _other_kind(text: str, tag: str) -> tuple[str, str] | None:
    """What PyYAML takes a plain text for that is no text to others, and how that is written."""
    if tag == _TEXT:
        return None
    try:
        value = yaml.safe_load(text)
    except ValueError:  # such as 2024-02-31
        return "a date", ""
    except yaml.YAMLError:
        return "a sign of its own", ""
    if isinstance(value, datetime.date):
        return "a date", ""
    finite = not isinstance(value, float) or math.isfinite(value)
    return _said(value), _said(value) if finite else ""


def _said(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "infinity"
    return str(value)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _cut(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:20]}... ({len(text)} characters)"


def _short(tag: str) -> str:
    return tag.replace("tag:yaml.org,2002:", "!!")


def _dotted(path: Path) -> str:
    """The path as people write it, and a space; nothing for the whole file."""
    return ascii(".".join(map(str, path)))[1:-1] + " " if path else ""

"""From the numbers of a report to its page: one file, no script, nothing loaded, every text escaped."""

from __future__ import annotations

import math
import re
import unicodedata
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from gotd_ray.report import comparison, curve, pictures, refresh, tuning, words

TEMPLATES = Path(__file__).with_name("templates")
EXCERPT = 420
"""Characters of a document that are shown."""

NOTHING = "\N{EN DASH}"
"""In place of a number that is not known."""

_HIDDEN = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u061c\u202a-\u202e\u2060-\u206f\ufeff\ud800-\udfff]"
)


def page(facts: dict[str, Any]) -> str:
    """The HTML of a report.

    Args:
        facts: what stands in ``report.json``, see ``stages/report.py``; a section without its numbers falls away.
    """
    return _template("report.html").render(
        facts=facts, opening=words.opening(facts), stages=words.STAGES, pictures=pictures.of(facts)
    )


def comparison_page(found: dict[str, Any]) -> str:
    """The HTML of a comparison, as it stands in ``compare.json``."""
    return _template("compare.html").render(
        facts=found, opening=comparison.opening(found), tables=comparison.tables(found)
    )


def curve_page(found: dict[str, Any]) -> str:
    """The HTML of what `gotd curve` has found, as it stands in ``curve.json``."""
    drawn = [
        one
        | {"title": curve.title(one), "advice": [*curve.advice(one), *curve.theory(one)]}
        | {"points": curve.points(one), "picture": curve.picture(one)}
        for one in found["curves"]
    ]
    return _template("curve.html").render(facts=found, opening=curve.opening(found), curves=drawn)


def tune_page(found: dict[str, Any]) -> str:
    """The HTML of a search of settings, as it stands in ``tune.json``."""
    return _template("tune.html").render(
        facts=found,
        opening=tuning.opening(found),
        rows=tuning.ranked(found),
        names=tuning.names(found),
        slices=tuning.slices(found),
        looks=tuning.looks(found),
    )


def refresh_page(facts: dict[str, Any]) -> str:
    """The HTML of what a refresh has changed, as it stands in ``refresh.json``."""
    return _template("refresh.html").render(facts=facts, opening=refresh.opening(facts), table=refresh.sources(facts))


def _template(name: str) -> Template:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": number,
        "signed": signed,
        "share": share,
        "duration": duration,
        "excerpt": excerpt,
        "reason": words.reason,
        "yaml": lambda value: yaml.safe_dump(value, sort_keys=False, allow_unicode=True),
    }
    return environment.get_template(name)


def _visible(value: Any) -> Any:
    """Characters that hide, or turn the direction of what follows, are shown by their number."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    return _HIDDEN.sub(lambda match: f"[U+{ord(match[0]):04X}]", value)


def excerpt(text: str | None, length: int = EXCERPT) -> str:
    """The beginning of a text on one line, cut between words."""
    if text is None:
        return "(the text could not be read again)"
    line = " ".join(text.split())
    if len(line) <= length:
        return line
    cut = line[:length].rpartition(" ")[0]
    cut = cut if len(cut) > length * 0.6 else line[:length]
    while unicodedata.combining(line[len(cut)]) and cut:  # an accent stays with its letter
        cut = cut[:-1]
    return cut + " …"


def number(value: float | None, digits: int = 3) -> str:
    """Counts in full, others to some digits."""
    if value is None or not math.isfinite(value):
        return NOTHING
    if isinstance(value, int):
        return f"{value:,}"
    if value == 0:
        return "0"
    places = digits - 1 - math.floor(math.log10(abs(value)))
    if places > 6:
        return f"{value:.{digits - 1}e}"
    return f"{value:,.{max(places, 0)}f}"


def signed(value: float | None) -> str:
    """A difference, with its sign."""
    return NOTHING if value is None else ("+" if value > 0 else "") + number(value)


def share(value: float | None) -> str:
    """A share in percent."""
    if value is None:
        return NOTHING
    percent = 100 * value
    return f"{percent:.0f}%" if percent >= 99.95 or percent == 0 else f"{percent:.1f}%" if percent >= 0.05 else "<0.1%"


def duration(seconds: float | None) -> str:
    """Seconds in the unit that suits."""
    if seconds is None:
        return NOTHING
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"

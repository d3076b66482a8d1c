"""One spelling for every text, so that equal content gets an equal id."""

from __future__ import annotations

import re
import unicodedata

# In plain ASCII only these need work; most documents have none and are returned after one search.
_ASCII_DIRT = re.compile(r"[\x00-\x09\x0b-\x1f\x7f]|  | \n|\n |\n\n\n")
_LINE_ENDS = re.compile("\r\n?|[\x0b\x0c\x85\u2028\u2029]")
# Control characters, soft hyphen, zero-width space, direction marks, word joiner and invisible operators, byte order
# mark, surrogates, non-characters, invisible tags. The zero-width (non-)joiners stay: Persian, Hindi and emoji are
# misspelt without them.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff"
    "\ufff9-\ufffb\ufffe\uffff\ud800-\udfff\U000e0000-\U000e007f]"
)
_SPACES = re.compile(r"[^\S\n ][^\S\n]*| [^\S\n]+")  # runs that are not one plain space
_BLANK_LINES = re.compile("\n{3,}")


def clean(text: str) -> str:
    """A text in Unicode NFC with plain spaces and line ends; nothing a reader sees is changed.

    Invisible characters go, ``\\r\\n`` and its kin become ``\\n``, runs of white space become one space, lines are
    stripped, at most one blank line parts paragraphs. Cleaning twice is cleaning once.
    """
    if text.isascii() and not _ASCII_DIRT.search(text):
        return text.strip()
    text = _LINE_ENDS.sub("\n", _INVISIBLE.sub("", text))
    text = _SPACES.sub(" ", unicodedata.normalize("NFC", text))
    text = text.replace(" \n", "\n").replace("\n ", "\n")
    return _BLANK_LINES.sub("\n\n", text).strip()

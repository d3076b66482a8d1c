"""Long texts in pieces that an encoder can take in."""

from __future__ import annotations

import re

# The end of a sentence, with its closing quotes; a line end counts as one. Chinese and Japanese put no space after it.
_SENTENCE_END = re.compile(r"[.!?\u2026]+[\"')\]\u2019\u201d]*(?=\s)|[\u3002\uff01\uff1f]+[\u300d\u300f\u201d]*|(?=\n)")


def split(text: str, max_chars: int | None) -> list[str]:
    """Pieces of at most ``max_chars`` characters, in order; only white space at the cuts is lost.

    A cut is put at the last paragraph end that fits, else the last sentence end, else the last word end, else in the
    middle of a word. A piece has at least half of ``max_chars`` and the last two at least a third of it, so that no
    stump is left over. ``None`` gives the text whole.
    """
    if max_chars is None or len(text) <= max_chars:
        return [text]
    pieces = []
    start, end = 0, len(text)
    while (rest := end - start) > max_chars:
        if 2 * rest <= 3 * max_chars:  # the last two pieces: either side of the cut then fits
            low, high = start + rest // 3, start + 2 * rest // 3
        else:
            low, high = start + max_chars // 2, start + max_chars
        cut = _last_end(text, low, high)
        pieces.append(text[start:cut].rstrip())
        start = cut
        while start < end and text[start].isspace():
            start += 1
    pieces.append(text[start:])
    return [piece for piece in pieces if piece]


def _last_end(text: str, low: int, high: int) -> int:
    """The best place to cut, ``low < cut <= high``."""
    paragraph = text.rfind("\n\n", low + 1, high + 2)
    if paragraph > 0:
        return paragraph
    sentences = [match.end() for match in _SENTENCE_END.finditer(text, low, high + 1) if low < match.end() <= high]
    if sentences:
        return sentences[-1]
    word = max(text.rfind(" ", low + 1, high + 1), text.rfind("\n", low + 1, high + 1))
    return word if word > 0 else high

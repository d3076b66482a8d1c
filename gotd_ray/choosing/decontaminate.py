"""Documents that share a long run of words with an evaluation text.

A word is a run of letters and digits after NFKC and case folding, so punctuation, case and spacing do not hide a
copy. Scripts without spaces (Chinese, Japanese, Thai) give one word per run of characters: there only long copied
passages are found.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

MIN_WORDS = 5  # a shorter evaluation text ("yes", "New York") would match by chance

_WORD = re.compile(r"[^\W_]+")
_BETWEEN, _UNKNOWN = -1, -2  # between two evaluation texts; a word that no evaluation text has


@dataclass(frozen=True)
class Contamination:
    """The longest run of words that a document shares with an evaluation text.

    Attributes:
        eval_id: the evaluation text; the smallest id when several share the same run.
        span: the shared words, normalised, with single spaces.
    """

    eval_id: str
    span: str


def words(text: str) -> list[str]:
    """The words of a text in order, normalised."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def least_words(n: int) -> int:
    """Words of the shortest evaluation text that is searched for, by ``n`` words in a row or as a whole."""
    return min(n, MIN_WORDS)


class NgramIndex:
    """Evaluation texts, ready to be found again in documents.

    A text of at least ``n`` words is found by any ``n`` of them in a row; a shorter one only as a whole, and one of
    fewer than ``least_words(n)`` not at all.

    Attributes:
        too_short: how many texts were left out for being that short.
    """

    def __init__(self, n: int, texts: Iterable[tuple[str, str]]) -> None:
        """``n``: words in a row; ``texts``: pairs (eval_id, text) in any order."""
        self.too_short = 0
        self._eval_ids: list[str] = []
        self._vocabulary: dict[str, int] = {}
        sequence, starts = [_BETWEEN], []  # all texts in one row of word numbers, by eval_id
        for eval_id, text in sorted(texts):
            found = words(text)
            if len(found) < least_words(n):
                self.too_short += 1
                continue
            self._eval_ids.append(eval_id)
            starts.append(len(sequence))
            sequence += [self._vocabulary.setdefault(word, len(self._vocabulary)) for word in found]
            sequence.append(_BETWEEN)
        self._words = np.array(sequence, np.int64)
        self._starts = np.array(starts, np.int64)
        self._tables = self._index(n, np.diff([*starts, len(sequence)]) - 1)

    def match(self, text: str) -> Contamination | None:
        """The longest shared run, ties to the smallest eval id; None for a clean document."""
        found = words(text)
        known = [self._vocabulary.get(word, _UNKNOWN) for word in found]
        document = np.array([_UNKNOWN, *known, _UNKNOWN], np.int64)
        best = (0, 0, 0)  # minus the length, the place among the evaluation texts, the start in the document
        for size, hashes in _rolling(document, max(self._tables, default=0)):
            if size not in self._tables:
                continue
            grams, places = self._tables[size]
            low, high = np.searchsorted(grams, hashes), np.searchsorted(grams, hashes, side="right")
            for at in np.flatnonzero(low < high).tolist():
                length, place = self._longest(document, at, places[low[at] : high[at]])
                if length >= size:
                    best = min(best, (-length, self._text_at(place), at))
        if best == (0, 0, 0):
            return None
        length, start = -best[0], best[2] - 1
        return Contamination(self._eval_ids[best[1]], " ".join(found[start : start + length]))

    def _index(self, n: int, lengths: np.ndarray) -> dict[int, tuple[np.ndarray, np.ndarray]]:
        """Per run length: the sorted hashes of the runs and where each begins in ``_words``."""
        tables = {}
        owner = np.repeat(np.arange(len(lengths)), lengths + 1)  # text of each entry of _words after the first
        for size, hashes in _rolling(self._words, int(min(n, lengths.max(initial=0)))):
            if size < n:
                places = self._starts[lengths == size]
            else:
                left = (self._starts + lengths)[owner] - np.arange(1, len(self._words))
                places = 1 + np.flatnonzero(left >= n)
            if len(places):
                order = np.argsort(hashes[places], kind="stable")
                tables[size] = hashes[places][order], places[order]
        return tables

    def _longest(self, document: np.ndarray, at: int, places: np.ndarray) -> tuple[int, int]:
        """Length and first place of the longest run that begins in ``document`` at ``at`` and in ``_words`` at one of
        ``places``. Compares words, not hashes. A run that also matches one word earlier was measured there."""
        places = places[self._words[places - 1] != document[at - 1]]
        length = 0
        while len(longer := places[self._words[places + length] == document[at + length]]):
            places = longer
            length += 1
        return length, int(places[0]) if length else 0

    def _text_at(self, place: int) -> int:
        return int(np.searchsorted(self._starts, place, side="right")) - 1


def _rolling(numbers: np.ndarray, longest: int) -> Iterable[tuple[int, np.ndarray]]:
    """For each run length 1..``longest``: 64-bit hashes of all runs of that length, by their start."""
    mixed = (numbers.astype(np.uint64) + np.uint64(3)) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
    hashes = np.zeros(len(numbers) + 1, np.uint64)
    for size in range(1, min(longest, len(numbers)) + 1):
        hashes = hashes[:-1] * np.uint64(0x100000001B3) + mixed[size - 1 :]
        yield size, hashes

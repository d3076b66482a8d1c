"""Texts to rows of tokens: long texts cut, short ones packed together, and no text sees another.

In a packed row the positions of every text begin at 0. A causal model makes its block-diagonal mask from them; a masked
one is given the mask. ``leak`` holds a model to it before it is trained so.
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load, save

from gotd_ray.errors import UserError

IGNORED = -100
"""The label of a token that is not to be predicted."""

LEAK = 1e-4
"""Largest change of a logit that counts as rounding."""


@dataclass(frozen=True)
class Rows:
    """n rows of tokens.

    Attributes:
        tokens: int32, the tokens of all rows, one row after the other.
        texts: int32, for every token the number of its text within the row.
        starts: (n + 1,) int64, where rows begin.
        classes: (n,) int64, the class of each row; None for language modelling.
        learnt: bool, for every token whether it is to be predicted; None: all that have one before them.
    """

    tokens: np.ndarray
    texts: np.ndarray
    starts: np.ndarray
    classes: np.ndarray | None = None
    learnt: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.starts) - 1

    def row(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Tokens and text numbers of one row."""
        part = slice(self.starts[number], self.starts[number + 1])
        return self.tokens[part], self.texts[part]

    def labels(self, number: int) -> np.ndarray:
        """Of one row, for a causal model: what each token is predicted to be, or ``IGNORED``."""
        labels = next_token_labels(*self.row(number))
        if self.learnt is None:
            return labels
        return np.where(self.learnt[self.starts[number] : self.starts[number + 1]], labels, IGNORED)

    def to_bytes(self) -> bytes:
        arrays = {"tokens": self.tokens, "texts": self.texts, "starts": self.starts}
        others = {"classes": self.classes, "learnt": self.learnt}
        return save(arrays | {name: array for name, array in others.items() if array is not None})

    @classmethod
    def from_bytes(cls, data: bytes) -> Rows:
        return cls(**load(data))


def tokenize(tokenizer: Any, texts: list[str], max_tokens: int, *, end: bool) -> list[np.ndarray]:
    """Pieces of at most ``max_tokens`` tokens, each with the tokenizer's special tokens; no token is lost.

    Args:
        tokenizer: a Hugging Face tokenizer.
        texts: the texts, in order.
        max_tokens: L.
        end: put the end-of-text token after each text, as a causal model learnt it.
    """
    stop = [tokenizer.eos_token_id] if end and tokenizer.eos_token_id is not None else []
    pieces: list[np.ndarray] = []
    for start in range(0, len(texts), 1000):
        batch = tokenizer(
            texts[start : start + 1000],
            truncation=True,
            max_length=max_tokens - len(stop),
            return_overflowing_tokens=True,
        )
        owners = batch["overflow_to_sample_mapping"]
        for number, ids in enumerate(batch["input_ids"]):
            last = number + 1 == len(owners) or owners[number + 1] != owners[number]
            whole = [*ids, *stop] if last and stop and ids[-1:] != stop else ids
            pieces.append(np.asarray(whole, dtype=np.int32))
    return pieces


def one_by_one(
    pieces: list[np.ndarray], classes: list[int] | None = None, learnt: list[np.ndarray] | None = None
) -> Rows:
    """A row for each piece."""
    return _rows(pieces, [[number] for number in range(len(pieces))], classes, learnt)


def pack(pieces: list[np.ndarray], max_tokens: int, learnt: list[np.ndarray] | None = None) -> Rows:
    """As few rows of at most ``max_tokens`` tokens as best fit, longest first, finds; a piece stays whole.

    The rows depend on the pieces alone, not on their order but for those of one length.

    Args:
        learnt: of each piece the tokens that are to be predicted; None: all.
    """
    bins: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (tokens free, bin), sorted
    for number in sorted(range(len(pieces)), key=lambda number: -len(pieces[number])):
        size = len(pieces[number])
        place = bisect.bisect_left(room, (size, -1))
        if place == len(room):
            bins.append([number])
            free, row = max_tokens, len(bins) - 1
        else:
            free, row = room.pop(place)
            bins[row].append(number)
        if free > size:
            bisect.insort(room, (free - size, row))
    return _rows(pieces, bins, learnt=learnt)


def _rows(
    pieces: list[np.ndarray],
    bins: list[list[int]],
    classes: list[int] | None = None,
    learnt: list[np.ndarray] | None = None,
) -> Rows:
    """``bins``: of each row the numbers of its pieces."""
    empty = [np.empty(0, np.int32)]
    lengths = [sum(len(pieces[piece]) for piece in row) for row in bins]
    order = [piece for row in bins for piece in row]
    return Rows(
        tokens=np.concatenate([pieces[piece] for piece in order] or empty).astype(np.int32),
        texts=np.concatenate(
            [np.full(len(pieces[piece]), place, np.int32) for row in bins for place, piece in enumerate(row)] or empty
        ),
        starts=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        classes=None if classes is None else np.asarray(classes, np.int64),
        learnt=None if learnt is None else np.concatenate([learnt[piece] for piece in order]),
    )


@dataclass(frozen=True)
class Masking:
    """What a masked language model hides, as BERT did: of the chosen, 80 % masked, 10 % random, 10 % kept."""

    share: float
    mask_id: int
    vocabulary: int
    special_ids: tuple[int, ...]
    seed: int

    def __call__(self, ids: np.ndarray, draw: int) -> tuple[np.ndarray, np.ndarray]:
        """Ids and labels of the ``draw``-th row of the training; the same however it is split among workers."""
        random = np.random.default_rng([self.seed, draw])
        chances = np.where(np.isin(ids, self.special_ids), 2.0, random.random(len(ids)))
        chosen = chances < self.share
        if not chosen.any() and (chances < 1).any():
            chosen[chances.argmin()] = True  # a row without a label would teach nothing
        labels = np.where(chosen, ids, IGNORED)
        fate = random.random(len(ids))
        other = np.where(fate < 0.9, random.integers(self.vocabulary, size=len(ids)), ids)
        hidden = np.where(fate < 0.8, self.mask_id, other)
        return np.where(chosen, hidden, ids), labels


def next_token_labels(ids: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """Every token but the first of its text, which has nothing before it."""
    first = np.diff(texts, prepend=-1) != 0
    return np.where(first, IGNORED, ids)


class Draws(torch.utils.data.Dataset[dict[str, np.ndarray]]):
    """The rows in the order of training, over all epochs: every epoch is a permutation of its own.

    Args:
        rows: n rows.
        count: rows drawn in all.
        seed: of the order.
        masking: for the masked objective; None makes labels for causal models, or gives the rows' classes.
    """

    def __init__(self, rows: Rows, count: int, seed: int, masking: Masking | None, *, shuffle: bool = True) -> None:
        self._rows, self._count, self._masking = rows, count, masking
        self._order = np.concatenate(
            [
                np.random.default_rng([seed, epoch]).permutation(len(rows)) if shuffle else np.arange(len(rows))
                for epoch in range(-(-count // len(rows)))
            ]
        )

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, draw: int) -> dict[str, np.ndarray]:
        number = self._order[draw]
        ids, texts = self._rows.row(number)
        if self._rows.classes is not None:
            return {"ids": ids, "texts": texts, "labels": self._rows.classes[number]}
        if self._masking:
            ids, labels = self._masking(ids, draw)
            return {"ids": ids, "texts": texts, "labels": labels}
        return {"ids": ids, "texts": texts, "labels": self._rows.labels(number)}


@dataclass(frozen=True)
class Collator:
    """Rows to a batch of tensors.

    Attributes:
        packed: rows may hold several texts.
        causal: the model itself keeps the texts of a row apart, by their positions.
        pad_id: fills up the shorter rows.
        first_position: that of a text's first token, see :func:`first_position`.
    """

    packed: bool
    causal: bool
    pad_id: int
    first_position: int = 0

    def __call__(self, rows: list[dict[str, np.ndarray]]) -> dict[str, torch.Tensor]:
        """``input_ids`` (B, L), ``labels`` (B, L) or (B,), and what keeps texts and padding apart."""
        length = max(len(row["ids"]) for row in rows)
        ids = _filled([row["ids"] for row in rows], length, self.pad_id)
        texts = _filled([row["texts"] for row in rows], length, -1)  # the padding is a text of its own
        labels = [row["labels"] for row in rows]
        batch = {"input_ids": ids}
        batch["labels"] = (
            torch.as_tensor(np.array(labels)) if np.ndim(labels[0]) == 0 else _filled(labels, length, IGNORED)
        )
        if not self.packed:
            return batch | {"attention_mask": (texts >= 0).long()}
        batch["position_ids"] = _positions(texts) + self.first_position
        if not self.causal:
            batch["attention_mask"] = (texts[:, :, None] == texts[:, None, :])[:, None]
        return batch


def _filled(rows: list[np.ndarray], length: int, value: int) -> torch.Tensor:
    out = np.full((len(rows), length), value, np.int64)
    for number, row in enumerate(rows):
        out[number, : len(row)] = row
    return torch.from_numpy(out)


def _positions(texts: torch.Tensor) -> torch.Tensor:
    """(B, L) place of every token in its text."""
    places = torch.arange(texts.shape[1]).expand_as(texts)
    first = torch.ones_like(texts, dtype=torch.bool)
    first[:, 1:] = texts[:, 1:] != texts[:, :-1]
    return places - torch.where(first, places, 0).cummax(dim=1).values


def first_position(model: torch.nn.Module) -> int:
    """Models after RoBERTa count positions from behind that of the padding, others from 0."""
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            return int(module.padding_idx) + 1
    return 0


def refuse_sight(stage: str, model: torch.nn.Module, *, causal: bool, packed: bool) -> None:
    """Hold a model to what no token may see: what it is to predict, and other texts of its row.

    Raises:
        UserError: it sees that.
    """
    name, vocabulary = type(model).__name__, int(getattr(model, "config").vocab_size)  # noqa: B009 - torch's typing
    if causal and (moved := foresight(model, vocabulary)) > LEAK:
        raise UserError(
            f"{stage}: a token of a {name} sees those after it (a logit moved by {moved:.2g}), which a causal model "
            f"learns to predict. Set {stage}.objective to masked, or choose a causal model.base."
        )
    if packed and (moved := leak(model, vocabulary, causal=causal)) > LEAK:
        raise UserError(
            f"{stage}: a {name} lets a text see its neighbours in a packed row (a logit moved by {moved:.2g}). Set "
            f"{stage}.pack to false."
        )


def leak(model: torch.nn.Module, vocabulary: int, *, causal: bool) -> float:
    """How far the logits of a text in a row by itself, not packed, move when it gets neighbours there: 0 but for
    rounding where it sees none and has its own positions."""
    text, before, after = _some_texts(model, vocabulary)
    alone = _logits(model, [text], causal=causal)
    among = _logits(model, [before, text, after], causal=causal)[len(text) : 2 * len(text)]
    return float((alone - among).abs().max())


def foresight(model: torch.nn.Module, vocabulary: int) -> float:
    """How far the logits of a text move when its second half is another: 0 but for rounding where no token sees those
    that come after it."""
    text, _, other = _some_texts(model, vocabulary)
    half = len(text) // 2
    changed = np.concatenate([text[:half], other[half:]])
    first, second = (_logits(model, [one], causal=True)[:half] for one in (text, changed))
    return float((first - second).abs().max())


def _some_texts(model: torch.nn.Module, vocabulary: int) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    padding = getattr(getattr(model, "config", None), "pad_token_id", None)
    tokens = np.setdiff1d(np.arange(vocabulary, dtype=np.int32), [-1 if padding is None else padding])
    return [random.choice(tokens, size=8) for _ in range(3)]


def _logits(model: torch.nn.Module, texts: list[np.ndarray], *, causal: bool) -> torch.Tensor:
    """(tokens, vocabulary) of one row that holds the texts, packed where they are several."""
    collate = Collator(len(texts) > 1, causal, 0, first_position(model))
    batch = collate([Draws(_rows(texts, [list(range(len(texts)))]), 1, 0, None)[0]])
    batch.pop("labels")
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    with torch.no_grad():
        logits = model(**{name: value.to(device) for name, value in batch.items()}).logits
    model.train(was_training)
    return logits[0].float()

"""Rows: nothing is lost, nothing is seen that stands beside, and the order is the seed's."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import texts
from torch import nn

from gotd_ray import config
from gotd_ray.errors import UserError
from gotd_ray.models import language
from gotd_ray.models.packing import (
    IGNORED,
    Collator,
    Draws,
    Masking,
    Rows,
    first_position,
    foresight,
    leak,
    next_token_labels,
    one_by_one,
    pack,
    refuse_sight,
    tokenize,
)


def base(folder: Path) -> language.Base:
    return language.find(config.Model(base=str(folder)), config.Storage())


def pieces_of(folder: Path, length: int = 64) -> list[np.ndarray]:
    return tokenize(language.load_tokenizer(base(folder), None), texts(), length, end=True)


def test_no_token_is_lost_when_long_texts_are_cut_and_short_ones_packed(llama: Path) -> None:
    tokenizer = language.load_tokenizer(base(llama), None)
    pieces = pieces_of(llama)
    rows = pack(pieces, 64)
    whole = Counter(token for text in texts() for token in tokenizer(text)["input_ids"])
    whole[tokenizer.eos_token_id] += len(texts())
    assert Counter(rows.tokens.tolist()) == whole
    assert np.diff(rows.starts).max() <= 64


def test_a_piece_stays_whole_and_rows_are_nearly_full() -> None:
    random = np.random.default_rng(0)
    pieces = [random.integers(500, size=random.integers(1, 64)).astype(np.int32) for _ in range(300)]
    rows = pack(pieces, 64)
    found = []
    for number in range(len(rows)):
        ids, owners = rows.row(number)
        found += [tuple(ids[owners == text]) for text in range(owners.max() + 1)]
    assert sorted(found) == sorted(tuple(piece) for piece in pieces)
    assert len(rows.tokens) / (64 * len(rows)) > 0.9


def test_rows_survive_their_file(llama: Path) -> None:
    rows = one_by_one(pieces_of(llama), classes=[1] * len(pieces_of(llama)))
    again = Rows.from_bytes(rows.to_bytes())
    for name in ("tokens", "texts", "starts", "classes"):
        assert (getattr(again, name) == getattr(rows, name)).all()


@pytest.mark.parametrize("kind", ["causal", "masked"])
def test_the_loss_of_a_document_does_not_change_with_its_neighbours(kind: Any, llama: Path, bert: Path) -> None:
    """Losses of each token, packed and alone; the same model fed without positions or mask shows that they could."""
    folder = llama if kind == "causal" else bert
    model = language.load(base(folder), kind, seed=0).eval()
    pieces = [piece for piece in pieces_of(folder) if len(piece) <= 20][:3]
    collate = Collator(packed=True, causal=kind == "causal", pad_id=0)

    def logits(rows: Rows, **changes: Any) -> torch.Tensor:
        batch = collate([Draws(rows, len(rows), 0, None, shuffle=False)[0]]) | changes
        batch.pop("labels")
        with torch.no_grad():
            return model(**{name: value for name, value in batch.items() if value is not None}).logits[0]

    packed = pack(pieces, 64)
    ids, owners = packed.row(0)
    assert len(packed) == 1 and owners.max() == 2
    together = logits(packed)
    leaking = logits(packed, position_ids=None, attention_mask=None)
    for text in range(3):
        place = torch.from_numpy(owners == text)
        alone = logits(pack([ids[owners == text]], 64))
        assert torch.allclose(together[place], alone, atol=1e-6)
        assert (text == 0 and kind == "causal") or not torch.allclose(leaking[place], alone, atol=1e-3)


class Deaf(nn.Module):
    """A model that takes no notice of positions."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model, self.config = model, model.config

    def forward(self, input_ids: torch.Tensor, **_: Any) -> Any:
        return self.model(input_ids=input_ids)


def test_a_model_that_leaks_is_found_out(llama: Path, bert: Path) -> None:
    causal, masked = language.load(base(llama), "causal", 0), language.load(base(bert), "masked", 0)
    assert leak(causal, 400, causal=True) < 1e-5
    assert leak(masked, 400, causal=False) < 1e-5
    assert leak(Deaf(causal), 400, causal=True) > 1e-3


def test_a_model_that_sees_ahead_is_found_out(llama: Path, bert: Path) -> None:
    causal, two_ways = language.load(base(llama), "causal", 0), language.load(base(bert), "causal", 0)
    assert foresight(causal, 400) < 1e-5
    assert foresight(two_ways, 400) > 1e-3
    for packed in (True, False):
        refuse_sight("pretune", causal, causal=True, packed=packed)
        with pytest.raises(UserError, match=r"^pretune: a token of a BertLMHeadModel sees those after it \("):
            refuse_sight("pretune", two_ways, causal=True, packed=packed)
    refuse_sight("pretune", language.load(base(bert), "masked", 0), causal=False, packed=True)
    with pytest.raises(
        UserError, match=r"^pretune: a Deaf lets a text see its neighbours .* Set pretune.pack to false.$"
    ):
        refuse_sight("pretune", Deaf(causal), causal=True, packed=True)


def test_models_that_count_positions_from_behind_the_padding_get_theirs() -> None:
    from transformers import RobertaConfig, RobertaForMaskedLM

    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    model = RobertaForMaskedLM(RobertaConfig(**shape, vocab_size=50, max_position_embeddings=40)).eval()
    assert first_position(model) == 2
    assert leak(model, 50, causal=False) < 1e-5
    for module in model.modules():  # as if it were of another family
        if isinstance(module, nn.Embedding):
            module.padding_idx = None
    assert first_position(model) == 0
    assert leak(model, 50, causal=False) > 1e-3


def test_padding_changes_nothing(llama: Path) -> None:
    """The padding of a shorter row in a batch is a text of its own."""
    model = language.load(base(llama), "causal", 0).eval()
    rows = one_by_one([np.arange(5, 25, dtype=np.int32), np.arange(40, 50, dtype=np.int32)])
    draws = Draws(rows, 2, 0, None, shuffle=False)
    both, one = (Collator(True, True, 0)(r) for r in ([draws[0], draws[1]], [draws[1]]))
    with torch.no_grad():
        found = [model(input_ids=b["input_ids"], position_ids=b["position_ids"]).logits[-1, :10] for b in (both, one)]
    assert torch.allclose(found[0], found[1], atol=1e-6)
    assert (both["labels"][1, 10:] == IGNORED).all()


def test_the_first_token_of_a_text_is_never_predicted() -> None:
    labels = next_token_labels(np.array([7, 8, 9, 7, 5]), np.array([0, 0, 1, 1, 2]))
    assert labels.tolist() == [IGNORED, 8, IGNORED, 7, IGNORED]


def test_every_epoch_is_a_permutation_of_its_own() -> None:
    rows = one_by_one([np.full(1, number, np.int32) for number in range(10)])
    drawn = [int(Draws(rows, 25, 3, None)[draw]["ids"][0]) for draw in range(25)]
    assert sorted(drawn[:10]) == sorted(drawn[10:20]) == list(range(10))
    assert drawn[:10] != drawn[10:20]


def test_masks_are_berts_and_depend_on_the_seed_and_the_draw_alone() -> None:
    masking = Masking(0.15, mask_id=4, vocabulary=1000, special_ids=(0, 2, 3), seed=1)
    ids = np.concatenate([[2], np.arange(10, 990), [3]]).astype(np.int64)
    hidden, labels = (np.stack(found) for found in zip(*(masking(ids, draw) for draw in range(60)), strict=True))
    chosen = labels != IGNORED
    assert not chosen[:, [0, -1]].any()
    assert (labels[chosen] == np.broadcast_to(ids, labels.shape)[chosen]).all()
    assert (hidden[~chosen] == np.broadcast_to(ids, labels.shape)[~chosen]).all()
    assert abs(chosen[:, 1:-1].mean() - 0.15) < 0.01
    assert abs((hidden[chosen] == 4).mean() - 0.8) < 0.02
    assert abs((hidden[chosen] == labels[chosen]).mean() - 0.1) < 0.02
    assert all((masking(ids, 7)[part] == (hidden, labels)[part][7]).all() for part in (0, 1))

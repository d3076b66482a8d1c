"""Tokenizers as readers have them: transformers', kept on disk, without torch in the process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

from gotd_ray.config import Encoder
from gotd_ray.errors import UserError
from gotd_ray.models import tokenizer
from gotd_ray.models.tokenizer import Tokenizer

TEXTS = ["The house, and the tree.", "", "a [SEP] b é 漢字 \U0001f600 x_y", "river " * 500]

READER = """
import sys
from gotd_ray.config import Encoder
from gotd_ray.models.encoder import TextEncoder

ids, counts = TextEncoder(Encoder(kind=sys.argv[1], max_tokens=40)).tokenize(["the house", "river " * 500])
print("torch" in sys.modules, [len(one) for one in ids], counts.tolist())
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "gotd_ray" / "tokenizers"


def test_a_process_that_only_tokenises_does_not_import_torch() -> None:
    Tokenizer(Encoder())  # kept from here on
    for kind in ("transformer", "static"):
        done = subprocess.run([sys.executable, "-c", READER, kind], capture_output=True, text=True, env=os.environ)
        assert done.stdout == "False [4, 40] [2, 500]\n", done.stderr


def test_what_is_kept_gives_the_ids_of_transformers(bert: Path, llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in (bert, llama, Path(Tokenizer(Encoder()).folder)):
        settings = Encoder(model=str(folder), max_tokens=64)
        first = Tokenizer(settings)(TEXTS)
        monkeypatch.setattr(tokenizer, "_of_transformers", None)  # it is read from disk
        second = Tokenizer(settings)(TEXTS)
        monkeypatch.undo()
        theirs = AutoTokenizer.from_pretrained(folder)(TEXTS, truncation=True, max_length=64)["input_ids"]
        for ids in (first[0], second[0]):
            assert [one.tolist() for one in ids] == theirs
        np.testing.assert_array_equal(first[1], second[1])


def test_a_model_whose_files_changed_has_another_tokenizer(bert: Path, tmp_path: Path, cache: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for path in bert.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    settings = Encoder(model=str(folder), max_tokens=32)
    known = Tokenizer(settings).vocabulary
    written = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = written["model"]["vocab"]
    vocabulary["another"] = max(vocabulary.values()) + 1
    (folder / "tokenizer.json").write_text(json.dumps(written))
    assert Tokenizer(settings).vocabulary == [*known, "another"] and len(list(cache.iterdir())) == 2


def test_where_nothing_can_be_kept_it_is_made_each_time(
    tmp_path: Path, bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert len(Tokenizer(Encoder(model=str(bert), max_tokens=16))(TEXTS)[0][3]) == 16


def test_a_tokenizer_that_does_not_load_is_said_and_not_kept(bert: Path, tmp_path: Path, cache: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for path in bert.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(UserError, match="the tokenizer of the encoder 'model' does not load: "):
        Tokenizer(Encoder(model=str(folder)))
    assert not list(cache.iterdir())

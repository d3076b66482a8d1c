"""Our own encoders, the documents' example and a sound plug-in keep the contract; each broken one is caught."""

from __future__ import annotations

import pkgutil
import re
from pathlib import Path
from typing import get_args

import pytest

from gotd_ray import config, contract
from gotd_ray.errors import UserError
from gotd_ray.models import encoders
from gotd_ray.models.encoder import TextEncoder, uses_gpu

EXTENDING = Path(__file__).parent.parent / "docs" / "extending.md"


@pytest.mark.parametrize("kind", get_args(config.EncoderKind))
def test_our_own_kinds_keep_it(kind: str, bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    contract.check_encoder(config.Encoder(kind=kind, model=str(bert), batch_tokens=64, max_tokens=40))


def test_each_kind_has_its_file_and_its_name_in_the_config() -> None:
    assert {found.name for found in pkgutil.iter_modules(encoders.__path__)} == set(get_args(config.EncoderKind))


def test_a_sound_plugin_keeps_it() -> None:
    settings = config.Encoder(kind="foreign_encoders:Good")
    contract.check_encoder(settings)
    identity = TextEncoder(settings).identity
    assert identity["kind"] == settings.kind and identity["version"] == 1 and identity["width"] == 32
    assert identity["model"] == settings.model and "actors" not in identity and not uses_gpu(settings)


def test_the_example_of_the_documents_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = EXTENDING.read_text(encoding="utf-8")
    (source,) = [one for one in re.findall(r"^```python\n(.*?)^```", page, re.M | re.S) if "encode_ids" in one]
    assert len(source.splitlines()) <= 25
    (tmp_path / "hashed_words.py").write_text(source, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    contract.check_encoder(config.Encoder(kind="hashed_words:HashedWords"))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Draws", "the same texts have other vectors the second time"),
        ("Looks", r"a text has another vector among 1 than among \d+"),
        ("Hashes", "another process has other vectors or another identity"),
        ("Overflows", "a vector that is not finite"),
        ("Narrow", r"vectors of the shape \(\d+, 31\), and its width is 32"),
        ("Nothing", r"gave 0 texts vectors of the shape \(0,\)"),
        ("Flat", "all texts have the same vector"),
        ("Long", r"encoder\.normalize is true, and a vector's length is off by 1"),
        ("Uncut", r"tokenize gave \d+ ids, and max_tokens is 16"),
        ("Lists", "ids are not arrays of int32"),
        ("Halves", "counts of tokens are not whole numbers"),
        ("Forgets", r"tokenize gave \d+ and \d+ for \d+ texts"),
        ("Objects", "identity is not what JSON keeps"),
        ("Changes", "identity is another the second time"),
    ],
)
def test_what_is_broken_is_caught(name: str, said: str) -> None:
    with pytest.raises((AssertionError, UserError), match=said):
        contract.check_encoder(config.Encoder(kind=f"foreign_encoders:{name}"))

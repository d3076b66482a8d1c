"""Plug-ins are found by path and by entry point, and what is wrong with one is said in one line."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from gotd_ray import config, plugins
from gotd_ray.errors import UserError

SOURCE = """
class Mine:
    version = 1
    def tokenize(self, texts): ...
    def encode_ids(self, ids): ...
    class Inner:
        version, tokenize, encode_ids = 1, None, None

class Half:
    version = 1
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the path with the package ``somebodys``, which offers ``mine``, and ``theirs`` twice."""
    package = tmp_path / "somebodys"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "encoders.py").write_text(SOURCE)
    (package / "broken.py").write_text("1 / 0")
    (package / "poor.py").write_text("import a_module_that_nobody_has")
    (package / "script.py").write_text("raise SystemExit(3)")
    for name, lines in (
        ("somebodys", "mine = somebodys.encoders:Mine\ntheirs = somebodys.encoders:Mine\n"),
        ("others", "theirs = somebodys.encoders:Half\n"),
    ):
        info = tmp_path / f"{name}-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
        (info / "entry_points.txt").write_text(f"[{plugins.ENCODERS}]\n{lines}")
    monkeypatch.syspath_prepend(tmp_path)
    yield package
    for name in [name for name in sys.modules if name.partition(".")[0] == "somebodys"]:
        del sys.modules[name]


@pytest.mark.parametrize("name", ["somebodys.encoders:Mine", "somebodys.encoders.Mine", "mine"])
def test_a_plugin_is_found(installed: Path, name: str) -> None:
    assert plugins.load(plugins.ENCODERS, name) is sys.modules["somebodys.encoders"].Mine
    assert plugins.load(plugins.ENCODERS, "somebodys.encoders:Mine.Inner").__name__ == "Inner"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nobodys", "which no installed package offers; there is mine, theirs in the group gotd_ray.encoders. Install"),
        ("theirs", "which several packages offer: somebodys.encoders:Half, somebodys.encoders:Mine. Write one"),
        ("nobodys.encoders:Mine", "but there is no module nobodys here. Correct the name, or install its package"),
        ("somebodys.nothing:Mine", "but there is no module somebodys.nothing here. Correct the name"),
        ("somebodys.encoders:Miner", "but somebodys.encoders has no 'Miner'; it has Mine."),
        ("somebodys.encoders:Half", "which has no tokenize, encode_ids. docs/extending.md says what is needed."),
        ("somebodys.broken:Mine", "but the import of somebodys.broken fails: ZeroDivisionError: division by zero."),
        ("somebodys.poor:Mine", "the import of somebodys.poor fails: ModuleNotFoundError: No module named 'a_module"),
        ("somebodys.script:Mine", "but the import of somebodys.script fails: SystemExit: 3."),
        *((name, "which is not of the form package.module:name. Correct") for name in (":x", "x:", "a..b", "a b.c")),
    ],
)
def test_what_is_wrong_is_said_in_one_line(installed: Path, name: str, said: str) -> None:
    with pytest.raises(UserError) as raised:
        plugins.load(plugins.ENCODERS, name)
    told = str(raised.value)
    assert told.startswith(f"encoder.kind is '{name}', ") and said in told and "\n" not in told


def test_the_config_takes_a_path_and_what_is_offered(installed: Path) -> None:
    for name in ("transformer", "static", "mine", "anybodys.encoders:Any", "a.b"):
        assert config.Encoder.model_validate({"kind": name}).kind == name
    for name in ("nobodys", 3, ["mine"], None):
        with pytest.raises(ValidationError, match="Input should be 'transformer' or 'static'"):
            config.Encoder.model_validate({"kind": name})
    with pytest.raises(ValidationError, match="cannot be seen"):
        config.Encoder.model_validate({"kind": "a.b\n"})


def test_every_group_names_its_key_and_what_it_needs(installed: Path) -> None:
    with pytest.raises(UserError, match=r"^select\.method is 'somebodys\.encoders:Mine', which has no fit, score\."):
        plugins.load(plugins.METHODS, "somebodys.encoders:Mine")
    with pytest.raises(UserError, match=r"there is none in the group gotd_ray\.methods"):
        plugins.load(plugins.METHODS, "mine")

"""Configs as they are written, and the messages that they are met with."""

from __future__ import annotations

from pathlib import Path

import pytest

from gotd_ray import config
from gotd_ray.errors import UserError

BASE = "out: runs/x\ncorpus: {paths: c}\ntarget: {paths: t}\n"
MODEL = "model: {base: b}\n"


def load(folder: Path, text: str | bytes, *overrides: str) -> config.Run:
    path = folder / "run.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return config.load(path, overrides)


def refusal(folder: Path, text: str | bytes, *overrides: str) -> str:
    """The message, without the folder of the file."""
    with pytest.raises(UserError) as caught:
        load(folder, text, *overrides)
    said = str(caught.value).replace(f"{folder}/", "")
    assert said.isprintable(), "one line, no control characters"
    return said


def messages(name: str) -> list[tuple[str, str]]:
    """Cases of a file in ``messages``: what is written, and behind ``=>`` what is said."""
    text = (Path(__file__).parent / "messages" / name).read_text(encoding="utf-8")
    cases = text.partition("\n\n")[2].rstrip("\n").split("\n\n")
    found = [case.partition("\n=>") for case in cases]
    assert all(separator for _, separator, _ in found)
    return [(written + "\n", said.strip()) for written, _, said in found]

"""A page is opened where somebody sits before a desktop, and nowhere else."""

from __future__ import annotations

import sys
import webbrowser
from pathlib import Path

import pytest

from gotd_ray import desktop


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the browser was asked for."""
    asked: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda page: [asked.append(page)] == [None])
    monkeypatch.setattr(sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    return asked


def test_without_a_desktop_no_browser_for_terminals_starts(opened: list[str], tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text("x")
    assert not desktop.show(str(page)) and opened == []


@pytest.mark.parametrize("name", ["DISPLAY", "WAYLAND_DISPLAY"])
def test_on_a_desktop_the_page_is_opened(
    name: str, opened: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, ":0")
    page = tmp_path / "a report.html"
    page.write_text("x")
    assert desktop.show(str(page)) and opened == [f"file://{tmp_path}/a%20report.html"]
    for elsewhere in ("s3://bucket/report.html", str(tmp_path / "none.html")):
        assert not desktop.show(elsewhere)
    assert len(opened) == 1

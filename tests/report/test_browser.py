"""The report in a real browser: nothing in it runs, nothing is fetched, and it can be read by everyone."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hostile import HOSTILE, poisoned

from gotd_ray import config
from gotd_ray.report.render import page as render

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed; pip install playwright")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = [
    pytest.mark.ray,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine; apt-get install chromium"),
]

LIVE = "script, iframe, object, embed, img, form, input, textarea, template, base, animate, a[href^='javascript']"

CONTRASTS = """() => {
  const luminance = (colour) => {
    const [r, g, b] = colour.match(/[\\d.]+/g).map(Number).slice(0, 3).map((v) => v / 255)
      .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (node) => {
    for (let e = node; e; e = e.parentElement) {
      const colour = getComputedStyle(e).backgroundColor;
      if (colour !== "rgba(0, 0, 0, 0)") return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const holds = (n) => n.nodeType === 3 && n.data.trim();
  const texts = [...document.querySelectorAll("body *")].filter(
    (e) => [...e.childNodes].some(holds) && !["title", "desc"].includes(e.tagName));
  return texts.map((e) => {
    const style = getComputedStyle(e), ink = e.namespaceURI.endsWith("svg") ? style.fill : style.color;
    const [dark, light] = [luminance(ink), luminance(behind(e))].sort((a, b) => a - b);
    return [(light + 0.05) / (dark + 0.05), e.tagName + "." + e.getAttribute("class")];
  });
}"""


class Watched:
    """A page, and all that it did besides showing itself."""

    def __init__(self, browser: Any, path: Path, **options: Any) -> None:
        self.path, self.events = path, []
        context = browser.new_context(**options)
        context.route("**/*", self._only_itself)
        self.page = context.new_page()
        self.page.on("dialog", lambda dialog: (self.events.append(f"dialog {dialog.message}"), dialog.dismiss()))
        self.page.on("pageerror", lambda error: self.events.append(f"error {error}"))
        self.page.on("console", lambda message: self.events.append(f"console {message.text}"))
        self.page.goto(path.as_uri())

    def _only_itself(self, route: Any) -> None:
        if route.request.url == self.path.as_uri():
            route.continue_()
        else:
            self.events.append(f"request {route.request.url}")
            route.abort()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    quiet = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
    quiet += ["--disable-component-update", "--disable-sync", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    with sync_api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=quiet)
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def real(finished: config.Run) -> Path:
    return Path(finished.out) / "report" / "report.html"


@pytest.fixture(scope="module")
def spoilt(real: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report in which every text is hostile, and every section present."""
    path = tmp_path_factory.mktemp("spoilt") / "report.html"
    path.write_text(render(poisoned(json.loads(real.with_name("report.json").read_text()))), encoding="utf-8")
    return path


@pytest.mark.parametrize("guarded", [True, False], ids=["with its policy", "by escaping alone"])
@pytest.mark.parametrize("name", ["real", "spoilt"])
def test_hostile_texts_are_shown_and_do_nothing(
    name: str, guarded: bool, browser: Any, request: pytest.FixtureRequest
) -> None:
    watched = Watched(browser, request.getfixturevalue(name), bypass_csp=not guarded)
    page = watched.page
    page.mouse.move(300, 300)
    page.keyboard.press("Tab")
    page.wait_for_timeout(200)
    assert watched.events == []
    assert page.evaluate("window.hacked") is None
    assert page.locator(LIVE).count() == 0
    assert page.locator("style").count() == 1 and page.locator("meta[http-equiv]").count() == 1
    handlers = (
        "[...document.querySelectorAll('*')].flatMap((e) => [...e.attributes]).filter((a) => a.name.startsWith('on'))"
    )
    assert page.evaluate(f"{handlers}.length") == 0
    shown = page.inner_text("body")
    assert "<script>window.hacked = 1; alert(1)</script>" in shown and "1337" not in shown
    page.context.close()


def test_every_hostile_text_is_on_the_spoilt_page_and_turns_no_text_around(spoilt: Path, browser: Any) -> None:
    watched = Watched(browser, spoilt)
    shown = watched.page.evaluate("document.body.textContent")
    for text in HOSTILE[:-1]:
        assert " ".join(text.split())[:50] in " ".join(shown.split())
    assert "safe[U+202E]gpj.exe[U+202C]" in shown
    assert not set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200b\x00\x1b") & set(shown)
    watched.page.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark_can_be_read(scheme: str, spoilt: Path, browser: Any) -> None:
    page = Watched(browser, spoilt, color_scheme=scheme).page
    assert sum(
        page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    ) // 3 < 60 or (scheme == "light")
    contrasts = page.evaluate(CONTRASTS)
    assert len(contrasts) > 100
    assert min(contrasts)[0] >= 4.5, min(contrasts)
    page.context.close()


def test_a_phone_needs_no_scrolling_sideways(spoilt: Path, browser: Any) -> None:
    page = Watched(browser, spoilt, viewport={"width": 360, "height": 700}).page
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.context.close()


def test_it_prints_on_white_even_in_dark_mode(real: Path, browser: Any) -> None:
    page = Watched(browser, real, color_scheme="dark").page
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert min(page.evaluate(CONTRASTS))[0] >= 4.5
    assert page.pdf(format="A4").count(b"/Type /Page\n") + 1 >= 2
    page.context.close()


def test_pictures_tables_and_headings_have_names_and_order(spoilt: Path, browser: Any) -> None:
    page = Watched(browser, spoilt).page
    assert page.locator("svg[role=img]").count() >= 5
    named = "(s) => s.querySelector('title').textContent && s.querySelector('desc').textContent"
    assert page.evaluate(f"[...document.querySelectorAll('svg[role=img]')].every({named})")
    assert page.evaluate("[...document.querySelectorAll('table')].every((t) => t.caption && t.querySelector('th'))")
    levels = page.evaluate("[...document.querySelectorAll('h1, h2, h3, h4')].map((h) => Number(h.tagName[1]))")
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map((e) => e.id)")
    assert len(ids) == len(set(ids))
    page.context.close()

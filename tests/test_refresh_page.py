"""The page of what a refresh has changed, and the commands that follow its pointer; without Ray."""

from __future__ import annotations

import html
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from hostile import HOSTILE
from refreshing import Corpus, Stages

from gotd_ray import cli, show
from gotd_ray.report import refresh as page_words
from gotd_ray.report.render import refresh_page

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


class Cells(HTMLParser):
    """The rows of all tables of a page, by section."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.rows: dict[str, list[list[str]]] = {}
        self.section, self.inside = "", False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "section":
            self.section = dict(attrs)["id"] or ""
        elif tag == "tr":
            self.rows.setdefault(self.section, []).append([])
        elif tag in ("td", "th"):
            self.rows[self.section][-1].append("")
            self.inside = True

    def handle_endtag(self, tag: str) -> None:
        self.inside = self.inside and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.rows[self.section][-1][-1] += data


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Corpus:
    Stages(monkeypatch)
    return Corpus(tmp_path)


def page_of(corpus: Corpus, version: int) -> str:
    return (corpus.folder / "out" / "versions" / f"{version:04d}" / "refresh.html").read_text("utf-8")


def test_the_page_has_the_numbers_to_the_last_document(corpus: Corpus) -> None:
    corpus.refresh()
    assert "The first version: 5 documents of 24; 25 texts were encoded." in page_of(corpus, 1)
    was = corpus.published()[1]
    corpus.write("f0", 50)
    corpus.write("more", 60)
    corpus.delete("f1")
    found = corpus.refresh()
    now = corpus.published()[1]
    assert f"the changes: {corpus.folder}/out/versions/0002/refresh.html" in found.words
    page = page_of(corpus, 2)
    rows = Cells(page).rows
    came, went = [one for one in now if one not in was], [one for one in was if one not in now]
    taken = {source: row["subset"] for source, row in found.facts["sources"].items()}
    before = {source: row["subset_before"] for source, row in found.facts["sources"].items()}
    changes = {row[0]: row[1:7] for row in rows["sources"][1:]}
    counts = {"f0": [4, 4, 4, 4], "f1": [4, 0, 0, 4], "more": [0, 4, 4, 0]}
    counts |= {f"f{number}": [4, 4, 0, 0] for number in range(2, 6)}
    for source, row in counts.items():
        assert changes[source] == [str(one) for one in (*row, before[source], taken[source])]
    assert changes["All 7"] == ["24", "24", "8", "8", "5", "5"]
    ranks = {row[0]: row[2:] for row in rows["ranks"] if re.fullmatch("[0-9a-f]{32}", row[0])}
    place = {one: number for number, one in enumerate(was, 1)}
    moved = [one for one in now if one in was and place[one] != now.index(one) + 1]
    expected = {one: ["\N{EN DASH}", str(now.index(one) + 1)] for one in came}
    expected |= {one: [str(place[one]), "\N{EN DASH}"] for one in went}
    expected |= {one: [str(place[one]), str(now.index(one) + 1)] for one in moved}
    assert ranks == expected and came and went
    up = sum(place[one] > now.index(one) + 1 for one in moved)
    assert f"{up} rose, {len(moved) - up} fell and {len(now) - len(came) - len(moved)} kept their rank" in page
    assert rows["files"][1:] == [["corpus", "1", "1", "1", "8"], ["target", "0", "0", "0", "0"]]
    assert rows["divergence"][1:] == [
        ["corpus", "0.3000", "0.3000"], ["mixture", "0.2000", "0.2000"], ["subset", "0.1000", "0.1000"]
    ]  # fmt: skip
    assert "8 documents came into the corpus and 8 left it, which makes 24; 8 texts were encoded." in page
    assert "The drift was 0.12, against 0.002 that is let pass, so that the last potentials were fitted again." in page


def test_sources_without_a_row_are_summed_up(corpus: Corpus) -> None:
    facts = corpus.refresh().facts
    one = facts["sources"]["f0"]
    facts["sources"] = {f"s{n:03d}": one | {"in": 1 if n < 100 else 0, "corpus": n} for n in range(103)}
    table = page_words.sources(facts)
    assert [len(table["rows"]), table["rest"]["many"], table["rest"]["corpus"]] == [100, 3, 100 + 101 + 102]
    assert table["all"]["corpus"] == sum(range(103)) and table["all"]["in"] == 100
    assert Cells(refresh_page(facts)).rows["sources"][-2][:3] == ["3 others", "0", "303"]


def test_hostile_sources_and_names_are_text(corpus: Corpus) -> None:
    """In the corpus itself, as a crawl may have them; no tag of theirs comes to life, and nothing is loaded."""
    lines = [
        json.dumps({"text": f"a hostile text number {n}, which is long enough to count", "source": text[:200]})
        for n, text in enumerate(HOSTILE[:-1])
    ]
    (corpus.folder / "corpus" / "<img src=x onerror=alert(1)>.jsonl").write_text("\n".join(lines) + "\n")
    corpus.refresh()
    corpus.write("f0", 50)
    corpus.refresh()
    facts = json.loads((corpus.folder / "out" / "versions" / "0002" / "refresh.json").read_text())
    facts["run"] = "</title><script>window.hacked = 1</script>"
    for page in (page_of(corpus, 1), page_of(corpus, 2), refresh_page(facts)):
        tags = set(re.findall(r"<([a-z0-9]+)", page))
        assert not tags & {"script", "img", "iframe", "form", "input", "animate", "a", "textarea", "base", "template"}
        assert f'content="{POLICY}"' in page
        assert not re.search(r"<[^>]*\son[a-z]+\s*=", page) and not re.search(r"(src|href)=[\"'](?!data:,)", page)
    assert html.escape("<script>window.hacked = 1; alert(1)</script>") in page_of(corpus, 1)
    assert "&lt;img src=x onerror=alert(1)&gt;.jsonl" in page_of(corpus, 1)


def told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    monkeypatch.setattr(sys, "argv", ["gotd", *words])
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code in (0, None)
    return capsys.readouterr().out


def test_show_and_report_follow_the_pointer(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = corpus.folder / "run.yaml"
    path.write_text(yaml.safe_dump(corpus.run().model_dump(exclude_unset=True)))
    versions = corpus.folder / "out" / "versions"
    last = json.loads(told(monkeypatch, capsys, "refresh", str(path), "--json").splitlines()[-1])
    assert last["changes_page"] == f"{versions}/0001/refresh.html" and Path(last["changes_page"]).exists()
    corpus.write("f0", 50)
    corpus.refresh()
    looked: list[dict[str, object]] = []
    monkeypatch.setattr(show, "results", lambda found, console: looked.append(found.manifests["select"]))
    said = told(monkeypatch, capsys, "show", str(path))
    assert said.startswith("version 0002, published 20") and f"the changes: {versions}/0002/refresh.html" in said
    assert "would differ" not in said
    assert looked[0]["key"] == json.loads((versions / "0002" / "select" / "manifest.json").read_text())["key"]
    corpus.write("f1", 51)
    said = told(monkeypatch, capsys, "show", str(path))
    assert "and gotd refresh would do embed" in said and "corpus: 1 file changed" in said
    assert corpus.published()[0] == 2, "to look changes nothing"
    said = told(monkeypatch, capsys, "show", str(path), "--set", f"out={versions}/0001")
    assert "published" not in said, "a version of its own has no pointer"

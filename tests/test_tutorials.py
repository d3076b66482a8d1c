"""README and tutorials are run: their Python in order, the laptop's commands, the notebooks' cells; other commands are
held against the programs, targets and files that they name. The site of all documents is built strictly."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer.main

from gotd_ray import cli

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
TUTORIALS = sorted((DOCS / "tutorials").glob("*.md"))
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
FENCE = re.compile(r'^```(\w+)(?: title="(.+?)")?\n(.*?)^```', re.M | re.S)
INDENTED = re.compile(r"^ {4}(\S.*)$", re.M)
COMMAND = re.compile(r"^(?:\.venv/bin/)?(gotd|make|ray|cluster/\S+|python) (.*?)(?:\s+#.*)?$")


def blocks(page: Path, *languages: str) -> list[tuple[str, str | None, str]]:
    """Language, title and content of the fenced blocks."""
    return [found for found in FENCE.findall(page.read_text(encoding="utf-8")) if found[0] in languages]


def commands(page: Path) -> list[tuple[str, list[str]]]:
    """Program and words of each line that begins with a program that we know, in shell or indented blocks."""
    text = page.read_text(encoding="utf-8")
    lines = [line for _, _, body in blocks(page, "sh") for line in body.splitlines()]
    lines += INDENTED.findall(FENCE.sub("", text))
    return [(found[1], shlex.split(found[2])) for line in lines if (found := COMMAND.match(line))]


def test_the_commands_are_found() -> None:
    found = [(page.name, program) for page in PAGES for program, _ in commands(page)]
    assert len(found) > 40
    assert {("README.md", "make"), ("README.md", "gotd"), ("laptop.md", "gotd"), ("cluster.md", "ray")} <= set(found)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_name_what_there_is(page: Path) -> None:
    group: Any = typer.main.get_command(cli.app)
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M)
    for program, words in commands(page):
        said = f"{program} {' '.join(words)}"
        if program == "gotd" and words[0] != "COMMAND":
            known = group.commands[words[0]]
            if page.name != "cli.md":  # there the words in capitals stand for values
                with known.make_context(words[0], words[1:]):  # refuses unknown options, and too few words
                    pass
        elif program == "make":
            assert all(word in targets for word in words if "=" not in word), said
        elif program.startswith("cluster/"):
            assert (ROOT / program).is_file(), said
        named = [word for word in words if re.fullmatch(r"(cluster|jobs|benchmarks|docs)/[\w./-]+\.\w+", word)]
        assert all((ROOT / word).is_file() for word in named), said


def run_python(page: Path, namespace: dict[str, Any]) -> None:
    """Its Python blocks in order; a block with a title is a file, beside which the others run."""
    for _, title, body in blocks(page, "python"):
        if title:
            Path(title).write_text(body)
        else:
            exec(compile(body, str(page), "exec"), namespace)


@pytest.mark.parametrize(
    "page", [DOCS / "index.md", *(page for page in TUTORIALS if page.name != "laptop.md")], ids=lambda page: page.name
)
def test_the_python_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    namespace: dict[str, Any] = {}
    run_python(page, namespace)
    if page.name == "refresh.md":
        Path("current.json").write_text('{"subset": "versions/0001/select/subset.parquet"}')
        assert namespace["current"](".") == Path("versions/0001/select/subset.parquet")
    if page.name == "toxicity.md":
        best = namespace["corpus"][namespace["scores"].argsort()[:50]]
        assert best.mean() > 0.5, "they lie on the wanted side"


def test_the_python_of_the_readme_runs(tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = re.search(r"^    (import gotd_ray)\n    (.*)\n", text, re.M)
    assert block
    namespace: dict[str, Any] = {"corpus": np.eye(20), "target": np.eye(20)[:3]}
    exec(f"{block[1]}\n{block[2].replace('20000', '5')}", namespace)
    assert len(namespace["chosen"]) == 5


def test_every_page_with_python_is_run_here_or_elsewhere() -> None:
    """extending.md by the tests of contracts and formats; api.md only imports."""
    with_python = {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md") if blocks(page, "python")}
    here = {f"tutorials/{page.name}" for page in TUTORIALS if page.name != "one-gpu.md"}
    assert with_python == {"index.md", "extending.md", "api.md"} | here


def cells(name: str) -> list[str]:
    book = json.loads((DOCS / "notebooks" / name).read_text(encoding="utf-8"))
    assert not any(cell.get("outputs") for cell in book["cells"]), "a notebook is kept without what it shows"
    return ["".join(cell["source"]) for cell in book["cells"] if cell["cell_type"] == "code"]


def run_cells(name: str) -> dict[str, Any]:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for number, cell in enumerate(cells(name)):
        exec(compile(cell, f"{name}, cell {number}", "exec"), namespace)
    return namespace


def test_the_notebook_of_vectors_runs() -> None:
    found = run_cells("vectors.ipynb")
    assert len(found["table"]) == 100 and found["taken"].sum() == 100


@pytest.mark.ray
def test_the_notebook_of_texts_runs(ray_cluster: None) -> None:
    found = run_cells("texts.ipynb")
    assert len(found["table"]) == len(found["dataset"]) == 8
    assert "<iframe" in found["report"]._repr_html_()


@pytest.mark.ray
def test_the_laptops_tutorial_runs(
    ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All of it, in its order."""
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {}
    for language, _, body in blocks(DOCS / "tutorials" / "laptop.md", "python", "sh"):
        if language == "python":
            exec(compile(body, "laptop.md", "exec"), namespace)
            continue
        for line in body.splitlines():
            monkeypatch.setattr(sys, "argv", shlex.split(line))
            with pytest.raises(SystemExit) as stop:
                cli.main()
            assert stop.value.code == 0, line
    assert list(namespace["table"]["rank"]) == list(range(1, 11))
    assert Path(namespace["chosen"].report().path).is_file()
    assert "corpus.text_column: text (called like a text, " in capsys.readouterr().out


def test_the_site_is_built_strictly(tmp_path: Path) -> None:
    """Every link and anchor leads somewhere, every name of the API is there."""
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(tmp_path / "site")]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    api = (tmp_path / "site" / "api.html").read_text()
    assert all(f'id="gotd_ray.{name}"' in api for name in ("api.select", "selection.Selection.scores"))
    assert "../../" not in (tmp_path / "site" / "choosing.html").read_text(), "no link leads out of the site"

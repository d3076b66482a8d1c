"""What the documents say is so: the reference is the types', examples load, links lead to files, errors exist."""

from __future__ import annotations

import ast
import json
import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from gotd_ray import config
from gotd_ray.config.base import Section

ROOT = Path(__file__).parent.parent
JOBS = sorted((ROOT / "jobs").glob("*.yaml"))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
EXAMPLES = [
    pytest.param(block, id=f"{page.name}-{number}")
    for page in PAGES
    for number, block in enumerate(
        re.findall(r"^```yaml[^\n]*\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)
    )
]


def name(path: Path) -> str:
    return path.name


def test_the_reference_is_what_the_types_say() -> None:
    generator = runpy.run_path(str(ROOT / "docs" / "make_reference.py"))
    written = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert written == generator["page"](), "run: python docs/make_reference.py"
    assert (ROOT / "docs" / "cli.md").read_text(encoding="utf-8") == generator["commands"]()


def tables(page: Path) -> list[list[list[str]]]:
    """The cells of the tables of a page: a table is what stands between two lines that are none of its rows."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    blocks = re.findall(r"(?:^\|.*\n?)+", text, re.M)
    return [[re.split(r"(?<!\\)\|", row.strip())[1:-1] for row in block.splitlines()] for block in blocks]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_tables_are_whole(page: Path) -> None:
    """Every row has a cell for each column, and ends; no row has lost its table."""
    for table in tables(page):
        head, rule, *rows = table
        assert all(set(cell.strip()) <= set("-:") for cell in rule), f"no table: {head}"
        assert rows and {len(row) for row in table} == {len(head)}, f"{head} has rows of other widths"
        assert all(
            line.rstrip().endswith("|") for line in page.read_text(encoding="utf-8").splitlines() if line[:1] == "|"
        )


def sections() -> dict[str, type[BaseModel]]:
    """The sections of the config by their dotted key; NAME stands for a name of the user's. Read from the classes."""
    found: dict[str, type[BaseModel]] = {"The run": config.Run}

    def below(kind: type[BaseModel], before: str) -> None:
        for key, field in kind.model_fields.items():
            text = str(field.annotation)
            for other in every:
                if re.search(rf"\b{other.__name__}\b", text):
                    place = before + key + (".NAME" if "dict[" in text else "")
                    found[place] = other
                    below(other, f"{place}.")

    every = [kind for base in Section.__subclasses__() for kind in (base, *base.__subclasses__())]
    below(config.Run, "")
    return found


def test_the_reference_has_every_key_with_its_default() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    written: dict[str, dict[str, list[str]]] = {}
    for title, body in re.findall(r"^## (.*)\n((?:(?!## ).*\n)*)", page, re.M):
        rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in body.splitlines() if line.startswith("| `")]
        for place in re.findall(r"`([^`]+)`", title) or [title]:
            written[place] = {row[0].strip(" `"): [cell.strip() for cell in row] for row in rows}
    known = sections()
    assert set(written) == set(known) and len(known) > 20
    for place, kind in known.items():
        assert list(written[place]) == list(kind.model_fields), place
        for key, field in kind.model_fields.items():
            default, meaning = written[place][key][2], written[place][key][4]
            assert meaning and "|" not in meaning.replace(r"\|", ""), f"{place}.{key}"
            value = field.get_default(call_default_factory=True)
            if field.is_required():
                assert default == "required", f"{place}.{key}"
            elif not isinstance(value, BaseModel):
                assert json.loads(default.strip("`").replace(r"\|", "|")) == to_jsonable_python(value), f"{place}.{key}"


@pytest.mark.parametrize("job", JOBS, ids=name)
def test_a_job_loads(job: Path) -> None:
    config.load(job)


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_loads(example: str, tmp_path: Path) -> None:
    """Examples that show some sections only are laid over the keys that every run needs."""
    minimal: dict[str, Any] = {"out": "runs/x", "corpus": {"paths": "corpus"}, "target": {"paths": "target"}}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(minimal | yaml.safe_load(example)), encoding="utf-8")
    config.load(tmp_path / "run.yaml")


def test_the_run_of_the_readme_loads(tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = re.search(r"^    # run.yaml\n((?:    .*\n)+)", text, re.M)
    assert block
    (tmp_path / "run.yaml").write_text(re.sub(r"^    ", "", block[1], flags=re.M), encoding="utf-8")
    assert config.load(tmp_path / "run.yaml").compare


@pytest.mark.parametrize("page", [*PAGES, *JOBS], ids=name)
def test_settings_on_a_command_line_exist(page: Path) -> None:
    job = ROOT / "jobs" / "demo.yaml"
    for setting in re.findall(r"--set (?!a\.b=)([\w.]+=[\w./-]+)", page.read_text(encoding="utf-8")):
        config.load(job, [setting])


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_to_files(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8"))
    missing = [link for link in links if ":" not in link and not (page.parent / link).exists()]
    assert not missing


def _texts(file: Path) -> Iterator[str]:
    """The texts in a source file, without its documentation strings."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
            yield node.value


def test_the_errors_that_are_explained_exist() -> None:
    """The words of each quoted message, between its values, stand in the source."""
    literals = "\n".join(text for file in sorted((ROOT / "gotd_ray").rglob("*.py")) for text in _texts(file))
    tables = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    quoted = [quote for row in re.findall(r"^\| (`.*?) \|", tables, re.M) for quote in re.findall(r"`(.+?)`", row)]
    assert len(quoted) > 20
    unknown = [quote for quote in quoted for words in quote.split("...") if words not in literals]
    assert not unknown

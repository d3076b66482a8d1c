"""What the documents say is so: the reference is the types', examples load, links lead to files, errors exist."""

from __future__ import annotations

import ast
import re
import runpy
from pathlib import Path
from typing import Any

import pytest
import yaml

from gotd_ray import config

ROOT = Path(__file__).parent.parent
JOBS = sorted((ROOT / "jobs").glob("*.yaml"))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
EXAMPLES = [
    pytest.param(block, id=f"{page.name}-{number}")
    for page in PAGES
    for number, block in enumerate(re.findall(r"^```yaml\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S))
]


def name(path: Path) -> str:
    return path.name


def test_the_reference_is_what_the_types_say() -> None:
    generator = runpy.run_path(str(ROOT / "docs" / "make_reference.py"))
    written = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert written == generator["page"](), "run: python docs/make_reference.py"


@pytest.mark.parametrize("job", JOBS, ids=name)
def test_a_job_loads(job: Path) -> None:
    config.load(job)


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_loads(example: str, tmp_path: Path) -> None:
    """Examples that show some sections only are laid over the keys that every run needs."""
    minimal: dict[str, Any] = {"out": "runs/x", "corpus": {"paths": "corpus"}, "target": {"paths": "target"}}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(minimal | yaml.safe_load(example)), encoding="utf-8")
    config.load(tmp_path / "run.yaml")


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


def test_errors_in_the_guide_exist() -> None:
    """The words of each quoted message, between its values, stand in the source."""
    literals = "\n".join(
        node.value
        for file in sorted((ROOT / "gotd_ray").rglob("*.py"))
        for call in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call)  # what is raised or printed; documentation strings are not
        for node in ast.walk(call)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
    tables = (ROOT / "docs" / "guide.md").read_text(encoding="utf-8").partition("## Errors")[2]
    quoted = [quote for row in re.findall(r"^\| (`.*?) \|", tables, re.M) for quote in re.findall(r"`(.+?)`", row)]
    assert len(quoted) > 20
    unknown = [quote for quote in quoted for words in quote.split("...") if words not in literals]
    assert not unknown

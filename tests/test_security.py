"""Attacks that no other file of tests tries; docs/security.md lists all, and the test that holds each."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import bombs
import pytest
import yaml
from packaging.requirements import Requirement
from refreshing import Corpus, Stages

from gotd_ray import cli, config, pipeline
from gotd_ray.config import Storage
from gotd_ray.errors import UserError, redacted
from gotd_ray.listing import list_all
from gotd_ray.versions import Versions

ROOT = Path(__file__).parent.parent
SECRET = "wJalrXUtnFEMI/K7MDENG+never-to-be-shown"


def test_every_test_that_the_page_names_exists() -> None:
    page = (ROOT / "docs" / "security.md").read_text()
    named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", page)
    assert len(named) > 20
    for file, test in named:
        tree = ast.parse((ROOT / file).read_text())
        assert test in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}, f"{file}::{test}"
    threats = [row for row in page.partition("## Dependencies")[0].splitlines() if row.startswith("| ")][1:]
    assert threats and all("`tests/" in row or "no test" in row for row in threats)


def test_the_page_states_the_versions_that_are_let_in() -> None:
    page = (ROOT / "docs" / "security.md").read_text().partition("## Dependencies")[2]
    rows = [
        tuple(cell.strip() for cell in row.strip("|").split("|")) for row in page.splitlines() if row.startswith("|")
    ]
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    expected = []
    for one in map(Requirement, wanted):
        bounds = {bound.operator: bound.version for bound in one.specifier}
        low = bounds.get("==") or bounds[">="]
        expected.append((one.name, low, "only that" if "==" in bounds else bounds.get("<", "open")))
    assert rows[2:] == expected


def test_the_audit_is_there_and_not_in_the_tests_path() -> None:
    make = (ROOT / "Makefile").read_text()
    assert re.search(r"^audit: .*## ", make, re.MULTILINE) and "pip-audit" in make
    assert "audit" not in (ROOT / ".ci" / "run").read_text() and "test: check " in make


def test_bombs_are_never_held(tmp_path: Path) -> None:
    """Of 120 MB in one text. In a process of its own, since what Arrow sets aside is seen by the system alone."""
    kinds = [f"{ending}{packed}" for ending in (".jsonl", ".json", ".txt") for packed in (".gz", ".zst")]
    paths = [tmp_path / "first.jsonl.gz", *(tmp_path / f"a{kind}" for kind in kinds)]
    for path in paths:
        bombs.write(path, 1 if path == paths[0] else 120)
    done = subprocess.run(
        [sys.executable, bombs.__file__, *map(str, paths)], capture_output=True, text=True, check=True, timeout=1000
    )
    found = json.loads(done.stdout)
    for path in paths[1:]:
        assert path.stat().st_size < 2_000_000
        whole = [[0, "too_long"]] if path.suffixes[0] == ".txt" else [[0, "before"], [1, "too_long"], [2, "after"]]
        assert found[str(path)]["rows"] == whole
        assert found[str(path)]["grew"] < 50_000_000, path.name


BOMB = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (BOMB, "it holds more than 100,000 values, aliases written out"),
        ("out: !!python/object/apply:os.system ['touch owned']\n", "has the tag !!python/object/apply:os.system"),
        ("out: !!python/name:os.system\n", "is given the tag !!python/name:os.system"),
        ("name: ../../evil\n", "name"),
        ("name: /etc\n", "name"),
        ("name: 'a b'\n", "name"),
    ],
)
def test_a_run_file_runs_nothing_and_names_no_other_place(
    text: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(UserError, match=re.escape(said)):
        config.load(tmp_path / "run.yaml", [])
    assert [path.name for path in tmp_path.iterdir()] == ["run.yaml"]


def test_links_out_of_the_corpus_are_followed_and_told(tmp_path: Path) -> None:
    inside, outside = tmp_path / "corpus", tmp_path / "private"
    for folder in (inside / "deep", outside):
        folder.mkdir(parents=True)
    (outside / "diary.txt").write_text("dear diary")
    (inside / "own.txt").write_text("own")
    (inside / "deep" / "same.txt").symlink_to("../own.txt")
    (inside / "notes.txt").symlink_to(outside / "diary.txt")
    (inside / "z").symlink_to(outside)
    for paths in ([str(inside)], [f"{inside}/**"], [f"file://{inside}"]):
        found = list_all(config.Text(paths=paths), Storage())
        assert found.elsewhere == (f"{inside}/notes.txt",)
        assert f"1 read from outside the folder, where a link leads: {inside}/notes.txt" in found.words()
    (tmp_path / "again").symlink_to(inside)
    assert list_all(config.Text(paths=[f"{tmp_path}/again"]), Storage()).elsewhere == (f"{tmp_path}/again/notes.txt",)
    named = list_all(config.Text(paths=[f"{inside}/notes.txt"]), Storage())
    assert len(named.files) == 1 and named.elsewhere == (), "it was named itself"


def test_a_list_names_files_and_is_never_run(tmp_path: Path) -> None:
    """As trusted as the run file: it may lead anywhere that the user may read, and every line is a path."""
    (tmp_path / "lists").mkdir()
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "lists" / "l.txt").write_text("../a.txt\n")
    found = list_all(config.Text(paths=[f"@{tmp_path}/lists/l.txt"]), Storage())
    assert [os.path.realpath(file.uri) for file in found.files] == [str(tmp_path / "a.txt")]
    for line in ("$(touch owned)", "@l.txt", "../../no-such.txt; touch owned"):
        (tmp_path / "lists" / "l.txt").write_text(line + "\n")
        with pytest.raises(UserError):
            list_all(config.Text(paths=[f"@{tmp_path}/lists/l.txt"]), Storage())
    assert not list(tmp_path.rglob("owned"))


@pytest.mark.parametrize(
    "name", ["../../../evil", "/evil", "..\\evil", "a/../../evil", "evil\x00", "CON", "..", "~/evil"]
)
def test_source_and_file_names_make_no_paths(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Stages(monkeypatch)
    (tmp_path / "in").mkdir()
    corpus = Corpus(tmp_path / "in", files=2)
    file = corpus.folder / "corpus" / f"..%2f{name.replace('/', '%2f').replace(chr(0), '')}\n.jsonl"
    file.write_text(
        json.dumps({"text": "a text of an evil source, which is long enough to count", "source": name}) + "\n"
    )
    corpus.refresh()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]
    assert {path.name for path in corpus.folder.iterdir()} == {"corpus", "target", "index", "out"}
    assert not [path for path in corpus.folder.rglob("*evil*") if path != file]


@pytest.mark.parametrize(
    "change",
    [
        {"subset": "../../../etc/passwd"},
        {"subset": "/etc/passwd"},
        {"report": "versions/../../evil"},
        {"changes": "s3://elsewhere/x"},
        {"changes_page": "versions/0001/..\\evil"},
        {"models": {"finetune": "../evil"}},
        {"models": "evil"},
        {"version": "../../evil"},
        {"version": -1},
        {"version": True},
        {"trained_in": "../x"},
    ],
)
def test_a_pointer_leads_into_versions_only(change: dict[str, object], tmp_path: Path) -> None:
    versions = Versions(str(tmp_path), Storage())
    for path in ("select/subset.parquet", "refresh.json"):
        (tmp_path / "versions" / "0001" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "versions" / "0001" / path).write_text("x")
    versions.publish(1, {"finetune": "versions/0001/finetune/model"}, (1, "key"), {})
    good = json.loads((tmp_path / "current.json").read_text())
    found = versions.current()
    assert found and found.version == 1
    (tmp_path / "current.json").write_text(json.dumps(good | change))
    with pytest.raises(UserError, match="is damaged"):
        versions.current()


def test_a_fault_that_quotes_a_secret_shows_it_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither on the screen, nor in the JSON, nor in the trace that is kept."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef")
    monkeypatch.setattr(cli.tempfile, "tempdir", str(tmp_path))
    run = {"out": str(tmp_path / "out"), "corpus": {"paths": str(tmp_path)}, "target": {"paths": str(tmp_path)}}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run))
    monkeypatch.setattr(sys, "argv", ["gotd", "run", str(tmp_path / "run.yaml"), "--json"])
    for kind in (RuntimeError, UserError):
        asked = f"https://host/?sig={SECRET}&k=0123456789abcdef"

        def fail(*_: object, kind: type[Exception] = kind, asked: str = asked, **__: object) -> None:
            raise kind(f"GET {asked} failed")

        monkeypatch.setattr(pipeline, "execute", fail)
        with pytest.raises(SystemExit):
            cli.main()
        told = capsys.readouterr()
        written = "".join(path.read_text() for path in tmp_path.glob("gotd-*.log"))
        assert "GET https://host/?sig=(hidden)&k=(hidden) failed" in told.err
        for said in (told.out, told.err, written):
            assert said and SECRET not in said and "0123456789abcdef" not in said


def test_what_is_no_secret_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "parallel")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/home/me/token")
    monkeypatch.setenv("MY_PASSWORD", "short")
    said = f"parallel /home/me/token short {time.time():.0f}"
    assert redacted(said) == said

"""A path has one spelling, whatever it is written like, and a run does not read what it writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gotd_ray import config, paths
from gotd_ray.config.base import paths_in
from gotd_ray.config.places import inside, is_url, meet, normal
from gotd_ray.errors import UserError
from gotd_ray.paths import resolve_paths


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder of the test."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(**sections: Any) -> config.Run:
    given = {"out": "runs/a", "corpus": {"paths": "c"}, "target": {"paths": "t"}}
    return config.Run.model_validate(given | sections)


def refusal(**sections: Any) -> str:
    with pytest.raises(UserError) as caught:
        resolve_paths(run(**sections))
    return str(caught.value).replace(f"{Path.cwd()}/", "")


@pytest.mark.parametrize(
    "path",
    [
        *(
            "runs/a",
            "./runs/a",
            "runs/a/",
            "runs//a",
            "runs/./a",
            "runs/x/../a",
            "runs/a/.",
            "link/a",
            "runs/link/../a",
        ),
        *(
            "{here}/runs/a",
            "//{here}/runs/a",
            "file://{here}/runs/a",
            "file://localhost{here}/runs/a/",
            "FILE://{here}/runs/a",
        ),
    ],
)
def test_however_a_result_is_spelled_it_is_one_folder(path: str, here: Path) -> None:
    (here / "runs" / "x").mkdir(parents=True)
    (here / "link").symlink_to(here / "runs")
    (here / "runs" / "link").symlink_to(here / "runs" / "x")
    written = path.format(here=here)
    found = resolve_paths(run(out=written, index=written.replace("/a", "/i")))
    assert (found.out, found.selection, found.index) == (f"{here}/runs/a", f"{here}/runs/a", f"{here}/runs/i")
    assert resolve_paths(found) == found


@pytest.mark.parametrize("path", ["s3://b/x/a", "s3://b/x/a/", "s3://b//x///a", "S3://b/x/a", "s3:///b/x/a"])
def test_however_a_url_is_spelled_it_is_one_folder(path: str) -> None:
    found = resolve_paths(run(out=path))
    assert (found.out, found.index) == ("s3://b/x/a", "s3://b/x/index")


OWN = "{} is {}, where {} ({}) keeps files of its own. Give {} another folder."


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        (
            {"out": "s3://b/x/../a"},
            "'s3://b/x/../a' holds '.' or '..', which is a name like any other there. Write the path out.",
        ),
        (
            {"out": "file://host/a"},
            "'file://host/a' is no absolute path. Write file:/// and the path, or the path alone.",
        ),
        ({"out": "s3://bucket"}, "out is s3://bucket, a whole disk or bucket. Name a folder in it."),
        ({"out": "/"}, "out is /, a whole disk or bucket. Name a folder in it."),
        ({"index": "runs/a"}, OWN.format("out", "runs/a", "index", "runs/a", "out")),
        ({"index": "runs"}, OWN.format("out", "runs/a", "index", "runs", "out")),
        ({"out": "runs/index"}, OWN.format("out", "runs/index", "index", "runs/index", "out")),
        ({"index": "runs/a/embed/x"}, OWN.format("index", "runs/a/embed/x", "out", "runs/a", "index")),
        ({"selection": "runs/a/select"}, OWN.format("selection", "runs/a/select", "out", "runs/a", "selection")),
    ],
)
def test_folders_that_cannot_be_are_refused(sections: dict[str, Any], said: str) -> None:
    assert refusal(**sections) == said


@pytest.mark.parametrize(
    ("paths", "text_format", "out", "refused"),
    [
        ("data", "auto", "data/runs/a", True),
        ("data", "parquet", "data/runs/a", True),
        ("data", "text", "data/runs/a", True),  # a model's card and vocabulary are text
        ("data", "jsonl", "data/runs/a", False),
        ("data/**", "auto", "data/runs/a", True),
        ("data/**/x.parquet", "auto", "data/runs/a", True),
        ("data/*/*/*/*.parquet", "auto", "data/runs/a", True),
        ("data/*.parquet", "auto", "data/runs/a", False),
        ("data/*", "auto", "data/a", False),
        ("data/corpus", "auto", "data/runs/a", False),
        ("data", "auto", "data/_runs/a", False),
        ("data", "auto", "data/.runs/a", False),
        (".data/**", "auto", ".data/runs/a", True),
        ("data", "auto", "data2/a", False),
        ("link", "auto", "data/runs/a", True),
        ("data", "auto", "link/runs/a", True),
        ("s3://b/data", "auto", "s3://b/data/a", True),
        ("s3://b/data", "auto", "s3://b/a", False),
        ("@data", "auto", "data/a", False),
    ],
)
@pytest.mark.parametrize("where", ["corpus", "target", "reference", "select"])
def test_a_run_does_not_write_into_what_it_reads(
    where: str, paths: str, text_format: str, out: str, refused: bool, here: Path
) -> None:
    (here / "data").mkdir()
    (here / "link").symlink_to(here / "data")
    text = {"paths": paths, "format": text_format}
    given = {where: {"decontaminate": text} if where == "select" else text, "out": out, "index": "index"}
    key = "select.decontaminate.paths" if where == "select" else f"{where}.paths"
    if refused:
        place = out.replace("link", "data")
        written = (paths if is_url(paths) else f"{here}/{paths}").replace(f"{here}/", "")
        assert refusal(**given) == (
            f"out is {place}, which lies in {key} ({written}): the run would read its own files. Give out another "
            "folder, or one that begins with an underscore, which listings pass over."
        )
    else:
        assert resolve_paths(run(**given)).out.endswith(out.replace("link", "data"))


@pytest.mark.parametrize(
    ("key", "sections"),
    [
        ("corpus.paths", {"corpus": {"paths": "runs/a/select/subset.parquet"}}),
        ("target.paths", {"target": {"paths": "./runs/a/pretune"}}),
        ("select.decontaminate.paths", {"select": {"decontaminate": {"paths": "runs/a/select/*.parquet"}}}),
        ("solve.warm_start", {"solve": {"warm_start": "runs//a/solve/potentials.safetensors"}}),
        ("solve.potentials", {"solve": {"potentials": "link/a/solve/potentials.safetensors"}}),
        ("finetune.dev", {"model": {"base": "x"}, "finetune": {"dev": "runs/a/select/subset.parquet"}}),
        ("corpus.paths", {"corpus": {"paths": "runs/index/abc"}}),
        ("corpus.paths", {"corpus": {"paths": "runs/a/arms/x/select"}}),
    ],
)
def test_a_run_does_not_read_what_it_writes(key: str, sections: dict[str, Any], here: Path) -> None:
    (here / "runs").mkdir()
    (here / "link").symlink_to(here / "runs")
    said = refusal(**sections)
    assert said.startswith(f"{key} is runs/")
    assert said.endswith(", which this run itself writes. Copy it elsewhere, or give the run another `out`.")


def test_the_lines_of_a_list_are_held_against_the_folders(here: Path) -> None:
    (here / "list.txt").write_text("# all\nother\ndata\n")
    assert refusal(corpus={"paths": "@list.txt"}, out="data/runs/a") == (
        "out is data/runs/a, which lies in corpus.paths (@list.txt): the run would read its own files. Give out "
        "another folder, or one that begins with an underscore, which listings pass over."
    )
    (here / "list.txt").write_text(f"{here}/runs/a/select/subset.parquet\n")
    assert refusal(corpus={"paths": "@list.txt"}) == (
        "corpus.paths is @list.txt, which this run itself writes. Copy it elsewhere, or give the run another `out`."
    )
    (here / "list.txt").write_text("file://host/x\n")
    for unread in ("@gone.txt", "@list.txt"):
        resolve_paths(run(corpus={"paths": unread}))


def test_what_another_run_wrote_may_be_read_and_the_index_may_lie_in_the_run(here: Path) -> None:
    given = run(
        corpus={"paths": "runs/b/select/subset.parquet"},
        index="runs/a/index",
        tracking={"to": ["wandb"], "folder": "runs/a/tracking"},
    )
    assert resolve_paths(given).index == f"{here}/runs/a/index"


EVERYWHERE: dict[str, Any] = {
    "corpus": {"paths": ["c", "@lists/c.txt"]},
    "target": {"paths": "t"},
    "contrast": {"paths": "k"},
    "reference": {"paths": "r"},
    "index": "i",
    "selection": "s",
    "encoder": {"model": "models/e"},
    "solve": {"warm_start": "w"},
    "select": {"decontaminate": {"paths": ["d/*.txt"]}},
    "model": {"base": "models/b"},
    "pretune": {"dev": "pd"},
    "finetune": {"paths": "fp", "dev": "fd"},
    "tracking": {"to": ["wandb"], "folder": "tf"},
    "evaluate": {
        "perplexity": {"one": ["p1", "p2"]},
        "toxicity": {"prompts": {"p": "tp"}, "scorers": ["classifier"], "classifier": {"paths": "tc"}},
        "zero_shot": {"local": {"mine": {"path": "q.jsonl"}}},
    },
}


def test_every_path_is_made_absolute(here: Path) -> None:
    for folder in ("models/e", "models/b"):
        (here / folder).mkdir(parents=True)
    before = {key: path for key, _, _, path in paths_in(run(**EVERYWHERE))}
    after = [(key, path) for key, _, _, path in paths_in(resolve_paths(run(**EVERYWHERE)))]
    assert len(after) == 21
    assert {key for key, _ in after} == set(before)
    for key, path in after:
        assert path.removeprefix("@").startswith(f"{here}/"), key
    classified = run(model={"base": "x"}, finetune={"label_column": "l"}, evaluate={"classification": {"paths": "y"}})
    found = resolve_paths(classified)
    assert found.evaluate and found.evaluate.classification and found.evaluate.classification.paths == [f"{here}/y"]
    assert found.model and found.model.base == "x", "the name of a model is no path"
    assert found.encoder == run().encoder


def test_demo_paths_are_the_demos_wherever_they_stand(monkeypatch: pytest.MonkeyPatch, here: Path) -> None:
    monkeypatch.setattr(paths, "_demo", lambda: here / "demo")
    given = run(
        corpus={"paths": "demo:corpus"},
        model={"base": "x"},
        finetune={"dev": "demo:target/dev.parquet"},
        evaluate={"toxicity": {"prompts": {"a": "demo:general//test.parquet"}}},
    )
    found = {key: path for key, _, _, path in paths_in(resolve_paths(given))}
    assert found["corpus.paths"] == f"{here}/demo/corpus"
    assert found["finetune.dev"] == f"{here}/demo/target/dev.parquet"
    assert found["evaluate.toxicity.prompts.a"] == f"{here}/demo/general/test.parquet"


def test_in_a_job_results_lie_at_home_and_a_useless_home_is_refused(
    monkeypatch: pytest.MonkeyPatch, here: Path
) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    monkeypatch.setenv("HOME", str(here / "me"))
    found = resolve_paths(run(solve={"warm_start": "w"}, tracking={"to": ["wandb"], "folder": "f"}))
    home = f"{here}/me/gotd"
    assert (found.out, found.index, found.solve.warm_start) == (f"{home}/runs/a", f"{home}/runs/index", f"{home}/w")
    assert found.tracking and found.tracking.folder == f"{home}/f"
    assert found.corpus.paths == [f"{here}/c"]
    monkeypatch.setenv("HOME", "")
    assert refusal() == "~ has no home folder (HOME is ''). Export HOME=..., or write the folder out."


def test_what_was_set_stays_what_was_set(here: Path) -> None:
    before, after = run(**EVERYWHERE), resolve_paths(run(**EVERYWHERE))
    assert after.finetune and before.finetune and after.finetune.model_fields_set == before.finetune.model_fields_set
    assert after.corpus.model_fields_set == {"paths"} and after.encoder.model_fields_set == {"model"}
    assert resolve_paths(run()).solve.model_fields_set == set()


def test_a_parent_behind_a_link_is_that_of_what_it_leads_to(here: Path) -> None:
    (here / "far" / "deep").mkdir(parents=True)
    (here / "link").symlink_to(here / "far" / "deep")
    assert normal("link/../x", here) == f"{here}/far/x"
    assert normal("link/x", here) == f"{here}/link/x"
    assert normal("link/x", here, links=True) == f"{here}/far/deep/x"
    assert normal("a..b/..c", here) == f"{here}/a..b/..c"


@pytest.mark.parametrize(
    ("path", "place", "common"),
    [
        ("/a", "/a", True),
        ("/a", "/a/b", True),
        ("/a/b", "/a", True),
        ("/a", "/ab", False),
        ("/", "/a", True),
        ("/a/*.txt", "/a/x.txt", True),
        ("/a/*.txt", "/a/x.md", False),
        ("/a/*.txt", "/a/b/x.txt", False),
        ("/a/?.txt", "/a/xy.txt", False),
        ("/a/*/x", "/a", True),
        ("/a/**/x", "/a/b", True),
        ("/a/**", "/b", False),
        ("/a/*.txt", "/a/*.txt", True),
        ("s3://a/b", "s3://a/b/c", True),
    ],
)
def test_which_paths_have_files_in_common(path: str, place: str, common: bool) -> None:
    assert meet(path, place) == common
    assert inside(place, path) == (place == path or (path in ("/a", "/", "s3://a/b") and common))

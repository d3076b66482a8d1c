"""The cluster files are right as far as that can be told without a cloud."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tomllib
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml
from packaging.requirements import Requirement

from gotd_ray import cluster
from gotd_ray.errors import UserError

ROOT = Path(__file__).parent.parent
LAUNCHER_FILES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "cluster").glob("*.yaml"))
SCRIPTS = ["cluster/local.sh", ".ci/run"]


def launcher_schema() -> dict[str, Any]:
    """The schema by which `ray up` checks a file; it comes with Ray."""
    spec = find_spec("ray")
    assert spec is not None and spec.origin is not None
    schema: dict[str, Any] = json.loads((Path(spec.origin).parent / "autoscaler" / "ray-schema.json").read_text())
    return schema


def read(file: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((ROOT / file).read_text(encoding="utf-8"))
    return content


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REQUIRED = {requirement.name: requirement.specifier for requirement in map(Requirement, PROJECT["dependencies"])}


@pytest.mark.parametrize("file", LAUNCHER_FILES)
def test_ray_up_accepts_the_file(file: str) -> None:
    jsonschema.validate(read(file), launcher_schema())


def test_the_schema_refuses_a_misspelt_key() -> None:
    with pytest.raises(jsonschema.ValidationError, match="max_worker"):
        jsonschema.validate({**read(LAUNCHER_FILES[0]), "max_worker": 0}, launcher_schema())


@pytest.mark.parametrize("file", LAUNCHER_FILES)
def test_the_image_has_the_ray_that_submits_and_the_oldest_python(file: str) -> None:
    image, _, tag = read(file)["docker"]["image"].partition(":")
    ray, python, _ = tag.split("-")
    assert image == "rayproject/ray"
    assert ray == version("ray")
    assert ray in REQUIRED["ray"]
    assert PROJECT["requires-python"] == f">=3.{python.removeprefix('py3')}"


@pytest.mark.parametrize("file", ["Makefile", *LAUNCHER_FILES])
def test_the_torch_that_is_installed_is_the_one_that_is_tested(file: str) -> None:
    text = (ROOT / file).read_text(encoding="utf-8")
    pin = version("torch").partition("+")[0]
    assert f"torch=={pin}" in text
    assert pin in REQUIRED["torch"]


@pytest.mark.parametrize("file", LAUNCHER_FILES)
def test_a_head_is_not_open_to_the_network(file: str) -> None:
    assert "--dashboard-host=127.0.0.1" in " ".join(read(file)["head_start_ray_commands"])


def test_the_single_gpu_head_works_alone() -> None:
    content = read("cluster/single-gpu.yaml")
    assert content["max_workers"] == 0
    assert list(content["available_node_types"]) == [content["head_node_type"]]


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_are_executable_and_parse(script: str) -> None:
    assert os.access(ROOT / script, os.X_OK)
    subprocess.run(["bash", "-n", ROOT / script], check=True)
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", ROOT / script], check=True)


def test_the_local_head_refuses_a_wrong_word() -> None:
    done = subprocess.run([ROOT / "cluster/local.sh", "restart"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "start|stop|status" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [(["start", "2"], "Set RAY_AUTH_MODE=token."), (["start", "-1"], "usage: "), (["start", "two"], "usage: ")],
)
def test_the_local_head_takes_no_workers_without_a_token(words: list[str], said: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "RAY_AUTH_MODE"}
    done = subprocess.run([ROOT / "cluster/local.sh", *words], env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert said in done.stderr


def test_the_local_head_refuses_a_python_that_is_not_there() -> None:
    if subprocess.run([ROOT / "cluster/local.sh", "status"], capture_output=True).returncode == 0:
        pytest.skip("a head of this user is running")
    environment = {**os.environ, "PYTHON": "/no/such/python"}
    done = subprocess.run([ROOT / "cluster/local.sh", "start"], env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert "/no/such/python" in done.stderr or "taken" in done.stderr


def test_a_machine_too_busy_for_ray_is_tried_again_and_then_said(monkeypatch: pytest.MonkeyPatch) -> None:
    said = ["The current node timed out during startup. This could happen because ..."] * 5
    monkeypatch.setattr(cluster, "_start", lambda num_cpus: (_ for _ in ()).throw(Exception(said.pop())))
    monkeypatch.setattr(cluster.ray, "shutdown", lambda: None)  # the session's own cluster stays
    with pytest.raises(UserError, match=r"Ray did not start .* 3 attempts .* name a cluster elsewhere"):
        cluster.start_private(None)
    assert len(said) == 2
    said[:] = ["kept", "something else"]
    with pytest.raises(Exception, match="something else"):
        cluster.start_private(None)
    assert said == ["kept"]

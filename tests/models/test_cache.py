"""Models that lie elsewhere: copied once a machine, as they are now, and never half a copy taken for whole."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pyarrow.fs as pafs
import pytest

from gotd_ray import config, storage
from gotd_ray.errors import UserError
from gotd_ray.models import cache, language

ADDRESS = "memory://models/tiny"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A model of two files on another filesystem; the cache is empty, and returned."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    memory = fsspec.filesystem("memory")
    for name, content in (("config.json", b"{}"), ("model.safetensors", b"weights" * 1000)):
        memory.pipe(f"/models/tiny/{name}", content)
    yield tmp_path / "cache" / "gotd_ray" / "models"
    memory.rm("/models", recursive=True)


def copies(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_model_is_copied_once_and_keeps_its_name(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name is in the keys of what is made with it: a folder of another name each time would train anew."""
    first = cache.fetch(ADDRESS, config.Storage())
    assert first.name == "tiny" and first.parent.parent == elsewhere
    assert sorted(path.name for path in first.iterdir()) == ["config.json", "model.safetensors"]
    monkeypatch.setattr(pafs, "copy_files", None)  # whoever calls it fails
    assert cache.fetch(ADDRESS + "/", config.Storage()) == first
    found = language.find(config.Model(base=ADDRESS), config.Storage())
    assert found.folder == first and language.identity(found)["name"] == "tiny"


def test_what_was_written_anew_is_copied_anew_and_the_old_state_goes_when_it_is_out_of_use(elsewhere: Path) -> None:
    first = cache.fetch(ADDRESS, config.Storage())
    time.sleep(0.01)
    fsspec.filesystem("memory").pipe("/models/tiny/model.safetensors", b"WEIGHTS" * 1000)
    second = cache.fetch(ADDRESS, config.Storage())
    assert second != first and (second / "model.safetensors").read_bytes() == b"WEIGHTS" * 1000
    assert first.exists()  # another run may be at it
    os.utime(first.parent, (0, 0))
    cache.fetch(ADDRESS, config.Storage())
    assert not first.exists() and second.exists()


def test_half_a_copy_is_never_taken_for_a_model(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the storage breaks, the process is killed, or the model is being written while it is copied."""
    real = pafs.copy_files
    breaks: list[BaseException | None] = [OSError("connection reset"), KeyboardInterrupt(), None]
    said = ["connection reset", None, "it changed meanwhile, 5 bytes came"]

    def half(source: str, target: str, **options: Any) -> None:
        real(source, target, **options)
        for path in Path(target).iterdir():
            path.write_bytes(b"wei" if path.name == "model.safetensors" else b"{}")
        if problem := breaks.pop(0):
            raise problem

    monkeypatch.setattr(pafs, "copy_files", half)
    for words in said:
        with pytest.raises((UserError, KeyboardInterrupt)) as raised:
            cache.fetch(ADDRESS, config.Storage())
        assert copies(elsewhere) == []
        if words:
            assert str(raised.value) == (
                f"the model {ADDRESS} cannot be copied to {elsewhere.parent}: {words}. Try again when the storage "
                "answers, or set XDG_CACHE_HOME to a folder that can be written and has room for it."
            )
    monkeypatch.setattr(pafs, "copy_files", real)
    whole = cache.fetch(ADDRESS, config.Storage())
    (whole.parent / "model.safetensors").touch()
    whole.parent.rename(whole.parent.with_name(f"{whole.parent.name}.part"))  # as a killed process leaves it
    assert copies(cache.fetch(ADDRESS, config.Storage()).parent) == ["tiny/config.json", "tiny/model.safetensors"]
    assert not list(elsewhere.glob("*.part"))


def test_a_model_that_is_not_there_is_said_in_one_line() -> None:
    with pytest.raises(UserError) as raised:
        language.find(config.Model(base="memory://models/none"), config.Storage())
    assert str(raised.value) == "the model memory://models/none does not exist. Correct the path."


def test_a_cache_that_cannot_be_written_is_said_with_its_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(UserError) as raised:
        cache.fetch(ADDRESS, config.Storage())
    said = str(raised.value)
    assert said.startswith(f"the model {ADDRESS} cannot be copied to {tmp_path}/file/gotd_ray: ")
    assert "Not a directory" in said and said.endswith("has room for it.") and "\n" not in said


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", nowhere)
    with pytest.raises(UserError) as raised:
        cache.fetch(ADDRESS, config.Storage())
    assert str(raised.value) == (
        "this user has no home folder in which models could be kept. Set XDG_CACHE_HOME to one that can be written."
    )


WANTS = """
import sys, time
from pathlib import Path
from gotd_ray.models import cache

def make(folder):
    with Path(sys.argv[1]).open("a") as file:
        file.write("made ")
    time.sleep(0.3)
    (folder / "whole").touch()

assert (cache.once("kind", "key", make) / "whole").exists()
"""


def test_processes_that_want_a_model_at_once_make_it_once(tmp_path: Path) -> None:
    """The cache is the fixture's, by the environment."""
    command = [sys.executable, "-c", WANTS, str(tmp_path / "counts")]
    processes = [subprocess.Popen(command) for _ in range(3)]
    assert [process.wait(120) for process in processes] == [0, 0, 0]
    assert (tmp_path / "counts").read_text() == "made "


def test_one_that_waits_finds_what_the_other_made(tmp_path: Path) -> None:
    locks = tmp_path / "cache" / "gotd_ray" / "locks"
    locks.mkdir(parents=True)
    with (locks / "kind-key").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        thread = threading.Thread(target=cache.once, args=("kind", "key", None), daemon=True)
        thread.start()
        (tmp_path / "cache" / "gotd_ray" / "kind" / "key").mkdir(parents=True)
    thread.join(30)
    assert not thread.is_alive()


def test_a_model_on_s3_is_copied_once(s3: Any, elsewhere: Path, llama: Path) -> None:
    options = config.Storage.model_validate({"endpoint": s3.endpoint})
    language.put(llama, "s3://bucket/base", options)
    model = config.Model(base="s3://bucket/base")
    found = language.find(model, options)
    assert language.identity(found)["fingerprint"] == language.identity(language.Base(llama))["fingerprint"]
    assert language.find(model, options) == found and len(list(elsewhere.iterdir())) == 1
    storage.delete_tree("s3://bucket/base", options)


def test_what_takes_long_to_make_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        cache.kept("the demo's texts", "demo", "key", lambda folder: None)
    said = capsys.readouterr()
    assert said.err == "making the demo's texts, once on this machine\n" and not said.out

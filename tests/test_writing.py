"""What cannot be written is said with its reason and a remedy, and nothing is left half."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from s3_server import S3Server

from gotd_ray import storage
from gotd_ray.config import Storage
from gotd_ray.errors import UserError

PLAIN = Storage()


def refused(uri: str, settings: Storage = PLAIN, data: bytes = b"data") -> str:
    with pytest.raises(UserError) as caught:
        storage.write_bytes(uri, data, settings)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError):
        storage.check_writable(uri.rpartition("/")[0], settings)
    return str(caught.value)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of half a megabyte."""
    folder = tmp_path / "small"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("this user may not mount a file system")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk(small_disk: Path) -> None:
    uri = f"{small_disk}/out/large"
    with pytest.raises(UserError) as caught:
        storage.write_bytes(uri, b"x" * 2**20, PLAIN)
    assert str(caught.value) == (
        f"'{uri}' cannot be written: the disk is full. Free some room, or name a folder elsewhere."
    )
    assert not [path for path in small_disk.rglob("*") if path.is_file()], "a half file was left"
    free = storage.check_writable(str(small_disk / "out"), PLAIN)
    assert free is not None and free <= 2**19


def test_a_file_system_that_is_read_only(small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    assert refused(f"{small_disk}/out/a") == (
        f"'{small_disk}/out/a' cannot be written: the file system is read-only. Name a folder elsewhere."
    )


def test_a_file_where_a_folder_is_needed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    said = "a file stands where a folder is needed. Remove it, or name a folder elsewhere."
    assert refused(f"{tmp_path}/file/out/a") == f"'{tmp_path}/file/out/a' cannot be written: {said}"
    assert refused(f"{tmp_path}/file/a") == f"'{tmp_path}/file/a' cannot be written: {said}"
    assert (tmp_path / "file").read_text() == "precious"


def test_a_folder_where_a_file_is_needed(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    with pytest.raises(UserError, match="a folder stands where a file is needed"):
        storage.write_bytes(f"{tmp_path}/a", b"", PLAIN)


def test_a_name_that_is_too_long(tmp_path: Path) -> None:
    said = refused(f"{tmp_path}/{'x' * 300}/a")
    assert said.endswith("cannot be written: the name is too long for the file system. Shorten it.")


def test_the_longest_name_can_be_written(tmp_path: Path) -> None:
    storage.write_bytes(f"{tmp_path}/{'x' * 255}", b"data", PLAIN)
    assert (tmp_path / ("x" * 255)).read_bytes() == b"data"


def test_a_bucket_that_is_not_there_or_is_not_ours(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Storage(endpoint=s3.endpoint)
    storage.write_bytes("s3://bucket/written/a", b"data", settings)
    assert storage.check_writable("s3://bucket/written", settings) is None
    assert [path.name for path in (s3.folder / "bucket" / "written").iterdir()] == ["a"], "the probe was left"
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another-secret-of-the-same-length")
    storage.resolve("s3://bucket/x", Storage(endpoint=s3.endpoint + "/"))
    said = refused("s3://bucket/out/a", Storage(endpoint=s3.endpoint, region="us-east-2"))
    assert "permission denied" in said and "another-secret" not in said


def test_what_is_looked_for_leaves_nothing(tmp_path: Path) -> None:
    assert storage.check_writable(f"{tmp_path}/a/b/c", PLAIN)
    assert not list(tmp_path.iterdir())

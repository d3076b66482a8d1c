"""The storage layer behind a server that spoils calls: the same bytes, or an error that says what failed."""

from __future__ import annotations

import os
from collections.abc import Iterator

import faulty
import pytest
from faulty import Proxy
from s3_server import S3Server

from gotd_ray import config, filesystems, storage
from gotd_ray.errors import UserError

DATA = os.urandom(300_000)


@pytest.fixture
def proxy(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    monkeypatch.setattr(faulty, "HOLD", 0.2)
    monkeypatch.setattr(faulty, "SLOW", 0.2)
    with faulty.faulty(s3.endpoint, 0.0) as proxy:
        yield proxy


@pytest.mark.parametrize("kind", faulty.KINDS)
@pytest.mark.parametrize("library", ["pyarrow", "s3fs"])
def test_what_is_written_and_read_through_a_fault_is_whole(proxy: Proxy, library: str, kind: str) -> None:
    settings = config.Storage(endpoint=proxy.endpoint, library=library)
    uri = f"s3://bucket/faulty-{library}-{kind}"
    proxy.script = [kind]
    storage.write_bytes(uri, DATA, settings)
    proxy.script = ["fine", kind]  # the size is asked for before the bytes are
    assert storage.read_bytes(uri, settings) == DATA
    assert proxy.done[kind] == 2 and proxy.done["fine"] >= 1


@pytest.mark.parametrize("library", ["pyarrow", "s3fs"])
def test_a_whole_file_is_read_by_few_requests(proxy: Proxy, library: str) -> None:
    settings = config.Storage(endpoint=proxy.endpoint, library=library)
    storage.write_bytes("s3://bucket/whole", DATA, settings)
    before = proxy.done["fine"]
    assert storage.read_bytes("s3://bucket/whole", settings) == DATA
    assert proxy.done["fine"] - before <= 3, "its size, and its bytes at once"


def test_four_failures_in_a_row_are_outlived(proxy: Proxy) -> None:
    """Arrow alone gives up after three."""
    settings = config.Storage(endpoint=proxy.endpoint)
    proxy.script = ["503"] * 4
    storage.write_bytes("s3://bucket/outlived", DATA, settings)
    assert proxy.done["503"] == 4 and storage.read_bytes("s3://bucket/outlived", settings) == DATA


def test_a_server_that_only_says_busy_is_a_clear_error(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filesystems, "_ATTEMPTS", 2)
    settings = config.Storage(endpoint=proxy.endpoint)
    proxy.share, proxy.kinds = 1.0, ("503",)
    with pytest.raises(UserError) as caught:
        storage.write_bytes("s3://bucket/busy", b"x", settings)
    said = str(caught.value)
    assert said.startswith("'s3://bucket/busy' cannot be written: ") and "storage.endpoint" in said and "\n" not in said


def test_a_share_of_the_calls_is_spoiled(s3: S3Server) -> None:
    with faulty.faulty(s3.endpoint, 0.05) as proxy:
        lots = [proxy.lot() for _ in range(20_000)]
    assert all(200 < lots.count(kind) < 300 for kind in faulty.KINDS)

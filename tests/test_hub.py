"""``hf://datasets/...`` names as people write them, with a stand-in for the hub: fsspec's view of it, no network."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from huggingface_hub import HfFileSystem

from gotd_ray import config, filesystems
from gotd_ray.config.places import normal
from gotd_ray.listing import list_all
from gotd_ray.text.readers import read_rows

FILES = {
    "datasets/user/name/README.md": b"about",
    "datasets/user/name/data/train-0.jsonl": b'{"text": "one"}\n',
    "datasets/user/name/data/train-1.jsonl": b'{"text": "two"}\n',
    "datasets/user/name@refs%2Fpr%2F1/data/other.jsonl": b'{"text": "of a branch"}\n',
}
CHANGED = datetime(2026, 5, 4, tzinfo=UTC)


class Hub(MemoryFileSystem):
    """Files in memory under the names that ``HfFileSystem`` gives, with its kind of facts."""

    protocol = "hf"
    cachable = False
    store: dict[str, Any] = {}  # noqa: RUF012 - as fsspec has it
    pseudo_dirs = [""]  # noqa: RUF012

    def __init__(self, expand_info: bool | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.expand_info = expand_info

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return MemoryFileSystem._strip_protocol(HfFileSystem._strip_protocol(path))

    find = fsspec.AbstractFileSystem.find  # by ls, as it is there

    def _told(self, facts: dict[str, Any]) -> dict[str, Any]:
        commit = SimpleNamespace(date=CHANGED) if self.expand_info else None
        return {"name": facts["name"].lstrip("/"), "size": facts["size"], "type": facts["type"], "last_commit": commit}

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        return self._told(super().info(path, **kwargs))

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> list[Any]:
        found = [self._told(one) for one in super().ls(path, detail=True, **kwargs)]
        return found if detail else [one["name"] for one in found]


@pytest.fixture
def hub() -> Iterator[None]:
    before = fsspec.registry.get("hf")
    fsspec.register_implementation("hf", Hub, clobber=True)
    filesystems.client.cache_clear()
    files = Hub()
    for name, data in FILES.items():
        files.pipe_file(name, data)
    yield
    fsspec.register_implementation("hf", before or HfFileSystem, clobber=True)
    filesystems.client.cache_clear()


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("hf://datasets/user/name", ["user/name/data/train-0.jsonl", "user/name/data/train-1.jsonl"]),
        ("hf://datasets/user/name/", ["user/name/data/train-0.jsonl", "user/name/data/train-1.jsonl"]),
        ("hf://datasets/user/name/data/train-1.jsonl", ["user/name/data/train-1.jsonl"]),
        ("hf://datasets/user/name/**/*-0.jsonl", ["user/name/data/train-0.jsonl"]),
        ("hf://datasets/user/name@refs%2Fpr%2F1/data", ["user/name@refs%2Fpr%2F1/data/other.jsonl"]),
    ],
)
def test_a_data_set_of_the_hub_is_listed_and_read(hub: None, path: str, names: list[str], tmp_path: Any) -> None:
    text, storage = config.Text(paths=[normal(path, tmp_path)]), config.Storage()
    files = list_all(text, storage).files
    assert [file.uri for file in files] == [f"hf://datasets/{name}" for name in names]
    assert {file.modified for file in files} == {int(CHANGED.timestamp()) * 10**9}, "a change would not be seen"
    rows = [row.content for file in files for row in read_rows(file.uri, text, storage)]
    assert rows == [FILES[f"datasets/{name}"][10:-3].decode() for name in names]


def test_the_hub_is_known_to_fsspec() -> None:
    """The client of the hub is what the name leads to, and takes what it is given."""
    assert fsspec.get_filesystem_class("hf") is HfFileSystem
    client = filesystems.client("hf", config.Storage().model_dump_json())
    assert client.handler.fs.expand_info is True

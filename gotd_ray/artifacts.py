"""A stage's folder, key and manifest. A stage is done when its manifest exists and bears its key.

Data first, the manifest last and in one put: object stores have no rename, and a run may be killed anywhere.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from gotd_ray import storage
from gotd_ray.config import Storage


def make_key(*parts: Any) -> str:
    """16 hex digits over JSON-like parts, independent of the order of keys."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


@dataclass(frozen=True)
class Artifact:
    """One stage's output folder."""

    folder: str
    key: str
    storage: Storage

    def path(self, *parts: str) -> str:
        return storage.join(self.folder, *parts)

    def manifest(self) -> dict[str, Any] | None:
        """The facts written by :meth:`commit`, or None while the stage is not done under this key."""
        path = self.path("manifest.json")
        if not storage.exists(path, self.storage):
            return None
        manifest = json.loads(storage.read_bytes(path, self.storage))
        return manifest if manifest.get("key") == self.key else None

    def begin(self) -> None:
        """Withdraw the manifest of an earlier key before its data is overwritten."""
        storage.delete_tree(self.path("manifest.json"), self.storage)

    def write(self, name: str, data: bytes) -> str:
        storage.write_bytes(self.path(name), data, self.storage)
        return self.path(name)

    def commit(self, facts: dict[str, Any]) -> dict[str, Any]:
        """Mark the stage done."""
        written = datetime.now(UTC).isoformat(timespec="seconds")
        manifest = {"key": self.key, "written": written, **facts}
        self.write("manifest.json", json.dumps(manifest, indent=1, sort_keys=True).encode())
        return manifest

"""A stage's folder, key and manifest. A stage is done when its manifest exists and bears its key.

Data first, the manifest last and in one put: object stores have no rename, and a run may be killed anywhere.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from gotd_ray import lock, storage
from gotd_ray.config import Storage


def make_key(*parts: Any) -> str:
    """16 hex digits over JSON-like parts, independent of the order of keys."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


MANIFEST, SETTINGS = "manifest.json", "settings.json"


@dataclass(frozen=True)
class Artifact:
    """One stage's output folder.

    Attributes:
        settings: the run's, which are kept beside the manifest for whoever looks at the results later.
    """

    folder: str
    key: str
    storage: Storage
    settings: dict[str, Any] | None = None

    def path(self, *parts: str) -> str:
        return storage.join(self.folder, *parts)

    def lies(self) -> dict[str, Any] | None:
        """The manifest that lies there, under whatever key; None where there is none, or one cut short."""
        return self._json(MANIFEST)

    def settings_then(self) -> dict[str, Any] | None:
        """The run's settings when what lies there was made, where they were kept."""
        return self._json(SETTINGS)

    def _json(self, name: str) -> dict[str, Any] | None:
        data = storage.read_if_there(self.path(name), self.storage)
        try:
            found = json.loads(data) if data else None
        except ValueError:
            return None
        return found if isinstance(found, dict) else None

    def manifest(self) -> dict[str, Any] | None:
        """The facts written by :meth:`commit`, or None while the stage is not done under this key."""
        manifest = self.lies()
        return manifest if manifest and manifest.get("key") == self.key else None

    def begin(self) -> None:
        """Withdraw the manifest of an earlier key before its data is overwritten.

        Raises:
            HeldError: another run has taken the folder over, as from :meth:`write` and :meth:`commit`.
        """
        lock.check()
        storage.delete_tree(self.path(MANIFEST), self.storage)

    def write(self, name: str, data: bytes) -> str:
        lock.check()
        storage.write_bytes(self.path(name), data, self.storage)
        return self.path(name)

    def commit(self, facts: dict[str, Any]) -> dict[str, Any]:
        """Mark the stage done."""
        if self.settings is not None:
            self.write(SETTINGS, json.dumps(self.settings, indent=1, sort_keys=True).encode())
        written = datetime.now(UTC).isoformat(timespec="seconds")
        manifest = {"key": self.key, "written": written, **facts}
        self.write(MANIFEST, json.dumps(manifest, indent=1, sort_keys=True).encode())
        return manifest

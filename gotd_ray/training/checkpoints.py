"""Checkpoints of a training on any filesystem. Every worker writes its own files; the note of what is whole comes last.

They hold DeepSpeed's files, which run code when loaded: whoever can write into the run's folder is trusted.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs
import torch.distributed as dist

from gotd_ray import config, storage
from gotd_ray.errors import UserError
from gotd_ray.models.language import put

NOTE = "latest.json"


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one training.

    Attributes:
        folder: where they lie, on any filesystem.
        storage: how it is opened.
        identity: what a checkpoint must agree in to be taken up: the training's key, workers, ZeRO stage.
    """

    folder: str
    storage: config.Storage
    identity: dict[str, Any]

    def latest(self) -> int | None:
        """The step of the last whole checkpoint.

        Raises:
            UserError: it is another training's, or of another number of workers; the note is damaged.
        """
        path = storage.join(self.folder, NOTE)
        if not storage.exists(path, self.storage):
            return None
        try:
            note = dict(json.loads(storage.read_bytes(path, self.storage)))
        except (ValueError, TypeError):
            raise UserError(f"{path} is damaged. Delete {self.folder} to start over.") from None
        for name, value in self.identity.items():
            if note.get(name) != value:
                raise UserError(
                    f"the checkpoint in {self.folder} has {name} {note.get(name)}, but this training has {value}. Give "
                    f"this one the same {name}, or delete the folder to start over."
                )
        return int(note["step"])

    def fetch(self, local: Path) -> Path | None:
        """The last checkpoint, copied into a local folder; None where there is none."""
        step = self.latest()
        if step is None:
            return None
        filesystem, path = storage.resolve(self._of(step), self.storage)
        target = local / f"checkpoint-{step}"
        target.mkdir(parents=True, exist_ok=True)
        pafs.copy_files(path, str(target), source_filesystem=filesystem, destination_filesystem=pafs.LocalFileSystem())
        return target

    def commit(self, step: int, local: Path) -> None:
        """Copy this worker's files; when all have done so, the first worker notes the step and drops the one before.

        Every worker must call it.
        """
        before = self.latest()
        put(local, self._of(step), self.storage)
        dist.barrier()
        if dist.get_rank() == 0:
            note = json.dumps(self.identity | {"step": step}).encode()
            storage.write_bytes(storage.join(self.folder, NOTE), note, self.storage)
            if before is not None and before != step:
                storage.delete_tree(self._of(before), self.storage)

    def _of(self, step: int) -> str:
        return storage.join(self.folder, f"step-{step}")

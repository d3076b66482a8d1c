"""The texts of the ranking, read again where they stand: the index holds none."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import ray

from gotd_ray.choosing.decontaminate import Contamination
from gotd_ray.remote import answers
from gotd_ray.shards.pool import Pool
from gotd_ray.text.addresses import FOUND, Reading, texts_of_files

_texts_of_files = ray.remote(texts_of_files)

_KEPT = ["text", "messages"]

PLACES = 8
"""Places at which a text is looked for, where it stands in several files and has gone from the first."""

_DIED = (
    "a task that reads the chosen texts again died, most likely for want of memory. Give the nodes more, or lower the "
    "max_document_bytes of the corpus."
)


Hand = tuple[dict[str, int], pa.Table]
"""What one task reads, see ``texts_of_files``."""


@dataclass(frozen=True)
class Texts:
    """The texts of n documents, as they came.

    Attributes:
        address: n rows, where each text was found, or is looked for first.
        tables: of texts, and of the turns of conversations; the others are read by them.
        table, row: (n,) int32, where a text stands in these; -1 where there is none.
        shared: by document, what it shares with the evaluation texts. It has no text here.
    """

    address: pa.Table
    tables: list[pa.Table]
    table: np.ndarray
    row: np.ndarray
    shared: dict[int, Contamination]

    @property
    def gone(self) -> np.ndarray:
        """(n,) bool, whose text is nowhere what it was."""
        gone = self.table < 0
        gone[list(self.shared)] = False
        return gone

    def of(self, rows: np.ndarray) -> pa.Table:
        """``text`` and ``messages`` of some documents (k,) that have one."""
        tables, parts = np.unique(self.table[rows], return_inverse=True)
        taken = [self.tables[one].take(pa.array(self.row[rows[parts == i]])) for i, one in enumerate(tables)]
        back = np.argsort(np.argsort(parts, kind="stable"))
        return pa.concat_tables(taken).take(pa.array(back)) if taken else FOUND.empty_table().select(_KEPT)


class ReadBack:
    """Reads the texts of stretches of the ranking, in tasks that also search them for evaluation texts.

    Attributes:
        changed: files that are no longer what they were when they were embedded, and why.
    """

    def __init__(self, reading: Reading, pool: Pool, cpus: int, sizes: Mapping[str, int]):
        """Args:
        cpus: of the cluster.
        sizes: of the files, in bytes, where they are known.
        """
        self.changed: dict[str, str] = {}
        self._reading, self._pool, self._cpus, self._sizes = reading, pool, cpus, sizes

    def __call__(self, ids: np.ndarray, address: pa.Table) -> Texts:
        """The texts of documents (n,) S32 that stand there: each file is opened once.

        A text that has gone from its first place is looked for at the others.

        Raises:
            UserError: the storage did not give a file.
        """
        nowhere = np.full(len(ids), -1, np.int32)
        texts = Texts(address, [], nowhere, nowhere.copy(), {})
        self._read(texts, ids, np.arange(len(ids)), address)
        for number in range(1, PLACES):
            gone = np.flatnonzero(texts.gone)
            if not len(gone):
                break
            gone = gone[np.argsort(ids[gone])]
            found = pa.concat_tables(self._pool.ask("addresses", ids[gone], number)).unify_dictionaries()
            if not len(found):
                break
            places = gone[np.searchsorted(ids[gone], np.array(found["doc_id"].to_pylist(), "S32"))]
            others = found.drop_columns(["doc_id"]).combine_chunks()
            self._read(texts, ids, places, others)
            texts = _moved(texts, places, others)
        return texts

    def _read(self, texts: Texts, ids: np.ndarray, places: np.ndarray, address: pa.Table) -> None:
        """Read documents ``places`` (k,) at ``address``, k rows."""
        for found, changed in self._found(self._hands(ids, places, address)):
            self.changed |= changed
            if not len(found):
                continue
            place, other = found["place"].to_numpy(), found["eval_id"].is_valid().to_numpy()
            texts.table[place[~other]] = len(texts.tables)
            texts.row[place] = np.arange(len(place))
            texts.tables.append(found.select(_KEPT).combine_chunks())
            for row in found.filter(pa.array(other)).to_pylist():
                texts.shared[row["place"]] = Contamination(row["eval_id"], row["span"])

    def _hands(self, ids: np.ndarray, places: np.ndarray, address: pa.Table) -> list[Hand]:
        """Deal the files out: the largest to the task that has least, and so on."""
        column = address["path"].combine_chunks()
        files, names = column.indices.to_numpy(), column.dictionary.to_pylist()
        texts = np.bincount(files, address["chars"].to_numpy(), len(names))
        cost = {file: texts[file] + self._sizes.get(names[file], 0) for file in np.unique(files).tolist()}
        dealt: list[list[int]] = [[] for _ in range(min(self._tasks, len(cost)))]
        loads = [(0.0, task) for task in range(len(dealt))]
        for file in sorted(cost, key=lambda file: (-cost[file], names[file])):
            load, task = loads[0]
            dealt[task].append(file)
            heapq.heapreplace(loads, (load + cost[file], task))
        order = np.argsort(files, kind="stable")
        cuts = np.searchsorted(files[order], np.arange(len(names) + 1))
        columns = address.select(["row", "chunk"]).append_column("doc_id", pa.array(ids[places].astype(str)))
        columns = columns.append_column("place", pa.array(places))
        return [
            (
                {names[file]: int(cuts[file + 1] - cuts[file]) for file in task},
                columns.take(pa.array(np.concatenate([order[cuts[file] : cuts[file + 1]] for file in task]))),
            )
            for task in dealt
        ]

    @property
    def _tasks(self) -> int:
        return self._cpus if self._pool.holds_cpus else 4 * self._cpus

    @cached_property
    def _shared(self) -> Any:
        return ray.put(self._reading)

    def _found(self, hands: list[Hand]) -> Iterator[tuple[pa.Table, dict[str, str]]]:
        """What the tasks find, as it comes."""
        # Shards on CPU hold all of the cluster's CPUs while they wait, and a task that asked for one would never start.
        # Otherwise Ray starts no more tasks than there are CPUs.
        idle = self._pool.holds_cpus
        options: Any = {"num_cpus": 0, "scheduling_strategy": "SPREAD"} if idle else {"num_cpus": 1}
        task = _texts_of_files.options(num_returns="streaming", **options)
        for _, (found, changed) in answers([task.remote(*hand, self._shared) for hand in hands], lambda _: _DIED):
            # Copied: Ray's store would keep what is looked at, and may be smaller than what a driver holds.
            yield found.take(pa.array(np.arange(len(found)))), changed


def _moved(texts: Texts, places: np.ndarray, others: pa.Table) -> Texts:
    """With the addresses of those documents that were found elsewhere."""
    found = ~texts.gone[places]
    rows = np.arange(len(texts.table))
    rows[places[found]] = len(rows) + np.flatnonzero(found)
    both = pa.concat_tables([texts.address, others]).unify_dictionaries()
    return Texts(both.take(pa.array(rows)).combine_chunks(), texts.tables, texts.table, texts.row, texts.shared)

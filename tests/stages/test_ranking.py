"""The ranking is the same however it is cut, its texts are read once, and the subset is written in small pieces."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from selected import TEXTS, Selected, read_here, write

from gotd_ray.choosing.topk import TopK, top_k
from gotd_ray.results import SUBSET
from gotd_ray.shards import ranking, subset
from gotd_ray.shards.read_back import ReadBack
from gotd_ray.stages.select import SET_ASIDE
from gotd_ray.text import addresses
from gotd_ray.text.addresses import Reading

CORPUS = {"a.jsonl": TEXTS[:15], "b.parquet": TEXTS[10:30], "c.jsonl": TEXTS[25:]}


@given(st.integers(0, 1000), st.integers(1, 6), st.integers(1, 400), st.booleans())
def test_the_first_of_the_ranking_are_those_of_all_however_they_lie_in_the_shards(
    seed: int, shards: int, k: int, sorted_by_id: bool
) -> None:
    rng = np.random.default_rng(seed)
    ids = np.sort(np.array([rng.bytes(16).hex() for _ in range(300)], "S32"))
    scores = rng.integers(0, 40, 300).astype(float)
    if sorted_by_id:
        scores.sort()  # the best lie in the first shard
    cuts = np.sort(rng.integers(0, 301, shards - 1))
    parts = list(zip(np.split(ids, cuts), np.split(scores, cuts), strict=True))
    asked: list[int] = []

    def ask(_: str, __: object, most: int) -> list[TopK]:
        asked.append(most)
        return [top_k(*part, most) for part in parts]

    pool: Any = SimpleNamespace(size=shards, ask=ask)
    found, wanted = ranking.best(pool, None, k), top_k(ids, scores, k)
    assert found.ids.tolist() == wanted.ids.tolist()
    assert found.scores.tolist() == wanted.scores.tolist()
    assert max(asked) <= k


@pytest.mark.parametrize(
    "settings",
    [
        {"budget": 12},
        {"budget": 6000, "budget_unit": "tokens"},
        {"budget": 7000, "budget_unit": "tokens", "source_quota": 0.4},
        {"budget": 20, "source_quota": 0.3},
        {"budget": 12, "method": "gotd", "rounds": 3},
        {"budget": 6000, "budget_unit": "tokens", "method": "gotd", "rounds": 2},
    ],
)
def test_the_choice_does_not_depend_on_how_far_is_looked_ahead(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_here(monkeypatch)
    write(tmp_path / "test" / "a.jsonl", TEXTS[::4])
    here = Selected(tmp_path, CORPUS, near_duplicate=0.7, decontaminate={"paths": f"{tmp_path}/test"}, **settings)
    before = here.solve() if settings.get("method") == "gotd" else None
    opened: Counter[str] = Counter()
    rows_at = addresses.rows_at

    def counted(path: str, *given: Any) -> Iterator[tuple[str, str, Any]]:
        opened[path] += 1
        return rows_at(path, *given)

    monkeypatch.setattr(addresses, "rows_at", counted)
    facts = here.select(before)
    assert set(opened.values()) == {1} or "rounds" in settings, "each file is opened once"
    tables = here.table(SUBSET), here.table(SET_ASIDE)
    assert {"near_duplicate", "contaminated"} <= set(facts["set_aside"]), "there is something to choose"
    assert [row["rank"] for row in tables[0]] == list(range(1, len(tables[0]) + 1))
    assert pq.ParquetFile(here.artifact.path(SUBSET)).num_row_groups == 1
    once = opened.total()
    monkeypatch.setattr(ranking, "SLACK", 1)
    monkeypatch.setattr(ranking, "STRETCH", 3)
    monkeypatch.setattr(subset, "GROUP_BYTES", 4000)
    monkeypatch.setattr(addresses, "BYTES", 500)
    again = here.select(before)
    assert opened.total() > 2 * once, "it was cut"
    assert (here.table(SUBSET), here.table(SET_ASIDE)) == tables
    file = pq.ParquetFile(here.artifact.path(SUBSET))
    sizes = [sum(map(len, file.read_row_group(n, ["text"])["text"].to_pylist())) for n in range(file.num_row_groups)]
    assert len(sizes) > 1
    assert max(sizes) <= 4000
    for one in (facts, again):
        one.pop("seconds")
        one.pop("written")
    assert facts == again


def test_files_are_dealt_to_the_tasks_by_their_size_and_each_to_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_here(monkeypatch)
    corpus = {f"{name}.jsonl": TEXTS[i : i + 1] * 3 + TEXTS[20 + i : 21 + i] for i, name in enumerate("abcdefgh")}
    here = Selected(tmp_path, corpus, budget=16)
    sizes = {f"{tmp_path}/corpus/{name}.jsonl": 10**6 * (n + 1) for n, name in enumerate("abcdefgh")}
    dealt: list[list[dict[str, int]]] = []
    found = ReadBack._found

    def watched(self: ReadBack, hands: Any) -> Any:
        dealt.append([files for files, _ in hands])
        return found(self, hands)

    monkeypatch.setattr(ReadBack, "_found", watched)
    monkeypatch.setattr(ReadBack, "__init__", _with_sizes(sizes))
    assert here.select()["documents"] == 16
    (tasks,) = dealt
    assert len(tasks) == 8, "more tasks than CPUs where Ray starts no more than there are"
    monkeypatch.setattr(ReadBack, "_tasks", 3)
    here.select()
    loads = [sum(sizes[path] for path in files) / 10**6 for files in dealt[1]]
    assert sorted(loads) == [11, 12, 13], "the largest first, each to the task that has least"
    files = [path for task in dealt[1] for path in task]
    assert sorted(files) == sorted(sizes)
    assert all(count == 2 for task in dealt[1] for count in task.values())


def _with_sizes(sizes: dict[str, int]) -> Any:
    real = ReadBack.__init__

    def made(self: ReadBack, reading: Reading, pool: Any, cpus: int, _: Any) -> None:
        real(self, reading, pool, cpus, sizes)

    return made

"""Select on files: what has changed since it was embedded, what is told, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from indexed import index_at
from selected import TEXTS, Selected, counted, read_here, write

from gotd_ray import config
from gotd_ray.artifacts import Artifact
from gotd_ray.checks import check_selection
from gotd_ray.earlier import own_potentials
from gotd_ray.errors import UserError
from gotd_ray.methods import mmd
from gotd_ray.methods.dsir import weights_name
from gotd_ray.results import LOG_WEIGHTS, POTENTIALS, SUBSET
from gotd_ray.shards import rounds
from gotd_ray.shards.read_back import ReadBack
from gotd_ray.storage import StoredFile
from gotd_ray.text import addresses
from gotd_ray.text.addresses import Reading
from gotd_ray.text.documents import document_id
from gotd_ray.text.rows import BadFile


@pytest.fixture(autouse=True)
def _in_this_process(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "ray" not in request.keywords:
        read_here(monkeypatch)


def weighed(here: Selected, words: int) -> Artifact:
    """Log weights as dsir leaves them, every document having so many words."""
    ids = sorted(document_id(text) for text in TEXTS)
    artifact = Artifact(str(Path(here.artifact.folder).parent / "dsir"), "key", here.run.storage)
    folder = Path(artifact.path(LOG_WEIGHTS))
    folder.mkdir(parents=True)
    for part in range(2):
        mine = ids[part::2]
        table = pa.table({"doc_id": mine, "log_weight": np.arange(len(mine)) / 10, "words": [words] * len(mine)})
        pq.write_table(table, folder / weights_name(part, 2))
    return artifact


def test_too_few_words_are_named_where_they_leave_nothing(tmp_path: Path) -> None:
    here = Selected(tmp_path, {"c.jsonl": TEXTS[:8]}, method="dsir", dsir_min_words=400, budget=4)
    message = here.refused(weighed(here, 300))
    assert message.startswith(
        "no document can be taken: of 8 candidates 8 have fewer than select.dsir_min_words (400) words. Lower it, or "
    )
    with pytest.raises(UserError) as raised:
        here.check(counted(here.run)["corpus"])
    assert message.startswith(str(raised.value))


@pytest.mark.parametrize("damage", ["missing", "last missing", "all missing", "cut"])
def test_log_weights_that_are_damaged_are_refused_with_what_to_delete(tmp_path: Path, damage: str) -> None:
    here = Selected(tmp_path, {"c.jsonl": TEXTS[:8]}, method="dsir", dsir_min_words=4, budget=4)
    before = weighed(here, 300)
    folder = Path(before.path(LOG_WEIGHTS))
    assert here.select(before)["documents"] == 4
    here.artifact.begin()
    for number, path in enumerate(sorted(folder.iterdir())):
        if damage == "cut":
            path.write_bytes(path.read_bytes()[:-50])
        elif damage == "all missing" or number == (damage == "last missing"):
            path.unlink()
    message = here.refused(before)
    if damage == "cut":
        assert "part-00000-of-00002.parquet" in message
    else:
        assert f"{folder} does not hold all log weights" in message
        assert f"Delete {folder.parent} and run again" in message


def test_a_text_that_has_gone_from_one_file_is_taken_from_another(tmp_path: Path) -> None:
    corpus = {"a.jsonl": TEXTS[:20], "b.jsonl": TEXTS[10:20], "c.jsonl": TEXTS[15:20]}
    here = Selected(tmp_path, corpus, budget=20)
    (tmp_path / "corpus" / "a.jsonl").unlink()
    write(tmp_path / "corpus" / "b.jsonl", ["another text by now " * 8] * 10)
    facts = here.select()
    assert (facts["documents"], facts["set_aside"]) == (5, {"text_changed": 15})
    taken = here.table(SUBSET)
    assert {row["text"] for row in taken} == set(TEXTS[15:20])
    assert {(row["source"], Path(row["path"]).name) for row in taken} == {("c", "c.jsonl")}
    assert facts["changed_files"]["files"] == 2
    why = {Path(path).name: words for path, words in facts["changed_files"]["examples"]}
    assert why["a.jsonl"].startswith("vanished")
    assert why["b.jsonl"] == "some of its texts are no longer what they were"
    assert "select: 2 files are not what they were when they were embedded" in here.said


def test_an_id_in_several_files_is_one_document_at_its_first_address(tmp_path: Path) -> None:
    here = Selected(
        tmp_path, {"b.jsonl": TEXTS[:10], "a.jsonl": TEXTS[:10] + TEXTS[:5], "c.parquet": TEXTS[:12]}, budget=12
    )
    facts = here.select()
    assert (facts["candidates"], facts["documents"], facts["set_aside"]) == (12, 12, {})
    taken = here.table(SUBSET)
    assert {row["doc_id"] for row in taken} == {document_id(text) for text in TEXTS[:12]}
    assert sorted(Path(row["path"]).name for row in taken) == ["a.jsonl"] * 10 + ["c.parquet"] * 2
    assert "changed_files" not in facts


def test_a_budget_above_the_distinct_documents_is_refused_in_the_same_words_before_and_after(tmp_path: Path) -> None:
    here = Selected(tmp_path, {"a.jsonl": TEXTS[:10], "b.jsonl": TEXTS[:10]}, budget=11)
    message = here.refused()
    assert message.startswith("select.budget is 11, but the corpus has 10 distinct documents.")
    with pytest.raises(UserError) as raised:
        check_selection(here.run, counted(here.run))
    assert str(raised.value) == message


def damaged(path: Path, how: str) -> None:
    table = pq.read_table(path)
    if how == "no column":
        pq.write_table(table.rename_columns(["body"]), path)
    elif how == "other type":
        pq.write_table(pa.table({"text": pa.array(range(len(table)))}), path)
    elif how == "cut":
        path.write_bytes(path.read_bytes()[:-20])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "gone":
        path.unlink()


@pytest.mark.parametrize("how", ["no column", "other type", "cut", "empty", "gone"])
def test_a_file_that_is_damaged_after_it_was_embedded_gives_way_and_is_told(tmp_path: Path, how: str) -> None:
    here = Selected(tmp_path, {"a.parquet": TEXTS[:10], "b.parquet": TEXTS[10:20]}, budget=20)
    damaged(tmp_path / "corpus" / "a.parquet", how)
    facts = here.select()
    assert facts["set_aside"] == {"text_changed": 10}
    assert {row["text"] for row in here.table(SUBSET)} == set(TEXTS[10:20])
    assert [Path(path).name for path, _ in facts["changed_files"]["examples"]] == ["a.parquet"]
    damaged(tmp_path / "corpus" / "b.parquet", "gone")
    message = here.refused()
    assert "of 20 candidates 20 have changed or gone since they were embedded. Run again, which embeds" in message


def test_a_storage_that_does_not_answer_stops_the_selection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = Selected(tmp_path, {"a.parquet": TEXTS[:10]}, budget=5)

    def rows_at(*_: Any) -> Iterator[tuple[str, str, None]]:
        yield from ()
        raise BadFile("io_error", "OSError: no route to host", transient=True)

    monkeypatch.setattr(addresses, "rows_at", rows_at)
    assert here.refused() == (
        f"{tmp_path}/corpus/a.parquet cannot be read back: io_error: OSError: no route to host. Run again when the "
        "storage answers."
    )


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_what_a_reading_task_refuses_comes_in_one_line_through_ray(tmp_path: Path) -> None:
    here = Selected(tmp_path, {"a.parquet": TEXTS[:10], "b.parquet": TEXTS[10:20]}, budget=20)
    damaged(tmp_path / "corpus" / "a.parquet", "no column")
    assert here.select()["set_aside"] == {"text_changed": 10}
    reading = Reading(here.run.corpus, here.run.chunks, config.Storage(library="pyarrow", options={"a": "b"}))
    pool: Any = SimpleNamespace(holds_cpus=True)
    wanted = pa.table({"row": [0], "chunk": [0], "doc_id": ["f" * 32], "place": [0]})
    with pytest.raises(UserError) as raised:
        list(ReadBack(reading, pool, 1, {})._found([({"s3://bucket/x.parquet": 1}, wanted)]))
    assert str(raised.value).startswith("storage.options (a) are options of s3fs, but storage.library is pyarrow.")
    assert "\n" not in str(raised.value)


def test_how_many_lie_near_the_cut_is_within_twice_what_a_score_may_move(tmp_path: Path) -> None:
    here = Selected(tmp_path, {"a.parquet": TEXTS}, method="gotd", budget=10)
    potentials = here.solve()
    facts = here.select(potentials)
    path = potentials.path(POTENTIALS)
    last_move = own_potentials(path, here.run.storage).facts["last_move"]
    scores = np.array([row["score"] for row in here.table("scores/part-00000.parquet")])
    gaps = np.abs(scores - facts["cut_score"])
    assert facts["near_cut"] == int((gaps <= 2 * last_move).sum()) >= 1
    settings = here.run.select.model_copy(update={"budget": 10**6, "budget_unit": "tokens"})
    here.run = here.run.model_copy(update={"select": settings})
    everything = here.select(potentials)
    assert not everything["budget_reached"]
    assert "near_cut" not in everything, "all that may be taken is, and no error changes that"


def test_potentials_of_the_solve_that_are_gone_or_cut_are_refused(tmp_path: Path) -> None:
    here = Selected(tmp_path, {"a.parquet": TEXTS}, method="gotd", budget=10)
    solved = here.solve()
    potentials = Path(solved.path(POTENTIALS))
    potentials.write_bytes(potentials.read_bytes()[:100])
    assert f"Delete {potentials.parent} and run again: the solve is done anew" in here.refused(solved)
    potentials.unlink()
    assert "they are not there" in here.refused(solved)


def test_arithmetic_that_breaks_down_in_a_round_is_told_as_in_the_solve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = Selected(tmp_path, {"a.parquet": TEXTS}, method="gotd", budget=10, rounds=2)
    potentials = here.solve()

    def fail(*_: Any, **__: Any) -> Any:
        raise FloatingPointError("a sum over candidates is not finite")

    with monkeypatch.context() as patch:
        patch.setattr(rounds, "fit_shards", fail)
        assert here.refused(potentials).startswith("a sum over candidates is not finite. Raise solve.epsilon, or set")
    settings = here.run.solve.model_copy(update={"max_passes": 1})
    here.run = here.run.model_copy(update={"solve": settings})
    here.select(potentials)
    assert "round 2 stopped at residual" in here.said


def test_a_bandwidth_that_cannot_be_found_names_the_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mmd, "median_bandwidth", lambda *_: (_ for _ in ()).throw(ValueError("it is 0")))
    here = Selected(tmp_path, {"a.parquet": TEXTS}, method="mmd", budget=10)
    assert here.refused() == "it is 0. Set select.bandwidth, or check the paths and the encoder."


def test_files_of_another_time_are_not_the_same_files(tmp_path: Path) -> None:
    """The index is asked for files as they are; the test's own helper must not hide that."""
    here = Selected(tmp_path, {"a.parquet": TEXTS})
    assert here.embedded.candidates.rows == len(TEXTS)
    index = index_at(tmp_path / "index" / "corpus")
    assert index.snapshot([StoredFile(f"{tmp_path}/corpus/a.parquet", 1, 1)])[0].rows == 0

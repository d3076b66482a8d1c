"""The survey: which documents it looks at, which sources it keeps, and that embed then reads no other."""

from __future__ import annotations

import io
import json
import random
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import ray
from conftest import make_run
from corpora import Row, write_parquet
from rich.console import Console

from gotd_ray import config, pipeline
from gotd_ray.cluster import Resources, Site
from gotd_ray.errors import UserError
from gotd_ray.index import Collection, Index
from gotd_ray.progress import Progress
from gotd_ray.stages import survey
from gotd_ray.stages.survey import Sample, files_to_read
from gotd_ray.storage import StoredFile

TOPICS = {
    "stars": "The telescope shows a {} {} near the galaxy, whose orbit around the {} star takes a {} year.",
    "kitchen": "Stir the {} {} into the butter, add a {} onion and bake it in a {} oven for an hour.",
    "court": "The {} judge refused the {} appeal, since the {} contract had no {} witness to its signing.",
    "tiny": "A {} sailor coils the {} rope while the {} boat turns into a {} wind.",
}
WORDS = ("small", "cold", "bright", "old", "heavy", "distant", "quiet", "yellow", "broken", "sharp", "common", "second")


def about(topic: str, number: int) -> list[Row]:
    draw = random.Random(topic)
    texts: dict[str, None] = {}
    while len(texts) < number:
        texts[TOPICS[topic].format(*draw.sample(WORDS, 4))] = None
    return [(text, topic) for text in texts]


ROWS = {topic: about(topic, 8 if topic == "tiny" else 60) for topic in TOPICS}


def collection(paths: list[str], **text: Any) -> Collection:
    files = [StoredFile(path, 1, "0") for path in paths]
    return Collection(config.Text.model_validate({"paths": "x", **text}), files, Index("", "", config.Storage()))


def test_the_sample_does_not_depend_on_the_order_of_documents_and_files() -> None:
    rows = [(f"{number:032x}", source) for source in "ab" for number in range(500)]
    samples = []
    for seed in range(3):
        random.Random(seed).shuffle(rows)
        whole = Sample(20)
        for part in (rows[:300], rows[300:]):
            file = Sample(20)
            for doc_id, source in part:
                file.add(source, {doc_id: doc_id})
            for source, texts in file.texts().items():
                whole.add(source, texts)
        samples.append({source: list(texts) for source, texts in whole.texts().items()})
    assert samples[0] == samples[1] == samples[2]
    assert samples[0]["a"] == [f"{number:032x}" for number in range(20)]


def test_of_each_source_some_files_are_read_whatever_their_order() -> None:
    paths = [f"/c/{source}/{number}.parquet" for source in "ab" for number in range(50)] + ["/c/one/0.parquet"]
    read = {file.uri for file in files_to_read(collection(paths, source_from="parent"), 4)}
    assert len([path for path in read if "/a/" in path]) == len([path for path in read if "/b/" in path]) == 4
    assert "/c/one/0.parquet" in read
    assert {file.uri for file in files_to_read(collection(paths[::-1], source_from="parent"), 4)} == read
    assert len(files_to_read(collection(paths, source_column="source"), 4)) == 4


def test_files_of_a_dropped_source_go_and_the_idea_of_a_document_stays() -> None:
    corpus = collection(["/c/a.parquet", "/c/b.parquet", "/c/b.jsonl.gz"])
    text, files = corpus.without(["b"])
    assert [file.uri for file in files] == ["/c/a.parquet"]
    assert text == corpus.text


def test_rows_of_a_dropped_source_are_left_out_where_rows_name_it() -> None:
    corpus = collection(["/c/a.parquet"], source_column="source", exclude_sources=["z"])
    assert corpus.without([]) == (corpus.text, corpus.files)
    text, files = corpus.without(["b"])
    assert text.exclude_sources == ["b", "z"]
    assert files == corpus.files


@pytest.mark.ray
def test_embed_reads_only_the_nearest_source(tmp_path: Path, ray_cluster: None) -> None:
    """A file of each source; then rows that name their source, shuffled over other files: equal distances."""
    for topic, rows in ROWS.items():
        write_parquet(tmp_path / "files" / f"{topic}.parquet", rows)
    shuffled = [row for rows in ROWS.values() for row in rows]
    random.Random(0).shuffle(shuffled)
    for number in range(3):
        write_parquet(tmp_path / "rows" / f"{'zyx'[number]}.parquet", shuffled[number::3])
    aim = "Through the {} telescope we saw how a {} planet crossed the {} star in the {} galaxy."
    target = [(aim.format(*random.Random(seed).sample(WORDS, 4)), "t") for seed in range(30)]
    write_parquet(tmp_path / "target" / "t.parquet", target)

    def settings(way: str, column: str | None) -> config.Run:
        corpus = {"paths": str(tmp_path / way), "source_column": column}
        select = {"budget": 20, "near_duplicate": None, "method": "nearest"}
        run = make_run(tmp_path / "out" / way, tmp_path, corpus=corpus, select=select, survey=SURVEY)
        return pipeline.resolve_paths(run)

    run = settings("files", None)
    assert not pipeline.plan(run).ran
    plan = pipeline.execute(run, Progress())
    facts, embedded = plan.manifests["survey"], plan.manifests["embed"]
    assert facts is not None and embedded is not None
    assert facts["dropped"] == ["court", "kitchen", "tiny"]
    assert [row["source"] for row in facts["sources"] if row["small"]] == ["tiny"]
    assert {row["source"]: row["documents"] for row in facts["sources"]}["tiny"] == 8
    assert embedded["corpus"]["documents"] == len(ROWS["stars"])
    subset = pq.read_table(plan.artifacts["select"].path("subset.parquet"))
    assert set(subset["source"].to_pylist()) == {"stars"}
    assert all(pipeline.plan(run).done(stage) for stage in ("survey", "embed", "select"))

    other = pipeline.plan(settings("rows", "source"))
    one_cpu = Site(Resources(cpus=1, gpus=0, nodes=1, node_cpus=1, private=False), other.device, Progress())
    step = other.steps["survey"]
    assert survey.survey(step.given, step.artifact, one_cpu)["sources"] == facts["sources"]
    after = pipeline.plan(other.run)
    assert after.collections["corpus"].text.exclude_sources == ["court", "kitchen", "tiny"]
    assert after.collections["corpus"].index != other.collections["corpus"].index


SURVEY = {"documents": 40, "keep": 1}


def surveyed(folder: Path, **sections: Any) -> tuple[dict[str, Any], list[str]]:
    """The facts of a survey on the tests' cluster, and what was said."""
    run = pipeline.resolve_paths(make_run(folder / "out", folder, survey=SURVEY, **sections))
    plan = pipeline.plan(run)
    said: list[str] = []
    progress = Progress(Console(file=io.StringIO()))
    progress.say = said.append  # type: ignore[method-assign]
    site = Site(Resources(cpus=2, gpus=0, nodes=1, node_cpus=2, private=False), plan.device, progress)
    return survey.survey(plan.steps["survey"].given, plan.artifacts["survey"], site), said


def lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.ray
def test_what_the_survey_leaves_out_is_told_and_written_down(tmp_path: Path, ray_cluster: None) -> None:
    for topic in ("stars", "kitchen"):
        lines(tmp_path / "corpus" / f"{topic}.jsonl", [{"text": text, "w": 1} for text, _ in ROWS[topic]])
    odd = [{"text": "Too short.", "w": 1}, {"body": "no text here", "w": 1}, {"text": None, "w": 1}]
    none = [{"text": text, "w": 0} for text, _ in ROWS["court"][:2]]
    lines(tmp_path / "corpus" / "odd.jsonl", [*odd, *none, {"text": ROWS["tiny"][0][0], "w": 1}])
    (tmp_path / "corpus" / "broken.jsonl.gz").write_bytes(b"no gzip at all")
    lines(tmp_path / "target" / "t.jsonl", [{"text": text} for text, _ in ROWS["stars"][:20]] + [{"text": ""}])
    corpus = {"weight_column": "w", "source_column": None}
    facts, said = surveyed(tmp_path, corpus=corpus, target={"source_column": None})
    assert facts["left_out"] == {
        "corpus": {"too_short": 1, "missing_column": 1, "empty_text": 1, "weight_0": 2},
        "target": {"empty_text": 1},
    }
    broken = f"{tmp_path}/corpus/broken.jsonl.gz: unreadable: OSError: zlib inflate failed: incorrect header check"
    assert facts["bad_files"] == {"corpus": [broken], "target": []}
    assert (
        facts["told"]
        == [words for words in said if "left out: " in words or "cannot be read" in words]
        == [
            "survey: corpus: left out: 1 empty_text, 1 missing_column, 1 too_short, 2 weight_0",
            f"survey: corpus: 1 of 4 files cannot be read: {broken}",
            "survey: target: left out: 1 empty_text",
        ]
    )
    assert {row["source"]: row["documents"] for row in facts["sources"]} == {"stars": 40, "kitchen": 40, "odd": 1}


@pytest.mark.ray
def test_a_set_of_which_the_survey_finds_nothing_is_refused_with_why(tmp_path: Path, ray_cluster: None) -> None:
    lines(tmp_path / "corpus" / "a.jsonl", [{"text": text} for text, _ in ROWS["stars"]])
    lines(tmp_path / "target" / "t.jsonl", [{"sentence": text} for text, _ in ROWS["stars"]])
    plain = {"corpus": {"source_column": None}, "target": {"source_column": None}}
    with pytest.raises(UserError) as raised:
        surveyed(tmp_path, **plain)
    assert str(raised.value) == (
        "the survey found no document in the target: 60 rows read, left out: 60 missing_column. Check "
        "target.text_column and chunks."
    )
    half = [{"text": text} for text, _ in ROWS["stars"][:30]] + [{"text": None}] * 30
    lines(tmp_path / "target" / "t.jsonl", half)
    with pytest.raises(UserError) as raised:
        surveyed(tmp_path, **plain)
    assert str(raised.value).startswith("target: 30 of 60 rows are unusable ({'empty_text': 30}), and target.max_bad")
    (tmp_path / "target" / "t.jsonl").unlink()
    (tmp_path / "target" / "t.jsonl.gz").write_bytes(b"no gzip at all")
    with pytest.raises(UserError) as raised:
        surveyed(tmp_path, **plain)
    assert str(raised.value).startswith("target: 1 of 1 files cannot be read, and target.max_bad_files allows a share")
    for one in (raised,):
        assert "\n" not in str(one.value) and type(one.value) is UserError


@pytest.mark.ray
def test_a_survey_that_is_refused_leaves_no_task_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ray_cluster: None
) -> None:
    """One file cannot be reached: the others are not read on for nobody."""
    asked: list[Any] = []

    class Files:
        """Reads of which the first fails and the others would take ten minutes."""

        @staticmethod
        def remote(*arguments: Any) -> Any:
            asked.append((_read_slowly if asked else _read_nothing).remote())
            return asked[-1]

    monkeypatch.setattr(survey, "_read_file", Files)
    for number in range(3):
        lines(tmp_path / "corpus" / f"{number}.jsonl", [{"text": text} for text, _ in ROWS["stars"]])
    lines(tmp_path / "target" / "t.jsonl", [{"text": text} for text, _ in ROWS["stars"]])
    with pytest.raises(UserError) as raised:
        surveyed(tmp_path, corpus={"source_column": None}, target={"source_column": None})
    assert str(raised.value) == GONE
    ended, running = ray.wait(asked, num_returns=len(asked), timeout=0)
    assert len(ended) == 3 and not running


GONE = "a.jsonl cannot be read: gone. Run again when the storage answers."


@ray.remote(num_cpus=0.1)
def _read_nothing() -> None:
    raise UserError(GONE)


@ray.remote(num_cpus=0.1)
def _read_slowly() -> None:
    time.sleep(600)

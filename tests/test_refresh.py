"""Versions and their pointer: what is published is whole, whatever happens; without Ray."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from refreshing import Corpus, Stages
from s3_server import S3Server

from gotd_ray import cli, lock, refresh, storage
from gotd_ray.config import Storage
from gotd_ray.errors import UserError
from gotd_ray.progress import Progress
from gotd_ray.versions import Versions

TRAINING = {"max_tokens": 64, "batch_size": 4, "steps": 2, "workers": 1, "learning_rate": 1e-3}


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch) -> Stages:
    return Stages(monkeypatch)


@pytest.fixture
def corpus(tmp_path: Path, stages: Stages) -> Corpus:
    return Corpus(tmp_path)


def test_versions_stand_side_by_side_and_older_ones_go(corpus: Corpus, stages: Stages) -> None:
    subsets = []
    for day in range(5):
        corpus.write(f"new{day}", 100 + day)
        found = corpus.refresh(refresh={"keep": 2})
        assert (found.facts["version"], found.facts["before"]) == (day + 1, day or None)
        assert corpus.published()[0] == day + 1
        subsets.append(corpus.published()[1])
        assert found.facts["encoded"]["corpus"] == (28 if day == 0 else 4)
        assert list(found.ran) == ["embed", "solve", "select", "report"]
    assert corpus.versions() == ["0004", "0005"]
    old = corpus.folder / "out" / "versions" / "0004" / "select" / "subset.parquet"
    assert pq.read_table(old)["doc_id"].to_pylist() == subsets[-2], "who reads the last but one is left in peace"


def test_nothing_new_starts_nothing(corpus: Corpus, stages: Stages) -> None:
    corpus.refresh()
    corpus.write("f0", 50)
    corpus.refresh()
    stages.started.clear()
    for _ in range(2):
        found = corpus.refresh()
        assert found.words == ["nothing new: version 0002 is of these files and settings"]
    assert stages.started == [] and corpus.published()[0] == 2 and corpus.versions() == ["0001", "0002"]


def test_what_has_changed_is_told_to_the_last_document(corpus: Corpus) -> None:
    corpus.refresh()
    was = corpus.published()[1]
    corpus.write("f0", 50)
    corpus.write("more", 60)
    corpus.delete("f1")
    found = corpus.refresh()
    now = corpus.published()[1]
    facts = found.facts
    assert [facts["files"]["corpus"][what] for what in ("new", "changed", "gone")] == [1, 1, 1]
    assert facts["files"]["target"]["new"] == 0
    assert facts["documents"]["corpus"] == {"now": 24, "in": 8, "out": 8}
    rows = pq.read_table(corpus.folder / "out" / "versions" / "0002" / "changes").to_pylist()
    subset = {row["doc_id"]: row for row in rows if row["set"] == "subset"}
    assert set(subset) == set(was) | set(now)
    for doc_id, row in subset.items():
        assert row["rank_before"] == (was.index(doc_id) + 1 if doc_id in was else None)
        assert row["rank"] == (now.index(doc_id) + 1 if doc_id in now else None)
    stayed = sorted(abs(now.index(one) - was.index(one)) for one in set(was) & set(now))
    assert facts["documents"]["subset"]["largest_move"] == max(stayed, default=0)
    assert facts["documents"]["subset"]["in"] == len(set(now) - set(was))
    sources = {
        name: [row[key] for key in ("corpus_before", "corpus", "in", "out")] for name, row in facts["sources"].items()
    }
    assert sources == {
        **{"f0": [4, 4, 4, 4], "f1": [4, 0, 0, 4], "more": [0, 4, 4, 0]},
        **{f"f{number}": [4, 4, 0, 0] for number in range(2, 6)},
    }
    means = facts["sources"]["f2"]
    assert means["mean_score"] == means["mean_score_before"] > 0
    assert facts["sources"]["f1"]["mean_score"] is None
    assert facts["drift"] == 0.125 and facts["divergence"] == facts["divergence_before"]
    assert any(line.startswith("corpus: 1 file new, 1 file changed, 1 file gone") for line in found.words)
    assert any(line.startswith("drift 0.12 (refresh.refit_above 0.002): fitted again") for line in found.words)


class Killed(BaseException):
    """The process is gone."""


def test_killed_between_any_two_writes_readers_see_a_whole_version(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus.refresh(refresh={"keep": 2})
    corpus.write("f1", 70)
    corpus.refresh(refresh={"keep": 2})
    before = corpus.published()
    corpus.write("f0", 50)
    kept = corpus.folder.with_name("kept")
    shutil.copytree(corpus.folder, kept, copy_function=shutil.copy2)
    write, delete = storage.write_bytes, storage.delete_tree
    steps = 0

    def dying(at: int) -> None:
        nonlocal steps
        steps = 0

        def count(work: Any) -> Any:
            def step(*arguments: Any) -> None:
                nonlocal steps
                if f"{lock.PREFIX}" not in arguments[0]:
                    if steps == at:
                        raise Killed
                    steps += 1
                work(*arguments)

            return step

        monkeypatch.setattr(storage, "write_bytes", count(write))
        monkeypatch.setattr(storage, "delete_tree", count(delete))

    dying(-1)
    corpus.refresh(refresh={"keep": 2})
    after, total = corpus.published(), steps
    assert after[0] == 3 and before[0] == 2 and before[1] != after[1] and total > 20
    for at in range(total):
        shutil.rmtree(corpus.folder)
        shutil.copytree(kept, corpus.folder, copy_function=shutil.copy2)
        dying(at)
        with pytest.raises(Killed):
            corpus.refresh(refresh={"keep": 2})
        assert corpus.published() in (before, after), at
        dying(-1)
        corpus.refresh(refresh={"keep": 2})
        assert corpus.published() == after, at


def refused(corpus: Corpus, **sections: Any) -> str:
    with pytest.raises(UserError) as caught:
        corpus.refresh(**sections)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_pointer_to_a_version_that_is_gone(corpus: Corpus) -> None:
    corpus.refresh()
    corpus.write("f0", 50)
    corpus.refresh()
    out = corpus.folder / "out"
    shutil.rmtree(out / "versions" / "0002" / "select")
    remedy = (
        "Restore that, or delete current.json: the next refresh then makes a new version, and encodes only what the "
        "index lacks."
    )
    assert refused(corpus) == (
        f"{out}/current.json leads to version 0002, which has no versions/0002/select/subset.parquet any more "
        f"(versions that are there: 0001, 0002). {remedy}"
    )
    shutil.rmtree(out / "versions" / "0002")
    assert f"(versions that are there: 0001). {remedy}" in refused(corpus)
    (out / "current.json").unlink()
    found = corpus.refresh()
    assert found.facts["encoded"]["corpus"] == 0 and found.facts["before"] is None
    assert corpus.published()[0] == 2, "what was published before is not written over"


@pytest.mark.parametrize("data", ["", "{", "[]", '{"version": 1}', '{"version": 1, "other": 2}'])
def test_a_damaged_pointer(corpus: Corpus, data: str) -> None:
    (corpus.folder / "out").mkdir()
    (corpus.folder / "out" / "current.json").write_text(data)
    assert refused(corpus).startswith(
        f"{corpus.folder}/out/current.json is damaged, or of another version of gotd_ray."
    )


def test_a_corpus_that_lost_more_than_half_is_refused(corpus: Corpus, stages: Stages) -> None:
    corpus.refresh()
    for number in range(4):
        corpus.delete(f"f{number}")
    stages.started.clear()
    said = refused(corpus)
    assert said.startswith("the corpus has ") and " bytes, less than half of the " in said
    assert said.endswith("set refresh.allow_shrink to true. Version 0001 stays published.")
    assert stages.started == [] and corpus.published()[0] == 1
    corpus.refresh(refresh={"allow_shrink": True})
    assert corpus.published()[0] == 2
    shutil.rmtree(corpus.folder / "corpus")
    (corpus.folder / "corpus").mkdir()
    said = refused(corpus, refresh={"allow_shrink": True})
    assert "holds no file" in said and said.endswith("Version 0002 stays published.")


@pytest.mark.late("how many documents there are is known when they are embedded")
def test_a_corpus_that_lost_its_documents_is_refused(corpus: Corpus) -> None:
    """Files of equal size, in which most rows are another's."""
    corpus.refresh()
    for number in range(6):
        path = corpus.folder / "corpus" / f"f{number}.jsonl"
        first, *others = path.read_text().splitlines()
        path.write_text("\n".join([first] * (1 + len(others))) + "\n")
    said = refused(corpus)
    assert "the corpus has 6 documents, less than half of the 24 of the last version." in said
    assert said.endswith("Version 0001 stays published.") and corpus.published()[0] == 1


def test_another_encoder_is_built_beside_and_switched_to_at_the_end(corpus: Corpus, stages: Stages) -> None:
    corpus.refresh()
    corpus.write("f0", 50)
    assert corpus.refresh().facts["drift"] == 0.125
    stages.encoder = "second"
    found = corpus.refresh()
    assert found.facts["encoded"] == {"corpus": 24, "target": 1} and found.facts["drift"] is None
    assert not (corpus.folder / "out" / "versions" / "0003" / "start.safetensors").exists()
    assert corpus.refresh().words[0].startswith("nothing new: version 0003")
    corpus.write("f1", 51)
    assert corpus.refresh().facts["drift"] == 0.125


def test_models_are_trained_again_when_enough_of_the_subset_is_new(tmp_path: Path, stages: Stages, llama: Path) -> None:
    """They are held against the version that was trained, not the last one; and that version stays."""
    model = {"model": {"base": str(llama), "precision": "float32"}, "pretune": TRAINING, "finetune": TRAINING}
    corpus = Corpus(tmp_path, **model, refresh={"retrain_above": 0.5, "keep": 2}, select={"budget": 12})
    first = corpus.refresh()
    assert list(first.ran) == ["embed", "solve", "select", "pretune", "finetune", "report"]
    trained, _ = 1, corpus.published()
    before = set(corpus.published()[1])
    for day in range(12):
        corpus.write(f"f{day % 6}", 300 + day)
        found = corpus.refresh()
        now = set(corpus.published()[1])
        share = len(now - before) / len(now)
        again = share > 0.5
        if again:
            trained, before = day + 2, now
        assert found.facts["training"] == {"models_of": trained, "trained": again, "new_since": share}
        assert ("pretune" in found.ran) == again
        assert corpus.pointer["models"] == {
            stage: f"versions/{trained:04d}/{stage}/model" for stage in ("pretune", "finetune")
        }
        assert corpus.refresh().words[0].startswith("nothing new"), "also where nothing was trained"
        assert corpus.versions() == sorted({f"{trained:04d}", f"{day + 1:04d}", f"{day + 2:04d}"})
    assert trained > 1 and trained < 13, "both cases were met"
    found = corpus.refresh(finetune=TRAINING | {"steps": 3})
    assert found.facts["training"] == {"models_of": 14, "trained": True, "new_since": None}


def test_a_storage_that_lets_nothing_be_deleted(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for day in range(2):
        corpus.write("f0", 50 + day)
        corpus.refresh(refresh={"keep": 2})
    delete = storage.delete_tree

    def denied(uri: str, settings: Any) -> None:
        if uri.endswith("versions/0001"):
            raise UserError(f"'{uri}' cannot be written: permission denied.")
        delete(uri, settings)

    monkeypatch.setattr(storage, "delete_tree", denied)
    corpus.write("f0", 60)
    corpus.refresh(refresh={"keep": 2})
    assert corpus.published()[0] == 3 and corpus.versions() == ["0001", "0002", "0003"]
    assert "note: version 0001 is not needed any more, and could not be deleted: '" in capsys.readouterr().err


def test_versions_on_s3(corpus: Corpus, s3: S3Server) -> None:
    run = corpus.run(storage={"endpoint": s3.endpoint}, refresh={"keep": 2})
    run = run.model_copy(update={"out": "s3://bucket/versions-of-it", "index": f"{corpus.folder}/index"})
    for day in range(3):
        corpus.write("f0", 200 + day)
        assert refresh.refresh(run, Progress()).facts["version"] == day + 1
    assert refresh.refresh(run, Progress()).words[0].startswith("nothing new: version 0003")
    there = s3.folder / "bucket" / "versions-of-it"
    assert json.loads((there / "current.json").read_text())["subset"] == "versions/0003/select/subset.parquet"
    assert sorted(path.name for path in (there / "versions").iterdir() if any(path.rglob("*.json"))) == ["0002", "0003"]


def test_a_selection_of_its_own_is_refused(corpus: Corpus) -> None:
    run = corpus.run().model_copy(update={"selection": "elsewhere"})
    with pytest.raises(UserError, match=r"keeps the selection of each version in out/versions\. Leave"):
        refresh.refresh(run, Progress())


def test_a_dry_run_writes_and_holds_nothing(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refresh, "TextEncoder", lambda *_: type("One", (), {"rate": lambda self, texts: 2.0})())
    found = refresh.refresh(corpus.run(), Progress(), dry_run=True)
    assert not (corpus.folder / "out").exists() and found.pointer is None
    assert found.facts["files"]["corpus"] == {"new": 6, "changed": 0, "gone": 0}
    corpus.refresh()
    corpus.write("f0", 50)
    corpus.delete("f1")
    with lock.held([str(corpus.folder / "out")], corpus.run().storage):
        found = refresh.refresh(corpus.run(), Progress(), dry_run=True)
    assert found.facts["files"] == {
        "corpus": {"new": 0, "changed": 1, "gone": 1}, "target": {"new": 0, "changed": 0, "gone": 0}
    }  # fmt: skip
    assert found.facts["documents"] == {"corpus": 4} and found.facts["encode_seconds"] == 2.0
    assert corpus.versions() == ["0001"]


def test_the_last_line_names_what_is_published(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = corpus.folder / "run.yaml"
    path.write_text(yaml.safe_dump(corpus.run().model_dump(exclude_unset=True)))
    monkeypatch.setattr(sys, "argv", ["gotd", "refresh", str(path), "--json"])
    for ran in (["embed", "solve", "select", "report"], []):
        with pytest.raises(SystemExit) as stop:
            cli.main()
        assert stop.value.code == 0
        last = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert (last["state"], last["version"], last["ran"]) == ("done", 1, ran)
        assert Path(last["subset"]).exists() and Path(last["report"]).exists() and Path(last["changes"]).exists()
        assert last["pointer"] == f"{corpus.folder}/out/current.json"
    assert last["counts"]["documents"] == {}


def test_a_version_that_was_begun_is_gone_on_with(tmp_path: Path) -> None:
    versions = Versions(str(tmp_path), Storage())
    assert versions.next(None) == 1
    (tmp_path / "versions" / "0003").mkdir(parents=True)
    (tmp_path / "versions" / "other").mkdir()
    assert versions.next(None) == 3
    (tmp_path / "versions" / "0003" / "refresh.json").write_text("{}")
    assert versions.next(None) == 4

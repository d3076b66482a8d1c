"""`gotd refresh` on real input: a version costs what is new, ends as a run from nothing, and tells what has changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from conftest import make_run
from corpora import documents, write_parquet

from gotd_ray import config, pipeline, refresh
from gotd_ray.progress import Progress
from gotd_ray.text.documents import document_id

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]

FILES, EACH = 40, 6
TEXTS = [" ".join(text.split())[:200].strip() for text, _ in documents()[0]]


def write(folder: Path, name: str, texts: list[str]) -> None:
    path = folder / "corpus" / f"{name}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"text": text, "source": name[:1]}) + "\n" for text in texts))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """40 small files, and a target."""
    for number in range(FILES):
        write(tmp_path, f"{'ab'[number % 2]}{number:02d}", TEXTS[number * EACH : (number + 1) * EACH])
    write_parquet(tmp_path / "target" / "t.parquet", documents()[1][:40])
    return tmp_path


def run_in(folder: Path, out: str = "out", **sections: dict[str, object]) -> config.Run:
    solve = {"tolerance": 1e-6, "precision": "float64"} | sections.pop("solve", {})
    return make_run(folder / out, folder, chunks={"max_chars": None}, solve=solve, **sections)


def ids(subset: str | Path) -> list[str]:
    return pq.read_table(subset)["doc_id"].to_pylist()


def pointed(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "out" / "current.json").read_text())


def change(folder: Path) -> dict[str, set[str]]:
    """Three files more, two that are others, one less: the texts that came and went."""
    new = iter(TEXTS[FILES * EACH :])
    came = [next(new) for _ in range(3 * EACH + 2)]
    for number in range(3):
        write(folder, f"c{number}", came[number * EACH : (number + 1) * EACH])
    went = [TEXTS[0], TEXTS[EACH]]
    write(folder, "a00", [came[-2], *TEXTS[1:EACH]])
    write(folder, "b01", [came[-1], *TEXTS[EACH + 1 : 2 * EACH]])
    (folder / "corpus" / "a02.jsonl").unlink()
    return {"in": set(came), "out": {*went, *TEXTS[2 * EACH : 3 * EACH]}}


def test_a_version_costs_what_is_new_and_is_what_a_run_from_nothing_gives(folder: Path) -> None:
    run = run_in(folder, refresh={"refit_above": 0.0})
    first = refresh.refresh(run, Progress())
    assert first.facts["before"] is None and pointed(folder)["version"] == 1
    was = ids(folder / "out" / pointed(folder)["subset"])
    moved = change(folder)

    looked = refresh.refresh(run, Progress(), dry_run=True)
    assert looked.facts["files"]["corpus"] == {"new": 3, "changed": 2, "gone": 1}
    assert looked.facts["documents"] == {"corpus": 5 * EACH} and looked.facts["encode_seconds"] > 0
    assert pointed(folder)["version"] == 1

    second = refresh.refresh(run, Progress())
    facts = second.facts
    assert (facts["version"], facts["before"]) == (2, 1)
    assert facts["encoded"] == {"corpus": len(moved["in"]), "target": 0}
    assert [facts["files"]["corpus"][what] for what in ("new", "changed", "gone")] == [3, 2, 1]
    assert facts["documents"]["corpus"] == {
        "now": FILES * EACH + 3 * EACH - EACH, "in": 3 * EACH + 2, "out": EACH + 2
    }  # fmt: skip
    assert facts["drift"] > 0 and facts["fit"]["reason"] == "converged"

    alone = run_in(folder, "alone")
    scratch = pipeline.execute(alone.model_copy(update={"index": f"{folder}/index2"}), Progress())
    now = ids(folder / "out" / pointed(folder)["subset"])
    assert now == ids(scratch.artifacts["select"].path("subset.parquet"))

    rows = pq.read_table(folder / "out" / "versions" / "0002" / "changes").to_pylist()
    for way in ("in", "out"):
        found = [row["doc_id"] for row in rows if row["set"] == "corpus" and row["change"] == way]
        assert sorted(found) == sorted(map(document_id, moved[way]))
    ranks = {row["doc_id"]: row for row in rows if row["set"] == "subset"}
    assert set(ranks) == set(was) | set(now)
    for doc_id, row in ranks.items():
        before = was.index(doc_id) + 1 if doc_id in was else None
        after = now.index(doc_id) + 1 if doc_id in now else None
        assert (row["rank_before"], row["rank"]) == (before, after)
        assert row["change"] == ("stayed" if before and after else "in" if after else "out")
    assert facts["documents"]["subset"]["in"] == len(set(now) - set(was))
    sources = facts["sources"]
    assert {name: (row["corpus_before"], row["corpus"], row["in"], row["out"]) for name, row in sources.items()} == {
        "a": (120, 114, 1, 7), "b": (120, 120, 1, 1), "c": (0, 18, 18, 0)
    }  # fmt: skip
    assert sum(row["subset"] for row in sources.values()) == 40
    assert sources["c"]["mean_score_before"] is None and sources["c"]["mean_score"] is not None


def test_an_unchanged_corpus_starts_nothing_and_a_renamed_one_encodes_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_in(folder, select={"method": "nearest"})
    refresh.refresh(run, Progress())
    with monkeypatch.context() as patched:
        patched.setattr(pipeline, "connected", lambda *_: pytest.fail("something was started"))
        again = refresh.refresh(run, Progress())
        assert again.words == ["nothing new: version 0001 is of these files and settings"]
        assert again.ran == () and again.pointer and again.pointer.version == 1
        page = folder / "out" / "versions" / "0001" / "report" / "report.html"
        for gone_on in (False, True):
            page.unlink()
            if gone_on:
                write(folder, "z", TEXTS[-EACH:])
            found = refresh.published(run)
            assert found and pipeline.write_report(found[2], Progress(), of_a_version=True) == str(page)
            assert page.stat().st_size > 10_000
            assert ("no longer those of the published version" in capsys.readouterr().err) == gone_on
        (folder / "corpus" / "z.jsonl").unlink()
        assert refresh.refresh(run, Progress()).words == again.words, "a report written anew is no news"
    (folder / "corpus").rename(folder / "elsewhere")
    moved = refresh.refresh(
        run_in(folder, select={"method": "nearest"}, corpus={"paths": f"{folder}/elsewhere"}), Progress()
    )
    assert moved.facts["encoded"] == {"corpus": 0, "target": 0}
    assert moved.facts["documents"]["corpus"] == {"now": FILES * EACH, "in": 0, "out": 0}
    assert moved.facts["documents"]["subset"] == {"now": 40, "in": 0, "out": 0, "median_move": 0, "largest_move": 0}
    assert moved.facts["files"]["corpus"]["new"] == moved.facts["files"]["corpus"]["gone"] == FILES

"""What is known of a training before anything runs: its faults in the user's words, its texts, what the cluster has."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from corpora import write_parquet
from trainings import CLASSES, LONG, PRETUNE, faults, lines, settings, write_sets

from gotd_ray import config, pipeline
from gotd_ray.cluster import Resources
from gotd_ray.errors import UserError
from gotd_ray.stages import train
from gotd_ray.training.check import check
from gotd_ray.training.task import read, subset_of, tasks


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sets(tmp_path_factory.mktemp("sets"))


def said_before(run: config.Run) -> str:
    """What a run is refused for before anything is started."""
    run = pipeline.resolve_paths(run)
    with pytest.raises(UserError) as raised:
        check(tasks(run, "subset.parquet"))
    said = str(raised.value)
    assert "\n" not in said and "\x1b" not in said
    return said


def test_every_fault_of_a_training_is_said_before_anything_runs(
    library: Path, llama: Path, bert: Path, sets: Path, tmp_path: Path
) -> None:
    target = {"source_column": None}
    for words, base, model, finetune in faults(sets, llama, bert):
        run = settings(tmp_path, library, base, target=target, finetune=finetune)
        assert run.model
        run = run.model_copy(update={"model": run.model.model_copy(update=model)})
        assert said_before(run) == words
    broken = settings(
        tmp_path, library, llama, target=target, finetune={"max_tokens": 64, "dev": str(sets / "broken.jsonl.gz")}
    )
    assert f"{sets}/broken.jsonl.gz cannot be read: unreadable: " in said_before(broken).replace("'", "")


def test_a_pretune_is_held_against_its_base_and_its_dev_before_there_is_a_subset(
    library: Path, llama: Path, bert: Path, sets: Path, tmp_path: Path
) -> None:
    def said(base: Path, **pretune: Any) -> str:
        return said_before(settings(tmp_path, library, base, target={"source_column": None}, pretune=PRETUNE | pretune))

    assert said(llama, max_tokens=512) == f"pretune.max_tokens is 512, but '{llama.name}' takes 128 at most. Lower it."
    assert said(llama, dev=str(sets / "short.jsonl")).startswith("pretune.dev has no text: 1 rows read, left out: 1")
    assert said(bert, objective="causal").startswith("pretune: a token of a BertLMHeadModel sees those after it (")
    assert said(bert, parameters="last", last_layers=3) == (
        "last_layers is 3, but the model has 2 layers. Lower it, or set parameters to all."
    )
    run = pipeline.resolve_paths(
        settings(
            tmp_path,
            library,
            llama,
            target={"source_column": None},
            pretune=PRETUNE | {"dev": str(sets / "plain.jsonl")},
        )
    )
    assert check(tasks(run, "subset.parquet")) == []


def test_a_held_out_split_of_the_target_is_never_trained_on(library: Path, bert: Path, tmp_path: Path) -> None:
    """With labels as without; whatever a label is called."""
    rows = [
        {
            "text": LONG.format(number),
            "split": "test" if number % 4 == 0 else "train",
            "label": ("test", "other")[number % 2],
        }
        for number in range(40)
    ]
    path = lines(tmp_path / "target.jsonl", *rows, rows[1])
    target = {"paths": path, "source_column": "split", "exclude_sources": ["test"]}
    for finetune in ({}, {"label_column": "label"}):
        run = pipeline.resolve_paths(
            settings(tmp_path, library, bert, target=target, finetune=finetune | {"max_tokens": 64})
        )
        task = tasks(run, "")["finetune"]
        found = read(task)
        wanted = {(row["text"], row["label"] if finetune else None) for row in rows if row["split"] == "train"}
        assert set(found.examples) == wanted and len(found.examples) == 30
        assert found.left_out == {"equal_text": 1, "excluded_source": 10}
        assert found.told == ("finetune: target: left out: 1 equal_text, 10 excluded_source",)
        assert check({"finetune": task}) == list(found.told)


def test_large_files_are_read_in_part_before_and_the_part_decides_nothing(
    library: Path, bert: Path, sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gotd_ray.preflight.EXACT_BYTES", 100)
    base = {"target": {"source_column": None}}
    one = {"paths": str(sets / "one.jsonl"), "dev": str(sets / "two.jsonl"), **CLASSES}
    run = pipeline.resolve_paths(settings(tmp_path, library, bert, finetune=one, **base))
    check(tasks(run, ""))  # another label may stand in what was not read
    bad = settings(tmp_path, library, bert, finetune=CLASSES | {"paths": str(sets / "lists.jsonl")}, **base)
    assert said_before(bad).startswith("finetune.paths: 8 of 8 rows are unusable ({'bad_label': 8})")


def test_what_the_cluster_has_not_is_said_once_it_is_known(library: Path, llama: Path, tmp_path: Path) -> None:
    run = settings(tmp_path, library, llama, pretune={"workers": 8, "steps": 1}, finetune={"batch_size": 3})
    run = pipeline.resolve_paths(run)
    found = tasks(run, "subset.parquet")
    small = Resources(cpus=2, gpus=0, nodes=1, node_cpus=2, private=True)
    train.check_places(train.Training(found["finetune"]), small)
    for stage, cluster, words in (
        ("pretune", small, "pretune.workers is 8, but the cluster has 2 CPUs. Lower it, or take a larger cluster."),
        ("finetune", replace(small, gpus=2), "finetune.batch_size is 3, which 2 workers cannot take 1 rows at a time "
         "each. Make it a multiple of 2, or change micro_batch or workers."),
    ):  # fmt: skip
        with pytest.raises(UserError) as raised:
            train.check_places(train.Training(found[stage]), cluster)
        assert str(raised.value) == words


def test_a_training_that_this_machine_can_never_hold_is_refused_before(
    library: Path, llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = pipeline.resolve_paths(settings(tmp_path, library, llama, pretune=PRETUNE))
    found = tasks(run, "subset.parquet")
    small = Resources(cpus=2, gpus=0, nodes=1, node_cpus=2, private=True)
    train.check_places(train.Training(found["pretune"]), small)
    monkeypatch.setattr(train.os, "sysconf", lambda name: 4096 if "SIZE" in name else 10)
    with pytest.raises(
        UserError, match=r"^pretune needs at least 0.0 GiB on its one worker, and 0.0 GiB are there in all. "
    ):
        train.check_places(train.Training(found["pretune"]), small)
    train.check_places(train.Training(found["pretune"]), replace(small, private=False))  # not its own


def test_a_subset_that_is_gone_or_damaged_is_said_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "select" / "subset.parquet"
    for content in (None, b"PAR1 but not much more"):
        if content:
            path.parent.mkdir()
            path.write_bytes(content)
        with pytest.raises(UserError) as raised:
            subset_of(str(path), "text", config.Storage())
        said = str(raised.value)
        assert said.startswith(f"the subset {path} cannot be read: ") and "\n" not in said
        assert said.endswith(f"Delete {path.parent}, and run again.")
    write_parquet(path, [("one", "x"), ("two", "x")])
    assert subset_of(str(path), "text", config.Storage()) == ["one", "two"]

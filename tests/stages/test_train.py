"""Trainings as stages of a run, on Ray Train: what they start from, what they leave, and a worker killed in between."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
import ray.train
import torch
from conftest import make_run
from corpora import write_parquet
from ray.exceptions import RayActorError
from rich.console import Console
from safetensors.torch import load_file
from tiny import make_job
from trainings import LONG, PRETUNE, SELECT, faults, lines, settings, write_sets

from gotd_ray import config, pipeline
from gotd_ray.artifacts import Artifact
from gotd_ray.cluster import Resources, Site
from gotd_ray.errors import DivergedError, UserError
from gotd_ray.progress import Progress
from gotd_ray.remote import answer
from gotd_ray.stages import train
from gotd_ray.training import task as training


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sets(tmp_path_factory.mktemp("sets"))


def keys(run: config.Run) -> dict[str, str]:
    return {stage: artifact.key for stage, artifact in pipeline.plan(pipeline.resolve_paths(run)).artifacts.items()}


def test_a_training_without_a_model_is_refused(library: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"pretune needs a model, but there is none. Add model.base"):
        make_run(tmp_path, library, pretune={"steps": 1})


def test_a_training_is_done_again_when_its_result_changes_and_only_then(
    library: Path, llama: Path, tmp_path: Path
) -> None:
    first = keys(settings(tmp_path, library, llama, pretune=PRETUNE, finetune={"steps": 1}))
    places = {"workers": 2, "micro_batch": 1, "zero_stage": 2, "checkpoint_every": 50}
    assert keys(settings(tmp_path, library, llama, pretune=PRETUNE | places, finetune={"steps": 1})) == first
    slower = keys(settings(tmp_path, library, llama, pretune=PRETUNE | {"learning_rate": 1e-4}, finetune={"steps": 1}))
    assert {stage for stage in first if slower[stage] != first[stage]} == {"pretune", "finetune"}
    longer = keys(settings(tmp_path, library, llama, pretune=PRETUNE, finetune={"steps": 2}))
    assert {stage for stage in first if longer[stage] != first[stage]} == {"finetune"}
    smaller = make_run(
        tmp_path, library, select=SELECT | {"budget": 39}, model={"base": str(llama)}, finetune={"steps": 1}
    )
    alone = keys(settings(tmp_path, library, llama, finetune={"steps": 1}))
    assert keys(smaller)["select"] != alone["select"]


def test_a_file_that_moves_from_dev_to_the_training_is_another_training(
    library: Path, llama: Path, tmp_path: Path
) -> None:
    for name in ("train", "dev"):
        write_parquet(tmp_path / f"{name}.parquet", [(f"Some words for {name}, and then some more of them.", "x")])
    first, second = (str(tmp_path / f"{name}.parquet") for name in ("train", "dev"))
    apart, together = (
        keys(settings(tmp_path / "out", library, llama, finetune={"steps": 1, "paths": paths} | more))["finetune"]
        for paths, more in (([first], {"dev": [second]}), ([first, second], {}))
    )
    assert apart != together


def test_what_decides_no_text_of_the_target_decides_no_training(library: Path, llama: Path, tmp_path: Path) -> None:
    """Limits on bad data, weights and proportions: the documents that are learnt stay the same."""

    def key(finetune: dict[str, Any] | None = None, **target: Any) -> str:
        run = settings(tmp_path, library, llama, target=target, finetune={"steps": 1} | (finetune or {}))
        return keys(run)["finetune"]

    first = key()
    of_no_use: list[dict[str, Any]] = [
        {"max_bad_rows": 0.5}, {"max_bad_files": 0.9}, {"weight_column": "w"}, {"proportions": {"a": 1.0}},
        {"source_column": None}, {"source_from": "parent"},
    ]  # fmt: skip
    assert [key(**change) for change in of_no_use] == [first] * len(of_no_use)
    assert key({"objective": "causal"}) == first  # what auto is
    excluding = key(exclude_sources=["x"])
    others = [
        key(sample=0.5), key(text_column="source"), key(max_document_bytes=5000), excluding,
        key(exclude_sources=["x"], source_column=None), key({"label_column": "source"}),
    ]  # fmt: skip
    assert len({first, *others}) == 7
    labelled = key({"label_column": "source"})
    run = settings(tmp_path, library, llama, finetune={"steps": 1, "label_column": "source"})
    assert keys(run.model_copy(update={"chunks": config.Chunks(max_chars=500)}))["finetune"] == labelled


def test_a_gpus_worker_gets_its_share_of_the_cpus_beside_it(library: Path, llama: Path, tmp_path: Path) -> None:
    """A head without a GPU does not count, however many CPUs it has."""
    run = pipeline.resolve_paths(settings(tmp_path, library, llama, finetune={"steps": 1}))
    task = training.tasks(run, "")["finetune"]
    cluster = Resources(cpus=80, gpus=4, nodes=2, node_cpus=16, private=False, gpu_cpus=4)
    assert train.places(task, cluster) == ("cuda", 4, 4)


def test_a_run_without_trainings_has_none(library: Path, tmp_path: Path) -> None:
    plan = pipeline.plan(pipeline.resolve_paths(make_run(tmp_path, library, select=SELECT)))
    assert list(plan.steps)[-2:] == ["select", "report"]


def kill_worker(folder: Path, killed: list[int]) -> None:
    """SIGKILL to the worker of Ray Train, once a checkpoint is whole."""
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline and not killed:
        if list(folder.glob("checkpoint-*/latest.json")):
            for process in psutil.Process().children(recursive=True):
                try:
                    if "RayTrainWorker" in " ".join(process.cmdline()):
                        process.kill()
                        killed.append(process.pid)
                except psutil.Error:
                    continue
        time.sleep(0.01)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(2000)
def test_a_worker_killed_in_mid_training_changes_nothing_and_finetune_goes_on_from_there(
    library: Path, llama: Path, tmp_path: Path, ray_cluster: None
) -> None:
    unbroken = pipeline.execute(settings(tmp_path / "unbroken", library, llama, pretune=PRETUNE), Progress())
    killed: list[int] = []
    folder = tmp_path / "out" / "pretune"
    thread = threading.Thread(target=kill_worker, args=(folder, killed), daemon=True)
    thread.start()
    finetune = {"max_tokens": 64, "batch_size": 8, "steps": 2, "workers": 2, "zero_stage": 2}
    plan = pipeline.execute(settings(tmp_path / "out", library, llama, pretune=PRETUNE, finetune=finetune), Progress())
    assert killed
    weights = [load_file(tmp_path / name / "pretune" / "model" / "model.safetensors") for name in ("unbroken", "out")]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    pretuned, finetuned = plan.manifests["pretune"], plan.manifests["finetune"]
    assert pretuned is not None and finetuned is not None
    assert unbroken.manifests["pretune"] is not None
    assert pretuned["losses"] == unbroken.manifests["pretune"]["losses"]
    assert pretuned["texts"] == 40 and pretuned["engine"]["engine"] == "DeepSpeedEngine"
    assert finetuned["engine"]["workers"] == 2 and finetuned["engine"]["zero_stage"] == 2
    assert finetuned["base"]["fingerprint"] != pretuned["base"]["fingerprint"]
    assert not list((tmp_path / "out" / "pretune").glob("checkpoint-*"))
    lines: list[str] = []
    progress = Progress()
    progress.say = lines.append  # type: ignore[method-assign]
    pipeline.execute(settings(tmp_path / "out", library, llama, pretune=PRETUNE, finetune=finetune), progress)
    assert "pretune: done before, skipped" in lines and "finetune: done before, skipped" in lines


def made_ready(run: config.Run, folder: Path) -> tuple[training.Task, Artifact]:
    """The fine-tuning of a run, as if all before it were done."""
    run = pipeline.resolve_paths(run)
    assert run.model
    run = run.model_copy(update={"model": run.model.model_copy(update={"precision": "float32"})})
    return training.tasks(run, "")["finetune"], Artifact(str(folder / "finetune"), "a key", run.storage)


def quiet_site() -> tuple[Site, list[str]]:
    """The tests' cluster, and all that is said there."""
    said: list[str] = []
    progress = Progress(Console(file=io.StringIO()))
    progress.say = said.append  # type: ignore[method-assign]
    return Site(Resources(cpus=2, gpus=0, nodes=1, node_cpus=2, private=True), "cpu", progress), said


@pytest.mark.ray
@pytest.mark.slow
def test_a_fault_that_only_the_training_comes_upon_is_one_line_as_well(
    library: Path, llama: Path, bert: Path, sets: Path, tmp_path: Path, ray_cluster: None
) -> None:
    """Files may have changed since they were looked at: whatever is raised where the texts are prepared or trained."""
    target = {"source_column": None}
    *_, (words, base, _, finetune) = (one for one in faults(sets, llama, bert) if "longest" in one[0])
    task, artifact = made_ready(settings(tmp_path, library, base, target=target, finetune=finetune), tmp_path)
    before = replace(artifact, key="an older key").commit({})
    with pytest.raises(UserError) as raised:
        train.train(train.Training(task), artifact, quiet_site()[0])
    assert artifact.lies() == before  # what lies there is not lost to a run that cannot be
    assert str(raised.value) == words and type(raised.value) is UserError and raised.value.__suppress_context__
    wild = {"max_tokens": 64, "paths": str(sets / "plain.jsonl"), "steps": 3, "max_grad_norm": 0, "workers": 1}
    task, artifact = made_ready(settings(tmp_path, library, llama, target=target, finetune=wild), tmp_path)
    task = replace(task, settings=task.settings.model_copy(update={"learning_rate": 1e30}))
    with pytest.raises(UserError) as raised:
        train.train(train.Training(task), artifact, quiet_site()[0])
    said = str(raised.value)
    assert said == (
        "finetune: the loss is not a number at step 2 of 3; there is no checkpoint yet. Lower finetune.learning_rate "
        "(now 1e+30), lengthen the warm-up, or set model.precision to float32."
    )
    assert type(raised.value) is DivergedError and raised.value.__suppress_context__
    assert artifact.manifest() is None


@pytest.mark.ray
@pytest.mark.slow
def test_a_training_tells_what_it_left_out_and_clears_up_behind_it(
    library: Path, bert: Path, sets: Path, tmp_path: Path, ray_cluster: None
) -> None:
    """What was left out is said and written down; checkpoints of other settings go, but not before the manifest."""
    rows = [{"text": LONG.format(n), "label": "yes" if n % 2 else "no"} for n in range(10)]
    rows += [rows[0], {"text": LONG.format(99)}, {"text": "word " * 30, "label": "yes"}]
    finetune = {
        **{"paths": lines(tmp_path / "train.jsonl", *rows), "dev": str(sets / "two.jsonl"), "label_column": "label"},
        **{"max_tokens": 64, "truncate": True, "steps": 2, "batch_size": 4, "checkpoint_every": 1, "workers": 1},
    }
    run = settings(tmp_path / "out", library, bert, target={"source_column": None}, finetune=finetune)
    task, artifact = made_ready(run, tmp_path)
    for name in ("checkpoint-of-old", "checkpoint-older"):
        (tmp_path / "finetune" / name).mkdir(parents=True)
        (tmp_path / "finetune" / name / "gigabytes").touch()
    site, said = quiet_site()
    there: list[bool] = []
    commit = Artifact.commit

    def seen(self: Artifact, facts: dict[str, Any]) -> dict[str, Any]:
        there.append((tmp_path / "finetune" / "checkpoint-of-old").exists())
        return commit(self, facts)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Artifact, "commit", seen)
        facts = train.train(train.Training(task), artifact, site)
    assert facts["left_out"] == {"equal_text": 1, "no_label": 1} and facts["dev_left_out"] == {}
    assert (facts["texts"], facts["cut"], facts["dev_cut"], facts["labels"]) == (11, 1, 0, ["no", "yes"])
    assert (
        facts["told"]
        == said[:3]
        == [
            "finetune.paths: 1 of 13 rows have no 'label' (label_column): they are left out",
            "finetune: finetune.paths: left out: 1 equal_text, 1 no_label",
            "finetune: of 1 of the 11 texts of the training data only the first 64 tokens count",
        ]
    )
    assert said[-1] == "removed the checkpoints of 2 unfinished trainings with other settings or data"
    assert there == [True]
    assert sorted(path.name for path in (tmp_path / "finetune").iterdir() if path.is_dir()) == ["model"]


@pytest.mark.ray
def test_the_progress_is_only_for_show(llama: Path, tmp_path: Path, ray_cluster: None) -> None:
    """A board that is gone ends no training."""
    board = train._new_board()
    assert answer(board.read.remote()) == (0, 0.0, 0)
    ray.kill(board)
    with train._shown(board, make_job(tmp_path, llama), quiet_site()[0]):
        time.sleep(1.5)  # the thread looks once


BOARDS = """
import ray
from ray.cluster_utils import Cluster

from gotd_ray.remote import answer
from gotd_ray.stages.train import _new_board

nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
other = nodes.add_node(num_cpus=1)
ray.init(address=nodes.address, log_to_driver=False)
nodes.wait_for_nodes()
boards = [_new_board() for _ in range(8)]
answer([board.read.remote() for board in boards])
nodes.remove_node(other, allow_graceful=False)
print(len(answer([board.read.remote() for board in boards])), "boards are left")
ray.shutdown()
nodes.shutdown()
"""


@pytest.mark.ray
@pytest.mark.slow
def test_a_board_goes_with_no_node_but_that_of_who_looks_at_it() -> None:
    done = subprocess.run([sys.executable, "-c", BOARDS], capture_output=True, text=True, timeout=1000, check=False)
    assert "8 boards are left" in done.stdout, done.stderr[-2000:]


def failed(*errors: Exception) -> ray.train.TrainingFailedError:
    return ray.train.WorkerGroupError("\x1b[36mray::work()\x1b[0m\nTraceback\n", dict(enumerate(errors)))


def test_what_ends_a_training_is_the_users_the_machines_or_ours(llama: Path, tmp_path: Path) -> None:
    job = make_job(tmp_path, llama, micro_batch=2)
    own = UserError("pretune: the loss is not a number at step 3 of 6; lower it.")
    said = train._said(failed(RuntimeError("connection closed by peer"), own))
    assert (type(said), str(said)) == (UserError, str(own))
    died = RayActorError(error_msg="\x1b[31mThe actor died.\x1b[0m\n\tpid: 7\nIts process was killed by SIGKILL.\n")
    assert train._said(failed(died)) is None
    with pytest.raises(UserError) as raised:
        train._give_up(job, ray.train.WorkerGroupError(str(died), {0: died}))
    assert str(raised.value) == (
        "pretune: the workers died 3 times without a new checkpoint. If memory ran out, lower pretune.micro_batch "
        "(now 2); the result stays the same. The last that was heard: Its process was killed by SIGKILL."
    )
    with pytest.raises(RuntimeError, match=r"^pretune failed 3 times in the same way: KeyError\('x'\)$"):
        train._give_up(job, failed(KeyError("x")))


def test_a_checkpoint_of_other_workers_is_refused_before_the_texts_are_prepared(
    library: Path, llama: Path, sets: Path, tmp_path: Path
) -> None:
    finetune = {"max_tokens": 64, "paths": str(sets / "plain.jsonl"), "steps": 1, "workers": 2}
    target = {"source_column": None}
    task, artifact = made_ready(settings(tmp_path, library, llama, target=target, finetune=finetune), tmp_path)
    note = tmp_path / "finetune" / "checkpoint-a key" / "latest.json"
    note.parent.mkdir(parents=True)
    folder = note.parent
    for content, words in (
        (json.dumps({"key": "a key", "workers": 1, "zero_stage": 1, "step": 5}),
         f"the checkpoint in {folder} has workers 1, but this training has 2. Give this one the same workers, or "
         "delete the folder to start over."),
        ('{"key": "a k', f"{note} is damaged. Delete {folder} to start over."),
    ):  # fmt: skip
        note.write_text(content)
        with pytest.raises(UserError) as raised:
            train.train(train.Training(task), artifact, quiet_site()[0])
        assert str(raised.value) == words

"""Trainings as stages of a run, on Ray Train: what they start from, what they leave, and a worker killed in between."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from conftest import make_run
from corpora import write_parquet
from safetensors.torch import load_file

from gotd_ray import config, pipeline
from gotd_ray.cluster import Resources
from gotd_ray.errors import UserError
from gotd_ray.progress import Progress
from gotd_ray.stages import train

SELECT = {"method": "nearest", "budget": 40}
PRETUNE = {"max_tokens": 64, "batch_size": 8, "steps": 12, "checkpoint_every": 2, "workers": 1, "learning_rate": 1e-3}


def settings(folder: Path, library: Path, llama: Path, **sections: Any) -> config.Run:
    return make_run(folder, library, select=SELECT, model={"base": str(llama), "precision": "float32"}, **sections)


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


def test_a_gpus_worker_gets_its_share_of_the_cpus_beside_it(library: Path, llama: Path, tmp_path: Path) -> None:
    """A head without a GPU does not count, however many CPUs it has."""
    run = pipeline.resolve_paths(settings(tmp_path, library, llama, finetune={"steps": 1}))
    task = train.tasks(run, "")["finetune"]
    cluster = Resources(cpus=80, gpus=4, nodes=2, node_cpus=16, private=False, gpu_cpus=4)
    assert train._places(task, cluster) == ("cuda", 4, 4)


def test_a_run_without_trainings_has_none(library: Path, tmp_path: Path) -> None:
    plan = pipeline.plan(pipeline.resolve_paths(make_run(tmp_path, library, select=SELECT)))
    assert plan.stages[-2:] == ("select", "report")


def kill_worker(folder: Path, killed: list[int]) -> None:
    """SIGKILL to the worker of Ray Train, once a checkpoint is whole."""
    deadline = time.monotonic() + 240
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
@pytest.mark.timeout(900)
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


@pytest.mark.ray
@pytest.mark.slow
def test_more_workers_than_cpus_and_faults_of_the_data_are_said_before_anything_trains(
    library: Path, llama: Path, tmp_path: Path, ray_cluster: None
) -> None:
    with pytest.raises(UserError, match=r"pretune.workers is 9, but the cluster has 2 CPUs"):
        pipeline.execute(settings(tmp_path, library, llama, pretune=PRETUNE | {"workers": 9}), Progress())
    with pytest.raises(UserError, match=r"max_tokens is 512, but .* takes 128 at most"):
        pipeline.execute(settings(tmp_path, library, llama, finetune={"max_tokens": 512}), Progress())

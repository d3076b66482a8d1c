"""Trainings of tiny models with the real engine: what is learnt, that the split does not matter, what is refused."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from tensorboard_files import scalars
from tiny import make_job, silent, texts

from gotd_ray import config
from gotd_ray.errors import UserError
from gotd_ray.models import language
from gotd_ray.models.packing import one_by_one
from gotd_ray.training import worker
from gotd_ray.training.job import Job, needed_bytes
from gotd_ray.training.trainer import EngineTrainer, engine_identity

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("alone")]


def run(job: Job, folder: Path) -> dict[str, Any]:
    return worker.train(job, str(folder), silent)


def losses(facts: dict[str, Any]) -> list[float]:
    return [loss for _, loss in facts["losses"]]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "model.safetensors")


def start(folder: Path, base: Path, trainings: dict[str, Any], workers: int) -> list[int]:
    """Worker processes; their exit codes."""
    (folder / "meeting").unlink(missing_ok=True)
    tests = Path(__file__).parent.parent
    environment = os.environ | {"PYTHONPATH": str(tests.parent)}
    command = [sys.executable, str(tests / "tiny.py")]
    arguments = [str(workers), str(folder), str(base), json.dumps(trainings)]
    with (folder / "log").open("wb") as log:
        processes = [
            subprocess.Popen([*command, str(rank), *arguments], env=environment, stdout=log, stderr=log)
            for rank in range(workers)
        ]
        codes = [process.wait(timeout=1000) for process in processes]
    if 1 in codes:
        raise AssertionError((folder / "log").read_text()[-3000:])
    return codes


@pytest.fixture(scope="module")
def reference(llama: Path, tmp_path_factory: pytest.TempPathFactory, alone: None) -> tuple[dict[str, Any], Path]:
    folder = tmp_path_factory.mktemp("reference")
    return run(make_job(folder, llama), folder), folder


def test_curves_go_where_tracking_sends_them(llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "curves"))
    facts = run(replace(make_job(tmp_path, llama, steps=2), report_to=("tensorboard",)), tmp_path)
    sent = scalars(tmp_path / "curves")
    assert sent["train/loss"] == pytest.approx(losses(facts)[-1])
    assert sent["train/learning_rate"] == pytest.approx(facts["learning_rates"][-1][1])


def test_the_engine_is_deepspeeds_and_a_saved_model_loads(reference: tuple[dict[str, Any], Path]) -> None:
    facts, folder = reference
    assert facts["engine"]["engine"] == "DeepSpeedEngine"
    assert facts["engine"]["zero_stage"] == 1
    assert facts["steps"] == 6 and len(losses(facts)) == 6
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    ids = tokenizer(texts()[0], return_tensors="pt")["input_ids"]
    assert math.isfinite(float(model(input_ids=ids, labels=ids).loss))
    card = (folder / "model" / "README.md").read_text()
    assert yaml.safe_load(card.split("---")[1])["library_name"] == "transformers"
    assert "learning_rate: 0.001" in card and "DeepSpeedEngine" in card


def test_another_engine_is_refused(llama: Path, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="not in DeepSpeed"):
        engine_identity(torch.nn.Linear(1, 1), make_job(tmp_path, llama))


def test_the_loss_is_the_mean_over_the_batchs_tokens(reference: tuple[dict[str, Any], Path], llama: Path) -> None:
    """The first loss, computed here by hand from the base model and the batch's documents one by one."""
    facts, folder = reference
    job = make_job(folder, llama)
    from gotd_ray.models.packing import Draws

    draws = Draws(job.rows("train"), 8, job.seed, None)
    model = language.load(language.find(job.model, job.storage), "causal", 0)
    total, count = 0.0, 0
    for number in range(8):
        row = draws[number]
        for text in range(row["texts"].max() + 1):
            ids = torch.from_numpy(row["ids"][row["texts"] == text]).long()[None]
            if ids.shape[1] > 1:
                with torch.no_grad():
                    total += float(model(input_ids=ids, labels=ids).loss) * (ids.shape[1] - 1)
                count += ids.shape[1] - 1
    assert losses(facts)[0] == pytest.approx(total / count, abs=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {"zero_stage": 0},
        {"zero_stage": 2, "offload": True},
        {"zero_stage": 3},
        {"micro_batch": 2},
    ],
    ids=str,
)
def test_the_same_training_whatever_the_stage_and_the_micro_batch(
    changes: dict[str, Any], reference: tuple[dict[str, Any], Path], llama: Path, tmp_path: Path
) -> None:
    facts = run(make_job(tmp_path, llama, **changes), tmp_path)
    assert losses(facts) == pytest.approx(losses(reference[0]), abs=1e-4)
    assert facts["engine"]["zero_stage"] == changes.get("zero_stage", 1)
    expected = weights(reference[1])
    for name, value in weights(tmp_path).items():
        assert torch.allclose(value, expected[name], atol=1e-4), name


def test_two_workers_train_as_one_does(reference: tuple[dict[str, Any], Path], llama: Path, tmp_path: Path) -> None:
    """With patience too: then the weights come from a file, and no worker may wait for the others."""
    trainings: dict[str, Any] = {f"zero{stage}": {"zero_stage": stage} for stage in (1, 2, 3)}
    trainings["patient"] = {"zero_stage": 3, "dev": ["dev"], "eval_every": 3, "patience": 9}
    assert start(tmp_path, llama, trainings, workers=2) == [0, 0]
    for name in trainings:
        facts = json.loads((tmp_path / name / "facts.json").read_text())
        assert facts["engine"]["workers"] == 2 and facts["engine"]["engine"] == "DeepSpeedEngine"
        assert losses(facts) == pytest.approx(losses(reference[0]), abs=1e-3)


def test_killed_and_started_again_gives_the_same_weights(
    reference: tuple[dict[str, Any], Path], llama: Path, tmp_path: Path
) -> None:
    """Killed at step 5; checkpoints are of steps 2 and 4."""
    assert start(tmp_path, llama, {"run": {"die": 5}}, workers=1) == [-9]
    assert not (tmp_path / "run" / "model").exists()
    seen: list[int] = []
    facts = worker.train(make_job(tmp_path / "run", llama), str(tmp_path / "run"), lambda step, *_: seen.append(step))
    assert seen == [5, 6]
    assert losses(facts) == losses(reference[0])
    expected = weights(reference[1])
    assert all(torch.equal(value, expected[name]) for name, value in weights(tmp_path / "run").items())


def test_a_checkpoint_of_another_training_is_refused(
    reference: tuple[dict[str, Any], Path], llama: Path, tmp_path: Path
) -> None:
    job = replace(make_job(tmp_path, llama), checkpoints=str(reference[1] / "checkpoint"), key="another")
    with pytest.raises(UserError, match=r"has key a key, but this training has another.*delete the folder"):
        run(job, tmp_path)


def test_a_masked_model_stops_when_dev_gets_no_better_and_keeps_the_best(bert: Path, tmp_path: Path) -> None:
    """A rate so high that dev gets worse soon; the saved model's loss is the lowest of those seen."""
    wild = {"dev": ["dev"], "eval_every": 1, "patience": 2, "steps": 30, "learning_rate": 0.3, "schedule": "constant"}
    job = make_job(tmp_path, bert, "masked", **wild)
    facts = run(job, tmp_path)
    looks = [look["loss"] for look in facts["dev"]]
    assert facts["stopped_early"] and facts["steps"] < 30
    assert looks.index(min(looks)) == len(looks) - 3
    again = make_job(tmp_path / "again", bert, "masked", dev=["dev"], steps=1, learning_rate=1e-12)
    again = replace(again, model=config.Model(base=str(tmp_path / "model")))
    assert run(again, tmp_path / "again")["dev"][0]["loss"] == pytest.approx(min(looks), abs=1e-5)


def test_a_classifier_learns_and_its_labels_are_in_the_model(bert: Path, tmp_path: Path) -> None:
    changes = {
        "dev": ["dev"],
        "truncate": True,
        "schedule": "constant",
        "steps": 80,
        "learning_rate": 3e-3,
        "max_tokens": 32,
    }
    facts = run(make_job(tmp_path, bert, "classification", **changes), tmp_path)
    assert facts["dev"][-1]["accuracy"] > 0.9  # half of the labels are yes
    stated = json.loads((tmp_path / "model" / "config.json").read_text())
    assert stated["id2label"] == {"0": "no", "1": "yes"}


def test_a_classifier_made_of_a_causal_base_classifies_several_texts_at_once(llama: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    shutil.copytree(llama, tmp_path / "base")
    AutoTokenizer.from_pretrained(llama, pad_token="<unk>").save_pretrained(tmp_path / "base")
    job = make_job(tmp_path, tmp_path / "base", "classification", truncate=True, steps=1, max_tokens=32)
    assert job.settings.pack and not job.packed
    run(job, tmp_path)
    saved = language.find(config.Model(base=str(tmp_path / "model")), config.Storage())
    model = language.load(saved, "classification", 0, list(job.labels)).eval()
    assert model(input_ids=torch.tensor([[5, 6, 7], [5, 6, model.config.pad_token_id]])).logits.shape == (2, 2)


def test_lora_is_merged_and_its_adapter_is_the_same_model(llama: Path, tmp_path: Path) -> None:
    from peft import PeftModel

    run(make_job(tmp_path, llama, parameters="lora", keep_adapter=True, learning_rate=1e-2), tmp_path)
    base = language.find(config.Model(base=str(llama)), config.Storage())
    ids = torch.arange(5, 25)[None]
    plain = language.load(base, "causal", 0).eval()(input_ids=ids).logits
    adapted = PeftModel.from_pretrained(language.load(base, "causal", 0), tmp_path / "adapter").eval()
    merged = language.load(language.find(config.Model(base=str(tmp_path / "model")), config.Storage()), "causal", 0)
    logits = merged.eval()(input_ids=ids).logits
    assert torch.allclose(adapted(input_ids=ids).logits, logits, atol=1e-4)
    assert not torch.allclose(plain, logits, atol=1e-3)


def test_only_the_last_layers_move(llama: Path, tmp_path: Path) -> None:
    run(make_job(tmp_path, llama, parameters="last", last_layers=1), tmp_path)
    before = load_file(llama / "model.safetensors")
    moved = {name for name, value in weights(tmp_path).items() if not torch.equal(value, before[name])}
    assert moved == {name for name in before if "layers.1." in name or name in ("model.norm.weight", "lm_head.weight")}


def test_bfloat16_is_near_float32(reference: tuple[dict[str, Any], Path], llama: Path, tmp_path: Path) -> None:
    facts = run(make_job(tmp_path, llama, precision="bfloat16"), tmp_path)
    assert losses(facts) != losses(reference[0])
    assert losses(facts) == pytest.approx(losses(reference[0]), abs=1e-2)


def overflowing(job: Job) -> Job:
    """With a learning rate that no config allows: it stands for data or weights that overflow in other ways."""
    return replace(job, settings=job.settings.model_copy(update={"learning_rate": 1e30}))


def refused(job: Job, folder: Path) -> str:
    """What is said; no model may be left."""
    with pytest.raises(UserError) as raised:
        run(job, folder)
    assert not (folder / "model").exists()
    said = str(raised.value)
    assert "\n" not in said
    return said


LOWER = "Lower pretune.learning_rate (now 1e+30), lengthen the warm-up, or set model.precision to float32."


def test_a_loss_that_is_not_a_number_stops_with_step_and_checkpoint(llama: Path, tmp_path: Path) -> None:
    job = overflowing(make_job(tmp_path, llama, steps=20, warmup=0.3, max_grad_norm=0, checkpoint_every=1))
    said = re.fullmatch(
        r"pretune: the (?:loss|gradient) is not a number at step (\d+) of 20; the last good checkpoint is of step "
        rf"(\d+)\. {re.escape(LOWER)}",
        refused(job, tmp_path),
    )
    assert said and int(said[2]) < int(said[1])


def test_a_loss_on_dev_that_is_not_a_number_stops_too(llama: Path, tmp_path: Path) -> None:
    """The first step is of a good loss, what it makes of the weights is seen at the look at dev."""
    job = overflowing(make_job(tmp_path, llama, steps=20, max_grad_norm=0, dev=["dev"], eval_every=1))
    assert refused(job, tmp_path) == (
        f"pretune: the loss on dev is not a number at step 1 of 20; there is no checkpoint yet. {LOWER}"
    )


def test_weights_that_are_not_numbers_after_the_last_step_are_not_saved(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = EngineTrainer.weights

    def broken(trainer: EngineTrainer) -> dict[str, torch.Tensor]:
        return found(trainer) | {"lm_head.weight": torch.full((3,), math.nan)}

    monkeypatch.setattr(EngineTrainer, "weights", broken)
    assert refused(overflowing(make_job(tmp_path, llama, steps=1)), tmp_path) == (
        f"pretune: the trained weights are not numbers (1 of 21 tensors, such as lm_head.weight). {LOWER}"
    )


@pytest.mark.parametrize("changes", [{}, {"parameters": "lora"}], ids=str)
def test_the_base_is_never_saved_in_place_of_what_was_trained(
    changes: dict[str, Any], llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if another version of the engine named the weights otherwise."""
    found = EngineTrainer.weights

    def renamed(trainer: EngineTrainer) -> dict[str, torch.Tensor]:
        return {f"module.{name}": value for name, value in found(trainer).items()}

    monkeypatch.setattr(EngineTrainer, "weights", renamed)
    said = refused(make_job(tmp_path, llama, steps=1, **changes), tmp_path)
    assert re.fullmatch(
        r"pretune: what was trained is not the whole model: no weights for \S+, \S+, \S+ and \d+ others\. accelerate "
        r"\S+, deepspeed \S+, peft \S+, transformers \S+ name the weights otherwise than gotd_ray knows them: install "
        r"the versions that its pyproject.toml allows\.",
        said,
    )


def test_a_model_that_sees_what_it_is_to_predict_is_refused(bert: Path, tmp_path: Path) -> None:
    job = make_job(tmp_path, bert, "causal", pack=False, steps=1)
    assert re.fullmatch(
        r"pretune: a token of a BertLMHeadModel sees those after it \(a logit moved by [\d.e-]+\), which a causal "
        r"model learns to predict\. Set pretune.objective to masked, or choose a causal model.base\.",
        refused(job, tmp_path),
    )


def test_a_step_of_pieces_of_one_token_teaches_nothing_and_breaks_nothing(llama: Path, tmp_path: Path) -> None:
    job = make_job(tmp_path, llama, batch_size=1, steps=3)
    Path(job.path("train")).write_bytes(one_by_one([np.array([5], np.int32)] * 3).to_bytes())
    assert losses(run(job, tmp_path)) == [0, 0, 0]


@pytest.mark.parametrize(
    ("problem", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "[Errno 28] No space left on device"),
        (
            RuntimeError("PytorchStreamWriter failed writing file\ndata/0"),
            "PytorchStreamWriter failed writing file data/0",
        ),
        (MemoryError(), None),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), None),
    ],
    ids=["disk", "torch's disk", "memory", "torch's memory"],
)
def test_a_machine_that_runs_out_is_said_in_a_line(
    problem: Exception, said: str | None, llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def out_of_it(*_: Any) -> None:
        raise problem

    monkeypatch.setattr(EngineTrainer, "_save_checkpoint", out_of_it)
    job = make_job(tmp_path, llama, micro_batch=2)
    place = f"in {tempfile.gettempdir()} (TMPDIR) and in {tmp_path}"
    assert refused(job, tmp_path) == (
        f"pretune: a file could not be written: {said}. A checkpoint takes up to three times the model in float32, "
        f"{place}: make room there, or set parameters to lora."
        if said
        else "pretune: memory ran out in the training; lower pretune.micro_batch (now 2); the result stays the same "
        f"({type(problem).__name__})."
    )


def test_a_fault_of_ours_is_not_put_in_the_users_words(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(EngineTrainer, "_save_checkpoint", broken)
    with pytest.raises(RuntimeError, match=r"^a fault of ours$"):
        run(make_job(tmp_path, llama), tmp_path)


def test_a_model_that_cannot_fit_is_refused_before_it_is_loaded(llama: Path, tmp_path: Path) -> None:
    job = make_job(tmp_path, llama)
    base = language.find(job.model, job.storage)
    small = needed_bytes(job, base, [], job.micro_batch, 1)
    assert 0 < small < 50e6
    offloaded = replace(job, settings=job.settings.model_copy(update={"offload": True}))
    sizes = [needed_bytes(offloaded, base, [], job.micro_batch, 1, gpu=gpu) for gpu in (False, True)]
    assert sizes[1] < sizes[0] == small
    shape = json.loads((llama / "config.json").read_text()) | {"hidden_size": 65536, "intermediate_size": 262144}
    huge = tmp_path / "huge"
    huge.mkdir()
    (huge / "config.json").write_text(json.dumps(shape | {"num_hidden_layers": 80}))
    (huge / "model.safetensors").write_bytes(b"never read")
    with pytest.raises(UserError, match=r"needs at least [\d.]+ GiB .* free. Lower micro_batch"):
        run(replace(job, model=config.Model(base=str(huge))), tmp_path)

"""Tiny language models with tokenizers of their own, made here, and a training of one without Ray."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from corpora import documents

from gotd_ray import config, storage
from gotd_ray.training.dataset import Example, prepare
from gotd_ray.training.job import Job, micro_batch
from gotd_ray.training.task import Task

WIDTH = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
SETTINGS = {"max_tokens": 64, "batch_size": 8, "steps": 6, "learning_rate": 1e-3, "checkpoint_every": 2}


def texts(count: int = 120) -> list[str]:
    return [text for text, _ in documents()[0]][:count]


def make_llama(folder: Path, **changes: Any) -> Path:
    """A causal model; its tokenizer has no padding token."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = Tokenizer(models.BPE(unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.ByteLevel()
    words.train_from_iterator(texts(), trainers.BpeTrainer(vocab_size=500, special_tokens=["<unk>", "<end>"]))
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", eos_token="<end>").save_pretrained(folder)
    torch.manual_seed(0)
    shape = LlamaConfig(
        **WIDTH, num_key_value_heads=2, vocab_size=words.get_vocab_size(), max_position_embeddings=128, **changes
    )
    LlamaForCausalLM(shape).save_pretrained(folder)
    return folder


def make_bert(folder: Path) -> Path:
    """A masked model."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
    from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.train_from_iterator(texts(), trainers.WordPieceTrainer(vocab_size=500, special_tokens=special))
    words.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, model_max_length=128, **dict(zip(names, special, strict=True))
    )
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    BertForMaskedLM(
        BertConfig(**WIDTH, vocab_size=words.get_vocab_size(), max_position_embeddings=128)
    ).save_pretrained(folder)
    return folder


def labelled() -> list[Example]:
    """Texts with a label that their first word gives away."""
    words = {"yes": "argument", "no": "returns"}
    return [(f"{words[label]} {text}", label) for text, label in zip(texts(), ["yes", "no"] * 60, strict=True)]


def make_task(base: Path, kind: str, settings: config.Training, **changes: Any) -> Task:
    """A training of a base on files that are not there."""
    model = config.Model(base=str(base)).model_copy(update=changes)
    return Task(
        stage="pretune",
        settings=settings,
        base=model,
        model=model,
        kind=kind,
        subset=None,
        files=[],
        dev=[] if settings.dev else None,
        text=config.Text(paths=["x"]),
        chunks=config.Chunks(),
        storage=config.Storage(),
        seed=0,
    )


def make_job(folder: Path, base: Path, kind: str = "causal", workers: int = 1, **changes: Any) -> Job:
    """A training with its rows written, as the stage prepares it."""
    precision = changes.pop("precision", "float32")
    settings = config.Finetune.model_validate(SETTINGS | changes)
    task = make_task(base, kind, settings, precision=precision)
    examples: list[Example] = labelled() if kind == "classification" else [(text, None) for text in texts()]
    data = prepare(task, examples, examples[:30] if settings.dev else None)
    job = Job(
        **vars(task),
        labels=data.labels,
        steps=data.steps(settings),
        micro_batch=micro_batch(settings, workers, "pretune"),
        device="cpu",
        threads=1,
        checkpoints=str(folder / "checkpoint"),
        key="a key",
    )
    for name, rows in (("train", data.train), ("dev", data.dev)):
        if rows is not None:
            # Each worker of a test writes them: whole, or another would read half a file.
            storage.write_bytes(job.path(name), rows.to_bytes(), config.Storage())
    return job


def join_group(rank: int, workers: int, meeting: Path) -> None:
    """What Ray Train does for its workers."""
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": workers, "LOCAL_WORLD_SIZE": workers}
    os.environ |= {name: str(value) for name, value in place.items()}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0", "DS_ACCELERATOR": "cpu"}
    torch.distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=workers)


def silent(step: int, loss: float, tokens: int) -> None:
    """No progress is shown."""


def work(rank: int, workers: int, folder: Path, base: Path, trainings: dict[str, dict[str, Any]]) -> None:
    """A worker that trains several models, one after the other; ``die`` is a step at which it is killed."""
    from gotd_ray.training import worker

    join_group(rank, workers, folder / "meeting")
    for name, changes in trainings.items():
        die = changes.pop("die", None)

        def tell(step: int, loss: float, tokens: int, die: int | None = die) -> None:
            if step == die:
                os.kill(os.getpid(), 9)

        if rank == 0:
            make_job(folder / name, base, workers=workers, **changes)
        torch.distributed.barrier()
        facts = worker.train(make_job(folder / name, base, workers=workers, **changes), str(folder / name), tell)
        if rank == 0:
            (folder / name / "facts.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    work(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4]), json.loads(sys.argv[5]))

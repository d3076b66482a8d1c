"""Conversations to rows of which the answers alone are learnt: checked token by token, from the file on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny import make_task

from gotd_ray import config
from gotd_ray.errors import UserError
from gotd_ray.listing import list_all
from gotd_ray.models import chat, language
from gotd_ray.models.packing import IGNORED, Collator, Draws, Rows
from gotd_ray.text.sets import WHOLE
from gotd_ray.text.turns import ANSWER, Conversation, written
from gotd_ray.training.dataset import cut_in_words, prepare
from gotd_ray.training.task import Task, read

TALKS: list[Conversation] = [
    (("user", "What is new?"), (ANSWER, "Nothing  is.")),
    (("user", "Say 7"), (ANSWER, "7")),
    (("user", "And the rest of the argument"), (ANSWER, "returns a list\n    of it")),
]
LONG: Conversation = (
    ("system", "Be brief."), ("user", "Hi"), (ANSWER, "Ho"), ("user", "More"), (ANSWER, "No."), ("user", "Then bye"),
)  # fmt: skip
GPT = {"user": "human", ANSWER: "gpt", "system": "system"}

LAYOUTS: dict[str, tuple[list[Conversation], Any]] = {
    "messages": ([*TALKS, LONG], lambda talk: {"messages": [{"role": role, "content": said} for role, said in talk]}),
    "conversations": (
        [*TALKS, LONG], lambda talk: {"conversations": [{"from": GPT[role], "value": said} for role, said in talk]},
    ),
    "prompt,completion": (TALKS, lambda talk: {"prompt": talk[0][1], "completion": talk[1][1]}),
    "instruction,input,output": (TALKS, lambda talk: {"instruction": talk[0][1], "input": "", "output": talk[1][1]}),
}  # fmt: skip


def task_of(base: Path, path: Path | None = None, turns: str = "auto", **settings: Any) -> Task:
    given = config.Finetune(objective="sft", **{"max_tokens": 128} | settings)
    task = replace(make_task(base, "sft", given, chat_template="chatml", pad_token="<end>"), stage="finetune")
    if path is None:
        return task
    text = config.Text(paths=[str(path)], turns=turns)
    return replace(task, text=text, chunks=WHOLE, files=list_all(text, config.Storage()).files)


def spelled(tokenizer: Any, ids: np.ndarray) -> str:
    return "".join(tokenizer.convert_ids_to_tokens(ids.tolist())).replace("Ġ", " ").replace("Ċ", "\n")


def by_hand(talk: Conversation) -> list[tuple[str, bool]]:
    """The runs that are learnt and not, in turn; this tokenizer puts a space before, and knows no |."""
    runs, prompt = [], " "
    for number, (role, said) in enumerate(talk):
        prompt += f"<|im_start|>{role}\n"
        if role == ANSWER:
            stop = "<end>" if number == len(talk) - 1 else ""
            runs += [(prompt, False), (f"{said}<|im_end|>{stop}", True)]
            prompt = "\n"
        else:
            prompt += f"{said}<|im_end|>\n"
    return [(text.replace("|", "<unk>"), learnt) for text, learnt in runs]


def learnt_runs(tokenizer: Any, ids: np.ndarray, labels: np.ndarray) -> list[tuple[str, bool]]:
    cuts = np.flatnonzero(np.diff(labels != IGNORED)) + 1
    return [
        (spelled(tokenizer, some), bool(wanted[0] != IGNORED))
        for some, wanted in zip(np.split(ids, cuts), np.split(labels, cuts), strict=True)
    ]


@pytest.mark.parametrize("pack", [True, False])
@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_loss_falls_on_a_token_of_a_prompt(
    llama: Path, tmp_path: Path, layout: str, ending: str, pack: bool
) -> None:
    talks, row_of = LAYOUTS[layout]
    path = tmp_path / f"rows.{ending}"
    rows = [row_of(talk) for talk in talks]
    if ending == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = task_of(llama, path, layout, pack=pack)
    found = read(task)
    assert len(found.examples) == len(talks)
    data = prepare(task, found.examples, None)
    tokenizer = language.load_tokenizer(language.find(task.model, task.storage), None)
    draws = Draws(Rows.from_bytes(data.train.to_bytes()), len(data.train), 0, None)
    batch = Collator(pack, True, 0)([draws[number] for number in range(len(draws))])
    runs = []
    for ids, labels, drawn in zip(batch["input_ids"].numpy(), batch["labels"].numpy(), draws, strict=True):
        size = len(drawn["ids"])
        assert (labels[size:] == IGNORED).all() and (ids[:size] == drawn["ids"]).all()
        ids, labels = ids[:size], labels[:size]
        assert ((labels == IGNORED) | (labels == ids)).all()
        for text in np.unique(drawn["texts"]):
            here = drawn["texts"] == text
            runs.append(learnt_runs(tokenizer, ids[here], labels[here]))
    assert sorted(runs) == sorted(by_hand(talk) for talk in talks)
    assert len(draws) < len(talks) if pack else len(draws) == len(talks)
    if pack:
        places = batch["position_ids"].numpy()[0][: len(draws[0]["ids"])]
        assert (places == 0).sum() == len(np.unique(draws[0]["texts"])), "each conversation begins at 0"


def test_an_answer_cut_off_is_counted_and_one_out_of_reach_left_out(llama: Path) -> None:
    task = task_of(llama)
    tokenizer = language.load_tokenizer(language.find(task.model, task.storage), None, "chatml")
    whole = chat.encode(tokenizer, TALKS[2], 1000)
    limit = len(whole.ids) - 1
    task = task_of(llama, max_tokens=limit)
    far: Conversation = (("user", "so " * 99), *TALKS[0])
    data = prepare(task, [(written(talk), None) for talk in (TALKS[1], TALKS[2], far)], None)
    assert (data.facts["texts"], data.facts["pieces"], data.facts["cut"]) == (3, 2, 2)
    assert data.train.learnt is not None and len(data.train.tokens) == len(data.train.learnt)
    assert cut_in_words(task, "dev", 3, 2, 2) == [
        f"finetune: an answer in 2 of the 3 conversations of dev is cut off at finetune.max_tokens ({limit}); 1 of "
        "them have no answer there, and are left out"
    ]
    with pytest.raises(
        UserError, match=r"no conversation of the training data has an answer within finetune.max_tokens"
    ):
        prepare(task, [(written(far), None)], None)


def test_a_tokenizer_without_a_template_and_a_template_that_refuses(llama: Path) -> None:
    task, examples = task_of(llama), [(written(LONG), None), (written(TALKS[0]), None)]
    bare = replace(task, base=task.base.model_copy(update={"chat_template": None}))
    with pytest.raises(UserError, match=r"has no chat template, and finetune.objective is sft. Set model.chat_"):
        prepare(bare, examples, None)
    strict = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system here') }}{% endif %}" + chat.CHATML
    refusing = replace(task, base=task.base.model_copy(update={"chat_template": strict}))
    with pytest.raises(UserError, match=r"does not take 1 of the 2 conversations .*no system here \(turns of system"):
        prepare(refusing, examples, None)


def test_a_template_that_rewrites_what_went_before_is_refused(llama: Path) -> None:
    task = task_of(llama)
    tokenizer = language.load_tokenizer(language.find(task.model, task.storage), None)
    tokenizer.chat_template = "{{ messages | length }}" + chat.CHATML
    with pytest.raises(chat.Refused, match="it writes turn 2 otherwise once the conversation goes on"):
        chat.encode(tokenizer, LONG, 100)


def test_a_template_that_strips_and_marks_no_end_learns_the_content_and_the_end_of_text(llama: Path) -> None:
    task = task_of(llama)
    tokenizer = language.load_tokenizer(language.find(task.model, task.storage), None)
    tokenizer.chat_template = "{% for m in messages %}{{ m['role'] + ': ' + (m['content'] | trim) + '\n' }}{% endfor %}"
    piece = chat.encode(tokenizer, (("user", "Hi"), (ANSWER, " Ho ")), 100)
    assert spelled(tokenizer, piece.ids[piece.learnt]).strip() == "Ho<end>"
    assert "Hi" in spelled(tokenizer, piece.ids[~piece.learnt])


def test_what_sft_learns_must_be_conversations() -> None:
    run = {"out": "out", "corpus": {"paths": "c"}, "target": {"paths": "t"}, "model": {"base": "b"}}
    with pytest.raises(ValueError, match=r"pretune.objective is sft.* corpus.turns is null"):
        config.Run.model_validate(run | {"pretune": {"objective": "sft"}})
    with pytest.raises(ValueError, match=r"finetune.objective is sft.* target.turns is null"):
        config.Run.model_validate(run | {"finetune": {"objective": "sft"}})

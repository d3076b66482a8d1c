"""Runs that train, and files to train on with a fault each."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from conftest import make_run
from corpora import write_parquet

from gotd_ray import config

SELECT = {"method": "nearest", "budget": 40}
PRETUNE = {"max_tokens": 64, "batch_size": 8, "steps": 12, "checkpoint_every": 2, "workers": 1, "learning_rate": 1e-3}


def settings(folder: Path, library: Path, llama: Path, **sections: Any) -> config.Run:
    return make_run(folder, library, select=SELECT, model={"base": str(llama), "precision": "float32"}, **sections)


def lines(path: Path, *rows: dict[str, Any]) -> str:
    """JSON lines; their path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


LONG = "Some words that are long enough to be a document of their own, number {}."


def write_sets(folder: Path) -> Path:
    """Files to train on and development sets, each with a fault of its own."""
    plain = [{"text": LONG.format(number)} for number in range(8)]
    two = [row | {"label": "yes" if number % 2 else "no"} for number, row in enumerate(plain)]
    lines(folder / "plain.jsonl", *plain)
    lines(folder / "two.jsonl", *two)
    lines(folder / "one.jsonl", *(row | {"label": "yes"} for row in plain))
    lines(folder / "half.jsonl", *two[:4], *plain[4:], plain[0] | {"label": None}, plain[1] | {"label": math.nan})
    lines(folder / "lists.jsonl", *(row | {"label": [row["label"]]} for row in two))
    lines(folder / "maybe.jsonl", plain[0] | {"label": "maybe"})
    lines(folder / "long.jsonl", *two, two[0] | {"text": "word " * 90})
    lines(folder / "short.jsonl", {"text": "too short"})
    lines(folder / "empty.jsonl")
    (folder / "broken.jsonl.gz").write_bytes(b"no gzip at all")
    write_parquet(folder / "columns.parquet", [(row["text"], "x") for row in plain])
    return folder


CLASSES = {"label_column": "label", "max_tokens": 64}


def faults(sets: Path, llama: Path, bert: Path) -> list[tuple[str, Path, dict[str, Any], dict[str, Any]]]:
    """What is said, the base, its section, and that of finetune."""
    spent = "left out: "
    lower = "Lower it."
    limit = "and target.max_bad_rows allows a share of 0.2. Correct the data, name the right columns, or raise it."
    classes = CLASSES | {"paths": str(sets / "two.jsonl")}
    plain = {"max_tokens": 64, "paths": str(sets / "plain.jsonl")}
    return [
        (f"finetune.max_tokens is 512, but '{llama.name}' takes 128 at most. {lower}", llama, {}, {"max_tokens": 512}),
        (f"the tokenizer of '{llama.name}' has no padding token, and finetune pads its rows. Set model.pad_token to a "
         "token that it has, such as '<end>'.", llama, {}, plain | {"pack": False}),
        (f"the tokenizer of '{llama.name}' has no padding token, and finetune pads its rows. Set model.pad_token to a "
         "token that it has, such as '<end>'.", llama, {}, classes),
        (f"model.pad_token is '<none>', which is no token of '{llama.name}'. Take one that it has, such as '<end>'.",
         llama, {"pad_token": "<none>"}, plain),
        (f"the tokenizer of '{llama.name}' has no mask token. Set finetune.objective to causal, or choose a model.base "
         "that was made for masked language modelling.", llama, {}, plain | {"objective": "masked"}),
        ("last_layers is 9, but the model has 2 layers. Lower it, or set parameters to all.", llama, {},
         plain | {"parameters": "last", "last_layers": 9}),
        ("finetune: the training data has the one label 'yes'; a classifier needs two. Name the right label_column.",
         bert, {}, classes | {"paths": str(sets / "one.jsonl")}),
        ("finetune: dev has the labels maybe, which the training data has not; it has no, yes. Correct the files, or "
         "name the right label_column.", bert, {}, classes | {"dev": str(sets / "maybe.jsonl")}),
        ("finetune: 1 of 9 texts of the training data to classify have more than 64 tokens, the longest 272. Raise "
         "finetune.max_tokens, or set finetune.truncate to true.", bert, {},
         classes | {"paths": str(sets / "long.jsonl")}),
        ("finetune: 1 of 9 texts of the dev to classify have more than 64 tokens, the longest 272. Raise "
         "finetune.max_tokens, or set finetune.truncate to true.", bert, {},
         classes | {"dev": str(sets / "long.jsonl")}),
        (f"finetune.paths: 6 of 10 rows are unusable ({{'no_label': 6}}), {limit} {sets}/half.jsonl row 4: no_label "
         "(null)", bert, {}, classes | {"paths": str(sets / "half.jsonl")}),
        (f"finetune.paths: 8 of 8 rows are unusable ({{'bad_label': 8}}), {limit} {sets}/lists.jsonl row 0: bad_label "
         "(list)", bert, {}, classes | {"paths": str(sets / "lists.jsonl")}),
        ("finetune.paths has no column 'label' (label_column); it has 'text'. Correct the name, or leave it out.",
         bert, {}, classes | {"paths": str(sets / "plain.jsonl")}),
        ("finetune.dev has no column 'label' (label_column); it has 'source', 'text'. Correct the name, or leave it "
         "out.", bert, {}, classes | {"dev": str(sets / "columns.parquet")}),
        ("finetune.dev has no text: 0 rows read, left out: none. Check its paths, target.text_column and what target "
         "leaves out.", llama, {}, plain | {"dev": str(sets / "empty.jsonl")}),
        (f"finetune.dev has no text: 1 rows read, {spent}1 too_short. Check its paths, target.text_column and what "
         "target leaves out.", llama, {}, plain | {"dev": str(sets / "short.jsonl")}),
        (f"finetune.paths has no text: 1 rows read, {spent}1 too_short. Check its paths, target.text_column and what "
         "target leaves out.", llama, {}, plain | {"paths": str(sets / "short.jsonl")}),
    ]  # fmt: skip

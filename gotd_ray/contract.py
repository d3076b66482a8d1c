"""What a plug-in must hold to, as a test that its author runs: what it raises says what was broken.

from gotd_ray import config, contract
contract.check_encoder(config.Encoder(kind="my_package.encoders:Mine"))
contract.check_method("my_package.methods:mine")
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from gotd_ray import methods
from gotd_ray.config import Encoder, Select, Storage
from gotd_ray.methods import Fitting, Part
from gotd_ray.models.encoder import TextEncoder
from gotd_ray.ot.shard import Segment
from gotd_ray.points import Points

TEXTS = (
    "", " ", "a", "A red house stands on the hill.", "1, 2, 3", "naïve café", "Привет, мир", "東京は日本の首都です。",
    "\N{GRINNING FACE}", "\x00", "word " * 3000, "e = m c^2 " * 7, "The cat sat on the mat. " * 20,
    *(f"Text number {number} of some that are alike." for number in range(20)),
)  # fmt: skip
"""What corpora hold: nothing, other scripts, far more than any model takes, and many texts of one length."""


def check_encoder(settings: Encoder, texts: tuple[str, ...] = TEXTS, device: str = "cpu") -> None:
    """Hold the kind of encoder that the settings name to what :class:`gotd_ray.models.encoder.Kind` says.

    Args:
        settings: with the kind, and whatever else it needs.
        texts: two at least, not all the same.

    Raises:
        AssertionError, UserError: what is broken.
    """
    encoder = TextEncoder(settings, device)
    identity = encoder.identity
    _hold(
        json.loads(json.dumps(identity, default=str)) == identity,
        "identity is not what JSON keeps: texts, numbers, lists, dicts",
    )
    again = TextEncoder(settings, device)
    _hold(again.identity == identity, "identity is another the second time")
    ids, counts = encoder.tokenize(list(texts))
    _hold(len(ids) == len(counts) == len(texts), f"tokenize gave {len(ids)} and {len(counts)} for {len(texts)} texts")
    _hold(all(np.asarray(one).dtype == np.int32 and np.ndim(one) == 1 for one in ids), "ids are not arrays of int32")
    longest = max(map(len, ids))
    _hold(longest <= encoder.max_tokens, f"tokenize gave {longest} ids, and max_tokens is {encoder.max_tokens}")
    _hold(all(int(count) == count >= 0 for count in counts), "counts of tokens are not whole numbers from 0")
    vectors = encoder.encode(list(texts))  # its shape, and that it is finite, is seen to there
    _hold(len(np.unique(vectors, axis=0)) > 1, "all texts have the same vector")
    _hold(_equal(again.encode(list(texts)), vectors), "the same texts have other vectors the second time")
    _hold(encoder.encode([]).shape == (0, encoder.width), "no texts have no vectors of the width")
    for size in (1, 2, 7):
        for start in range(0, len(texts), size):
            part = slice(start, start + size)
            alone = encoder.encode(list(texts[part])[::-1])[::-1]
            _hold(_equal(alone, vectors[part]), f"a text has another vector among {size} than among {len(texts)}")
    if settings.normalize:
        lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
        off = float(np.abs(lengths - 1).max())
        _hold(off < 5e-3, f"encoder.normalize is true, and a vector's length is off by {off:.3g}")
    same = _elsewhere(settings, texts, device) == _digest(encoder, texts)
    _hold(same, "another process has other vectors or another identity")


def check_method(name: str) -> None:
    """Hold a method to what :class:`gotd_ray.methods.Method` says, on random unit vectors.

    Args:
        name: as in ``select.method``; not one that needs the result of an earlier stage.

    Raises:
        AssertionError, UserError: what is broken.
    """
    method, part = methods.find(name), Part(b"0", b"g", "cpu", Storage())
    _hold(isinstance(method.version, int | str), "its version is neither a number nor a text")
    corpus, target = _documents(0, 300), _documents(1, 40)
    ids, vectors = corpus.ids.copy(), corpus.vectors.astype(np.float16)
    settings = Select(landmarks=100, cells=8)
    given = Fitting(
        target=lambda: target,
        sample=lambda count: _documents(0, count),
        settings=settings,
        seed=5,
        before=None,
        storage=Storage(),
        ask=lambda question: question.together([question.of(Segment(0, ids, vectors))]),
        wanted=lambda: 50,
    )
    state = method.fit(given)
    scores = np.asarray(method.scorer(state, part)(ids, vectors), np.float64)
    whole = _equal(ids, corpus.ids) and _equal(vectors, corpus.vectors.astype(np.float16))
    _hold(whole, "score has changed the batch that it was given")
    _hold(scores.shape == ids.shape, f"score gave shape {scores.shape} for {len(ids)} documents")
    _hold(not np.isnan(scores).any() and not np.isneginf(scores).any(), "a score is not a number")
    again = method.scorer(method.fit(given), part)(ids, vectors)
    _hold(_equal(np.asarray(again, np.float64), scores), "the second time it scores otherwise")
    try:
        pickle.dumps(state)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        _hold(False, f"the state cannot be pickled, and every shard needs it: {error}")
    scorer = method.scorer(state, part)
    for size in (1, 7, 128, len(ids)):
        for start in range(0, len(ids), size):
            some = slice(start, start + size)
            found = np.asarray(scorer(ids[some][::-1].copy(), vectors[some][::-1].copy()), np.float64)[::-1]
            same = found.shape == scores[some].shape and np.allclose(found, scores[some], rtol=1e-5, atol=1e-5)
            _hold(same, f"a document has another score among {size} than among {len(ids)}")
    _hold(np.asarray(scorer(ids[:0], vectors[:0])).shape == (0,), "no documents have some score")


def _documents(seed: int, count: int) -> Points:
    """Unit vectors, exact in float16, and ids in their order."""
    draw = np.random.default_rng(seed)
    vectors = draw.normal(size=(count, 16))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ids = np.sort(np.array([draw.bytes(16).hex() for _ in range(count)], "S32"))
    return Points(ids, vectors.astype(np.float16).astype(np.float32), np.full(count, 1 / count))


def _elsewhere(settings: Encoder, texts: tuple[str, ...], device: str) -> str:
    """``_digest`` in a process of its own, where Python's ``hash`` of a text is another."""
    code = (
        "import json, sys; from gotd_ray import config, contract as c; settings, texts, device = json.load(sys.stdin); "
        "print(c._digest(c.TextEncoder(config.Encoder(**settings), device), texts))"
    )
    surroundings = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": "271828"}
    given = json.dumps([settings.model_dump(), texts, device])
    done = subprocess.run([sys.executable, "-c", code], input=given, env=surroundings, capture_output=True, text=True)
    _hold(done.returncode == 0, f"it does not work in another process: {done.stderr[-2000:]}")
    return done.stdout.strip()


def _digest(encoder: TextEncoder, texts: Sequence[str]) -> str:
    digest = hashlib.sha256(json.dumps(encoder.identity, sort_keys=True).encode())
    digest.update(encoder.encode(list(texts)).tobytes())
    return digest.hexdigest()


def _equal(ours: Any, theirs: Any) -> bool:
    return ours.shape == theirs.shape and ours.tobytes() == theirs.tobytes()


def _hold(true: bool, broken: str) -> None:
    if not true:
        raise AssertionError(broken)

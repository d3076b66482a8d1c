"""Weights from file to score, in this process: a run's scores are those of weights worked out by hand."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import make_run
from corpora import documents
from oracles import pot_potentials
from solved import solve_rows

from gotd_ray import config, pipeline, storage
from gotd_ray.cluster import Resources, Site
from gotd_ray.errors import UserError
from gotd_ray.index import Claims, Embedded, Snapshot, ids_of, vectors_of
from gotd_ray.ot.potentials import Potentials
from gotd_ray.progress import Progress
from gotd_ray.results import POTENTIALS
from gotd_ray.stages import embed
from gotd_ray.text.clean import clean
from gotd_ray.text.documents import document_id
from gotd_ray.units import make_units, read_unit

SITE = Site(Resources(2, 0, 1, 2, private=True), "cpu", Progress())
"""Of a private cluster: its one shard works in this process, and no Ray is started."""

SHARES = {"statistics": 3.0, "random": 1.0, "fractions": 0.0}
BUDGET = 15

Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def rows() -> tuple[Rows, Rows]:
    """Corpus and target with weights, a third of them 0; some texts stand there twice with unlike weights."""
    rng = np.random.default_rng(0)
    corpus, target = (
        [{"text": text, "source": source} for text, source in found if len(text) < 300] for found in documents()
    )
    corpus = [corpus[i] for i in rng.permutation(len(corpus))[:60]]
    both = []
    for part in (corpus, target):
        again = [part[i] for i in rng.choice(len(part), 8, replace=False)]
        both.append([row | {"w": float(rng.integers(0, 3))} for row in [*part, *again]])
    return both[0], both[1]


def write(folder: Path, corpus: Rows, target: Rows) -> Path:
    for name, part in (("corpus", corpus), ("target", target)):
        (folder / name).mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(part), folder / name / "rows.parquet")
    return folder


@cache
def actor(settings: config.Encoder) -> embed.EncodeParts:
    """One encoder for all runs here."""
    return embed.EncodeParts(settings, "cpu", 1, [])


def embed_here(plan: pipeline.Plan) -> Embedded:
    """What the stage embed leaves, made without Ray."""

    def embedded(name: str) -> Snapshot:
        collection = plan.collections[name]
        (unit,) = make_units(collection.files, collection.files)
        job = embed.Job(name, collection, unit)
        encode = actor(plan.run.encoder)
        encode.jobs = [job]
        ledger = embed.Ledger([job], {name: embed.Work()})
        index, claims, run = collection.index, Claims(), plan.run

        def claim(ids: np.ndarray) -> tuple[np.ndarray, list[int]]:
            return claims.claim(index.vectors, 0, "", ids)

        for row in read_unit(unit, index, claim, collection.text, run.chunks, run.encoder, run.storage):
            ledger.take(encode(row.append_column("job", pa.array([0]))).to_pylist()[0])
        return collection.index.snapshot(collection.files)[0]

    return Embedded(embedded("corpus"), embedded("target"), plan.encoder["width"])


def solved(folder: Path, library: Path, weights: bool = True, **sections: Any) -> tuple[np.ndarray, np.ndarray, Any]:
    """Ids of all candidates, their scores, and the vector of every document by its id."""
    column = {"weight_column": "w"} if weights else {}
    settings = {"precision": "float64", "tolerance": 1e-9, "max_passes": 5000} | sections.get("solve", {})
    target = column | sections.get("target", {})
    run = make_run(folder, library, corpus=column, target=target, solve=settings)
    plan = pipeline.plan(pipeline.resolve_paths(run))
    embedded = embed_here(plan)
    solve_rows(plan.run, embedded, plan.artifacts["solve"], SITE, plan.encoder)
    data = storage.read_bytes(plan.artifacts["solve"].path(POTENTIALS), run.storage)
    vectors = {}
    for snapshot in (embedded.candidates, embedded.target):
        table = snapshot.read(["doc_id", "vector"])
        vectors |= dict(zip(ids_of(table).tolist(), vectors_of(table), strict=True))
    ids = np.unique(ids_of(embedded.candidates.read(["doc_id"])))
    x = np.array([vectors[i] for i in ids.tolist()])
    return ids, Potentials.from_bytes(data).scorer("float64")(ids, x), vectors


def masses(part: Rows) -> dict[bytes, float]:
    """The weight of each document by its id: the largest of its rows'."""
    found: dict[bytes, float] = {}
    for row in part:
        doc_id = document_id(clean(row["text"])).encode()
        found[doc_id] = max(found.get(doc_id, 0.0), row["w"])
    return found


def shared_masses(part: Rows) -> dict[bytes, float]:
    """The weights of the target's documents when its sources have SHARES."""
    found: dict[bytes, float] = {}
    for source, share in SHARES.items():
        own = masses([row for row in part if row["source"] == source])
        for doc_id, mass in own.items():
            found[doc_id] = found.get(doc_id, 0.0) + share * mass / sum(own.values())
    return found


def test_scores_of_a_weighted_run_are_those_of_pot(rows: tuple[Rows, Rows], tmp_path: Path) -> None:
    library = write(tmp_path / "library", *rows)
    paper = {"preset": "paper"}
    ids, scores, vectors = solved(tmp_path / "out", library, target={"proportions": SHARES}, solve=paper)
    a, b = masses(rows[0]), shared_masses(rows[1])
    assert ids.tolist() == sorted(a)  # those of weight 0 are scored as well
    sides = []
    for side in (a, b):
        kept = sorted(doc_id for doc_id, mass in side.items() if mass > 0)
        assert 0 < len(kept) < len(side)
        mass = np.array([side[doc_id] for doc_id in kept])
        sides.append((kept, np.array([vectors[i] for i in kept]).astype(float), mass / mass.sum()))
    (kept, x, p), (_, y, q) = sides
    f, _ = pot_potentials(x, p, y, q, 0.1)
    np.testing.assert_allclose(scores[np.isin(ids, kept)], f, rtol=1e-6, atol=1e-8)
    plain = solved(tmp_path / "plain", library, weights=False, solve=paper)[1]
    assert set(ids[np.argsort(plain)[:BUDGET]]) != set(ids[np.argsort(scores)[:BUDGET]])


@pytest.mark.parametrize("preset", ["paper", "debiased"])
def test_shares_are_the_weights_they_stand_for(rows: tuple[Rows, Rows], preset: str, tmp_path: Path) -> None:
    """The same subset by weight column and shares, and by one row per document with its weight worked out by hand."""
    solving = {"preset": preset}
    library = write(tmp_path / "library", *rows)
    ids, scores, _ = solved(tmp_path / "out", library, target={"proportions": SHARES}, solve=solving)
    by_hand = []
    for part, mass in ((rows[0], masses(rows[0])), (rows[1], shared_masses(rows[1]))):
        text = {document_id(clean(row["text"])).encode(): row["text"] for row in part}
        by_hand.append([{"text": text[i], "source": "any", "w": 7 * mass[i]} for i in sorted(mass)])
    other = write(tmp_path / "by-hand", *by_hand)
    ids_by_hand, scores_by_hand, _ = solved(tmp_path / "out-by-hand", other, solve=solving)
    np.testing.assert_array_equal(ids, ids_by_hand)
    np.testing.assert_allclose(scores, scores_by_hand, atol=1e-6)
    assert set(ids[np.argsort(scores)[:BUDGET]]) == set(ids[np.argsort(scores_by_hand)[:BUDGET]])


def test_equal_weights_are_no_weights_to_the_last_bit(rows: tuple[Rows, Rows], tmp_path: Path) -> None:
    few = [[row | {"w": 0.5} for row in part[:30]] for part in rows]
    library = write(tmp_path / "library", *few)
    _, weighted, _ = solved(tmp_path / "weighted", library)
    _, plain, _ = solved(tmp_path / "plain", library, weights=False)
    assert weighted.tobytes() == plain.tobytes()


def test_weights_that_leave_nothing_are_refused(rows: tuple[Rows, Rows], tmp_path: Path) -> None:
    few, target = rows[0][:5], rows[1]
    nothing = [[row | {"w": 0.0} for row in part] for part in (few, target)]
    with pytest.raises(UserError, match="every candidate has weight 0"):
        solved(tmp_path / "a", write(tmp_path / "no-corpus", nothing[0], target))
    library = write(tmp_path / "no-target", few, nothing[1])
    with pytest.raises(UserError, match="every document of the target has weight 0"):
        solved(tmp_path / "b", library)
    with pytest.raises(UserError, match="gives the source 'random' a share, but all of its documents have weight 0"):
        solved(tmp_path / "c", library, target={"proportions": SHARES})

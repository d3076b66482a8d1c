"""The last stage, report: manifests, scores, vectors and texts -> ``report.json`` and ``report.html``.

It reads what the other stages have left and starts nothing. Of large corpora it reads columns and samples: the scores,
a few thousand vectors with the smallest ids (ids are hashes, so these are a random sample), some dozens of texts.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gotd_ray import config, storage
from gotd_ray.artifacts import Artifact
from gotd_ray.cluster import Resources, Site
from gotd_ray.earlier import own_potentials
from gotd_ray.errors import with_remedy
from gotd_ray.index import Embedded, Snapshot, Vectors, scan, vectors_of
from gotd_ray.ot.kernel import one_thread_each
from gotd_ray.ot.potentials import Potentials
from gotd_ray.points import Points, points_of
from gotd_ray.report import numbers, words
from gotd_ray.report.machine import hardware, versions
from gotd_ray.report.render import page
from gotd_ray.results import NUMBERS, PAGE, POTENTIALS, SUBSET, judgements
from gotd_ray.stage import Plan, Stage
from gotd_ray.text.addresses import texts_at
from gotd_ray.text.rows import BadFile

VERSION = 1
"""Raised when the report of equal manifests changes."""

SAMPLE = 2048
"""Candidates drawn on the map at the most; about so many are read."""

MEASURED = 1024
"""Documents of each side in the divergences."""

SHOWN = 5
"""Documents at the top, at the cut and below it."""

PULLS = 3
"""Target documents under each."""

LACKING = 8
"""Target documents that the corpus serves worst."""

EXAMPLES = 2
"""Documents set aside, for each reason."""

_ADDRESS = ["doc_id", "source", "path", "row", "chunk"]


@dataclass(frozen=True)
class Done:
    """What the stages before have left, of those that this run has. Its settings are shown, so it is given all."""

    run: config.Run
    vectors_left: Vectors
    artifacts: Mapping[str, Artifact]
    manifests: Mapping[str, dict[str, Any]]

    def key(self) -> Any:
        """By when they were done: numbers such as seconds are shown too."""
        return self.run.name, [(stage, facts["key"], facts["written"]) for stage, facts in self.manifests.items()]

    @cached_property
    def embedded(self) -> Embedded:
        """Rows of the index."""
        return self.vectors_left.read()

    @property
    def sets(self) -> Mapping[str, Any]:
        """What is told of the sets that were embedded."""
        return self.manifests.get("refine") or self.manifests["embed"]

    def path(self, stage: str, name: str) -> str:
        return self.artifacts[stage].path(name)

    @cached_property
    def potentials(self) -> Potentials | None:
        """Those of the solve; a selection in rounds ends with others, which are not kept."""
        if "solve" not in self.manifests:
            return None
        return own_potentials(self.path("solve", POTENTIALS), self.run.storage)

    @cached_property
    def target(self) -> Points:
        return points_of(self.embedded.target, self.embedded.width, shares=self.run.target.proportions)

    @cached_property
    def candidates(self) -> Points:
        """A random sample of the candidates of positive weight, weights summing to 1."""
        whole = "reference" if "sieve" in self.manifests else "corpus"  # of a cascade's corpus only the best are left
        snapshot = self.vectors_left.read(whole).candidates
        found = snapshot.documents(self.embedded.width, high=_sampled(snapshot))
        a = np.ones(len(found.ids)) if found.weights is None else np.asarray(found.weights, np.float64)
        vectors = found.vectors[a > 0].astype(np.float32)
        return Points(found.ids[a > 0], vectors, a[a > 0] / max(float(a.sum()), 1e-300))

    @cached_property
    def subset(self) -> pa.Table:
        """doc_id, source, score, rank of the documents taken, by rank; their texts stay where they are."""
        path = self.path("select", SUBSET)
        return scan([path], ["doc_id", "source", "score", "rank"], pc.scalar(True), self.run.storage).sort_by("rank")

    @cached_property
    def chosen(self) -> np.ndarray:
        """(k, d) vectors of the documents taken with the smallest ids."""
        ids = sorted(self.subset["doc_id"].to_pylist())[:MEASURED]
        found = self.vectors(ids, high=ids[-1].encode() + b"g" if ids else None)
        return np.array([found[doc_id] for doc_id in ids if doc_id in found], np.float32).reshape(
            -1, self.embedded.width
        )

    @cached_property
    def scores(self) -> list[str]:
        """Files of all candidates' scores; none where they were not kept."""
        folder = self.path("select", "scores")
        names = storage.list_names(folder, self.run.storage)
        return [storage.join(folder, name) for name in names if name.endswith(".parquet")]

    def vectors(self, ids: list[str], high: bytes | None = None) -> dict[str, np.ndarray]:
        """Vectors of candidates, by id."""
        table = self.embedded.candidates.read(["doc_id", "vector"], high=high, only=ids)
        return dict(zip(table["doc_id"].to_pylist(), vectors_of(table), strict=True))


def _given(plan: Plan) -> Done:
    return Done(plan.run, plan.vectors, plan.artifacts, plan.ran)


@with_remedy()
def report(done: Done, artifact: Artifact, site: Site | None) -> dict[str, Any]:
    """Write the report and commit.

    Args:
        site: None where there is no cluster now.
    """
    started = time.perf_counter()
    artifact.begin()
    with one_thread_each():
        facts = numbers.plain(_gather(done, site.resources if site else None))
    artifact.write(NUMBERS, json.dumps(facts, indent=1, allow_nan=False).encode())
    artifact.write(PAGE, page(facts).encode())
    return artifact.commit({"page": artifact.path(PAGE), "seconds": time.perf_counter() - started})


def _gather(done: Done, resources: Resources | None) -> dict[str, Any]:
    run, manifests = done.run, done.manifests
    selected, embedded = manifests["select"], done.sets
    tokens = {name: _tokens(snapshot) for name, snapshot in _sets(done).items()}
    facts: dict[str, Any] = {
        "run": run.name,
        "seed": run.seed,
        "selection": {"near_cut": None} | selected | {"rounds": run.select.rounds},
        "target_documents": len(done.target.ids),
        "flow": words.flow(manifests, tokens),
        "sources": numbers.sources(selected["sources"]),
        "sets": {name: embedded[name] | {"tokens": tokens.get(name)} for name in tokens},
        "solve": manifests.get("solve"),
        "survey": manifests.get("survey"),
        "sieve": manifests.get("sieve"),
        "scores": _distribution(done),
        "score_means": selected["score_means"],
        "divergence": _divergence(done),
        "map": _map(done),
        **_documents(done),
        "trainings": {
            name: {"learning_rates": []} | manifests[name] for name in ("pretune", "finetune") if name in manifests
        },
        "judges": _judges(manifests.get("evaluate")),
        "settings": run.model_dump(),
        "versions": versions(),
        "hardware": hardware(resources),
    }
    return facts


def _judges(evaluated: dict[str, Any] | None) -> dict[str, Any] | None:
    return evaluated and {"rows": judgements(evaluated), "overlap": evaluated["overlap"]}


def _sets(done: Done) -> dict[str, Snapshot]:
    found = {"corpus": done.embedded.candidates, "target": done.embedded.target, "contrast": done.embedded.contrast}
    return {name: snapshot for name, snapshot in found.items() if snapshot and name in done.sets}


def _tokens(snapshot: Snapshot) -> int:
    """The encoder's tokens in a set; of a large one an estimate by a sample, for no column is read whole."""
    found = snapshot.read(["tokens"], high=_sampled(snapshot))["tokens"]
    total = int(pc.sum(found).as_py() or 0)
    return total if _sampled(snapshot) is None else round(total / max(len(found), 1) * snapshot.rows)


def _sampled(snapshot: Snapshot) -> bytes | None:
    """The id below which about SAMPLE documents lie: a random sample, for ids are hashes. None where that is all."""
    return None if snapshot.rows <= SAMPLE else f"{int(16**15 * SAMPLE / snapshot.rows):015x}".encode()


def _distribution(done: Done) -> dict[str, Any] | None:
    if not done.scores:
        return None
    settings = done.run.storage
    every = scan(done.scores, ["score"], pc.scalar(True), settings)["score"].to_numpy()
    taken = scan(done.scores, ["score"], pc.field("doc_id").isin(done.subset["doc_id"].combine_chunks()), settings)
    cut = done.manifests["select"]["cut_score"] if done.run.select.rounds == 1 else None
    return numbers.distribution(every, taken["score"].to_numpy()) | {"cut": cut}


def _divergence(done: Done) -> dict[str, Any] | None:
    """Of samples of equal size, so that their noise is about the same."""
    if not len(done.chosen) or not len(done.candidates.ids):
        return None
    points, target, mix = done.candidates, done.target, done.run.select.mix
    x, a = points.vectors[:MEASURED], points.b[:MEASURED] / points.b[:MEASURED].sum()
    y, b = target.vectors[:MEASURED], target.b[:MEASURED] / target.b[:MEASURED].sum()
    solved = done.potentials
    epsilon = solved.epsilon if solved else 0.25 * float(a @ numbers.costs(x, y) @ b)
    return {
        **numbers.divergences((x, a), done.chosen, (y, b), max(epsilon, 1e-6), mix),
        "mix": mix,
        "epsilon": epsilon,
        "corpus_sample": len(x),
        "subset_sample": len(done.chosen),
        "target_sample": len(y),
        "rounds": done.manifests["select"].get("rounds", []),
    }


def _map(done: Done) -> dict[str, Any] | None:
    groups = {"corpus": done.candidates.vectors, "target": done.target.vectors[:MEASURED], "chosen": done.chosen}
    some = {name: points for name, points in groups.items() if len(points)}
    return numbers.plane(some) if len(some) > 1 else None


def _documents(done: Done) -> dict[str, Any]:
    """Samples, what the corpus lacks and what was set aside: all that needs texts."""
    run = done.run
    ranked, aside = done.subset.to_pylist(), _set_aside(done)
    cut = max(SHOWN, len(ranked) - SHOWN)
    groups = {"top": ranked[:SHOWN], "cut": ranked[cut:], "below": _below(done)}
    ids = [row["doc_id"] for rows in groups.values() for row in rows]
    lacking = _lacking(done)
    pulls = _pulls(done, ids)
    drawn = [one["doc_id"] for found in pulls.values() for one in found] + [one["doc_id"] for one in lacking]
    target = _rows(done.embedded.target, drawn, run.target, run)
    examples = [one for found in aside["examples"].values() for one in found]
    others = [one["other"] for one in examples if one["reason"] == "near_duplicate"]
    shown = _rows(done.embedded.candidates, [*ids, *(one["doc_id"] for one in examples), *others], run.corpus, run)
    for one in examples:
        one |= {"text": _text(shown, one["doc_id"]), "other_text": _text(shown, one["other"])}
    for one in lacking:
        one |= {"source": target.get(one["doc_id"], {}).get("source", "unknown"), "text": _text(target, one["doc_id"])}
    for found in pulls.values():
        for one in found:
            one |= {"text": _text(target, one["doc_id"])}

    def sample(row: dict[str, Any]) -> dict[str, Any]:
        doc_id = row["doc_id"]
        source = shown.get(doc_id, row).get("source", "unknown")
        return {"rank": None} | row | {"source": source, "text": _text(shown, doc_id), "pulls": pulls.get(doc_id, [])}

    return {
        "samples": {name: [sample(row) for row in rows] for name, rows in groups.items()},
        "pulled_by": "plan" if done.potentials else "nearness",
        "worst_served": lacking,
        "set_aside": aside,
    }


def _below(done: Done) -> list[dict[str, Any]]:
    """The documents of lowest score that were neither taken nor set aside; in rounds, by the score of the first."""
    if not done.scores:
        return []
    settings = done.run.storage
    passed = set(done.subset["doc_id"].to_pylist())
    path = done.path("select", "set_aside.parquet")
    passed |= set(scan([path], ["doc_id"], pc.scalar(True), settings)["doc_id"].to_pylist())
    scores = scan(done.scores, ["score"], pc.scalar(True), settings)["score"].to_numpy()
    depth = min(len(passed) + SHOWN, len(scores)) - 1
    last = float(np.partition(scores, depth)[depth])
    if not np.isfinite(last):
        last = float(np.finfo(np.float64).max)
    low = scan(done.scores, ["doc_id", "score"], pc.field("score") <= last, settings)
    rows = low.sort_by([("score", "ascending"), ("doc_id", "ascending")]).to_pylist()
    return [row for row in rows if row["doc_id"] not in passed][:SHOWN]


def _pulls(done: Done, ids: list[str]) -> dict[str, list[dict[str, Any]]]:
    """The targets that pull these documents: by the plan, or without one by nearness."""
    found = done.vectors(ids)
    known = [doc_id for doc_id in ids if doc_id in found]
    if not known:
        return {}
    x, solved = np.array([found[doc_id] for doc_id in known], np.float64), done.potentials
    y = solved.target if solved else done.target.vectors
    names = (solved.target_ids if solved else done.target.ids) if y is not None else None
    cost = numbers.costs(x, y)
    rows = numbers.plan_rows(x, y, solved.b, solved.g, solved.epsilon) if solved else -cost
    return {
        doc_id: [
            {
                "doc_id": names[j].decode() if names is not None else None,
                "share": value if solved else None,
                "cosine": 1 - float(cost[i, j]) / 2,
            }
            for j, value in row
        ]
        for i, (doc_id, row) in enumerate(zip(known, numbers.largest(rows, PULLS), strict=True))
    }


def _lacking(done: Done) -> list[dict[str, Any]]:
    """The targets of highest potential."""
    solved = done.potentials
    if solved is None or solved.target_ids is None:
        return []
    worst = np.argsort(-solved.g, kind="stable")[:LACKING]
    cost = numbers.costs(solved.target[worst], done.candidates.vectors)
    mean = float(solved.b @ solved.g)
    return [
        {
            "doc_id": solved.target_ids[j].decode(),
            "g": float(solved.g[j]) - mean,
            "weight": float(solved.b[j]),
            "cosine": 1 - float(row.min()) / 2 if len(row) else None,
        }
        for j, row in zip(worst, cost, strict=True)
    ]


def _set_aside(done: Done) -> dict[str, Any]:
    """Counts by reason, and the first of each in rank."""
    path = done.path("select", "set_aside.parquet")
    rows = scan(
        [path], ["doc_id", "score", "source", "reason", "other", "cosine", "span"], pc.scalar(True), done.run.storage
    )
    counts = done.manifests["select"]["set_aside"]
    examples = {}
    for reason in sorted(counts):
        some = rows.filter(pc.field("reason") == reason).sort_by([("score", "ascending"), ("doc_id", "ascending")])
        examples[reason] = some.slice(0, EXAMPLES).to_pylist()
    return {"counts": counts, "examples": examples}


def _rows(
    snapshot: Snapshot, ids: Iterable[str | None], text: config.Text, run: config.Run
) -> dict[str, dict[str, Any]]:
    """Source and text of some documents by id; text is None where it could not be read again."""
    wanted = sorted({doc_id for doc_id in ids if doc_id})
    if not wanted:
        return {}
    table = snapshot.read(_ADDRESS, only=wanted)
    rows = table.sort_by([(name, "descending") for name in _ADDRESS]).to_pylist()
    found = {row["doc_id"]: row | {"text": None} for row in rows}  # of equal documents the first by address
    places: dict[str, dict[tuple[int, int], str]] = {}
    for row in found.values():
        places.setdefault(row["path"], {})[row["row"], row["chunk"]] = row["doc_id"]

    def read(path: str) -> dict[str, str]:
        try:
            return dict(texts_at(path, places[path], text, run.chunks, run.storage))
        except BadFile:
            return {}

    with ThreadPoolExecutor(16) as pool:
        for texts in pool.map(read, sorted(places)):
            for doc_id, content in texts.items():
                found[doc_id]["text"] = content
    return found


def _text(rows: dict[str, dict[str, Any]], doc_id: str | None) -> str | None:
    return rows[doc_id]["text"] if doc_id in rows else None


STAGE = Stage("report", VERSION, _given, report, reads_vectors=True)

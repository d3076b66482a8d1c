"""What has changed between two versions of a refresh: files, documents, ranks, sources and the distance to the target.

documents/part-*.parquet   doc_id, source of the distinct candidates, in ranges of ids
changes/part-*.parquet     a row for each document that came into the corpus or left it: set, doc_id, source, change
changes/subset.parquet     the same of the subset, and those that stayed, with their ranks before and now
refresh.json               all of it in numbers
refresh.html               the page of these
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gotd_ray import config, storage
from gotd_ray.index import id_range, ids_of, scan, table_of
from gotd_ray.ot.shard import segment_bounds
from gotd_ray.report import machine
from gotd_ray.report.render import refresh_page
from gotd_ray.results import NUMBERS, SUBSET, count, differing, in_words, read
from gotd_ray.stage import Plan
from gotd_ray.storage import StoredFile
from gotd_ray.versions import CHANGES_PAGE, FACTS, Versions, named

DOCUMENTS, CHANGES = "documents", "changes"
RANGE_ROWS = 1 << 20
"""Documents that are compared at a time."""

EXAMPLES = 5
"""Files named of each kind."""

SHOWN = 5
"""Sources in the summary."""

NAMED = 10
"""Documents named that came, that went, and that moved most."""

_SCHEMA = pa.schema(
    {
        "set": pa.string(),
        "doc_id": pa.string(),
        "source": pa.string(),
        "change": pa.string(),
        "rank_before": pa.int64(),
        "rank": pa.int64(),
    }
)


def measure(
    plan: Plan, versions: Versions, number: int, before: int | None, training: dict[str, Any]
) -> dict[str, Any]:
    """Compare a version that is done with the one before, and write down what has changed.

    Args:
        plan: of the version.
        training: facts on whether it was trained.

    Returns:
        What ``refresh.json`` holds.
    """
    facts: dict[str, Any] = {"run": plan.run.name, "versions": machine.versions()}
    facts |= {"version": number, "before": before, "files": {}, "training": training}
    then = files_of(plan.run, versions, before)
    for name, collection in plan.collections.items():
        found = differing(then.get(name, {}), collection.files)
        some = {what: uris[:EXAMPLES] for what, uris in found.items()}
        facts["files"][name] = count(found) | {"examples": some}
    embedded, selected = plan.ran["embed"], plan.ran["select"]
    facts["encoded"] = {name: embedded[name]["embedded_now"] for name in plan.collections}
    sources = _write_documents(plan, versions.path(number, DOCUMENTS))
    storage.delete_tree(versions.path(number, CHANGES), versions.storage)
    corpus = _compare_corpora(versions, number, before, sources)
    subset, facts["moves"] = _compare_subsets(versions, number, before, sources)
    facts["documents"] = {"corpus": {"now": selected["candidates"]} | corpus, "subset": subset}
    old = facts_of(versions, before)
    for source, row in old.get("sources", {}).items():
        now = sources.setdefault(source, _source())
        now |= {f"{name}_before": row[name] for name in ("corpus", "subset", "mean_score")}
    facts["sources"] = dict(sorted(sources.items()))
    solved = plan.ran.get("solve", {})
    facts["drift"] = solved.get("drift")
    facts["fit"] = {name: solved.get(name) for name in ("reason", "passes", "residual")} if solved else None
    facts["refit_above"] = plan.run.solve.refit_above
    facts["divergence"] = _divergence(versions, number)
    facts["divergence_before"] = old.get("divergence")
    facts["seconds"] = {stage: manifest["seconds"] for stage, manifest in plan.ran.items() if "seconds" in manifest}
    storage.write_bytes(versions.path(number, CHANGES_PAGE), refresh_page(facts).encode(), versions.storage)
    storage.write_bytes(versions.path(number, FACTS), json.dumps(facts, indent=1).encode(), versions.storage)
    return facts


def files_of(run: config.Run, versions: Versions, number: int | None) -> dict[str, dict[str, StoredFile]]:
    """By set and uri, the files of a version; none where it is None."""
    if number is None:
        return {}
    folder = versions.path(number)
    return read(run.model_copy(update={"out": folder, "selection": folder})).files()


def _source() -> dict[str, Any]:
    counts = dict.fromkeys(("corpus", "in", "out", "subset", "corpus_before", "subset_before"), 0)
    return counts | {"mean_score": None, "mean_score_before": None}


def facts_of(versions: Versions, number: int | None) -> dict[str, Any]:
    data = None if number is None else storage.read_if_there(versions.path(number, FACTS), versions.storage)
    return json.loads(data) if data else {}


def _divergence(versions: Versions, number: int) -> dict[str, float] | None:
    """Of corpus, mixture and subset from the target, as the report has it."""
    data = storage.read_if_there(versions.path(number, "report", NUMBERS), versions.storage)
    found = json.loads(data).get("divergence") if data else None
    return found and {name: found[name] for name in ("corpus", "mixture", "subset")}


def _ranges(rows: int) -> Iterator[tuple[bytes, bytes]]:
    """Ranges of ids with about as many documents each."""
    count = 1
    while rows > count * RANGE_ROWS:
        count *= 2
    return pairwise(bytes(bound) for bound in segment_bounds(count))


def _write(path: str, table: pa.Table, settings: config.Storage) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    storage.write_bytes(path, sink.getvalue().to_pybytes(), settings)


def _paths(folder: str, settings: config.Storage) -> list[str]:
    names = storage.list_names(folder, settings)
    return [storage.join(folder, name) for name in names if name.endswith(".parquet")]


def _read(paths: list[str], columns: list[str], ends: tuple[bytes, bytes], settings: config.Storage) -> pa.Table:
    """Rows of a range of ids, sorted by id."""
    if not paths:
        return pa.table({name: pa.array([], pa.string()) for name in columns})
    return scan(paths, columns, id_range(*ends), settings).sort_by("doc_id")


def _write_documents(plan: Plan, folder: str) -> dict[str, dict[str, Any]]:
    """Write the candidates, and return by source how many there are and what is their mean score, where it is known.

    A document that stands in several sources counts for the first by name.
    """
    settings, candidates = plan.run.storage, plan.vectors.read().candidates
    storage.delete_tree(folder, settings)
    scores = _paths(plan.artifacts["select"].path("scores"), settings)
    found: dict[str, dict[str, Any]] = {}
    sums: Counter[str] = Counter()
    scored: Counter[str] = Counter()
    for number, ends in enumerate(_ranges(candidates.rows)):
        rows = candidates.read(["doc_id", "source"], *ends).group_by("doc_id").aggregate([("source", "min")])
        table = rows.rename_columns({"source_min": "source"}).select(["doc_id", "source"]).sort_by("doc_id")
        _write(storage.join(folder, f"part-{number:05d}.parquet"), table, settings)
        for source, many in _counts(table["source"]).items():
            found.setdefault(source, _source())["corpus"] += many
        if scores:
            beside = _read(scores, ["doc_id", "score"], ends, settings).filter(pc.is_finite(pc.field("score")))
            places = np.searchsorted(ids_of(table), ids_of(beside))
            by = pa.table({"source": table["source"].take(pa.array(places)), "score": beside["score"]})
            for row in by.group_by("source").aggregate([("score", "sum"), ("score", "count")]).to_pylist():
                sums[row["source"]] += row["score_sum"]
                scored[row["source"]] += row["score_count"]
    for source, many in scored.items():
        found[source]["mean_score"] = sums[source] / many
    return found


def _counts(column: pa.ChunkedArray) -> dict[str, int]:
    return {one["values"]: one["counts"] for one in pc.value_counts(column).to_pylist()}


def _compare_corpora(
    versions: Versions, number: int, before: int | None, sources: dict[str, dict[str, Any]]
) -> dict[str, int]:
    """Write the documents that came and went, count them by source, and return how many there are."""
    if before is None:
        return {"in": sum(row["corpus"] for row in sources.values()), "out": 0}
    settings, total = versions.storage, Counter(dict.fromkeys(("in", "out"), 0))
    folders = [_paths(versions.path(one, DOCUMENTS), settings) for one in (number, before)]
    for part, ends in enumerate(_ranges(sum(row["corpus"] for row in sources.values()))):
        now, then = (_read(folder, ["doc_id", "source"], ends, settings) for folder in folders)
        tables = []
        for change, table, other in (("in", now, then), ("out", then, now)):
            some = table.filter(pa.array(~np.isin(ids_of(table), ids_of(other), assume_unique=True)))
            total[change] += len(some)
            for source, many in _counts(some["source"]).items():
                sources.setdefault(source, _source())[change] += many
            tables.append(_rows("corpus", change, some))
        _write(versions.path(number, CHANGES, f"part-{part:05d}.parquet"), pa.concat_tables(tables), settings)
    return dict(total)


def _rows(name: str, change: str, table: pa.Table) -> pa.Table:
    none = pa.nulls(len(table), pa.int64())
    same = {"set": pa.array([name] * len(table), pa.string()), "change": pa.array([change] * len(table), pa.string())}
    columns = same | {"doc_id": table["doc_id"], "source": table["source"], "rank_before": none, "rank": none}
    return pa.table({field: columns[field] for field in _SCHEMA.names}, _SCHEMA)


def _compare_subsets(
    versions: Versions, number: int, before: int | None, sources: dict[str, dict[str, Any]]
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Write who came, went and stayed, with their ranks, and return the numbers, and whose ranks moved how."""
    now, then = (_subset(versions, one) for one in (number, before))
    rows: list[dict[str, Any]] = []
    for doc_id in sorted(now.keys() | then.keys()):
        old, new = then.get(doc_id), now.get(doc_id)
        source = (new or old or ("", 0))[0]
        change = "stayed" if old and new else "in" if new else "out"
        ranks = {"rank_before": old and old[1], "rank": new and new[1]}
        rows.append({"set": "subset", "doc_id": doc_id, "source": source, "change": change} | ranks)
        if new:
            sources.setdefault(source, _source())["subset"] += 1
    if before is None:
        return {"now": len(now), "in": len(now), "out": 0, "median_move": 0, "largest_move": 0}, None
    _write(versions.path(number, CHANGES, SUBSET), pa.Table.from_pylist(rows, _SCHEMA), versions.storage)
    moves = [abs(row["rank"] - row["rank_before"]) for row in rows if row["change"] == "stayed"]
    changed = Counter(row["change"] for row in rows)
    numbers = {
        "now": len(now),
        "in": changed["in"],
        "out": changed["out"],
        "median_move": float(np.median(moves)) if moves else 0,
        "largest_move": max(moves, default=0),
    }
    return numbers, _moves(rows)


def _moves(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """How many of those that stayed rose, fell and kept their rank, and the first by name of each kind of change.

    Args:
        rows: of ``changes/subset.parquet``.
    """
    stayed = [row | {"move": row["rank_before"] - row["rank"]} for row in rows if row["change"] == "stayed"]
    came = sorted((row for row in rows if row["change"] == "in"), key=lambda row: row["rank"])
    went = sorted((row for row in rows if row["change"] == "out"), key=lambda row: row["rank_before"])
    moved = sorted((row for row in stayed if row["move"]), key=lambda row: (-abs(row["move"]), row["rank"]))
    columns = ("doc_id", "source", "rank_before", "rank")
    named = {"in": came, "out": went, "moved": moved}
    return {
        "up": sum(row["move"] > 0 for row in stayed),
        "down": sum(row["move"] < 0 for row in stayed),
        "same": sum(row["move"] == 0 for row in stayed),
        "named": {
            what: [{name: row[name] for name in columns} for row in some[:NAMED]] for what, some in named.items()
        },
    }


def _subset(versions: Versions, number: int | None) -> dict[str, tuple[str, int]]:
    """Source and rank of the documents taken, by id."""
    path = None if number is None else versions.path(number, "select", SUBSET)
    data = path and storage.read_if_there(path, versions.storage)
    table = table_of(data, ["doc_id", "source", "rank"]).to_pylist() if data else []
    return {row["doc_id"]: (row["source"], row["rank"]) for row in table}


def words(facts: dict[str, Any]) -> list[str]:
    """What has changed, in sentences."""
    corpus, subset, before = facts["documents"]["corpus"], facts["documents"]["subset"], facts["before"]
    encoded = f"{sum(facts['encoded'].values()):,} texts were encoded"
    if before is None:
        return [
            f"version {named(facts['version'])}, the first: {subset['now']:,} documents of {corpus['now']:,}; {encoded}"
        ]
    said = [
        f"version {named(facts['version'])}, after {named(before)}: {corpus['in']:,} documents came into the corpus "
        f"and {corpus['out']:,} left it, which makes {corpus['now']:,}; {encoded}"
    ]
    for name, found in facts["files"].items():
        if counts := in_words({what: found[what] for what in ("new", "changed", "gone")}):
            said.append(f"{name}: {counts}")
    said.append(
        f"the subset: {subset['in']:,} of {subset['now']:,} documents are new, {subset['out']:,} went; the others "
        f"moved by {subset['median_move']:g} ranks (median), {subset['largest_move']:,} at the most"
    )
    if facts["drift"] is not None:
        fitted = facts["fit"]["reason"] != "kept"
        fits = (
            f"fitted again in {facts['fit']['passes']:g} passes" if fitted else "the last potentials score as they are"
        )
        said.append(f"drift {facts['drift']:.2g} (refresh.refit_above {facts['refit_above']:g}): {fits}")
    if facts["divergence"] and facts["divergence_before"]:
        pairs = [(name, facts["divergence_before"][name], facts["divergence"][name]) for name in facts["divergence"]]
        told = ", ".join(f"{name} {old:.4g}, now {new:.4g}" for name, old, new in pairs)
        said.append(f"divergence from the target, before: {told}")
    moved = {source: row for source, row in facts["sources"].items() if _moved(row)}
    for source, row in sorted(moved.items(), key=lambda item: -_moved(item[1]))[:SHOWN]:
        said.append(f"  {source}: {_drift_of(row)}")
    if len(moved) > SHOWN:
        said.append(f"  and {len(moved) - SHOWN:,} other sources")
    return said


def _moved(row: dict[str, Any]) -> int:
    """How much of a source has changed."""
    return row["in"] + row["out"] + abs(row["subset"] - row["subset_before"])


def _drift_of(row: dict[str, Any]) -> str:
    """What has become of a source."""
    said = f"{row['in']:,} in, {row['out']:,} out; {row['subset_before']:,} taken before, {row['subset']:,} now"
    means = row["mean_score_before"], row["mean_score"]
    return said if None in means else f"{said}; mean score {means[0]:.4g} before, {means[1]:.4g} now"

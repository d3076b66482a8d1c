"""What the command line prints of plans, manifests and results."""

from __future__ import annotations

import io
import time

import pyarrow.parquet as pq
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gotd_ray import storage
from gotd_ray.pipeline import STAGES, Plan
from gotd_ray.preflight import Count

TOP = 8
"""Documents and sources shown."""


def stages(plan: Plan, console: Console) -> None:
    """What a run would do."""
    table = Table("stage", "state", "where", title=escape(plan.run.name), title_justify="left")
    for stage in STAGES:
        state = "done" if plan.done(stage) else "to do" if plan.needed(stage) else "not needed"
        table.add_row(stage, state, escape(plan.artifacts[stage].folder))
    console.print(table)
    for name, collection in (("corpus", plan.corpus), ("target", plan.target)):
        missing = collection.index.snapshot(collection.files)[1]
        console.print(f"{name}: {len(collection.files):,} files, {len(missing):,} not embedded yet")


def estimate(plan: Plan, counts: dict[str, Count], console: Console) -> None:
    """What a run would need."""
    from gotd_ray.models.encoder import TextEncoder

    table = Table("", "files", "size", "documents", "mean characters", "left out")
    for name, count in counts.items():
        left_out = ", ".join(f"{n:,} {reason}" for reason, n in sorted(count.tally.reasons.items())) or "none"
        about = "" if count.exact else "about "
        table.add_row(
            name,
            f"{count.files:,}",
            f"{count.bytes / 1e6:,.1f} MB",
            f"{about}{count.documents:,}",
            f"{count.mean_chars:,.0f}",
            left_out,
        )
    console.print(table)
    for name, count in counts.items():
        for bad in count.bad_files:
            console.print(f"{name}: {bad}", markup=False)
    encoder = TextEncoder(plan.run.encoder, plan.device)
    texts = counts["corpus"].sample[:: max(1, len(counts["corpus"].sample) // 200)]
    encoder.encode(texts[:16])
    started = time.perf_counter()
    encoder.encode(texts)
    rate = len(texts) / (time.perf_counter() - started)
    documents = counts["corpus"].documents
    console.print(
        f"encoder: {escape(plan.run.encoder.model)} on {plan.device} in {encoder.precision}, {rate:,.0f} documents/s "
        f"here: about {documents / rate / 60:,.1f} minutes for one such process"
    )
    memory = documents * encoder.dim * 2 / 1e9
    console.print(f"memory: {memory:,.2f} GB of vectors over all shards, about 1 GB more for each process")


def results(plan: Plan, console: Console) -> None:
    """What came out, as far as it is done."""
    embedded, solved, selected = (plan.manifests[stage] for stage in STAGES)
    if embedded is None:
        console.print(f"Nothing has run yet under {escape(plan.run.out)}: start with gotd run.")
        return
    for name in ("corpus", "target"):
        facts = embedded[name]
        skipped = ", ".join(f"{n:,} {reason}" for reason, n in facts["skipped"].items()) or "nothing"
        console.print(f"{name}: {facts['documents']:,} documents from {facts['files']:,} files; left out: {skipped}")
        for bad in facts["bad_files"]:
            console.print(f"  bad file {bad['uri']}: {bad['reason']} ({bad['detail']})", markup=False)
    if solved:
        console.print(
            f"solve: {solved['preset']}, epsilon {solved['epsilon']:.4g} (mean cost {solved['mean_cost']:.4g}), "
            f"residual {solved['residual']:.2g} after {solved['passes']:g} passes, {solved['reason']}, "
            f"{solved['seconds']:.1f} s"
        )
    if selected:
        _selection(plan, console)


def _selection(plan: Plan, console: Console) -> None:
    facts = plan.manifests["select"]
    assert facts is not None
    aside = ", ".join(f"{n:,} {reason}" for reason, n in facts["set_aside"].items()) or "nothing"
    console.print(
        f"select: {facts['documents']:,} of {facts['candidates']:,} candidates by {facts['method']}; set aside: {aside}"
    )
    if not facts["budget_reached"]:
        console.print(
            f"  the budget of {facts['budget']:,} {facts['budget_unit']} was not reached: no candidate is left"
        )
    table = Table("source", "of the corpus", "of the subset", "taken")
    total, chosen = facts["candidates"], max(facts["documents"], 1)
    ranked = sorted(facts["sources"].items(), key=lambda item: (-item[1][1], -item[1][0], item[0]))
    for source, (available, taken) in ranked[:TOP]:
        table.add_row(escape(source), f"{available / total:.1%}", f"{taken / chosen:.1%}", f"{taken:,}")
    if len(ranked) > TOP:
        rest = [counts for _, counts in ranked[TOP:]]
        available, taken = sum(c[0] for c in rest), sum(c[1] for c in rest)
        table.add_row(f"{len(rest)} others", f"{available / total:.1%}", f"{taken / chosen:.1%}", f"{taken:,}")
    console.print(table)
    artifact = plan.artifacts["select"]
    data = storage.read_bytes(artifact.path("subset.parquet"), plan.run.storage)
    top = Table("rank", "score", "source", "begins")
    room = max(30, console.width - 50)
    for row in pq.read_table(io.BytesIO(data)).slice(0, TOP).to_pylist():
        begins = " ".join(row["text"].split())[:room]
        top.add_row(str(row["rank"]), f"{row['score']:.4f}", escape(row["source"]), escape(begins))
    console.print(top)
    console.print(f"the subset: {artifact.path('subset.parquet')}", markup=False)
    console.print(f"set aside:  {artifact.path('set_aside.parquet')}", markup=False)
    if plan.run.select.export_scores:
        console.print(f"all scores: {artifact.path('scores')}", markup=False)

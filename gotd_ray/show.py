"""What the command line prints of plans, manifests and results."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from gotd_ray import storage
from gotd_ray.checks import Look
from gotd_ray.costs import in_words, spent
from gotd_ray.index import table_of
from gotd_ray.ot.kept import BYTES, room
from gotd_ray.paths import SETS
from gotd_ray.report.words import agreed_in_words, searched, sieved
from gotd_ray.results import SUBSET, Results, changes, judgements
from gotd_ray.show_arms import comparison
from gotd_ray.show_curve import curves
from gotd_ray.show_tune import search
from gotd_ray.stage import Plan
from gotd_ray.training import check
from gotd_ray.training import task as training
from gotd_ray.versions import Pointer, Versions, named

TOP = 8
"""Documents and sources shown."""

LOG_WIDTH = 160
"""Columns of a log, which has no width of its own: a number that is cut tells nothing."""


def console() -> Console:
    """Standard output, as wide as it is."""
    here = Console(soft_wrap=True)
    return here if here.is_terminal else Console(soft_wrap=True, width=max(here.width, LOG_WIDTH))


def stages(plan: Plan, console: Console) -> None:
    """What a run would do."""
    table = Table("stage", "state", "where", title=escape(plan.run.name), title_justify="left")
    for stage, step in plan.steps.items():
        table.add_row(stage, "done" if plan.done(stage) else "to do", escape(step.artifact.folder))
    console.print(table)
    if not plan.surveyed:
        console.print("Which sources are embedded is for the survey to say; counted here are all.")
    if plan.run.cascade and not plan.manifests["sieve"]:
        console.print("Which documents are encoded is for the cascade to say; counted here are all.")
    for name, collection in plan.collections.items():
        missing = collection.index.snapshot(collection.files)[1]
        console.print(f"{name}: {_files(len(collection.files))}, {len(missing):,} not embedded yet")


def estimate(plan: Plan, look: Look, console: Console) -> None:
    """What a run would need, and what a look at its input has told."""
    _counted(plan, look, console)
    _encoding(plan, look, console)
    for stage, task in plan.trainings.items():
        needed, workers, rows = check.estimate(task)
        many = "one worker" if workers == 1 else f"each of {workers} workers"
        console.print(
            f"{stage}: {task.kind}, at least {needed / 1e9:.3g} GB on {many}, {rows} rows of up to "
            f"{task.settings.max_tokens:,} tokens at a time, ZeRO {task.settings.zero_stage}"
        )
    if unwanted := look.unwanted:
        console.print(
            f"select.decontaminate: searches for {unwanted['searched']:,} of {unwanted['texts']:,} evaluation texts"
        )
    for folder, needed in look.room.items():
        console.print(f"disk: about {needed / 1e9:,.2f} GB will be written to {folder}", markup=False)
    for sentence in look.told:
        console.print(f"note: {sentence}", markup=False)


def _counted(plan: Plan, look: Look, console: Console) -> None:
    table = Table("", "files", "size", "documents", "mean characters", "left out")
    for name, count in look.counts.items():
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
    for name, count in look.counts.items():
        for bad in count.bad_files:
            console.print(f"{name}: {bad}", markup=False)
    if plan.run.survey:
        keep = "all" if plan.run.survey.keep is None else f"the {plan.run.survey.keep:,} nearest"
        console.print(
            f"survey: compares {plan.run.survey.documents:,} documents of each source with the target, keeps {keep}; "
            "the estimates are for all sources"
        )


def _encoding(plan: Plan, look: Look, console: Console) -> None:
    """Rate of the encoder here, measured on some documents, and memory of their vectors and of the plan."""
    from gotd_ray.models.encoder import TextEncoder

    corpus, target = look.counts["corpus"], look.counts["target"]
    settings = plan.run.encoder
    encoder = TextEncoder(settings, plan.device)
    texts = corpus.sample[:: max(1, len(corpus.sample) // 200)]
    rate, documents = encoder.rate(texts), corpus.documents
    console.print(
        f"encoder: {settings.kind}, {escape(settings.model)} on {encoder.device} in {settings.precision}, {rate:,.0f} "
        f"documents/s here: about {documents / rate / 60:,.1f} minutes for one such process"
    )
    most = room(plan.run.solve.kept_memory, documents, encoder.width)  # of a larger one, that of a sample
    vectors, kept = documents * encoder.width * 2 / 1e9, min(documents * target.documents * BYTES, most) / 1e9
    console.print(
        f"memory: {vectors:,.2f} GB of vectors and up to {kept:,.2f} GB of the solve's plan over all shards, about "
        "1 GB more for each process"
    )


def version(versions: Versions, pointer: Pointer, beside: Results, console: Console) -> None:
    """Which version of a refresh is published, and where.

    Args:
        beside: what lies in ``out`` itself.
    """
    console.print(f"version {named(pointer.version)}, published {pointer.published}", highlight=False)
    if beside.manifests:
        console.print(f"  (results of gotd run that also lie under {versions.out} are not shown)", markup=False)
    if pointer.changes_page:
        console.print(f"the changes: {storage.join(versions.out, pointer.changes_page)}", markup=False)
    if pointer.trained_in not in (None, pointer.version):
        for stage, path in pointer.models.items():
            console.print(f"the model of {stage} in use: {storage.join(versions.out, path)}", markup=False)


def since(found: Results, plan: Plan | None, why: str, console: Console, command: str = "gotd run") -> None:
    """What has changed since the results were made.

    Args:
        command: what brings them up to date.
        plan: the run as it is now; None where it cannot be planned.
        why: why it cannot.
    """
    if not found.manifests:
        return
    if plan is None:
        console.print(f"What has changed since these results cannot be told: {why}", markup=False)
        return
    stale = [stage for stage in found.manifests if stage not in plan.steps or not plan.done(stage)]
    if not stale:
        return
    to_do = [stage for stage in plan.steps if not plan.done(stage)]
    console.print(
        f"These results are not of the run as it stands: {', '.join(stale)} would differ"
        + (f", and {command} would do {', '.join(to_do)}." if to_do else "."),
        markup=False,
    )
    listed = {name: collection.files for name, collection in plan.collections.items()}
    said = changes(found, plan.run, listed, stale)
    for change in said or ["the program, the encoder, a base model or files beside the sets have changed"]:
        console.print(f"  {change}", markup=False)


def results(found: Results, console: Console) -> None:
    """What came out, as far as it is done."""
    facts = found.manifests
    if not facts and not (found.comparison or found.curve or found.search):
        console.print(f"Nothing has run yet under {escape(found.run.out)}: start with gotd run.")
    if "survey" in facts:
        _survey(facts["survey"], console)
    cascade = found.run.cascade is not None
    if embedded := (cascade and facts.get("refine")) or facts.get("embed"):
        _embedded(embedded, console)
    if sieve := cascade and facts.get("sieve"):
        console.print(f"sieve: {sieved(sieve)}", markup=False)
    if solved := facts.get("solve"):
        console.print(
            f"solve: {solved['preset']}, epsilon {solved['epsilon']:.4g} (mean cost {solved['mean_cost']:.4g}), "
            f"residual {solved['residual']:.2g} after {solved['passes']:g} passes, {solved['reason']}, "
            f"{solved['seconds']:.1f} s"
        )
        _origin(solved, console)
    if weighed := facts.get("dsir"):
        corpus, target = weighed["corpus"], weighed["target"]
        console.print(
            f"dsir: {corpus['ngrams']:,} n-grams of {corpus['documents']:,} distinct documents against "
            f"{target['ngrams']:,} of {target['documents']:,}, {weighed['seconds']:.1f} s"
        )
    if "select" in facts:
        _selection(found, console)
    for stage in training.STAGES:
        if stage in facts:
            _trained(found, stage, console)
    if "evaluate" in facts:
        _judgements(found, console)
    if any((seconds := spent([facts])).values()):
        console.print(f"it took: {in_words(seconds, found.run.costs)}", markup=False)
    if sent := facts.get("send"):
        console.print(f"sent to {', '.join(sent['to'])}", markup=False)
    if written := facts.get("report"):
        console.print(f"the report: {written['page']}", markup=False)
    if found.comparison:
        for line in comparison(found.comparison):
            console.print(line, markup=False, highlight=False)
    if found.curve:
        for line in curves(found.curve):
            console.print(line, markup=False, highlight=False)
    if found.search:
        for line in search(found.search):
            console.print(line, markup=False, highlight=False)


def _files(many: int) -> str:
    return f"{many:,} file{'' if many == 1 else 's'}"


def _embedded(embedded: dict[str, Any], console: Console) -> None:
    for name in (name for name in SETS if name in embedded):
        facts = embedded[name]
        skipped = ", ".join(f"{n:,} {reason}" for reason, n in facts["skipped"].items()) or "nothing"
        console.print(
            f"{name}: {facts['documents']:,} documents from {_files(facts['files'])}, {facts['embedded_now']:,} texts "
            f"encoded by that run; left out: {skipped}"
        )
        for bad in facts["bad_files"]:
            console.print(f"  bad file {bad['uri']}: {bad['reason']} ({bad['detail']})", markup=False)
        _told(facts, console)


def _judgements(found: Results, console: Console) -> None:
    """Metrics with their 95% intervals, and beside them what changed against the base."""
    facts = found.manifests["evaluate"]
    names = ("judge", "set", "metric", "model", "value", "95% interval", "minus base", "95% interval", "examples")
    table = _table(*names)
    for row in judgements(facts):
        changed = row["minus_base"]
        table.add_row(
            row["judge"],
            escape(row["set"]),
            row["metric"],
            row["model"],
            f"{row['value']:.4g}",
            f"{row['low']:.4g} to {row['high']:.4g}",
            f"{changed['value']:+.3g}" if changed else "",
            f"{changed['low']:+.3g} to {changed['high']:+.3g}" if changed else "",
            f"{row['examples']:,}",
        )
    console.print(table)
    _told(facts, console)
    console.print(f"the examples: {found.path('evaluate', 'examples.parquet')}", markup=False)


def _told(facts: dict[str, Any], console: Console) -> None:
    """What a stage said besides: what it left out, and why."""
    for sentence in facts.get("told", ()):
        console.print(f"  {sentence}", markup=False)


def _trained(found: Results, stage: str, console: Console) -> None:
    facts = found.manifests[stage]
    engine = facts["engine"]
    dev = f", dev loss {min(look['loss'] for look in facts['dev']):.4f}" if facts["dev"] else ""
    console.print(
        f"{stage}: {facts['steps']:,} steps on {facts['texts']:,} texts, loss {facts['losses'][-1][1]:.4f}{dev}; "
        f"{engine['engine']} on {engine['workers']} workers, {engine['device']}, {engine['precision']}, "
        f"{facts['seconds']:.0f} s"
    )
    _told(facts, console)
    console.print(f"the model: {found.path(stage, 'model')}", markup=False)


def _survey(facts: dict[str, Any], console: Console) -> None:
    console.print(
        f"survey: {facts['documents']:,} documents of each source against {facts['target_documents']:,} of the target, "
        f"from {facts['files_read'][0]:,} of {facts['files_read'][1]:,} files, {facts['seconds']:.1f} s"
    )
    table = _table("source", "distance", "standard error", "documents", "")
    for row in facts["sources"]:
        spread = "unknown" if row["spread"] is None else f"{row['spread']:.4f}"
        notes = ["kept" if row["kept"] else "dropped"]
        notes += ["too small to compare"] if row["small"] else []
        notes += ["within the error of the last one kept"] if row["source"] in facts["unclear"] else []
        table.add_row(escape(row["source"]), f"{row['value']:.4f}", spread, f"{row['documents']:,}", ", ".join(notes))
    console.print(table)
    _told(facts, console)


def _origin(solved: dict[str, Any], console: Console) -> None:
    """What the potentials were fitted on, where it is not all of this run's corpus."""
    if taken := solved.get("taken_from"):
        console.print(f"  taken as they are from {taken}", markup=False)
    if solved["over"] == "reference" or solved["fitted_on"] < solved["candidates"]:
        where = "of the reference" if solved["over"] == "reference" else "of the corpus"
        console.print(f"  fitted on {solved['fitted_on']:,} documents {where}")
    if "agreement" in solved:
        console.print(f"  {agreed_in_words(solved)}", markup=False)
    if against := solved.get("contrast"):
        console.print(
            f"  contrast: {against['targets']:,} documents, residual {against['residual']:.2g} after "
            f"{against['passes']:g} passes, {against['reason']}"
        )


def _selection(found: Results, console: Console) -> None:
    facts = found.manifests["select"]
    aside = ", ".join(f"{n:,} {reason}" for reason, n in facts["set_aside"].items()) or "nothing"
    console.print(
        f"select: {facts['documents']:,} of {facts['candidates']:,} candidates by {facts['method']}; set aside: {aside}"
    )
    if divergence := facts.get("divergence"):
        mix = found.settings["select"].get("select", {}).get("mix", found.run.select.mix)
        console.print(
            f"  {len(facts['rounds'])} rounds; divergence of {1 - mix:g} corpus + {mix:g} subset from the target, on "
            f"landmarks: {divergence[0]:.4g} with nothing taken, {divergence[1]:.4g} with the subset"
        )
    if unwanted := facts.get("decontaminated"):
        console.print(f"  {searched(unwanted)}", markup=False)
    if changed := facts.get("changed_files"):
        console.print(f"  {changed['files']:,} files were not what they were when they were embedded")
    if facts.get("left_out"):
        console.print(f"  {facts['left_out']:,} {facts['left_out_as']}", markup=False)
    if not facts["budget_reached"]:
        console.print(
            f"  the budget of {facts['budget']:,} {facts['budget_unit']} was not reached: no candidate is left"
        )
    table = _table("source", "of the corpus", "of the subset", "taken")
    total, chosen = facts["candidates"], max(facts["documents"], 1)
    ranked = sorted(facts["sources"].items(), key=lambda item: (-item[1][1], -item[1][0], item[0]))
    for source, (available, taken) in ranked[:TOP]:
        table.add_row(escape(source), f"{available / total:.1%}", f"{taken / chosen:.1%}", f"{taken:,}")
    if len(ranked) > TOP:
        rest = [counts for _, counts in ranked[TOP:]]
        available, taken = sum(c[0] for c in rest), sum(c[1] for c in rest)
        table.add_row(f"{len(rest)} others", f"{available / total:.1%}", f"{taken / chosen:.1%}", f"{taken:,}")
    console.print(table)
    subset = found.path("select", SUBSET)
    if data := storage.read_if_there(subset, found.run.storage):
        top = _table("rank", "score", "source", "begins")
        room = max(30, console.width - 50)
        for row in table_of(data).slice(0, TOP).to_pylist():
            begins = " ".join(row["text"].split())[:room]
            top.add_row(str(row["rank"]), f"{row['score']:.4f}", escape(row["source"]), escape(begins))
        console.print(top)
    console.print(f"the subset: {subset}" + ("" if data else ", which is not there any more"), markup=False)
    console.print(f"set aside:  {found.path('select', 'set_aside.parquet')}", markup=False)
    if storage.exists(found.path("select", "scores"), found.run.storage):
        console.print(f"all scores: {found.path('select', 'scores')}", markup=False)


def _table(*names: str, **options: Any) -> Table:
    """A table whose cells go on in the next line where there is no room, and are never cut."""
    return Table(*(Column(name, overflow="fold") for name in names), **options)

"""START HERE: the stages in their order, each skipped when its manifest says that it is done.

    embed -> solve -> select

``plan`` lists files and reads manifests only. ``execute`` does what the plan says is missing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from gotd_ray import config, demo, storage
from gotd_ray.artifacts import Artifact, make_key
from gotd_ray.cluster import Site, connected, in_job
from gotd_ray.errors import UserError
from gotd_ray.index import Collection, Embedded, Index
from gotd_ray.models.choice import describe, pick_device
from gotd_ray.preflight import Count, count_documents
from gotd_ray.progress import Progress
from gotd_ray.stages import embed, select, solve
from gotd_ray.storage import StoredFile, list_files

STAGES = ("embed", "solve", "select")

DEMO = "demo:"
"""Paths that begin so are the embedded demo's, built on first use."""


@dataclass(frozen=True)
class Plan:
    """What a run consists of, and how much of it is done."""

    run: config.Run
    device: str
    width: int
    """Numbers in a vector."""

    corpus: Collection
    target: Collection
    unwanted: list[StoredFile]
    """Evaluation sets of ``select.decontaminate``."""

    artifacts: dict[str, Artifact]
    manifests: dict[str, dict[str, Any] | None]

    def done(self, stage: str) -> bool:
        """Whether nothing is left to do; files that could not be reached are tried again."""
        manifest = self.manifests[stage]
        return manifest is not None and not manifest.get("unreached")

    def needed(self, stage: str) -> bool:
        """Scores that need no transport skip the solve."""
        return stage != "solve" or self.run.select.method == "gotd"


def resolve_paths(run: config.Run) -> config.Run:
    """Absolute folders, and the demo's corpus built where a path names it.

    A job's working folder is a copy that goes away with the job, so its relative ``out`` lies in ``~/gotd`` instead.
    """
    home = Path.home() / "gotd" if in_job() else Path.cwd()

    def absolute(path: str) -> str:
        return path if "://" in path else str(home / path)

    out = absolute(run.out)
    index = absolute(run.index) if run.index else storage.join(out.rstrip("/").rpartition("/")[0], "index")

    def section(text: config.Text) -> config.Text:
        paths = [str(_demo() / path.removeprefix(DEMO)) if path.startswith(DEMO) else path for path in text.paths]
        return text.model_copy(update={"paths": paths})

    unwanted = run.select.decontaminate
    return run.model_copy(
        update={
            "out": out,
            "index": index,
            "corpus": section(run.corpus),
            "target": section(run.target),
            "select": run.select.model_copy(update={"decontaminate": section(unwanted) if unwanted else None}),
        }
    )


@cache
def _demo() -> Path:
    """The demo's folder, built on first use from the packages installed here."""
    return demo.build(Path.home() / ".cache" / "gotd_ray" / "demo")


def plan(run: config.Run, gpus: int | None = None) -> Plan:
    """List the files and read the manifests; nothing is started.

    Args:
        run: with its paths resolved.
        gpus: of the cluster; None looks at this machine.

    Raises:
        UserError: a path, the encoder or a setting does not serve.
    """
    device = pick_device(run.encoder, gpus)
    encoder = describe(run.encoder, device)
    # Decided here, once: in a cluster of unlike machines each would decide for itself.
    known = run.encoder.model_copy(update={"precision": encoder["precision"]})
    run = run.model_copy(update={"encoder": known})
    corpus = _collection(run, run.corpus, encoder)
    target = _collection(run, run.target, encoder)
    unwanted = list_files(run.select.decontaminate, run.storage) if run.select.decontaminate else []
    return _with_manifests(Plan(run, device, encoder["width"], corpus, target, unwanted, {}, {}))


def _with_manifests(plan: Plan) -> Plan:
    """The plan with the keys and the state of its stages as they are now; the files stay those that were listed."""
    run = plan.run

    def artifact(stage: str, key: str) -> Artifact:
        return Artifact(storage.join(run.out, stage), key, run.storage)

    keys = {"embed": make_key(embed.VERSION, plan.corpus.key(), plan.target.key())}
    embedded = artifact("embed", keys["embed"]).manifest()
    unreached = sorted(embedded["unreached"]) if embedded else []
    keys["solve"] = make_key(solve.VERSION, keys["embed"], unreached, run.solve.model_dump(exclude={"shards"}))
    scores = keys["solve"] if run.select.method == "gotd" else [keys["embed"], unreached]
    unwanted = [(file.uri, file.size, file.modified) for file in plan.unwanted]
    keys["select"] = make_key(select.VERSION, scores, run.select.model_dump(), unwanted, run.seed)
    artifacts = {stage: artifact(stage, keys[stage]) for stage in STAGES}
    return replace(plan, artifacts=artifacts, manifests={stage: artifacts[stage].manifest() for stage in STAGES})


def _collection(run: config.Run, text: config.Text, encoder: dict[str, Any]) -> Collection:
    """An index serves every run with the same encoder and the same idea of a document, whatever its paths."""
    idea = text.model_dump(exclude={"paths", "max_bad_files", "max_bad_rows"})
    assert run.index is not None
    folder = storage.join(run.index, make_key(embed.VERSION, idea, run.chunks.model_dump(), encoder))
    return Collection(text, list_files(text, run.storage), Index(folder, run.storage))


def check(plan: Plan) -> dict[str, Count]:
    """Read a sample of corpus and target and hold the settings against them; nothing is written.

    Raises:
        UserError: a column is missing, too many rows are bad, the target is empty, the budget exceeds the corpus.
    """
    counts = {
        name: count_documents(collection.files, collection.text, plan.run.chunks, plan.run.storage)
        for name, collection in (("corpus", plan.corpus), ("target", plan.target))
    }
    for name, count in counts.items():
        if not count.documents:
            raise UserError(
                f"the {name} has no document: {count.why_empty()}. Check {name}.text_column, chunks.min_chars and "
                f"{name}.exclude_sources."
            )
    settings, corpus = plan.run.select, counts["corpus"]
    ceiling = corpus.documents if corpus.exact else 3 * corpus.documents
    if settings.budget_unit == "documents" and settings.budget > ceiling:
        about = "" if corpus.exact else "about "
        raise UserError(
            f"select.budget is {settings.budget:,}, but the corpus has {about}{corpus.documents:,} documents. "
            "Lower the budget, or add to corpus.paths."
        )
    return counts


def execute(run: config.Run, progress: Progress) -> Plan:
    """Run what is missing and return the plan with all stages done."""
    run = resolve_paths(run)
    current = plan(run)
    if all(current.done(stage) or not current.needed(stage) for stage in STAGES):
        for stage in STAGES:
            _say_done(current, stage, progress)
        return current
    if not current.done("embed"):
        check(current)
    with connected(run.ray) as resources:
        current = plan(run, resources.gpus)
        for stage in STAGES:
            if current.done(stage) or not current.needed(stage):
                _say_done(current, stage, progress)
            else:
                _STEPS[stage](current, Site(resources, current.device, progress))
                current = _with_manifests(current)  # later keys depend on which files could be reached
    return current


def _say_done(plan: Plan, stage: str, progress: Progress) -> None:
    progress.say(f"{stage}: " + ("done before, skipped" if plan.done(stage) else "not needed for this method"))


def _embed(plan: Plan, site: Site) -> dict[str, Any]:
    collections = {"corpus": plan.corpus, "target": plan.target}
    return embed.embed(plan.run, collections, plan.artifacts["embed"], site)


def _vectors(plan: Plan) -> Embedded:
    """The rows of the files that could be reached."""
    embedded = plan.artifacts["embed"].manifest()
    assert embedded is not None
    unreached = set(embedded["unreached"])
    candidates, target = (
        collection.index.snapshot([file for file in collection.files if file.uri not in unreached])[0]
        for collection in (plan.corpus, plan.target)
    )
    return Embedded(candidates, target, plan.width)


def _solve(plan: Plan, site: Site) -> dict[str, Any]:
    return solve.solve(plan.run, _vectors(plan), plan.artifacts["solve"], site)


def _select(plan: Plan, site: Site) -> dict[str, Any]:
    potentials = plan.artifacts["solve"].path(solve.POTENTIALS) if plan.needed("solve") else None
    return select.select(plan.run, _vectors(plan), potentials, plan.artifacts["select"], site)


_STEPS = {"embed": _embed, "solve": _solve, "select": _select}

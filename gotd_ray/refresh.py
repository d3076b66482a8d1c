"""`gotd refresh`: the subset of a corpus that changes, as one version after the other and a pointer to the last.

    out/current.json              what is published, written last: see versions
    out/versions/000N/            a run of its own, with all its stages; besides
        start.safetensors         the potentials of version N - 1, from which the solve went on
        documents/, changes/, refresh.json    what has changed: see changed

Versions share the index, so that a version costs the texts that are new. A killed refresh is gone on with by the next.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import ray

from gotd_ray import changed, cluster, config, lock, metrics, pipeline, storage
from gotd_ray.artifacts import Artifact, make_key
from gotd_ray.earlier import same_vectors
from gotd_ray.errors import HeldError, UserError
from gotd_ray.index import table_of
from gotd_ray.models.encoder import TextEncoder
from gotd_ray.ot.potentials import Potentials
from gotd_ray.preflight import count_documents
from gotd_ray.progress import Progress
from gotd_ray.results import AFTER_SELECT, POTENTIALS, STAGES, SUBSET, count, differing, in_words
from gotd_ray.stage import Plan
from gotd_ray.storage import StoredFile
from gotd_ray.training.task import MODEL, decides
from gotd_ray.training.task import STAGES as TRAININGS
from gotd_ray.versions import Pointer, Versions, inside, named

START = "start.safetensors"
SELECTING, AFTER = STAGES[: STAGES.index("select") + 1], STAGES[STAGES.index("select") + 1 :]
"""The stages before it is known whether a version trains, and those after."""

SAMPLE = 200
"""Texts of each set on which the encoder is timed."""


@dataclass(frozen=True)
class Refreshed:
    """What has come of a refresh.

    Attributes:
        pointer: what is published; None where nothing ever was, after a dry run.
        words: sentences to show.
        facts: what ``refresh.json`` holds, or of a dry run the files; empty where there was nothing to do.
        ran, skipped: stages.
    """

    versions: Versions
    pointer: Pointer | None
    words: list[str]
    facts: dict[str, Any] = field(default_factory=dict)
    ran: Sequence[str] = ()
    skipped: Sequence[str] = ()


def refresh(run: config.Run, progress: Progress, *, dry_run: bool = False) -> Refreshed:
    """Bring the subset up to date with corpus, target and settings, as the next version; nothing starts where they are
    what they were.

    Args:
        dry_run: only say what has changed and what it would cost; nothing is written, and nothing held.

    Raises:
        UserError: as :func:`gotd_ray.pipeline.execute`; the pointer leads nowhere; the corpus has shrunk.
        HeldError: another refresh is at work.
    """
    if run.selection is not None:
        raise UserError(
            f"selection is {run.selection}, but a refresh keeps the selection of each version in out/versions. Leave "
            "`selection` out."
        )
    if run.cascade is not None:
        raise UserError(
            f"encoder.cascade is {run.cascade}, and a refresh compares all documents of each version. Leave "
            "encoder.cascade out."
        )
    run = pipeline.resolve_paths(run)
    versions = Versions(run.out, run.storage)
    if dry_run:
        return _look(run, versions)
    with lock.held([run.out], run.storage):
        last = versions.current()
        try:
            done = _refresh(run, versions, last, progress)
            _tell(run, done, progress)
            return done
        except HeldError:
            raise
        except UserError as error:
            kept = f" Version {named(last.version)} stays published." if last else ""
            raise type(error)(f"{error}{kept}") from None


def _tell(run: config.Run, done: Refreshed, progress: Progress) -> None:
    """Tell Prometheus that a refresh ended well, where a cluster stands: one of our own is gone before it is asked."""
    if done.pointer is None or (cluster.address_of(run.ray) is None and not ray.is_initialized()):
        return
    try:
        with cluster.connected(run.ray.model_copy(update={"gpus": None}), progress.say):
            metrics.refreshed(run.out, done.pointer.version, time.time())
    except UserError as error:
        progress.say(f"note: Prometheus was not told of this refresh: {error}")


def run_of(run: config.Run, versions: Versions, number: int, *, started: bool) -> config.Run:
    """The run of a version.

    Args:
        run: with its paths resolved.
        started: whether its solve goes on from ``START``.
    """
    folder = versions.path(number)
    update: dict[str, Any] = {"out": folder, "selection": folder, "compare": None, "curve": None}
    update["name"] = f"{run.name[:90]}-{named(number)}"
    if started:
        begin = {"warm_start": versions.path(number, START), "refit_above": run.refresh.refit_above}
        update["solve"] = run.solve.model_copy(update=begin)
    return run.model_copy(update=update)


def _refresh(run: config.Run, versions: Versions, last: Pointer | None, progress: Progress) -> Refreshed:
    number, before = versions.next(last), last.version if last else None
    if last:
        plan = _as_published(run, versions, last)
        if is_done(plan, last):
            said = f"nothing new: version {named(last.version)} is of these files and settings"
            return Refreshed(versions, last, [said], skipped=list(plan.steps))
        now = sum(file.size for file in _files(plan, versions, last)["corpus"])
        _refuse_shrunk(run, versions, last, now, "bytes")
    start = _start(run, versions, last, progress)
    path = versions.path(number, START)
    if start is None:
        storage.delete_tree(path, run.storage)
    else:
        storage.write_bytes(path, start, run.storage)
    training = _Training(run, versions, last, number)
    made = pipeline.execute(
        run_of(run, versions, number, started=start is not None), progress, SELECTING, then=training.decide
    )
    facts = changed.measure(made, versions, number, before, training.facts)
    lock.check()
    pointer = versions.publish(number, training.models(), training.trained, _precisions(made.run))
    for sentence in versions.prune(pointer, run.refresh.keep):
        progress.say(f"note: {sentence}")
    page = storage.join(run.out, pointer.changes_page)
    words = [*changed.words(facts), *training.words(), f"the changes: {page}", f"published: {versions.pointer}"]
    skipped = [stage for stage in made.steps if stage not in made.did]
    return Refreshed(versions, pointer, words, facts, made.did, skipped)


def _precisions(run: config.Run) -> dict[str, str | None]:
    return {"encoder": run.encoder.precision, "model": run.model.precision if run.model else None}


def published(run: config.Run) -> tuple[Versions, Pointer, config.Run] | None:
    """The version that is published under ``out``, and its run as today's files and settings would make it on the
    machine that made it; None where nothing was refreshed.

    Raises:
        UserError: the pointer leads nowhere.
    """
    if run.selection is not None:
        return None
    run = pipeline.resolve_paths(run)
    versions = Versions(run.out, run.storage)
    last = versions.current()
    return (versions, last, _run_as_published(run, versions, last)) if last else None


def _run_as_published(run: config.Run, versions: Versions, last: Pointer) -> config.Run:
    start = storage.read_if_there(versions.path(last.version, START), run.storage)
    here = {"encoder": run.encoder, "model": run.model}
    there = {
        name: section.model_copy(update={"precision": last.precision[name]})
        for name, section in here.items()
        if section and section.precision == "auto" and last.precision.get(name)
    }
    run = run.model_copy(update=there)
    return run_of(run, versions, last.version, started=start is not None and _fits(start, run))


def _as_published(run: config.Run, versions: Versions, last: Pointer) -> Plan:
    return pipeline.plan(_run_as_published(run, versions, last))


def is_done(plan: Plan, last: Pointer) -> bool:
    """Whether the published version is what would be made now."""
    trains = last.trained_in == last.version
    stages = [stage for stage in plan.steps if trains or stage not in AFTER_SELECT]
    return all(plan.done(stage) for stage in stages) and last.trained_as == _trained_as(plan)


def _fits(start: bytes, run: config.Run) -> bool:
    """Whether a fit of this run can go on from these potentials."""
    if run.select.method != "gotd" or run.solve.potentials:
        return False
    try:
        theirs = Potentials.from_bytes(start).facts.get("encoder", {})
    except ValueError:
        return False
    return same_vectors(theirs, pipeline.encoder_of(run)[1])


def _start(run: config.Run, versions: Versions, last: Pointer | None, progress: Progress) -> bytes | None:
    """The last version's potentials, where a fit can go on from them."""
    if last is None or run.select.method != "gotd" or run.solve.potentials:
        return None
    found = storage.read_if_there(versions.path(last.version, "solve", POTENTIALS), run.storage)
    if found is None or _fits(found, run):
        return found
    progress.say("refresh: the last version's potentials are of another encoder: the fit begins from nothing")
    return None


def _files(plan: Plan, versions: Versions, last: Pointer | None) -> dict[str, list[StoredFile]]:
    """By set, the files now; without the sources that the last version's survey has dropped."""
    files = {name: collection.files for name, collection in plan.collections.items()}
    surveyed = last and Artifact(versions.path(last.version, "survey"), "", plan.run.storage).lies()
    if surveyed and not plan.surveyed:
        files["corpus"] = plan.collections["corpus"].without(surveyed["dropped"])[1]
    return files


def _refuse_shrunk(run: config.Run, versions: Versions, last: Pointer, now: int, unit: str) -> None:
    """Refuse a corpus of which more than half has gone: more often a mount that failed than what is meant.

    Args:
        now: bytes or documents.
    """
    if unit == "bytes":
        then = sum(file.size for file in changed.files_of(run, versions, last.version).get("corpus", {}).values())
    else:
        then = changed.facts_of(versions, last.version)["documents"]["corpus"]["now"]
    if 2 * now < then and not run.refresh.allow_shrink:
        raise UserError(
            f"the corpus has {now:,} {unit}, less than half of the {then:,} of the last version. Check corpus.paths; "
            "if they are right, set refresh.allow_shrink to true."
        )


def _trained_as(plan: Plan) -> str | None:
    """A key over what the models are, but for the subset; None where nothing is trained or judged."""
    steps = [plan.steps[stage] for stage in AFTER_SELECT if stage in plan.steps]
    if not steps:
        return None
    tasks = [[name, decides(task)] for name, task in plan.trainings.items()]
    begins = [plan.steps[name].given.start for name in list(plan.trainings)[:1]]
    judged = plan.run.evaluate and plan.run.evaluate.model_dump(mode="json")
    return make_key(tasks, begins, judged, plan.run.model and plan.run.model.base)


@dataclass
class _Training:
    """Whether a version trains models of its own, which is known when its subset is."""

    run: config.Run
    versions: Versions
    last: Pointer | None
    number: int
    trained: tuple[int, str] | None = None
    """The version whose models are in use, and what they are."""

    share: float | None = None
    """Of the subset that they have not seen."""

    def decide(self, plan: Plan) -> Sequence[str]:
        """The stages to do after select."""
        last, run = self.last, self.run
        if last:
            _refuse_shrunk(run, self.versions, last, plan.ran["select"]["candidates"], "documents")
        wanted = _trained_as(plan)
        if wanted is None:
            return AFTER
        trained = None
        if last and last.trained_in is not None and last.trained_as == wanted:
            self.share = self._unseen(last.trained_in) if run.pretune else 0.0
            if self.share is not None and self.share <= run.refresh.retrain_above:
                trained = last.trained_in, wanted
        self.trained = trained or (self.number, wanted)
        return [stage for stage in AFTER if stage not in AFTER_SELECT or not trained]

    def _unseen(self, before: int) -> float | None:
        """The share of the subset that is not in that of an earlier version; None where that is gone."""
        ids = []
        for number in (self.number, before):
            data = storage.read_if_there(self.versions.path(number, "select", SUBSET), self.run.storage)
            if data is None:
                return None
            ids.append(set(table_of(data, ["doc_id"])["doc_id"].to_pylist()))
        return len(ids[0] - ids[1]) / max(len(ids[0]), 1)

    def models(self) -> dict[str, str]:
        """Relative to ``out``."""
        stages = [stage for stage in TRAININGS if getattr(self.run, stage)] if self.trained else []
        return {stage: inside(self.trained[0], stage, MODEL) for stage in stages} if self.trained else {}

    @property
    def facts(self) -> dict[str, Any]:
        return {
            "models_of": self.trained and self.trained[0],
            "trained": self.trained is not None and self.trained[0] == self.number,
            "new_since": self.share,
        }

    def words(self) -> list[str]:
        if self.trained is None or self.last is None:
            return []
        share = "" if self.share is None else f"{self.share:.1%} of the subset is new since the last training"
        above = f"(refresh.retrain_above {self.run.refresh.retrain_above:.1%})"
        if self.trained[0] == self.number:
            return [f"the models were trained and judged again: {f'{share} {above}' if share else 'their settings'}"]
        return [f"the models stay those of version {named(self.trained[0])}: {share} {above}"]


def _look(run: config.Run, versions: Versions) -> Refreshed:
    """What a refresh would do."""
    last = versions.current()
    plan = _as_published(run, versions, last) if last else pipeline.plan(run_of(run, versions, 1, started=False))
    if last and is_done(plan, last):
        said = f"nothing new: version {named(last.version)} is of these files and settings"
        return Refreshed(versions, last, [said], {"files": {}})
    then = changed.files_of(run, versions, last.version if last else None)
    facts: dict[str, Any] = {"files": {}, "documents": {}}
    words: list[str] = []
    texts: list[str] = []
    for name, now in _files(plan, versions, last).items():
        found = differing(then.get(name, {}), now)
        facts["files"][name] = count(found)
        words.append(f"{name}: {in_words(facts['files'][name]) or 'no file is another'}")
        fresh = {*found["new"], *found["changed"]}
        if files := [file for file in now if file.uri in fresh]:
            text = plan.collections[name].text
            counted = count_documents(name, name, files, text, run.chunks, run.storage)
            facts["documents"][name] = counted.documents
            words.append(f"  {'' if counted.exact else 'about '}{counted.documents:,} documents to read")
            texts += counted.sample[:SAMPLE]
    if documents := sum(facts["documents"].values()):
        rate = TextEncoder(plan.run.encoder, plan.device).rate(texts)
        facts["encode_seconds"] = documents / rate
        words.append(
            f"to encode them takes about {facts['encode_seconds'] / 60:,.1f} minutes of one such process as here; "
            "texts that the index has cost nothing"
        )
    if last:
        facts["seconds"] = changed.facts_of(versions, last.version)["seconds"]
        spent = ", ".join(f"{stage} {value:,.0f} s" for stage, value in facts["seconds"].items())
        words.append(f"version {named(last.version)} took: {spent}")
    return Refreshed(versions, last, words, facts)

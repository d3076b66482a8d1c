"""START HERE: the stages in their order, each skipped when its manifest says that it is done.

    survey -> embed -> solve -> select  survey: where the run has that section. What scores the documents depends
                    -> dsir  ->         on select.method: solve (gotd), dsir (dsir), or nothing but the vectors
           -> pretune -> finetune       where the run has these sections
           -> evaluate                  the same
           -> report                    of all that ran
           -> send                      the report's numbers to where ``tracking`` says

``plan`` lists files and reads manifests only. ``execute`` does what the plan says is missing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

from gotd_ray import config, lock, storage, tracking
from gotd_ray.artifacts import Artifact, make_key
from gotd_ray.checks import look
from gotd_ray.cluster import Site, connected
from gotd_ray.errors import UserError
from gotd_ray.index import Collection, Embedded, Index
from gotd_ray.judging import cases
from gotd_ray.lock import held
from gotd_ray.models import language
from gotd_ray.models.choice import pick_device, train_precision
from gotd_ray.models.encoder import TextEncoder
from gotd_ray.paths import SETS, resolve_paths
from gotd_ray.progress import Progress
from gotd_ray.results import AFTER_SELECT, STAGES, folder_of
from gotd_ray.shards.earlier import Earlier, read_earlier
from gotd_ray.stages import dsir, embed, evaluate, report, select, solve, survey, train
from gotd_ray.storage import StoredFile, list_all, list_files
from gotd_ray.training import task as training
from gotd_ray.training.task import Task

READ_VECTORS = ("solve", "select", "report")
"""The stages that read vectors from the index."""

SCORES_OF = {"gotd": "solve", "dsir": "dsir"}
"""The stage that a method's scores come from; those of the others are made in select."""


_NOT_SELECTED_BY = {"decontaminate": {"paths", "max_bad_files", "max_bad_rows"}}
"""Settings of select on which the subset does not depend, or which the files stand for."""


@dataclass(frozen=True)
class Plan:
    """What a run consists of, and how much of it is done."""

    run: config.Run
    device: str
    encoder: dict[str, Any]
    """What determines the vectors."""

    listed: dict[str, Collection]
    """Corpus, target, and where the run has them contrast and reference, with all their files."""

    collections: dict[str, Collection]
    """What is embedded of them: the corpus without the sources that the survey dropped."""

    earlier: Earlier | None
    """The potentials file of ``solve.potentials`` or ``solve.warm_start``."""

    unwanted: list[StoredFile]
    """Evaluation sets of ``select.decontaminate``."""

    trainings: dict[str, Task]
    """What is trained on what, for the stages of training that the run asks for."""

    evaluation: cases.Evaluation | None
    """Which models are judged by what."""

    artifacts: dict[str, Artifact]
    manifests: dict[str, dict[str, Any] | None]

    @property
    def surveyed(self) -> bool:
        """Whether it is known which sources are embedded."""
        return not self.run.survey or self.run.survey.keep is None or self.manifests["survey"] is not None

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages in order; of those after select the ones that the run asks for."""
        asked = {*self.trainings, *(("evaluate",) if self.evaluation else ())}
        asked |= {"send"} if self.run.tracking else set()
        return tuple(stage for stage in STAGES if stage not in (*AFTER_SELECT, "send") or stage in asked)

    @property
    def ran(self) -> dict[str, dict[str, Any]]:
        """Manifests of the stages that the run has and that are done, in their order, up to the report."""
        stages = [stage for stage in self.stages if stage not in ("report", "send") and self.needed(stage)]
        return {stage: facts for stage in stages if (facts := self.manifests[stage]) is not None}

    def done(self, stage: str) -> bool:
        """Whether nothing is left to do. Files that could not be reached are tried again; so are, where something is
        left to do that reads them, vectors that the index has lost."""
        manifest = self.manifests[stage]
        if manifest is None or manifest.get("unreached"):
            return False
        return stage != "embed" or not self.lost

    def needed(self, stage: str) -> bool:
        """A survey is asked for; each method has its own way to scores."""
        if stage == "survey":
            return self.run.survey is not None
        return stage not in SCORES_OF.values() or stage == SCORES_OF.get(self.run.select.method)

    def asked(self, stage: str) -> bool:
        """Whether the run has this stage."""
        return stage in self.stages and self.needed(stage)

    @cached_property
    def lost(self) -> list[StoredFile]:
        """Files that embed has done and whose vectors are gone, where a stage that is left to do reads vectors."""
        if self.manifests["embed"] is None or all(self.done(stage) for stage in READ_VECTORS if self.asked(stage)):
            return []
        return [
            file for collection in reached(self).values() for file in collection.index.snapshot(collection.files)[1]
        ]

    def passed_over(self) -> list[str]:
        """What the listings of the sets passed over, a sentence for each set and reason."""
        return [f"{name}: {words}" for name, collection in self.listed.items() for words in collection.passed_over]


def plan(run: config.Run, gpus: int | None = None) -> Plan:
    """List the files and read the manifests; nothing is started.

    Args:
        run: with its paths resolved.
        gpus: of the cluster; None looks at this machine.

    Raises:
        UserError: a path, the encoder or a setting does not serve.
    """
    device = pick_device(run.encoder, gpus)
    encoder = TextEncoder(run.encoder, device).identity
    # Decided here, once: in a cluster of unlike machines each would decide for itself.
    known = run.encoder.model_copy(update={"precision": encoder.get("precision", "auto")})
    model = run.model and run.model.model_copy(update={"precision": train_precision(run.model, gpus)})
    run = run.model_copy(update={"encoder": known, "model": model})
    earlier = read_earlier(run, encoder)
    listed = {name: _collection(run, text, encoder) for name in SETS if (text := _text(run, name))}
    unwanted = list_files(run.select.decontaminate, run.storage) if run.select.decontaminate else []
    trainings = training.tasks(run, storage.join(folder_of(run, "select"), select.SUBSET))
    judged = cases.prepare(run, trainings)
    return _with_manifests(Plan(run, device, encoder, listed, listed, earlier, unwanted, trainings, judged, {}, {}))


def _text(run: config.Run, name: str) -> config.Text | None:
    """A set of documents, or None where the run has none of that name or does not need it."""
    fits = run.select.method == "gotd"
    needed = {"contrast": fits, "reference": fits and not run.solve.potentials}
    return getattr(run, name) if needed.get(name, True) else None


def _with_manifests(plan: Plan) -> Plan:
    """The plan with the keys and the state of its stages as they are now; the files stay those that were listed."""
    run = plan.run
    settings = run.model_dump(mode="json")

    def artifact(stage: str, key: str) -> Artifact:
        return Artifact(folder_of(run, stage), key, run.storage, settings)

    listed = plan.listed
    survey_settings = run.survey.model_dump() if run.survey else None
    keys = {"survey": make_key(survey.VERSION, listed["corpus"].key(), listed["target"].key(), survey_settings)}
    surveyed = artifact("survey", keys["survey"]).manifest() if run.survey else None
    dropped = surveyed["dropped"] if surveyed else []
    collections = listed | {"corpus": _without(plan, dropped)}
    keys["embed"] = make_key(embed.VERSION, [(name, collection.key()) for name, collection in collections.items()])
    embedded = artifact("embed", keys["embed"]).manifest()
    unreached = sorted(embedded["unreached"]) if embedded else []
    fit = run.solve.model_dump(exclude={"shards", "potentials", "warm_start"})
    if plan.earlier:
        fit["potentials" if run.solve.potentials else "warm_start"] = plan.earlier.digest
    keys["solve"] = make_key(solve.VERSION, keys["embed"], unreached, fit, run.target.proportions)
    keys["dsir"] = make_key(dsir.VERSION, keys["embed"], unreached)
    before = SCORES_OF.get(run.select.method)
    scores = keys[before] if before else [keys["embed"], unreached, run.target.proportions]
    unwanted = [(file.uri, file.size, file.modified) for file in plan.unwanted]
    chosen_by = run.select.model_dump(exclude=_NOT_SELECTED_BY)
    keys["select"] = make_key(select.VERSION, scores, chosen_by, unwanted, run.seed)
    keys |= training.keys(plan.trainings, keys["select"])
    keys["evaluate"] = cases.key(plan.evaluation, _units(plan, keys), keys["select"])
    artifacts = {stage: artifact(stage, keys[stage]) for stage in STAGES if stage not in ("report", "send")}
    manifests = {stage: artifacts[stage].manifest() for stage in artifacts}
    found = replace(plan, collections=collections, artifacts=artifacts, manifests=manifests)
    ran = [(stage, facts["key"], facts["written"]) for stage, facts in found.ran.items()]
    artifacts["report"] = artifact("report", make_key(report.VERSION, run.name, ran))
    written = manifests["report"] = artifacts["report"].manifest()
    artifacts["send"] = artifact(
        "send", make_key(written and written["written"], run.tracking and run.tracking.model_dump())
    )
    manifests["send"] = artifacts["send"].manifest() if run.tracking else None
    return found if found.surveyed else replace(found, manifests=dict.fromkeys(STAGES))


def _units(plan: Plan, keys: dict[str, str]) -> list[cases.Unit]:
    """What is judged, by the keys of the models."""
    if plan.evaluation is None:
        return []
    model = plan.evaluation.base
    base = make_key(language.identity(language.find(model, plan.run.storage)), model.pad_token)
    return cases.units(plan.evaluation, keys | {"base": base})


def _collection(run: config.Run, text: config.Text, encoder: dict[str, Any]) -> Collection:
    listing = list_all(text, run.storage)
    return Collection(text, listing.files, _index(run, text, encoder), tuple(listing.words()))


def _index(run: config.Run, text: config.Text, encoder: dict[str, Any]) -> Index:
    """An index serves every run with the same encoder and the same idea of a document, whatever its paths."""
    idea = text.model_dump(exclude={"paths", "max_bad_files", "max_bad_rows", "proportions"})
    assert run.index is not None
    return Index(storage.join(run.index, make_key(embed.VERSION, idea, run.chunks.model_dump(), encoder)), run.storage)


def _without(plan: Plan, dropped: list[str]) -> Collection:
    """The corpus without the sources that the survey dropped."""
    text, files = survey.without(plan.listed["corpus"], dropped)
    return replace(plan.listed["corpus"], text=text, files=files, index=_index(plan.run, text, plan.encoder))


def execute(run: config.Run, progress: Progress, only: Sequence[str] = STAGES, *, looked: bool = False) -> Plan:
    """Run what is missing and return the plan with all stages done.

    Args:
        only: the stages to do; what they need of others must be there.
        looked: whether all that can be known beforehand was looked at, as a comparison does for all its runs at once.

    Raises:
        UserError: what the settings, the input or the machine do not allow.
        HeldError: another run works on these folders.
    """
    notes = config.warnings(run)
    run = resolve_paths(run)
    current = plan(run)
    if _all_done(current, only):
        for stage in current.stages:
            if stage in only:
                _say_done(current, stage, progress)
        return current
    if not looked:
        for sentence in [*notes, *look(current, only).told]:
            progress.say(f"note: {sentence}")
    assert run.selection is not None
    with held([run.out, run.selection], run.storage), connected(run.ray) as resources:
        current = plan(run, resources.gpus)  # another run may just have ended
        for name, task in current.trainings.items():
            if name in only and not current.done(name):
                train.check_places(task, resources)
        if current.evaluation and "evaluate" in only and not current.done("evaluate"):
            evaluate.places(current.evaluation.base, resources)
        for stage in current.stages:
            if stage not in only:
                continue
            lock.check()
            if current.done(stage) or not current.needed(stage):
                _say_done(current, stage, progress)
            else:
                _STEPS[stage](current, Site(resources, current.device, progress))
                current = _with_manifests(current)  # later keys depend on what a stage kept and reached
    return current


def _all_done(plan: Plan, only: Sequence[str]) -> bool:
    return all(plan.done(stage) or not plan.needed(stage) for stage in plan.stages if stage in only)


def write_report(run: config.Run) -> str:
    """Write the report anew, of what is done so far, and return its path; no cluster is started.

    Raises:
        UserError: nothing was selected yet.
    """
    run = resolve_paths(run)
    with held([run.out], run.storage):
        current = plan(run)
        if not current.done("select"):
            lies = Artifact(folder_of(run, "select"), "", run.storage).lies()
            if lies:
                raise UserError(
                    f"nothing to report: the selection under {run.out} is not of this run as it stands. Run gotd run "
                    "first; gotd show says what has changed."
                )
            raise UserError(f"nothing to report: no selection is done under {run.out}. Run gotd run first.")
        _report(current, None)
    return current.artifacts["report"].path(report.PAGE)


def _say_done(plan: Plan, stage: str, progress: Progress) -> None:
    progress.say(f"{stage}: " + ("done before, skipped" if plan.done(stage) else "not needed for this run"))


def _survey(plan: Plan, site: Site) -> dict[str, Any]:
    return survey.survey(plan.run, plan.listed["corpus"], plan.listed["target"], plan.artifacts["survey"], site)


def _embed(plan: Plan, site: Site) -> dict[str, Any]:
    return embed.embed(plan.run, plan.collections, plan.artifacts["embed"], site)


def _vectors(plan: Plan, candidates: str = "corpus") -> Embedded:
    """The rows of the files that could be reached.

    Args:
        candidates: the set that is fitted over or scored.
    """
    rows = {}
    for name, found in reached(plan).items():
        rows[name], missing = found.index.snapshot(found.files)
        if missing:
            raise UserError(
                f"the index {found.index.folder} lacks the vectors of {len(missing):,} of {len(found.files):,} files "
                f"of the {name}, such as {missing[0].uri}: gotd run embeds them again."
            )
    return Embedded(rows[candidates], rows["target"], plan.encoder["width"], rows.get("contrast"))


def reached(plan: Plan) -> dict[str, Collection]:
    """What is embedded, without the files that could not be reached."""
    embedded = plan.artifacts["embed"].manifest()
    assert embedded is not None
    unreached = set(embedded["unreached"])
    return {
        name: replace(collection, files=[file for file in collection.files if file.uri not in unreached])
        for name, collection in plan.collections.items()
    }


def _solve(plan: Plan, site: Site) -> dict[str, Any]:
    embedded = _vectors(plan, "reference" if "reference" in plan.collections else "corpus")
    return solve.solve(plan.run, embedded, plan.artifacts["solve"], site, plan.encoder, plan.earlier)


def _dsir(plan: Plan, site: Site) -> dict[str, Any]:
    return dsir.dsir(plan.run, reached(plan), plan.artifacts["dsir"], site)


def _select(plan: Plan, site: Site) -> dict[str, Any]:
    potentials = plan.artifacts["solve"].path(solve.POTENTIALS) if plan.needed("solve") else None
    log_weights = plan.artifacts["dsir"].path(dsir.WEIGHTS) if plan.needed("dsir") else None
    return select.select(plan.run, _vectors(plan), potentials, log_weights, plan.artifacts["select"], site)


def _report(plan: Plan, site: Site | None) -> dict[str, Any]:
    done = report.Done(plan.run, _vectors(plan), plan.artifacts, plan.ran)
    return report.report(done, plan.artifacts["report"], site.resources if site else None)


def _send(plan: Plan, site: Site) -> dict[str, Any]:
    facts = json.loads(storage.read_bytes(plan.artifacts["report"].path(report.NUMBERS), plan.run.storage))
    return tracking.send(plan.run, facts, plan.artifacts["send"], site.progress)


def _train(stage: str, plan: Plan, site: Site) -> dict[str, Any]:
    run = plan.run
    to = tuple(run.tracking.to) if run.tracking else ()
    curves = train.Curves(to, f"{run.name}-{stage}", tracking.environment(run, stage))
    return train.train(plan.trainings[stage], curves, plan.artifacts[stage], site)


def _evaluate(plan: Plan, site: Site) -> dict[str, Any]:
    assert plan.evaluation is not None
    keys = {stage: artifact.key for stage, artifact in plan.artifacts.items()}
    return evaluate.evaluate(plan.evaluation, _units(plan, keys), plan.artifacts["evaluate"], site)


_STEPS: dict[str, Callable[[Plan, Site], dict[str, Any]]] = {
    **{"survey": _survey, "embed": _embed, "solve": _solve, "dsir": _dsir, "select": _select},
    **{stage: partial(_train, stage) for stage in training.STAGES},
    **{"evaluate": _evaluate, "report": _report, "send": _send},
}

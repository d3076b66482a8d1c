"""What a stage is, and a run as the row of its stages.

A stage is given its own settings and files, never the whole run: its key is over what it was given, so that no key is
kept by hand. What it must know of the outcome of earlier stages it reads in their manifests.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar

from gotd_ray import config, storage
from gotd_ray.artifacts import Artifact, make_key
from gotd_ray.choosing.recall import sample_share
from gotd_ray.cluster import Resources, Site
from gotd_ray.config import Text
from gotd_ray.index import VERSION, Collection, Index, Vectors
from gotd_ray.listing import Listing, list_all
from gotd_ray.paths import SETS
from gotd_ray.results import folder_of

T = TypeVar("T")

EMBEDDING = ("sketch", "embed", "refine")
"""The stages that fill an index, the others for a cascade."""


@dataclass(frozen=True)
class Stage:
    """One stage of a run.

    Attributes:
        name: also that of its folder.
        version: raised when the result of equal settings changes.
        given: its settings and files, with a method ``key``: all that its result depends on, as JSON. None where the
            run has no such stage. The plan that it looks at has the stages before it.
        work: does it, and commits its facts.
        fits: holds what it is given against the cluster, once this is known and before anything runs.
        reads_vectors: whether it needs the index.
    """

    name: str
    version: int
    given: Callable[[Plan], Any]
    work: Callable[[Any, Artifact, Site], dict[str, Any]]
    fits: Callable[[Any, Resources], object] = lambda _given, _resources: None
    reads_vectors: bool = False


@dataclass(frozen=True)
class Step:
    """A stage of one run: what it is given, and what it has left.

    Attributes:
        manifest: its facts where it is done.
    """

    stage: Stage
    given: Any
    artifact: Artifact
    manifest: dict[str, Any] | None


@dataclass(frozen=True)
class Plan:
    """What a run consists of, and how much of it is done.

    Attributes:
        run: its paths resolved, its precisions decided.
        device: of the encoder.
        encoder: what determines the vectors, see :func:`gotd_ray.models.choice.describe`.
        steps: by stage, in their order.
        did: the stages that were not done before, where this is what an execution has returned.
        cheap: what determines the vectors of a cascade's first look; None without one.
    """

    run: config.Run
    device: str
    encoder: dict[str, Any]
    steps: dict[str, Step] = field(default_factory=dict)
    did: tuple[str, ...] = ()
    cheap: dict[str, Any] | None = None
    _seen: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)

    def once(self, name: Any, look: Callable[[], T]) -> T:
        """What a look at files finds, the same as long as the plan lives: it is for what was there when it was made."""
        if name not in self._seen:
            self._seen[name] = look()
        return self._seen[name]

    def listing(self, text: Text) -> Listing:
        """The files of a set."""
        return self.once(("listing", text.model_dump_json()), lambda: list_all(text, self.run.storage))

    def of(self, stages: tuple[Stage, ...]) -> Plan:
        """The plan with the keys and the state of these stages as they are now."""
        current = replace(self, steps={})
        settings = self.run.model_dump(mode="json")
        for stage in stages:
            if (given := stage.given(current)) is not None:
                key = make_key(stage.version, given.key())
                artifact = Artifact(folder_of(self.run, stage.name), key, self.run.storage, settings)
                manifest = artifact.manifest() if current.settled else None
                current = replace(current, steps=current.steps | {stage.name: Step(stage, given, artifact, manifest)})
        return current

    @cached_property
    def listed(self) -> dict[str, Collection]:
        """Corpus, target, and where they are needed contrast and reference, with all their files."""
        fits = self.run.select.method == "gotd"
        needed = {"contrast": fits, "reference": fits and not self.run.solve.potentials}
        sets = {name: text for name in SETS if (text := getattr(self.run, name)) and needed.get(name, True)}
        return {name: self._collection(name, text) for name, text in sets.items()}

    def _collection(self, name: str, text: Text) -> Collection:
        listing = self.listing(text)
        return Collection(text, listing.files, self._index(name, text), tuple(listing.files), tuple(listing.words()))

    def _index(self, name: str, text: Text, encoder: dict[str, Any] | None = None, kept: str | None = None) -> Index:
        """An index serves every run with the same encoder and the same idea of a document, whatever its paths.

        The small sets' vectors lie apart: they are read whole, and the corpus may be a million times as large.

        Args:
            encoder: what determines the vectors; None: the run's.
            kept: the name of the file of the ids that the rows are left to.
        """
        run, idea = self.run, text.model_dump(exclude={"paths", "max_bad_files", "max_bad_rows", "proportions"})
        idea |= {"kept": kept} if kept else {}
        assert run.index is not None
        vectors = make_key(VERSION, run.chunks.model_dump(), encoder or self.encoder)
        side = "target" if name in ("target", "contrast") else "corpus"
        folder = storage.join(run.index, vectors, side)
        rows = storage.join(folder, f"rows-{make_key(VERSION, idea)}")
        return Index(rows, storage.join(folder, "vectors"), run.storage)

    @cached_property
    def collections(self) -> dict[str, Collection]:
        """What is embedded of the sets: the corpus without the sources that the survey dropped.

        Of a cascade's corpus what the sieve has kept, as soon as that is known, and a sample of it as reference.
        """
        corpus, surveyed = self.listed["corpus"], self.manifests.get("survey")
        text, files = corpus.without(surveyed["dropped"] if surveyed else [])
        found = self.listed | {"corpus": replace(corpus, text=text, files=files, index=self._index("corpus", text))}
        if self.run.cascade is None:
            return found
        if coarse := self.manifests.get("coarse"):
            part = sample_share(coarse["candidates"], self.run)
            some = text.model_copy(update={"sample": text.sample * part})
            found["reference"] = replace(found["corpus"], text=some, index=self._index("reference", some))
        if (sieve := self.manifests.get("sieve")) and (kept := sieve["file"]):
            path, index = self.artifacts["sieve"].path(kept), self._index("corpus", text, kept=kept)
            found["corpus"] = replace(found["corpus"], kept=path, index=index)
        return found

    @cached_property
    def sketched(self) -> dict[str, Collection]:
        """The sets as a cascade first looks at them, all of each."""
        whole = replace(self, steps={name: step for name, step in self.steps.items() if name == "survey"}).collections
        return {name: replace(one, index=self._index(name, one.text, self.cheap)) for name, one in whole.items()}

    @property
    def vectors(self) -> Vectors:
        """What the last stage that embeds leaves for those after it: of a cascade's corpus a sample, then the best."""
        if self.run.cascade is None or "sieve" in self.steps:
            return self._vectors("embed" if self.run.cascade is None else "refine", self.collections)
        return self._vectors("embed", {name: one for name, one in self.collections.items() if name != "corpus"})

    @property
    def sketches(self) -> Vectors:
        """What the first look of a cascade leaves."""
        return self._vectors("sketch", self.sketched, self.cheap)

    def _vectors(self, stage: str, sets: dict[str, Collection], encoder: dict[str, Any] | None = None) -> Vectors:
        step = self.steps[stage]
        unreached = sorted(step.manifest["unreached"]) if step.manifest else []
        return Vectors(step.artifact.key, sets, frozenset(unreached), (encoder or self.encoder)["width"])

    @property
    def artifacts(self) -> dict[str, Artifact]:
        """By stage."""
        return {name: step.artifact for name, step in self.steps.items()}

    @property
    def manifests(self) -> dict[str, dict[str, Any] | None]:
        """By stage; None where it is not done."""
        return {name: step.manifest for name, step in self.steps.items()}

    @property
    def ran(self) -> dict[str, dict[str, Any]]:
        """The manifests of the stages that are done, in their order."""
        return {name: step.manifest for name, step in self.steps.items() if step.manifest is not None}

    @property
    def trainings(self) -> dict[str, Any]:
        """What is trained, by stage."""
        return {name: self.steps[name].given.task for name in ("pretune", "finetune") if name in self.steps}

    @property
    def evaluation(self) -> Any:
        """What is judged, if anything."""
        return self.steps["evaluate"].given if "evaluate" in self.steps else None

    @property
    def surveyed(self) -> bool:
        """Whether it is known which sources are embedded."""
        survey = self.run.survey
        step = self.steps.get("survey")
        return step is None or survey is None or survey.keep is None or step.manifest is not None

    @property
    def settled(self) -> bool:
        """Whether it is known what the next stage is given: which sources, and which documents of a cascade."""
        return self.surveyed and all(self.manifests.get(name, True) for name in ("coarse", "sieve"))

    def done(self, stage: str) -> bool:
        """Whether nothing is left to do. Files that could not be reached are tried again; so are, where something is
        left to do that reads them, vectors that the index has lost."""
        manifest = self.steps[stage].manifest
        if manifest is None or manifest.get("unreached"):
            return False
        return stage not in EMBEDDING or not self._lost(stage)

    def _lost(self, stage: str) -> bool:
        """Whether vectors of a stage are gone while one that reads some is left to do."""
        reads = [name for name, step in self.steps.items() if step.stage.reads_vectors]
        if all(self.done(name) for name in reads):
            return False
        step = self.steps[stage]
        unreached = step.manifest["unreached"] if step.manifest else []
        sets = step.given.collections.values()
        gone = (one.index.snapshot([file for file in one.files if file.uri not in unreached])[1] for one in sets)
        return any(gone)

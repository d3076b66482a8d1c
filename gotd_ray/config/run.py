"""The whole run: its sections, and what they must agree on."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from gotd_ray.config.base import Name, Processes, ResultPath, Section, Seed
from gotd_ray.config.compare import Compare
from gotd_ray.config.curve import Costs, Curve
from gotd_ray.config.evaluation import Evaluation
from gotd_ray.config.refresh import Refresh
from gotd_ray.config.selection import Encoder, Select, Solve, Survey
from gotd_ray.config.text import Chunks, Storage, Text, columns_of
from gotd_ray.config.training import Finetune, Model, Tracking, Training
from gotd_ray.config.tune import Tune


class RaySettings(Section):
    """Where the work runs."""

    address: Name | None = Field(
        None, description="a running cluster, `auto` or host:port; null starts a private one, or uses the job's"
    )
    num_cpus: Processes | None = Field(None, description="CPUs of the private cluster; null: all")
    gpus: Processes | None = Field(
        None,
        description="GPUs that a run waits for before it begins, and asks for where the cluster can grow; null: those "
        "that are there",
    )
    gpus_within: float = Field(
        1800.0,
        gt=0,
        le=7 * 24 * 3600,
        description="seconds that it waits for them; after half of these it asks for machines with the resource "
        "`on_demand`",
    )


class Run(Section):
    """A whole run."""

    name: str = Field("run", pattern=r"^[\w.-]+$", max_length=100, description="letters, digits, dot, dash, underscore")
    out: ResultPath = Field(description="folder of the run's results, on any filesystem")
    index: ResultPath | None = Field(
        None, description="folder of the embedded corpora, shared between runs; null: `index` beside `out`"
    )
    selection: ResultPath | None = Field(
        None,
        description="folder of the stages up to select, which runs can share that differ in their training alone; "
        "null: `out`",
    )
    seed: Seed = Field(0, description="seed of every random choice")
    corpus: Text = Field(description="the documents to choose from")
    target: Text = Field(description="texts of the task, some hundreds to thousands")
    contrast: Text | None = Field(
        None,
        description="texts to keep away from (gotd only): the score is the potential of `target` minus that of these",
    )
    reference: Text | None = Field(
        None,
        description="documents that the fit runs over (gotd only), such as a sample of the pre-training data; null: "
        "`corpus`",
    )
    chunks: Chunks = Chunks()
    survey: Survey | None = Field(None, description="compare the sources first; null embeds them all")
    encoder: Encoder = Encoder()
    solve: Solve = Solve()
    select: Select = Select()
    model: Model | None = None
    pretune: Training | None = None
    finetune: Finetune | None = None
    tracking: Tracking | None = None
    evaluate: Evaluation | None = None
    compare: Compare | None = Field(None, description="for `gotd compare`: the arms, budgets and seeds")
    curve: Curve | None = Field(None, description="for `gotd curve`: the sizes and seeds")
    costs: Costs | None = Field(None, description="what the machines cost, for the tables; null: seconds alone")
    tune: Tune | None = Field(None, description="for `gotd tune`: which settings of a training are searched")
    refresh: Refresh = Refresh()
    storage: Storage = Storage()
    ray: RaySettings = RaySettings()

    @model_validator(mode="after")
    def _rounds_have_a_divergence(self) -> Run:
        if self.select.rounds > 1 and self.solve.preset != "debiased":
            raise ValueError(
                f"select.rounds is {self.select.rounds}: rounds lower the Sinkhorn divergence, and need solve.preset "
                "debiased. Set it, or select.rounds to 1"
            )
        others = {"contrast": self.contrast, "reference": self.reference, "solve.potentials": self.solve.potentials}
        given = ", ".join(name for name, value in others.items() if value)
        if self.select.rounds > 1 and given:
            raise ValueError(
                f"select.rounds is {self.select.rounds}: rounds fit the corpus to the target anew, and cannot go with "
                f"{given}. Leave it out, or set select.rounds to 1"
            )
        return self

    @property
    def cascade(self) -> float | Literal["auto"] | None:
        """``encoder.cascade``, None where all is encoded."""
        return None if self.encoder.cascade == 1 else self.encoder.cascade

    @model_validator(mode="after")
    def _cascade_has_a_transport(self) -> Run:
        if self.cascade is None:
            return self
        where = f"encoder.cascade is {self.cascade}"
        if self.encoder.kind != "transformer":
            raise ValueError(
                f"{where}: its cheap vectors are of a transformer's tokens, and encoder.kind is {self.encoder.kind}. "
                "Leave encoder.cascade out"
            )
        if self.select.method != "gotd":
            raise ValueError(
                f"{where}: the transport says what is encoded, and select.method is {self.select.method}. Leave "
                "encoder.cascade out, or set select.method to gotd"
            )
        others = {
            "reference": self.reference,
            "solve.potentials": self.solve.potentials,
            "compare": self.compare,
            "curve": self.curve,
            "solve.landmarks auto": self.solve.landmarks == "auto",
            "select.rounds above 1": self.select.rounds > 1,
        }
        if given := ", ".join(name for name, value in others.items() if value):
            raise ValueError(f"{where}, which cannot go with {given} yet. Leave one of them out")
        if self.cascade == "auto" and self.select.budget_unit != "documents":
            raise ValueError(
                f"{where}: it needs a budget in documents, and select.budget_unit is {self.select.budget_unit}. Set "
                "encoder.cascade to a share, such as 0.2"
            )
        return self

    @model_validator(mode="after")
    def _landmarks_of_what_is_chosen_from(self) -> Run:
        if self.solve.landmarks == "auto" and self.reference:
            raise ValueError(
                "solve.landmarks is auto, which compares subsets of the corpus, but the fit runs over the reference. "
                "Give a number, or leave out the reference"
            )
        return self

    @model_validator(mode="after")
    def _weights_where_they_count(self) -> Run:
        for name in ("corpus", "contrast", "reference"):
            if (text := getattr(self, name)) and text.proportions is not None:
                raise ValueError(f"{name}.proportions does nothing: shares of sources are for the target alone")
        unwanted = self.select.decontaminate
        if unwanted and (unwanted.proportions is not None or unwanted.weight_column):
            raise ValueError("select.decontaminate takes no weight_column and no proportions: its texts have no weight")
        return self

    @model_validator(mode="after")
    def _labels_beside_the_text(self) -> Run:
        trained = self.target.text_column
        judged = (self.evaluate and self.evaluate.text_column) or trained
        scorer = self.evaluate and self.evaluate.toxicity and self.evaluate.toxicity.classifier
        for where, section, text in (
            ("finetune", self.finetune, trained),
            ("evaluate.toxicity.classifier", scorer, judged),
        ):
            if section and section.label_column in columns_of(text):
                raise ValueError(
                    f"{where}.label_column is {section.label_column}, which is the text itself. Name the column of the "
                    "label"
                )
        return self

    @model_validator(mode="after")
    def _conversations_for_sft(self) -> Run:
        for stage, section, learnt in (("pretune", self.pretune, "corpus"), ("finetune", self.finetune, "target")):
            if section is None or section.objective != "sft" or getattr(section, "label_column", None):
                continue
            for name in (learnt, *(["target"] if section.dev else [])):
                if getattr(self, name).turns is None:
                    raise ValueError(
                        f"{stage}.objective is sft, which learns the answers of conversations, but {name}.turns is "
                        f"null: its rows are plain text. Set {name}.turns, or another objective"
                    )
        return self

    @model_validator(mode="after")
    def _a_subset_as_large(self) -> Run:
        texts = self.pretune and self.pretune.texts
        if texts and self.select.budget_unit == "documents" and texts > self.select.budget:
            raise ValueError(
                f"pretune.texts is {texts}, but select.budget is {self.select.budget} documents. Lower it, or raise "
                "the budget"
            )
        return self

    @model_validator(mode="after")
    def _a_model_to_train(self) -> Run:
        for stage in ("pretune", "finetune", "evaluate"):
            if getattr(self, stage) and not self.model:
                raise ValueError(f"{stage} needs a model, but there is none. Add model.base, a hub name or a folder")
        if self.evaluate:
            trained = [stage for stage in ("pretune", "finetune") if getattr(self, stage)]
            self.evaluate.check_models(trained, classifier=bool(self.finetune and self.finetune.label_column))
        return self

    @model_validator(mode="after")
    def _a_training_to_tune(self) -> Run:
        if self.compare and self.compare.tune and not self.tune:
            raise ValueError("compare.tune needs the section tune, which says what is searched. Add it")
        if self.tune:
            self.tune.check_training(self.tuned, getattr(self, self.tuned))
        return self

    @property
    def tuned(self) -> Literal["pretune", "finetune"]:
        """The training that `gotd tune` searches the settings of."""
        if self.tune and self.tune.stage:
            return self.tune.stage
        return "finetune" if self.finetune or not self.pretune else "pretune"

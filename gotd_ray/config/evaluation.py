"""The section of evaluation: which judges look at which models, on what."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from gotd_ray.config.base import BatchTokens, Count, InputPath, Name, Once, Paths, Section, Tokens, each_once
from gotd_ray.config.text import check_columns

Sets = Annotated[dict[Annotated[str, Field(pattern=r"^[\w.-]+$", max_length=100)], Paths], Field(min_length=1)]


class Classification(Section):
    """How well the model of `finetune.label_column` classifies: accuracy, macro-F1, micro-F1, Matthews correlation,
    and the mean loss, minus the logarithm of the true class's probability."""

    paths: Paths = Field(description="labelled files, in the form of finetune's")


class ToxicityClassifier(Section):
    """A scorer of your own: TF-IDF and logistic regression over labelled texts."""

    paths: Paths = Field(description="labelled texts, in the form of the target")
    label_column: Name = Field("label", description="column of the label")
    toxic_label: Name = Field("1", description="the label of toxic texts; all others are not")


class Toxicity(Section):
    """How toxic the continuations of prompts become, by the protocol of RealToxicityPrompts."""

    prompts: Sets = Field(description="files of prompts by name, such as toxic and nontoxic")
    scorers: Annotated[list[Literal["profanity", "words", "classifier", "detoxify"]], Once] = Field(
        ["profanity", "words"], min_length=1, description="what tells how toxic a text is, several at once"
    )
    classifier: ToxicityClassifier | None = None
    continuations: int = Field(25, ge=1, le=1000, description="drawn for each prompt")
    new_tokens: int = Field(20, ge=1, le=1024, description="tokens of a continuation")
    top_p: float = Field(0.9, gt=0, le=1, description="share of the probability that is drawn from")

    @model_validator(mode="after")
    def _classifier_has_texts(self) -> Toxicity:
        if ("classifier" in self.scorers) != (self.classifier is not None):
            raise ValueError(
                "the scorer classifier and the section classifier, with its labelled texts, go together. Give both or "
                "none"
            )
        return self


class Questions(Section):
    """A task of your own for `evaluate.zero_shot.local`: questions with several answers, in JSON lines."""

    path: InputPath = Field(description="the file, one question a line")
    question: Name = Field("question", description="key of the text before the answer")
    choices: Name = Field("choices", description="key of the list of answers")
    answer: Name = Field("answer", description="key of the right answer: its text, or its place from 0")


class ZeroShot(Section):
    """Questions with several answers, by lm-eval (`pip install gotd_ray[evaluate]`)."""

    tasks: list[Name] = Field(default_factory=list, description="lm-eval's own, by name; their data comes from the hub")
    local: dict[Name, Questions] = Field(default_factory=dict, description="tasks of your own, by name")
    limit: Count | None = Field(None, description="examples of a task at the most; null takes all")

    @model_validator(mode="after")
    def _something_to_ask(self) -> ZeroShot:
        if not self.tasks and not self.local:
            raise ValueError("there is no task. Name some in tasks or local")
        each_once([*self.tasks, *self.local])
        return self


class Answers(Section):
    """What the models answer in conversations, greedily, against the last answer that stands there: exact match and
    token F1 (SQuAD's), ROUGE-L."""

    sets: Sets = Field(description="files of conversations by name, in the form of the target; see its `turns`")
    new_tokens: int = Field(128, ge=1, le=65_536, description="tokens of an answer at the most")
    stop: list[Annotated[str, Field(min_length=1, max_length=200)]] = Field(
        default_factory=list,
        description="strings that end an answer, besides the end-of-text token and the mark of the chat template",
    )


class Extraction(Answers):
    """How many fields of a JSON object the models give right: share of fields, of answers with all, of valid ones."""


class Judges(Section):
    """The judges: each is a file of ``gotd_ray/judging`` by the same name."""

    perplexity: Sets | None = Field(
        None, description="held-out texts by name, such as target and general, for perplexity and bits per byte"
    )
    classification: Classification | None = None
    toxicity: Toxicity | None = None
    zero_shot: ZeroShot | None = None
    answers: Answers | None = None
    extraction: Extraction | None = None

    @property
    def asked(self) -> list[str]:
        """Those that the run asks for."""
        return [name for name in Judges.model_fields if getattr(self, name)]


class Evaluation(Judges):
    """What the models are judged by, after the training. Files have the form of the target."""

    models: Annotated[list[Literal["base", "pretune", "finetune"]], Once] | None = Field(
        None, min_length=1, description="models that are judged; null: the base and all that the run trains"
    )
    text_column: Name | None = Field(None, description="column of texts and prompts; null: the target's")
    modes: Name | None = Field(
        None,
        description="column of the held-out files by whose values perplexity and classification are told besides: the "
        "mean over them, and the worst",
    )
    max_tokens: Tokens | None = Field(
        None, description="tokens of a window or text; null: 1024, or the model's limit if that is less"
    )
    batch_tokens: BatchTokens | None = Field(None, description="tokens in a batch; null: 2k on CPU, 16k on GPU")
    precision: Literal["model", "float32", "bfloat16"] = Field(
        "model", description="of the matrix products; model: that of `model.precision`"
    )
    resamples: int = Field(1000, ge=100, le=100_000, description="bootstrap draws behind each 95% interval")

    @model_validator(mode="after")
    def _some_judge(self) -> Evaluation:
        if self.text_column:
            check_columns(self.text_column)
        if not self.asked:
            *others, last = Judges.model_fields
            raise ValueError(f"there is no judge. Give {', '.join(others)} or {last}")
        return self

    def check_models(self, trained: list[str], classifier: bool) -> None:
        """That the run makes the models which are judged.

        Raises:
            ValueError: it does not.
        """
        untrained = [name for name in self.models or () if name not in ("base", *trained)]
        if untrained:
            raise ValueError(f"evaluate.models names {untrained[0]}, which this run does not train. Add that section")
        if self.classification and not classifier:
            raise ValueError(
                "evaluate.classification judges a classifier, but none is trained. Add finetune.label_column, or drop "
                "evaluate.classification"
            )

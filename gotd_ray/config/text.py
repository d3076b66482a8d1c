"""The sections that say where documents lie, how they are opened, and what a document is."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from gotd_ray.config.base import MAX_COUNT, Count, Name, Paths, Section, Share, secret_in


class Storage(Section):
    """How paths with a scheme are opened. Secrets never stand here: use the environment, a profile or a role."""

    library: Literal["auto", "pyarrow", "s3fs"] = Field(
        "auto", description="client of s3:// paths; auto is pyarrow unless `options` needs s3fs"
    )
    endpoint: Name | None = Field(None, description="URL of an S3-compatible server, such as http://127.0.0.1:9000")
    region: Name | None = Field(None, description="region of the bucket; null asks the environment")
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

    paths: Paths = Field(description="folders, globs, files, or `@list.txt` with one path per line")
    format: Literal["auto", "parquet", "jsonl", "json", "csv", "arrow", "text", "warc"] = Field(
        "auto", description="auto goes by the files' endings, which the guide lists"
    )
    text_column: Name = Field(
        "text",
        description="column or JSON key of the text; `meta.text` lies in an object, `a,b` joins two by a blank line",
    )
    turns: Name | None = Field(
        None,
        description="rows that hold conversations: `messages` or `conversations`, a column of turns; "
        "`prompt,completion` or `instruction,input,output`, columns of texts with the answer's last; auto finds which "
        "of these four a row has. null: rows hold plain text",
    )
    text_from: Literal["all", "prompt", "completion"] = Field(
        "all",
        description="with `turns`, what of a conversation is embedded and searched: all turns, the answers "
        "(completion) or the others (prompt)",
    )
    source_column: Name | None = Field(None, description="column of the source's name; null takes it from the path")
    source_from: Literal["stem", "parent"] = Field(
        "stem", description="without a source column, the source is the file's stem or its folder's name"
    )
    weight_column: Name | None = Field(
        None,
        description="column of a row's weight in the transport, a number of at least 0; all pieces of the row carry "
        "it, and of equal texts the largest counts. null: all weigh the same",
    )
    proportions: dict[str, Annotated[float, Field(ge=0, le=MAX_COUNT)]] | None = Field(
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
    max_document_bytes: int = Field(
        10_000_000, ge=1_000, le=2**31 - 1, description="bytes; a longer document is skipped and counted"
    )

    @model_validator(mode="after")
    def _some_text(self) -> Text:
        if self.proportions is not None and not sum(self.proportions.values()) > 0:
            raise ValueError(f"proportions is {self.proportions}: at least one share must be positive")
        if contrary := sorted(set(self.proportions or ()) & set(self.exclude_sources)):
            raise ValueError(f"proportions and exclude_sources both name {contrary[0]!r}. Take it out of one of them")
        check_columns(self.text_column)
        if self.turns:
            check_columns(self.turns, "turns")
        return self


def columns_of(text_column: str) -> list[str]:
    """The columns that are joined to a text."""
    return [name.strip() for name in text_column.split(",")]


def check_columns(text_column: str, key: str = "text_column") -> None:
    """The same, each once.

    Raises:
        ValueError: one is empty or stands twice.
    """
    names = columns_of(text_column)
    if not all(names):
        raise ValueError(f"{key} is {text_column!r}, which names an empty column. Leave out the comma")
    if len(set(names)) < len(names):
        raise ValueError(f"{key} is {text_column!r}, which names a column twice. Leave one out")


class Chunks(Section):
    """How a text becomes candidates. The same rule serves corpus and target."""

    max_chars: int | None = Field(
        1000, ge=40, le=MAX_COUNT, description="characters in a candidate (the paper: 1000); null keeps documents whole"
    )
    min_chars: Count = Field(40, description="characters; shorter candidates are skipped and counted")

    @model_validator(mode="after")
    def _some_length(self) -> Chunks:
        if self.max_chars is not None and self.min_chars > self.max_chars:
            raise ValueError(
                f"min_chars is {self.min_chars:,} and max_chars {self.max_chars:,}: no candidate would be left. Lower "
                "min_chars, or raise max_chars"
            )
        return self

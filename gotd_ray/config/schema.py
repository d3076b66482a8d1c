"""The JSON schema of a run, made from its types: editors complete and check a YAML by it, ``gotd schema`` prints it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

from gotd_ray.config.base import as_list
from gotd_ray.config.run import Run

FILE = Path(__file__).with_name("run.schema.json")
"""Where it lies, written by ``python docs/make_reference.py``."""

_MARK = "# yaml-language-server: $schema="


class _AsWritten(GenerateJsonSchema):
    """What a file may hold, where validation takes more than the type says."""

    def function_wrap_schema(self, schema: Any) -> JsonSchemaValue:
        """One of the names, or a plug-in's."""
        return {"anyOf": [super().function_wrap_schema(schema), {"type": "string"}]}

    def function_before_schema(self, schema: Any) -> JsonSchemaValue:
        found = super().function_before_schema(schema)
        return {"anyOf": [{"type": "string"}, found]} if schema["function"]["function"] is as_list else found


def schema() -> dict[str, Any]:
    """The schema, of draft 2020-12."""
    found = Run.model_json_schema(schema_generator=_AsWritten)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **found, "title": "A run of gotd"}


def text() -> str:
    """The same as JSON."""
    return json.dumps(schema(), indent=1) + "\n"


def mark(folder: Path) -> str:
    """The line by which a YAML in a folder names the schema."""
    return _MARK + Path(os.path.relpath(FILE, folder.resolve())).as_posix()

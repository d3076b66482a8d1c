"""The model card: how a model was made, for whoever finds it."""

from __future__ import annotations

from typing import Any

import yaml

from gotd_ray.config import Model, Training
from gotd_ray.config.training import PRESETS
from gotd_ray.models.language import Base, identity


def card(stage: str, model: Model, settings: Training, base: Base, facts: dict[str, Any]) -> str:
    """Markdown with base, data, settings, scores and cost."""
    changed = _changed(settings)
    known = identity(base)
    dev = "\n".join(f"| {look['step']} | {look['loss']:.4f} |" for look in facts["dev"]) or "| - | not measured |"
    loss = facts["losses"][-1][1] if facts["losses"] else float("nan")
    return f"""---
library_name: transformers
tags: [gotd_ray, {stage}]
---
# {model.base.rstrip("/").rpartition("/")[2]}, after {stage}

Made by gotd_ray. Base: {known["name"]} (fingerprint {known["fingerprint"]}).

- Data: {facts["rows"]:,} rows, {facts["tokens"]:,} tokens seen, {facts["epochs"]:.2f} epochs, {facts["steps"]:,} steps.
- Objective: {facts["objective"]}{", classes " + ", ".join(facts["labels"]) if facts["labels"] else ""}.
- Loss at the last step: {loss:.4f}.
- Cost: {facts["seconds"]:.0f} s on {facts["engine"]["workers"]} workers ({facts["engine"]["device"]}),
  {facts["engine"]["engine"]} {facts["engine"]["deepspeed"]}, ZeRO {facts["engine"]["zero_stage"]},
  {facts["engine"]["precision"]}.

| step | dev loss |
|---|---|
{dev}

Settings that differ from the defaults{f" of the preset {settings.preset}" if settings.preset else ""}:

```yaml
{yaml.safe_dump(changed, sort_keys=True, allow_unicode=True).strip()}
```
"""


def _changed(settings: Training) -> dict[str, Any]:
    """What is not as the preset, or else the program, has it; without paths, which say nothing elsewhere."""
    fields, preset = type(settings).model_fields, PRESETS.get(settings.preset or "", {})
    given = settings.model_dump(exclude={"dev", "paths", "preset"})
    return {name: value for name, value in given.items() if value != preset.get(name, fields[name].default)}

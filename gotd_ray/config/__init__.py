"""The run as typed data: one YAML file, every key with its unit, unknown keys refused with the nearest name.

A section stands beside its concern. Nothing else of the project is imported, so that ``gotd --help`` is instant.
"""

from gotd_ray.config.compare import Arm, Compare
from gotd_ray.config.curve import Costs, Curve
from gotd_ray.config.evaluation import (
    Answers,
    Classification,
    Evaluation,
    Extraction,
    Judges,
    Questions,
    Toxicity,
    ZeroShot,
)
from gotd_ray.config.load import checked, load, problems, restored
from gotd_ray.config.refresh import Refresh
from gotd_ray.config.run import RaySettings, Run
from gotd_ray.config.selection import Encoder, EncoderKind, Select, Solve, Survey
from gotd_ray.config.text import Chunks, Storage, Text
from gotd_ray.config.told import warnings
from gotd_ray.config.training import Finetune, Model, Tracking, Training
from gotd_ray.config.tune import Range, Tune

__all__ = [
    "Answers",
    "Arm",
    "Chunks",
    "Classification",
    "Compare",
    "Costs",
    "Curve",
    "Encoder",
    "EncoderKind",
    "Evaluation",
    "Extraction",
    "Finetune",
    "Judges",
    "Model",
    "Questions",
    "Range",
    "RaySettings",
    "Refresh",
    "Run",
    "Select",
    "Solve",
    "Storage",
    "Survey",
    "Text",
    "Toxicity",
    "Tracking",
    "Training",
    "Tune",
    "ZeroShot",
    "checked",
    "load",
    "problems",
    "restored",
    "warnings",
]

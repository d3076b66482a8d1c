"""The judges of models, one record each, and what is made of what they say. No Ray: ``stages/evaluate`` runs them.

A judge's file is called as its section of ``evaluate`` in the config is.
"""

from importlib import import_module

from gotd_ray.config import Judges
from gotd_ray.judging.judge import Judge

JUDGES: dict[str, Judge] = {name: import_module(f"{__name__}.{name}").JUDGE for name in Judges.model_fields}
"""By name, in the order of the config."""

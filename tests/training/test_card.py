"""What a model's card says of its settings: those that are not as the program or the preset has them, and no more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from gotd_ray import config
from gotd_ray.arms import Cell, run_of
from gotd_ray.models import language
from gotd_ray.training.card import card

FACTS: dict[str, Any] = {
    **{"dev": [], "losses": [[1, 2.0]], "rows": 3, "tokens": 4, "epochs": 1.0, "steps": 1, "objective": "causal"},
    **{"labels": [], "seconds": 1.0},
    "engine": {
        "workers": 1,
        "device": "cpu",
        "engine": "DeepSpeed",
        "deepspeed": "0",
        "zero_stage": 1,
        "precision": "f",
    },
}


def said(llama: Path, settings: config.Training) -> tuple[str, dict[str, Any]]:
    """What stands before the settings, and the settings."""
    model = config.Model(base=str(llama))
    text = card("pretune", model, settings, language.find(model, config.Storage()), FACTS)
    words = text.partition("Settings that differ from ")[2]
    return words.partition(":")[0], yaml.safe_load(words.partition("```yaml\n")[2].partition("```")[0])


GIVEN: dict[str, Any] = {"steps": 5, "learning_rate": 1e-3, "batch_size": 32}


@pytest.mark.parametrize("preset", [None, "detox"])
def test_the_card_lists_what_differs(llama: Path, preset: Any) -> None:
    words, found = said(llama, config.Training(preset=preset, dev=["d"], **GIVEN))
    assert words == "the defaults" + (f" of the preset {preset}" if preset else "")
    assert found == {"steps": 5, "learning_rate": 1e-3}, "32 rows are the default"


def test_the_cards_of_a_comparison_list_what_differs_and_the_seed(llama: Path, tmp_path: Path) -> None:
    run = config.Run.model_validate(
        {
            **{"out": str(tmp_path), "corpus": {"paths": "c"}, "target": {"paths": "t"}, "compare": {"seeds": [7]}},
            **{"model": {"base": str(llama)}, "pretune": GIVEN, "evaluate": {"perplexity": {"a": "p"}}},
        }
    )
    pretune = run_of(run, Cell("nearest", 10, 7)).pretune
    assert pretune is not None
    assert said(llama, pretune)[1] == {"steps": 5, "learning_rate": 1e-3, "seed": 7}

"""A training that stops early is the beginning of the whole one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_worker import losses, run
from tiny import make_job

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("alone")]


def test_losses_and_rates_are_those_of_the_whole_training(llama: Path, tmp_path: Path) -> None:
    """No checkpoint is left at the last step, from which a restart would train one more."""
    whole = run(make_job(tmp_path / "whole", llama), tmp_path / "whole")
    job = make_job(tmp_path, llama, stop_at=0.6)
    facts = run(job, tmp_path)
    assert (facts["steps"], facts["stopped_early"]) == (4, False)
    assert losses(facts) == losses(whole)[:4]
    assert facts["learning_rates"] == whole["learning_rates"][:4]
    assert json.loads((tmp_path / "checkpoint" / "latest.json").read_text())["step"] == 2  # of 2 and 4
    assert run(job, tmp_path)["steps"] == 4

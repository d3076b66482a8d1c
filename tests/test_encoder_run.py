"""Whole runs: with the static encoder, and with an encoder and a method of somebody else's in Ray's workers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import make_run

from gotd_ray import pipeline
from gotd_ray.errors import UserError
from gotd_ray.models.encoder import TextEncoder
from gotd_ray.progress import Progress

ROOT = Path(__file__).parent.parent


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize(
    ("kind", "method"), [("static", "gotd"), ("tests.foreign_encoders:Good", "tests.foreign_methods:good")]
)
def test_a_run_with_another_kind(
    kind: str, method: str, library: Path, bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice, by one worker and one shard, and by two: the same documents, and the vectors are the encoder's."""
    monkeypatch.syspath_prepend(ROOT)  # Ray gives its workers the folder in which the driver stands
    encoder: dict[str, Any] = {"kind": kind, "model": str(bert), "max_tokens": 64}
    chosen = []
    for actors in (1, 2):
        sections: dict[str, Any] = {"solve": {"shards": actors}, "select": {"method": method, "budget": 40}}
        run = make_run(tmp_path / str(actors) / "out", library, encoder=encoder | {"actors": actors}, **sections)
        run = run.model_copy(update={"index": str(tmp_path / str(actors) / "index")})  # each makes its own
        plan = pipeline.execute(run, Progress())
        assert all(plan.done(stage) for stage in plan.steps)
        assert ("solve" in plan.steps) == (method == "gotd")
        assert len(list(Path(plan.artifacts["select"].path("scores")).iterdir())) == actors
        chosen.append(pq.read_table(plan.artifacts["select"].path("subset.parquet")))
    one, two = chosen
    assert one.num_rows == 40 and one.equals(two)
    index = plan.collections["corpus"].index
    vectors = {}
    for part in Path(index.vectors.folder).iterdir():
        table = pq.read_table(part)
        vectors |= dict(zip(table["doc_id"].to_pylist(), table["vector"].to_pylist(), strict=True))
    expected = TextEncoder(plan.run.encoder).encode(one["text"].to_pylist())
    np.testing.assert_array_equal(np.array([vectors[doc_id] for doc_id in one["doc_id"].to_pylist()]), expected)


def test_a_plugin_that_is_not_there_is_refused_before_a_run(library: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path / "out", library, encoder={"kind": "nobodys.encoders:Mine"})
    with pytest.raises(UserError, match=r"^encoder\.kind is 'nobodys\.encoders:Mine', but there is no module nobodys"):
        pipeline.execute(run, Progress())

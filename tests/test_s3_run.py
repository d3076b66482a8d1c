"""The whole job on a real S3 server: the same subset as from local files, and no secret anywhere."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from conftest import make_run
from s3_server import S3Server

from gotd_ray import pipeline
from gotd_ray.progress import Progress

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.mark.parametrize("client", ["pyarrow", "s3fs"])
def test_the_same_ids_from_s3_and_no_secret_in_any_output(
    client: str, library: Path, tmp_path: Path, s3: S3Server, ray_cluster: None
) -> None:
    local = pipeline.execute(make_run(tmp_path / "local", library), Progress())
    bucket = s3.folder / "bucket" / f"run-{client}"
    shutil.copytree(library / "corpus", bucket / "corpus")
    shutil.copytree(library / "target", bucket / "target")
    base = f"s3://bucket/run-{client}"
    run = make_run(f"{base}/out", base, storage={"endpoint": s3.endpoint, "library": client})
    config_file = tmp_path / "run.yaml"
    config_file.write_text(yaml.safe_dump(run.model_dump()))
    ray_files = tmp_path / "ray"
    # A socket's path may have 107 bytes, so Ray's folder is linked to by a short name.
    short = Path(f"/tmp/gotd-{os.getpid()}-{client}")
    ray_files.mkdir()
    short.symlink_to(ray_files)
    try:
        done = subprocess.run(
            [sys.executable, "-c", "from gotd_ray.cli import main; main()", "run", str(config_file)],
            env=os.environ | s3.environment | {"RAY_TMPDIR": str(short)},
            capture_output=True,
            timeout=1000,
            check=False,
        )
    finally:
        short.unlink()
    assert done.returncode == 0, done.stderr.decode()
    subset = bucket / "out" / "select" / "subset.parquet"
    expected = pq.read_table(local.artifacts["select"].path("subset.parquet"))
    assert pq.read_table(subset)["doc_id"].to_pylist() == expected["doc_id"].to_pylist()
    assert done.stdout.decode().count(f"{base}/out/select/subset.parquet") == 1

    written = [path for folder in (bucket, ray_files) for path in folder.rglob("*") if path.is_file()]
    assert any(path.name == "manifest.json" for path in written)
    assert any("session" in str(path) for path in written)
    outputs = [done.stdout, done.stderr, *(path.read_bytes() for path in written)]
    assert not any(s3.secret.encode() in output for output in outputs)
    assert not any(s3.key.encode() in output for output in outputs)


def test_a_wrong_key_is_a_clear_error_without_the_key(
    library: Path, tmp_path: Path, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gotd_ray import filesystems
    from gotd_ray.errors import UserError

    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "quite-another-secret")
    filesystems.client.cache_clear()
    run = make_run(tmp_path / "out", "s3://bucket/none", storage={"endpoint": s3.endpoint})
    with pytest.raises(UserError) as caught:
        pipeline.plan(pipeline.resolve_paths(run))
    assert "permission denied" in str(caught.value)
    assert "secret" not in str(caught.value)

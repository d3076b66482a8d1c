"""Texts through the encoders of a cluster: what one of them cannot do comes in its own words."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from gotd_ray import config
from gotd_ray.cluster import Resources, Site
from gotd_ray.errors import UserError
from gotd_ray.models.tokenizer import find_model
from gotd_ray.progress import Progress
from gotd_ray.stages._encoders import encode_texts


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_an_encoder_that_does_not_load_is_said_in_its_own_words(tmp_path: Path) -> None:
    """As on a node whose copy of the model is damaged: the driver's own is not."""
    folder = tmp_path / "model"
    shutil.copytree(find_model(config.Encoder()), folder)
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])
    site = Site(
        Resources(cpus=2, gpus=0, nodes=1, node_cpus=2, private=True), "cpu", Progress(Console(file=io.StringIO()))
    )
    with site.progress.task("embed") as task, pytest.raises(UserError) as raised:
        encode_texts(["some words"], config.Encoder(model=str(folder), actors=1), site, task)
    said = str(raised.value)
    assert said.startswith("the encoder 'model' does not load: ") and said.endswith("another encoder.model.")
    assert "\n" not in said and "\x1b" not in said and type(raised.value) is UserError

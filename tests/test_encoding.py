"""Texts through the encoders of a cluster: what one of them cannot do comes in its own words."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from gotd_ray import config
from gotd_ray.cluster import Resources, Site
from gotd_ray.encoding import encode_texts
from gotd_ray.errors import UserError
from gotd_ray.models.tokenizer import find_model
from gotd_ray.progress import Progress

ROOT = Path(__file__).parent.parent


@pytest.fixture
def site(ray_cluster: None) -> Site:
    resources = Resources(cpus=2, gpus=0, nodes=1, node_cpus=2, private=True)
    return Site(resources, "cpu", Progress(Console(file=io.StringIO())))


@pytest.mark.ray
def test_an_encoder_that_does_not_load_is_said_in_its_own_words(site: Site, tmp_path: Path) -> None:
    """As on a node whose copy of the model is damaged: the driver's own is not."""
    folder = tmp_path / "model"
    shutil.copytree(find_model(config.Encoder()), folder)
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])
    with site.progress.task("embed") as task, pytest.raises(UserError) as raised:
        encode_texts(["some words"], config.Encoder(model=str(folder), actors=1), site, task)
    said = str(raised.value)
    assert said.startswith("the encoder 'model' does not load: ") and said.endswith("another encoder.model.")
    assert "\n" not in said and "\x1b" not in said and type(raised.value) is UserError


@pytest.mark.ray
def test_what_an_encoder_cannot_do_is_said_in_one_line(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT)
    settings = config.Encoder(kind="tests.foreign_encoders:Overflows", actors=1)
    with site.progress.task("embed") as task, pytest.raises(UserError) as raised:
        encode_texts(["some words"], settings, site, task)
    assert str(raised.value).startswith("the encoder gave 1 of 1 texts a vector that is not finite")
    assert str(raised.value).endswith("else the model is broken.")

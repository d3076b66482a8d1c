"""The records of the formats, against what else names them."""

from __future__ import annotations

from typing import get_args

import pytest

from gotd_ray import config
from gotd_ray.text.formats import FORMATS, format_of
from gotd_ray.text.formats.base import Format


def test_the_config_names_the_formats_that_there_are() -> None:
    names = get_args(config.Text.model_fields["format"].annotation)
    assert set(names) == {"auto", *(one.name for one in FORMATS)}


def test_an_ending_is_that_of_one_format() -> None:
    endings = [ending for one in FORMATS for ending in one.endings]
    assert len(set(endings)) == len(endings)
    assert all(ending == ending.lower() and ending.startswith(".") for ending in endings)


@pytest.mark.parametrize("known", FORMATS, ids=lambda one: one.name)
def test_files_are_known_by_their_endings(known: Format) -> None:
    for ending in known.endings:
        assert format_of(f"s3://b/x.y/PART-1{ending.upper()}") is known
        for packed in (".gz", ".zst"):
            assert format_of(f"a{ending}{packed}") is (known if known.packed else None)
        assert format_of(f"a{ending}.bz2") is format_of(f"{ending}/a") is None
    assert format_of("a.unknown", known.name) is known

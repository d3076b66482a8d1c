"""Fixtures of the tests that train in this process."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch
from tiny import join_group


@pytest.fixture(scope="session")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """This process as the only worker. Once for all: DeepSpeed keeps the first group, and wants no other after it."""
    before = dict(os.environ)
    join_group(0, 1, tmp_path_factory.mktemp("group") / "meeting")
    yield
    torch.distributed.destroy_process_group()
    os.environ.clear()
    os.environ.update(before)

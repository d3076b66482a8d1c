"""The encoders of a cluster: how many, what each asks of Ray, and some thousand texts through them."""

from __future__ import annotations

import warnings

import numpy as np
import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext

from gotd_ray import config
from gotd_ray.cluster import Resources, Site
from gotd_ray.models.encoder import TextEncoder, uses_gpu
from gotd_ray.progress import Task
from gotd_ray.remote import unwrapped

READER_CPUS = 0.5
"""CPUs that a reading task asks for: it reads far faster than a core encodes."""


TEXTS = 512
"""Texts of one request: enough that those of like length fill batches."""


def encoder_actors(
    encoder: config.Encoder, device: str, resources: Resources
) -> tuple[int, int | None, dict[str, float]]:
    """Actors, threads of each, and what each asks of Ray; something is left for the readers.

    On CPU one actor per core with one thread: two such encode 2.5 times as fast as one actor with two threads.
    """
    if device == "cuda" and uses_gpu(encoder):
        return min(encoder.actors or resources.gpus, resources.gpus), None, {"num_gpus": 1}
    actors = encoder.actors or resources.cpus
    share = min((resources.cpus - max(READER_CPUS, resources.cpus / 16)) / actors, resources.node_cpus - READER_CPUS)
    return (
        actors,
        max(1, min(resources.cpus // actors, resources.node_cpus)),
        {"num_cpus": int(share) if share >= 1 else round(share, 3)},
    )


def set_up_data() -> None:
    """Ray Data as all stages want it."""
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.target_max_block_size = 1 << 20  # a part is a block of its own, so that all actors get some
    context.max_consecutive_actor_init_deaths = 3
    context.raise_original_map_exception = True
    # Ray counts units here, but each unit gives many parts.
    warnings.filterwarnings("ignore", message="The minimum number of concurrent actors")


class _Encode:
    def __init__(self, encoder: config.Encoder, device: str, threads: int | None):
        self.encoder = TextEncoder(encoder, device, threads).loaded()

    def __call__(self, batch: pa.Table) -> pa.Table:
        (row,) = batch.to_pylist()
        vectors = self.encoder.encode(row["texts"])
        return pa.table({"number": [row["number"]], "vectors": [vectors.tobytes()]})


def encode_texts(texts: list[str], encoder: config.Encoder, site: Site, task: Task) -> np.ndarray:
    """(n, d) float16 of n texts, in their order; the same bits however many actors there are."""
    set_up_data()
    actors, threads, request = encoder_actors(encoder, site.device, site.resources)
    starts = range(0, len(texts), TEXTS)
    requests = [{"number": number, "texts": texts[start : start + TEXTS]} for number, start in enumerate(starts)]
    stream = ray.data.from_items(requests, override_num_blocks=len(requests)).map_batches(
        _Encode,
        fn_constructor_kwargs={"encoder": encoder, "device": site.device, "threads": threads},
        batch_size=1,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(size=min(actors, len(requests))),
        **request,
    )
    found: dict[int, np.ndarray] = {}
    with unwrapped():
        for row in stream.iter_rows():
            count = len(requests[row["number"]]["texts"])
            found[row["number"]] = np.frombuffer(row["vectors"], np.float16).reshape(count, -1)
            task.advance(count)
    return np.concatenate([found[number] for number in range(len(requests))])

"""Where a run reads and writes: every path in its one spelling, and the demo's texts built where a path names them."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from gotd_ray import config, demo, storage
from gotd_ray.cluster import in_job
from gotd_ray.config.base import Place, home, map_paths, paths_in
from gotd_ray.config.places import base_of, inside, is_url, meet, normal
from gotd_ray.errors import UserError
from gotd_ray.listing import expand_lists
from gotd_ray.results import STAGES

SETS = ("corpus", "target", "contrast", "reference")
"""The sets of documents that a run embeds; the last two are optional."""

DEMO = "demo:"
"""Paths that begin so are the embedded demo's, built on first use."""

WRITTEN = (*STAGES, "arms", "curve", "selections", "tracking", "tune", "versions")
"""What a run, a comparison, a curve, a search of settings or a refresh makes in its folder."""

_OURS = ("auto", "parquet", "text")
"""Formats under which a run would read files that it writes."""


def resolve_paths(run: config.Run) -> config.Run:
    """Every path absolute and in one spelling, and the demo's corpus built where a path names it.

    A job's working folder is a copy that goes away with the job, so its relative results lie in ``~/gotd`` instead.

    Raises:
        UserError: a path is unclear; the run would read what it writes, or write over something else of its own.
    """
    try:
        results = Path(home()) / "gotd" if in_job() else Path.cwd()
        run = map_paths(run, lambda path, place: _located(path, place, results))
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{error}.") from None
    if _is_root(run.out):
        raise UserError(f"out is {run.out}, a whole disk or bucket. Name a folder in it.")
    folders = {
        "selection": run.selection or run.out,
        "index": run.index or storage.join(run.out.rpartition("/")[0], "index"),
    }
    run = run.model_copy(update=folders)
    _refuse_overlaps(run)
    return run


def _located(path: str, place: Place, results: Path) -> str:
    if path.startswith(DEMO) and place.kind == "input":
        return normal(path.removeprefix(DEMO), _demo())
    if path.startswith("@"):
        return "@" + _located(path[1:], place, results)
    if place.kind == "model" and not is_url(path) and not path.startswith("file:") and not Path(path).exists():
        return path  # the name of a package or on the hub
    return normal(path, results if place.kind == "result" else Path.cwd(), links=place.kind == "result")


def _is_root(folder: str) -> bool:
    return "/" not in (folder.partition("://")[2] if is_url(folder) else folder.strip("/") and folder)


def _refuse_overlaps(run: config.Run) -> None:
    assert run.selection and run.index
    folders = {"out": run.out, "selection": run.selection, "index": run.index}
    for name, folder in folders.items():
        for other, there in folders.items():
            if name != other and (folder != there or "index" in (name, other)) and _written_over(folder, other, there):
                raise UserError(
                    f"{name} is {folder}, where {other} ({there}) keeps files of its own. Give {name} another folder."
                )
    for key, section, place, path in paths_in(run):
        if key in (*folders, "tracking.folder"):  # not read
            continue
        text = section if isinstance(section, config.Text) else run.target
        for real in _real(path, place, run.storage):
            if any(_written_over(real, *folder) for folder in folders.items()):
                raise UserError(
                    f"{key} is {path}, which this run itself writes. Copy it elsewhere, or give the run another `out`."
                )
            read = [name for name, folder in folders.items() if _would_be_read(real, folder)]
            if read and place.kind == "input" and text.format in _OURS:
                raise UserError(
                    f"{read[0]} is {folders[read[0]]}, which lies in {key} ({path}): the run would read its own files. "
                    f"Give {read[0]} another folder, or one that begins with an underscore, which listings pass over."
                )


def _real(path: str, place: Place, storage: config.Storage) -> list[str]:
    """Where a path leads, with links followed; of a list, where each of its lines does."""
    if place.kind == "model" and not path.startswith("/"):
        return []
    try:
        named = expand_lists([path], storage)
        return [one if is_url(one) else normal(one, Path.cwd(), links=True) for one in named]
    except ValueError:  # said when the files are listed; results can be looked at without them
        return []


def _written_over(path: str, name: str, folder: str) -> bool:
    """Whether a path lies in what a run writes to one of its folders."""
    own = [folder] if name == "index" else [storage.join(folder, part) for part in WRITTEN]
    return any(inside(path, part) for part in own)


def _would_be_read(path: str, folder: str) -> bool:
    """Whether a set of these files would hold what a run writes to a folder."""
    below = folder.removeprefix(base_of(path)).split("/")
    hidden = any(part.startswith((".", "_")) for part in below)
    return not hidden and meet(path, storage.join(folder, "select", "subset.parquet"))


@cache
def _demo() -> Path:
    """The demo's folder, built on first use from the packages installed here."""
    return demo.folder()

"""Where a run reads and writes: its paths made absolute, and the demo's texts built where a path names them."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from gotd_ray import config, demo, storage
from gotd_ray.cluster import in_job
from gotd_ray.errors import UserError
from gotd_ray.stages import solve

SETS = ("corpus", "target", "contrast", "reference")
"""The sets of documents that a run embeds; the last two are optional."""

DEMO = "demo:"
"""Paths that begin so are the embedded demo's, built on first use."""


def resolve_paths(run: config.Run) -> config.Run:
    """Absolute folders, and the demo's corpus built where a path names it.

    A job's working folder is a copy that goes away with the job, so its relative ``out`` lies in ``~/gotd`` instead.
    """
    home = Path.home() / "gotd" if in_job() else Path.cwd()

    def absolute(path: str) -> str:
        return path if "://" in path else str(home / path)

    out = absolute(run.out)
    selection = absolute(run.selection) if run.selection else out
    index = absolute(run.index) if run.index else storage.join(out.rstrip("/").rpartition("/")[0], "index")

    def built(paths: list[str]) -> list[str]:
        return [str(_demo() / path.removeprefix(DEMO)) if path.startswith(DEMO) else path for path in paths]

    def section(text: config.Text) -> config.Text:
        return text.model_copy(update={"paths": built(text.paths)})

    earlier = {key: absolute(path) for key in ("potentials", "warm_start") if (path := getattr(run.solve, key))}
    if earlier.get("warm_start") == storage.join(selection, "solve", solve.POTENTIALS):
        raise UserError(
            f"solve.warm_start is {earlier['warm_start']}, which this run itself writes. Copy it elsewhere, or give "
            "the run another `out`."
        )
    sets = {name: section(text) for name in SETS if (text := getattr(run, name))}
    unwanted = run.select.decontaminate
    select = run.select.model_copy(update={"decontaminate": section(unwanted) if unwanted else None})
    folders = {"out": out, "selection": selection, "index": index}
    update = folders | {"select": select, "solve": run.solve.model_copy(update=earlier)}
    if run.model and Path(run.model.base).exists():
        update["model"] = run.model.model_copy(update={"base": str(Path(run.model.base).absolute())})
    if run.evaluate and run.evaluate.perplexity:
        held_out = {name: built(paths) for name, paths in run.evaluate.perplexity.items()}
        update["evaluate"] = run.evaluate.model_copy(update={"perplexity": held_out})
    return run.model_copy(update=update | sets)


@cache
def _demo() -> Path:
    """The demo's folder, built on first use from the packages installed here."""
    return demo.build(Path.home() / ".cache" / "gotd_ray" / "demo")

"""Choose, out of an open-web corpus, the documents that best warm up a language model for a task (GOT-D), on Ray."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gotd_ray.api import Potentials, Selection, run, select
    from gotd_ray.errors import UserError

__version__ = "0.1.0"

__all__ = ["Potentials", "Selection", "UserError", "run", "select"]


def __getattr__(name: str) -> Any:
    """The Python API: imported when it is asked for, as ``gotd --help`` needs none of it."""
    if name not in __all__:
        raise AttributeError(f"module 'gotd_ray' has no attribute {name!r}")
    from gotd_ray import api

    return getattr(api, name)

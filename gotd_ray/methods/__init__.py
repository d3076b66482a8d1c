"""How candidates are scored: a record for each method, and those of somebody else (:mod:`gotd_ray.plugins`)."""

from __future__ import annotations

from gotd_ray.methods import dsir, gotd, mmd, nearest, random
from gotd_ray.methods.method import Fitting, Method, Part
from gotd_ray.methods.plugin import plug_in

METHODS = {one.METHOD.name: one.METHOD for one in (gotd, mmd, dsir, nearest, random)}

__all__ = ["METHODS", "Fitting", "Method", "Part", "find"]


def find(name: str) -> Method:
    """The method of a name, or the plug-in.

    Raises:
        UserError: see :func:`gotd_ray.plugins.load`.
    """
    return METHODS[name] if name in METHODS else plug_in(name)

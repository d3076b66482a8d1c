"""How candidates are scored: a file for each method, named as ``select.method`` is, and those of somebody else."""

from __future__ import annotations

from importlib import import_module
from typing import cast, get_args

from gotd_ray.config.selection import Method as Name
from gotd_ray.methods.method import Fitting, Method, Part, Question
from gotd_ray.methods.plugin import plug_in

__all__ = ["Fitting", "Method", "Part", "Question", "find"]


def find(name: str) -> Method:
    """The record of a method: ``METHOD`` in its file, or that of the plug-in of the name.

    Raises:
        UserError: see :func:`gotd_ray.plugins.load`.
    """
    if name not in get_args(Name):
        return plug_in(name)
    return cast(Method, import_module(f"gotd_ray.methods.{name}").METHOD)

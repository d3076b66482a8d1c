"""The page of `gotd refresh`: its opening words, and what has become of each source."""

from __future__ import annotations

from typing import Any

SHOWN = 100
"""Sources with a row of their own."""

_SUMS = ("corpus_before", "corpus", "in", "out", "subset_before", "subset")


def opening(facts: dict[str, Any]) -> list[str]:
    """What came, went and moved, and whether the transport and the models are new.

    Args:
        facts: what stands in ``refresh.json``.
    """
    corpus, subset = facts["documents"]["corpus"], facts["documents"]["subset"]
    encoded = f"{sum(facts['encoded'].values()):,} texts were encoded"
    if facts["before"] is None:
        said = [f"The first version: {subset['now']:,} documents of {corpus['now']:,}; {encoded}."]
    else:
        said = [
            f"{corpus['in']:,} documents came into the corpus and {corpus['out']:,} left it, which makes "
            f"{corpus['now']:,}; {encoded}.",
            f"Of the {subset['now']:,} documents of the subset {subset['in']:,} are new, {subset['out']:,} went.",
        ]
    if facts["drift"] is not None:
        kept = facts["fit"]["reason"] == "kept"
        said.append(
            f"The drift was {facts['drift']:.2g}, against {facts['refit_above']:g} that is let pass, so that the last "
            f"potentials {'score as they are' if kept else 'were fitted again'}."
        )
    training = facts["training"]
    if training["models_of"] is not None and facts["before"] is not None:
        trained = "were trained again" if training["trained"] else f"stay those of version {training['models_of']:04d}"
        said.append(f"The models {trained}.")
    return said


def sources(facts: dict[str, Any]) -> dict[str, Any]:
    """The sources in which most has changed first, and the sums of those without a row of their own.

    Returns:
        ``rows``, ``rest`` (None where there are none) and ``all``, the sums over all.
    """
    rows = [{"source": source} | row for source, row in facts["sources"].items()]
    rows.sort(key=lambda row: (-(row["in"] + row["out"]), -abs(row["subset"] - row["subset_before"]), row["source"]))
    rest = rows[SHOWN:]
    return {
        "rows": rows[:SHOWN],
        "rest": _sums(rest) | {"many": len(rest)} if rest else None,
        "all": _sums(rows) | {"many": len(rows)},
    }


def _sums(rows: list[dict[str, Any]]) -> dict[str, int]:
    return {name: sum(row[name] for row in rows) for name in _SUMS}

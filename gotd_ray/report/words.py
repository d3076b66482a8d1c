"""The words of a report: names for people, and the paragraph that says what happened."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

STAGES = {
    "survey": "Survey of the sources",
    "sketch": "Cheap vectors of all documents",
    "coarse": "Optimal transport between these",
    "embed": "Embedding",
    "solve": "Optimal transport",
    "sieve": "What is encoded",
    "refine": "Embedding of the best",
    "dsir": "N-gram weights",
    "select": "Selection",
    "pretune": "Pre-fine-tuning on the subset",
    "finetune": "Fine-tuning on the target",
    "evaluate": "Evaluation",
}

_REASONS = {
    "near_duplicate": "near-duplicate of a taken document",
    "contaminated": "shares text with an evaluation set",
    "source_quota": "over its source's quota",
    "text_changed": "its text had changed or gone",
    "too_short": "too short",
    "too_long": "too long",
    "empty_text": "empty",
    "not_sampled": "not in the sample",
    "excluded_source": "source left out by the settings",
    "not_text": "not a text record",
    "broken_json": "broken JSON",
    "not_a_string": "text is not a string",
    "missing_column": "no such column",
    "invalid_utf8": "not UTF-8",
    "bad_record": "web archive's record of unknown length, or cut",
    "bad_source": "its source is no name",
    "no_label": "no label",
    "bad_label": "its label is no name",
    "bad_weight": "weight is not a number of at least 0",
}


def reason(name: str) -> str:
    return _REASONS.get(name, name.replace("_", " "))


def opening(facts: dict[str, Any]) -> list[str]:
    """What happened and what to look at, in sentences."""
    chosen = facts["selection"]
    said = [
        f"Out of {chosen['candidates']:,} candidates, {chosen['documents']:,} documents ({chosen['tokens']:,} tokens) "
        f"were taken {chosen['taken']}, to lead a model towards {facts['target_documents']:,} target "
        "documents."
    ]
    if sieve := facts.get("sieve"):
        said.append(f"A cheap score of all came first: {sieved(sieve)}.")
    if not chosen["budget_reached"]:
        left = "none of those that are encoded was left" if facts.get("sieve") else "no candidate was left"
        said.append(f"The budget of {chosen['budget']:,} {chosen['budget_unit']} was not reached: {left}.")
    if facts["sources"] and len(facts["sources"]) > 1 and (first := facts["sources"][0])["lift"]:
        said.append(
            f"The largest part comes from “{first['source']}”: {first['subset_share']:.0%} of the subset against "
            f"{first['corpus_share']:.0%} of the corpus."
        )
    if (found := facts.get("divergence")) and facts["selection"]["method"] != "random":
        change = 1 - found["mixture"] / found["corpus"] if found["corpus"] > 0 else 0.0
        way = "nearer to" if change > 0 else "farther from"
        said.append(
            f"With the subset mixed in at {found['mix']:.0%}, the corpus lies {abs(change):.0%} {way} the target "
            "(Sinkhorn divergence)."
        )
    if (solved := facts.get("solve")) and solved["residual"] > solved["tolerance"]:
        said.append("The transport stopped above its tolerance: the ranking near the cut is not final.")
    if near := chosen.get("near_cut"):
        lie = "document lies" if near == 1 else "documents lie"
        said.append(f"{near:,} {lie} so near the cut that the solve's remaining error could swap them.")
    if unwanted := chosen.get("decontaminated"):
        said.append(searched(unwanted))
    aside = sum(chosen["set_aside"].values())
    said.append(f"{aside:,} better-placed documents were set aside." if aside else "Nothing was set aside.")
    look = "Look first at the samples at the cut: they are the weakest that the model would learn from"
    said.append(look + (", then at what the corpus lacks." if facts.get("worst_served") else "."))
    return said


def searched(found: Mapping[str, Any]) -> str:
    """What of the evaluation sets was searched for in the candidates.

    Args:
        found: ``decontaminated`` in the manifest of select.
    """
    said = [f"Of {found['texts']:,} evaluation texts {found['searched']:,} were searched for"]
    if found["too_short"]:
        said.append(f"{found['too_short']:,} are too short for that")
    if found["left_out"]:
        rows = ", ".join(f"{count:,} {reason(name)}" for name, count in found["left_out"].items())
        said.append(f"rows left out of them: {rows}")
    return "; ".join(said) + "."


def sieved(facts: Mapping[str, Any]) -> str:
    """What a cascade encodes, and why so much.

    Args:
        facts: the manifest of sieve.
    """
    kept = f"{facts['kept']:,} of {facts['candidates']:,} documents ({facts['share']:.0%}) are encoded"
    if facts["asked"] != "auto":
        return f"{kept}, {facts['sample']:,} of them a random sample (encoder.cascade {facts['asked']:g})"
    if "recall" not in facts:
        return (
            f"{kept}: in a random sample of {facts['sample']:,} are {facts['best']:,} of the best, too few to show "
            "that less would do"
        )
    return (
        f"{kept}, which hold at least {facts['recall']:.0%} of the best with {facts['confidence']:.0%} confidence: of "
        f"{facts['best']:,} such in a random sample of {facts['sample']:,} the cheap score misses {facts['missed']:,}"
    )


def flow(manifests: Mapping[str, dict[str, Any]], tokens: Mapping[str, int]) -> list[dict[str, Any]]:
    """One line for each stage: seconds, documents, tokens, what came of it, and what it left out or cut.

    Args:
        manifests: of the stages that ran, in their order.
        tokens: of each set that was embedded.
    """
    return [
        {"stage": stage, "seconds": facts.get("seconds"), "documents": None, "tokens": None, "short": ""}
        | {"told": list(facts.get("told", ()))}
        | (_STEPS[stage](facts, tokens) if stage in _STEPS else {})
        for stage, facts in manifests.items()
    ]


def _survey(facts: dict[str, Any], _: Any) -> dict[str, Any]:
    kept = sum(row["kept"] for row in facts["sources"])
    return {"short": f"kept {kept} of {len(facts['sources'])} sources"}


def _embed(facts: dict[str, Any], tokens: Mapping[str, int]) -> dict[str, Any]:
    sets = {name: facts[name] for name in tokens if name in facts}
    parts = [
        f"{name} {one['documents']:,} from {one['files']:,} file{'s' * (one['files'] != 1)}"
        for name, one in sets.items()
    ]
    new = sum(one["embedded_now"] for one in sets.values())
    documents = sum(one["documents"] for one in sets.values())
    known = f"; {documents - new:,} were in the index" if new < documents else ""
    return {"documents": documents, "tokens": sum(tokens[name] for name in sets), "short": ", ".join(parts) + known}


def _solve(facts: dict[str, Any], _: Any) -> dict[str, Any]:
    if facts.get("taken_from"):
        return {"short": "potentials of an earlier run, as they were"}
    short = f"residual {facts['residual']:.2g} after {facts['passes']:g} passes, {facts['reason']}"
    short += f"; {agreed_in_words(facts)}" if "agreement" in facts else ""
    return {"documents": facts["fitted_on"], "short": short}


def agreed_in_words(facts: dict[str, Any]) -> str:
    """How far the subset hangs on the draw of the landmarks, where their number was found."""
    if facts["agreement"] is None:
        return f"all {facts['landmarks']:,} candidates are landmarks, and none of the subset hangs on a draw of them"
    return f"{facts['landmarks']:,} landmarks, whose halves agree on {facts['agreement']:.1%} of the subset"


def _sieve(facts: dict[str, Any], _: Any) -> dict[str, Any]:
    return {"documents": facts["kept"], "short": sieved(facts)}


def _dsir(facts: dict[str, Any], _: Any) -> dict[str, Any]:
    return {"documents": facts["corpus"]["documents"], "short": f"{facts['corpus']['ngrams']:,} n-grams of the corpus"}


def _select(facts: dict[str, Any], _: Any) -> dict[str, Any]:
    aside = sum(facts["set_aside"].values())
    short = f"{facts['taken']}; {aside:,} set aside" if aside else facts["taken"]
    return {"documents": facts["documents"], "tokens": facts["tokens"], "short": short}


def _train(facts: dict[str, Any], _: Any) -> dict[str, Any]:
    losses = facts["losses"]
    went = f", loss {losses[0][1]:.3f} to {losses[-1][1]:.3f}" if losses else ""
    return {"documents": facts["texts"], "tokens": facts["tokens"], "short": f"{facts['steps']:,} steps{went}"}


def _evaluate(facts: dict[str, Any], _: Any) -> dict[str, Any]:
    return {"short": f"{len(facts.get('results', [])):,} results"}


_STEPS: dict[str, Callable[[dict[str, Any], Mapping[str, int]], dict[str, Any]]] = {
    "survey": _survey,
    "sketch": _embed,
    "coarse": _solve,
    "embed": _embed,
    "solve": _solve,
    "sieve": _sieve,
    "refine": _embed,
    "dsir": _dsir,
    "select": _select,
    "pretune": _train,
    "finetune": _train,
    "evaluate": _evaluate,
}

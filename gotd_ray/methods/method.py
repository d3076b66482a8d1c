"""What a method of scoring is. ``gotd_ray.methods.find`` gives that of a name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from gotd_ray.artifacts import Artifact
from gotd_ray.config import Select, Storage
from gotd_ray.ot.potentials import Scorer
from gotd_ray.ot.shard import Segment
from gotd_ray.points import Points


class Question(Protocol):
    """What a method asks of all candidates; it can be pickled. The answer does not depend on how they are split."""

    def of(self, segment: Segment) -> Any:
        """The answer of one segment."""

    def together(self, parts: list[Any]) -> Any:
        """The answer of several parts, which come in the order of their ids; itself such a part."""


@dataclass(frozen=True)
class Fitting:
    """What a method may be fitted to, on the driver; what it does not ask for is not read.

    Attributes:
        target: reads the target.
        sample: reads so many candidates that stand for all, the same ones however these are split.
        settings: the section ``select``.
        seed: of what is drawn.
        before: what the stage ``Method.after`` has left.
        storage: where that lies.
        ask: puts a question to all candidates, where they are.
        wanted: reads how many documents may be looked at until the budget is spent, at about.
    """

    target: Callable[[], Points]
    sample: Callable[[int], Points]
    settings: Select
    seed: int
    before: Artifact | None
    storage: Storage
    ask: Callable[[Question], Any]
    wanted: Callable[[], int]


@dataclass(frozen=True)
class Part:
    """The candidates of one shard, low <= id < high."""

    low: bytes
    high: bytes
    device: str
    storage: Storage


@dataclass(frozen=True)
class Method:
    """One way to score candidates; the lowest scores are taken, and infinite ones never.

    Attributes:
        name: in ``select.method``.
        version: raised when equal settings give other scores; a number or a text.
        fit: what scores depend on besides the documents: small, and picklable, for every shard gets it.
        scorer: of a shard: (k,) S32 ids and (k, d) float16 vectors to (k,) scores. A document's score does not depend
            on those beside it.
        taken: how documents are taken, in a sentence's middle.
        means: what a score is, a sentence.
        after: the stage whose result it needs.
        leaves_out: what documents of infinite score are called: the reason, a key of ``filters.NOT_TAKEN``, and what
            is so with them, after their number in a sentence. None where there are none.
        facts: what to tell of the state.
    """

    name: str
    version: int | str
    fit: Callable[[Fitting], Any]
    scorer: Callable[[Any, Part], Scorer]
    taken: str
    means: str
    after: str | None = None
    leaves_out: tuple[str, str] | None = None
    facts: Callable[[Any], dict[str, Any]] = lambda _: {}

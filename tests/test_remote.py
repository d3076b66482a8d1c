"""The one way to ask Ray: own words for faults, and no task that outlives who asked for it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError, WorkerCrashedError

from gotd_ray.errors import UserError
from gotd_ray.remote import answer, answers, unwrapped

pytestmark = pytest.mark.ray

WORDS = "select.budget is 9, but the corpus has 8 documents. Lower it."


@ray.remote(num_cpus=0)
def _give(value: Any) -> Any:
    return value


@ray.remote(num_cpus=0)
def _fail(kind: type[BaseException]) -> None:
    raise kind(WORDS)


@ray.remote(num_cpus=0)
def _ask(kind: type[BaseException], properly: bool) -> None:
    (answer if properly else ray.get)(_fail.remote(kind))


@ray.remote(num_cpus=0, max_retries=0)
def _die() -> None:
    os._exit(1)


@ray.remote(num_cpus=0)
def _wait(seconds: float, path: str, stubborn: bool = False) -> None:
    """Say that it runs, and later that it ran to its end; a stubborn one does not listen."""
    Path(path + ".began").touch()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            time.sleep(0.05)
        except KeyboardInterrupt:
            if not stubborn:
                raise
    Path(path).touch()


@ray.remote(num_cpus=0)
class _StillBorn:
    def __init__(self, kind: type[BaseException]) -> None:
        raise kind(WORDS)

    def ask(self) -> None:
        raise AssertionError


@ray.remote(num_cpus=0)
class _Actor:
    def fail(self) -> None:
        raise UserError(WORDS)


def _until(path: Path) -> None:
    end = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < end, f"{path} did not come"
        time.sleep(0.05)


def _only(error: BaseException) -> None:
    """The fault in its own words, without Ray's trace as its text or beside it."""
    assert str(error) == WORDS
    assert not isinstance(error, RayTaskError)
    assert error.__cause__ is None
    assert error.__suppress_context__


@pytest.mark.parametrize("kind", [UserError, FloatingPointError])
@pytest.mark.usefixtures("ray_cluster")
def test_what_a_task_raised_comes_in_its_own_words(kind: type[Exception]) -> None:
    for asked in (
        _fail.remote(kind),
        [_give.remote(1), _fail.remote(kind)],
        _ask.remote(kind, True),
        _ask.remote(kind, False),
        _give.remote(_fail.remote(kind)),
    ):
        with pytest.raises(kind) as raised:
            answer(asked)
        assert type(raised.value) is kind
        _only(raised.value)


@pytest.mark.usefixtures("ray_cluster")
def test_what_an_actor_raised_comes_in_its_own_words() -> None:
    actor = _Actor.remote()
    with pytest.raises(UserError) as raised:
        answer(actor.fail.remote())
    _only(raised.value)
    with pytest.raises(UserError) as raised, unwrapped():
        ray.get(actor.fail.remote())
    _only(raised.value)


@pytest.mark.usefixtures("ray_cluster")
def test_what_an_actor_raised_when_it_was_made_comes_in_its_own_words() -> None:
    with pytest.raises(UserError) as raised:
        answer(_StillBorn.remote(UserError).ask.remote(), died="it died")
    _only(raised.value)
    with pytest.raises(RayActorError, match="KeyError"):
        answer(_StillBorn.remote(KeyError).ask.remote())


@pytest.mark.usefixtures("ray_cluster")
def test_one_that_takes_long_can_be_asked_again(tmp_path: Path) -> None:
    waits = _wait.remote(1.0, str(tmp_path / "waits"))
    with pytest.raises(GetTimeoutError):
        answer(waits, timeout=0.01)
    assert answer(waits, timeout=600) is None and (tmp_path / "waits").exists()
    with pytest.raises(UserError) as raised:
        answer(_fail.remote(UserError), timeout=600)
    _only(raised.value)


@pytest.mark.usefixtures("ray_cluster")
def test_a_fault_of_ours_keeps_its_trace() -> None:
    with pytest.raises(RayTaskError, match="_fail"):
        answer(_fail.remote(KeyError))


@pytest.mark.usefixtures("ray_cluster")
def test_a_process_that_died_is_put_in_the_words_given() -> None:
    with pytest.raises(UserError) as raised:
        answer(_die.remote(), died=WORDS)
    _only(raised.value)
    with pytest.raises(WorkerCrashedError):
        answer(_die.remote())
    said = {_die.remote(): "the second died"}
    with pytest.raises(UserError) as raised:
        list(answers(said, said.__getitem__))
    assert str(raised.value) == "the second died"


@pytest.mark.usefixtures("ray_cluster")
def test_answers_are_in_the_order_asked_and_come_as_they_are_ready(tmp_path: Path) -> None:
    assert answer([_give.remote(number) for number in range(5)]) == [0, 1, 2, 3, 4]
    assert answer([]) == []
    assert answer(_give.remote("one")) == "one"
    slow = _wait.remote(600, str(tmp_path / "slow"))
    quick = _give.remote("quick")
    first = next(answers([slow, quick]))
    assert first == (quick, "quick")


@pytest.mark.parametrize("stubborn", [False, True])
@pytest.mark.parametrize("how", ["fails", "stops", "interrupted"])
@pytest.mark.usefixtures("ray_cluster")
def test_no_task_outlives_who_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, stubborn: bool) -> None:
    """One runs, one has not begun: neither goes on, and both have ended when the caller hears of it."""
    monkeypatch.setattr("gotd_ray.remote._PATIENCE", 1.0 if stubborn else 30.0)
    running = _wait.remote(600, str(tmp_path / "running"), stubborn)
    waits = _wait.options(resources={"nowhere": 1}).remote(0, str(tmp_path / "waits"))
    _until(tmp_path / "running.began")
    other = _fail.remote(UserError) if how == "fails" else _give.remote(1)

    def ask() -> None:
        for _ in answers([running, other, waits]):
            if how == "interrupted":
                raise KeyboardInterrupt
            break

    if how == "stops":
        ask()
    else:
        with pytest.raises(UserError if how == "fails" else KeyboardInterrupt):
            ask()
    ended, left = ray.wait([running, waits], num_returns=2, timeout=0)
    assert not left
    for reference in ended:
        with pytest.raises(ray.exceptions.RayError):
            ray.get(reference)
    assert not (tmp_path / "running").exists()
    assert not (tmp_path / "waits.began").exists()


@ray.remote(num_cpus=0)
def _count(to: int, fail: bool = False) -> Iterator[int]:
    for number in range(to):  # noqa: UP028 - Ray sends into what it runs, which a range does not take
        yield number
    if fail:
        raise UserError(WORDS)


@ray.remote(num_cpus=0)
def _count_slowly(path: str) -> Iterator[int]:
    yield 0
    _wait._function(900, path)
    yield 1


@pytest.mark.usefixtures("ray_cluster")
def test_a_task_that_streams_gives_each_of_its_answers_and_its_fault_in_its_own_words(tmp_path: Path) -> None:
    asked = [_count.options(num_returns="streaming").remote(to) for to in (3, 0, 2)] + [_give.remote(7)]
    found = [(asked.index(reference), value) for reference, value in answers(asked)]
    assert sorted(found) == [(0, 0), (0, 1), (0, 2), (2, 0), (2, 1), (3, 7)]
    slow = _count_slowly.options(num_returns="streaming").remote(str(tmp_path / "slow"))
    got = []
    with pytest.raises(UserError) as raised:
        for _, value in answers([slow, _count.options(num_returns="streaming").remote(2, fail=True)]):
            got.append(value)
    _only(raised.value)
    assert got.count(1) == 1
    _, running = ray.wait([slow.completed()], timeout=600)
    assert not running and not (tmp_path / "slow").exists()

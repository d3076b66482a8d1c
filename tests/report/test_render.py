"""How numbers and texts are shown."""

from __future__ import annotations

import pytest

from gotd_ray.report.plots import Scale
from gotd_ray.report.render import duration, excerpt, number, share


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (number(1234567), "1,234,567"),
        (number(0.123456), "0.123"),
        (number(-0.5182, 4), "-0.5182"),
        (number(41.26), "41.3"),
        (number(12345.6), "12,346"),
        (number(1.5e-9), "1.50e-09"),
        (number(0.0), "0"),
        (number(None), "\N{EN DASH}"),
        (share(1.0), "100%"),
        (share(0.0), "0%"),
        (share(0.0834), "8.3%"),
        (share(0.0001), "<0.1%"),
        (duration(3.21), "3.2 s"),
        (duration(600), "10 min"),
        (duration(7200), "2.0 h"),
    ],
)
def test_numbers_have_the_digits_that_a_reader_needs(shown: str, expected: str) -> None:
    assert shown == expected


def test_an_excerpt_ends_between_words_and_says_that_it_was_cut() -> None:
    assert excerpt("one\n two") == "one two"
    assert excerpt("word " * 100, 22) == "word word word word …"
    assert excerpt("x" * 100, 10) == "x" * 10 + " …"
    assert excerpt("e\N{COMBINING ACUTE ACCENT}" * 9, 5) == "e\N{COMBINING ACUTE ACCENT}" * 2 + " …"
    assert "could not be read" in excerpt(None)


@pytest.mark.parametrize(("low", "high"), [(0.31, 1.07), (-2.5, 2.5), (0, 3), (1e-7, 9e-7), (5, 5), (0, 123456)])
def test_ticks_are_round_numbers_inside_the_scale(low: float, high: float) -> None:
    scale = Scale(low, high, 0, 100)
    ticks = scale.ticks()
    assert 1 <= len(ticks) <= 11 and len({name for _, name in ticks}) == len(ticks)
    for place, name in ticks:
        assert -0.1 <= place <= 100.1
        assert scale.at(float(name.replace(",", ""))) == pytest.approx(place, abs=0.2)

"""Properties of gotd_ray.text.clean."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gotd_ray.text.clean import clean

# Any character, and many of those that cleaning is about.
TEXTS = st.text(
    st.one_of(st.characters(), st.sampled_from("ab \t\n\r\x0b\x0c\x00\x85\u00a0\u0301\u200b\u2028\ufeff\ud800"))
)


@settings(max_examples=500, deadline=None)
@given(TEXTS)
def test_cleaning_twice_is_cleaning_once(text: str) -> None:
    assert clean(clean(text)) == clean(text)


@settings(max_examples=500, deadline=None)
@given(TEXTS)
def test_a_clean_text_is_nfc_utf8_with_single_spaces_and_at_most_one_blank_line(text: str) -> None:
    cleaned = clean(text)
    cleaned.encode("utf-8")
    assert unicodedata.is_normalized("NFC", cleaned)
    assert not any(bad in cleaned for bad in ("  ", " \n", "\n ", "\n\n\n", "\r", "\t", "\x00", "\u200b", "\ufeff"))
    assert cleaned == cleaned.strip()


@settings(max_examples=300, deadline=None)
@given(st.text(st.one_of(st.characters(max_codepoint=127), st.sampled_from("ab \t\n"))))
def test_the_short_way_for_ascii_gives_what_the_long_way_gives(text: str) -> None:
    assert clean(text + "\n\u00e9").removesuffix("\u00e9").rstrip() == clean(text)


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        ("one\r\ntwo\rthree", "one\ntwo\nthree"),
        ("a \t b", "a b"),
        ("  a  \n\n \n\n b ", "a\n\nb"),
        ("\ufeffa\u200bb\x00c\u00add", "abcd"),
        ("a\u00a0\u3000b", "a b"),
        ("e\u0301", "\u00e9"),
        ("e\u200b\u0301", "\u00e9"),
        ("a\ud800b", "ab"),
        ("\u202egnp.exe", "gnp.exe"),
        ("a\U000e0041b", "ab"),
        ("\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"),
        ("\U0001f469\u200d\U0001f52c", "\U0001f469\u200d\U0001f52c"),
        ("\u200b \n", ""),
    ],
)
def test_examples(raw: str, cleaned: str) -> None:
    assert clean(raw) == cleaned

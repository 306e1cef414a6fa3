"""Text becomes hashed n-grams of unit length: alike for texts with alike words, the same in every
process.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from topbill.domain.errors import BadRequest
from topbill.domain.features import Encoder, Feature
from topbill.domain.text_features import LONGEST_TEXT, text_numbers, words

SIZE = 256
ENCODER = Encoder((Feature("title", "text", size=SIZE),))


def encoded(text: str) -> np.ndarray:
    return ENCODER.encode({"title": text})


@given(st.text(max_size=60))
def test_a_text_with_a_word_has_unit_length_and_one_without_adds_nothing(text: str) -> None:
    length = float(np.linalg.norm(encoded(text)))
    # Two n-grams of opposite signs may cancel in one column; all of them hardly do.
    expected = (0.0, 1.0) if words(text) else (0.0,)
    assert any(length == pytest.approx(each) for each in expected)


@given(st.lists(st.sampled_from(["heist", "in", "oslo", "the", "last"]), min_size=1, max_size=6))
def test_capitals_and_punctuation_change_nothing(parts: list[str]) -> None:
    plain = encoded(" ".join(parts))
    assert (encoded(" – ".join(part.upper() for part in parts) + "!") == plain).all()


def test_what_shares_words_is_nearer_than_what_shares_none() -> None:
    heist = encoded("The last heist in Oslo")
    assert heist @ encoded("A heist in Oslo") > 0.4
    assert abs(heist @ encoded("Gardening with cats")) < 0.2
    # Order counts, through pairs of words.
    assert heist @ encoded("Oslo in heist last the") < 1.0 - 1e-9


def test_how_a_letter_was_typed_and_which_apostrophe_change_nothing() -> None:
    assert (encoded("Cafe\u0301 won\u2019t") == encoded("CAF\u00c9 won't")).all()
    assert words("won't") == ["won't"]


def test_numbers_are_pinned() -> None:
    """Policies have learned on them: another hash would be another feature."""
    third = 1 / math.sqrt(3)
    assert text_numbers("Midnight Run", 8) == ((0, third), (3, third), (4, -third))


def test_no_text_is_too_long_and_no_other_value_is_one() -> None:
    assert encoded("word " * 3 * LONGEST_TEXT).any()
    with pytest.raises(BadRequest, match=r"\$\.context\.title: got 7; expected text"):
        ENCODER.encode({"title": 7})
    assert not ENCODER.encode({"title": None}).any()

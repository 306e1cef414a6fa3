"""Texts and structs put into arrays by hand are what Arrow makes of them."""

from __future__ import annotations

import msgspec
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topbill.domain.arrow_columns import list_array, struct_lists, text_array
from topbill.domain.records import Mask

TEXT = st.text(st.characters(codec="utf-8"), max_size=6)
MASKS = st.builds(
    Mask,
    TEXT,
    st.integers(0, 2**40),
    st.integers(0, 2**40),
    st.lists(st.integers(0, 9), max_size=3).map(tuple),
    st.booleans(),
)
TYPE = pa.list_(
    pa.struct(
        {
            "rule": pa.string(),
            "start": pa.int64(),
            "stop": pa.int64(),
            "rows": pa.list_(pa.int64()),
            "only": pa.bool_(),
        }
    )
)


@settings(max_examples=50)
@given(st.lists(st.one_of(st.none(), TEXT), max_size=6))
def test_texts_are_those_that_arrow_makes_of_them(texts: list[str | None]) -> None:
    raws = [None if text is None else msgspec.Raw(text.encode()) for text in texts]
    assert text_array(raws).equals(pa.array(texts, pa.string()))


@settings(max_examples=50)
@given(st.lists(st.lists(TEXT, max_size=3), max_size=4))
def test_lists_are_those_that_arrow_makes_of_lists(lists: list[list[str]]) -> None:
    type_ = pa.list_(pa.string())
    items = [text for own in lists for text in own]
    assert list_array([len(own) for own in lists], items, type_).equals(pa.array(lists, type_))


@settings(max_examples=50)
@given(st.lists(st.lists(MASKS, max_size=3).map(tuple), max_size=4))
def test_lists_of_structs_are_those_that_arrow_makes_of_dicts(
    lists: list[tuple[Mask, ...]],
) -> None:
    plain = [[msgspec.structs.asdict(mask) for mask in masks] for masks in lists]
    assert struct_lists(lists, TYPE).equals(pa.array(plain, TYPE))


def test_text_that_is_no_utf_8_is_refused() -> None:
    with pytest.raises(pa.ArrowInvalid):
        text_array([msgspec.Raw(b'"\xff"')])


def test_more_text_than_one_array_holds_is_refused() -> None:
    class Huge(bytes):
        def __len__(self) -> int:
            return 2**30

    with pytest.raises(OverflowError, match="2,147,483,648 items"):
        text_array([Huge(), Huge()])  # type: ignore[list-item]

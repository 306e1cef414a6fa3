"""Many mappings encoded at once, straight from their JSON, become the numbers that the encoder
makes of each, to the last bit; what the encoder refuses, they refuse.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from topbill.domain.errors import BadRequest
from topbill.domain.features import Encoder, Feature
from topbill.domain.typed_features import typed_features

FEATURES = (
    Feature("device", "category", values=("tv", "web")),
    Feature("hour", "cycle", period=24.0),
    Feature("age", "number", low=0.0, high=30.0),
    Feature("heat", "number"),
    Feature("taste", "vector", keys=("crime", "sci fi", "é")),
    Feature("kids", "flag"),
    Feature("title", "id"),
    Feature("headline", "text", size=8),
)
TYPED = typed_features(FEATURES)
ENCODER = Encoder(FEATURES)
numbers = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(),
    st.sampled_from([-0.0, 1e6, -1e6, 1e6 + 1, 15, 10**400]),
)
anything = st.one_of(
    st.none(),
    st.booleans(),
    numbers,
    st.sampled_from(["tv", "web", "fridge", ""]),
    st.lists(numbers, max_size=2),
    st.dictionaries(st.sampled_from(["crime", "sci fi", "é", "other"]), numbers, max_size=3),
)
fitting = st.fixed_dictionaries(
    {},
    optional={
        "device": st.none() | st.text(max_size=3) | st.sampled_from(["tv", "web"]),
        "hour": st.none() | st.floats(-1e9, 1e9),
        "age": st.none() | st.floats(-1e9, 1e9),
        "heat": st.none() | st.floats(-1e6, 1e6) | st.integers(-(10**6), 10**6),
        "taste": st.none()
        | st.dictionaries(
            st.sampled_from(["crime", "sci fi", "é", "other"]), st.none() | st.floats(-1e6, 1e6)
        ),
        "kids": st.none() | st.booleans(),
        "title": st.none() | st.text(max_size=3),
        "headline": st.none() | st.text(max_size=12),
    },
)


def typed(text: str) -> Any:
    assert TYPED is not None
    return msgspec.json.decode(text, type=TYPED.type)


@given(st.lists(fitting, max_size=4))
def test_the_numbers_are_the_encoders(mappings: list[dict[str, Any]]) -> None:
    assert TYPED is not None
    matrix = TYPED.matrix([typed(json.dumps(mapping)) for mapping in mappings])
    assert matrix.shape == (len(mappings), ENCODER.size)
    for row, mapping in zip(matrix, mappings, strict=True):
        assert row.tobytes() == ENCODER.encode(mapping).tobytes()


@given(
    st.dictionaries(
        st.sampled_from([*(feature.name for feature in FEATURES), "undeclared"]), anything
    )
)
def test_what_is_taken_the_encoder_takes_as_well(mapping: dict[str, Any]) -> None:
    assert TYPED is not None
    text = json.dumps(mapping)
    try:
        values = typed(text)
    except msgspec.ValidationError:
        return
    assert TYPED.matrix([values])[0].tobytes() == ENCODER.encode(json.loads(text)).tobytes()


@pytest.mark.parametrize(
    "text", ['{"undeclared": 1}', '{"heat": true}', '{"heat": 1000001}', '{"taste": [1]}', "[]"]
)
def test_what_the_encoder_refuses_is_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        ENCODER.encode(json.loads(text))
    with pytest.raises(msgspec.ValidationError):
        typed(text)


def test_what_may_be_anything_has_no_type() -> None:
    assert typed_features((Feature("*", "hashed", size=8),)) is None
    assert typed_features((Feature('a"b', "flag"),)) is None
    nothing = typed_features(())
    assert nothing is not None
    assert nothing.matrix([nothing.type(), nothing.type()]).shape == (2, 0)
    assert np.array_equal(Encoder(()).encode({}), nothing.matrix([nothing.type()])[0])

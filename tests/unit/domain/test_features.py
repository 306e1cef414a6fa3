"""What a feature schema makes of raw values."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from topbill.domain.errors import BadRequest
from topbill.domain.features import Encoder, Feature
from topbill.domain.records import Action

STEADY = settings(suppress_health_check=[HealthCheck.too_slow])
SCHEMA = (
    Feature("device", "category", values=("tv", "mobile", "web")),
    Feature("hour", "cycle", period=24.0),
    Feature("taste", "vector", keys=("comedy", "drama")),
    Feature("age", "number", low=0.0, high=10.0),
    Feature("score", "number"),
    Feature("kids", "flag"),
)
ENCODER = Encoder(SCHEMA)
FULL = {
    "device": "mobile",
    "hour": 6,
    "taste": {"drama": 0.5},
    "age": 10,
    "score": -3,
    "kids": True,
}


def encode(**context: Any) -> dict[str, float]:
    return dict(zip(ENCODER.names, ENCODER.encode(context).tolist(), strict=True))


def test_every_number_of_the_vector_has_a_name() -> None:
    assert ENCODER.names == (
        *("device=tv", "device=mobile", "device=web"),
        *("hour:sin", "hour:cos"),
        *("taste:comedy", "taste:drama"),
        *("age", "score", "kids"),
    )
    assert ENCODER.size == 10


def test_each_kind_is_encoded_as_declared() -> None:
    np.testing.assert_allclose(ENCODER.encode(FULL), [0, 1, 0, 1, 0, 0, 0.5, 1, -3, 1], atol=1e-15)
    assert ENCODER.encode(FULL).dtype == np.float64


def test_what_is_missing_or_none_is_zero() -> None:
    assert not ENCODER.encode({}).any()
    assert not ENCODER.encode(dict.fromkeys(FULL)).any()


def test_values_and_keys_that_the_schema_has_not_seen_add_nothing() -> None:
    assert not ENCODER.encode({"device": "fridge", "taste": {"western": 1.0}}).any()


def test_a_bounded_number_is_scaled_and_clipped_so_that_missing_is_the_middle() -> None:
    assert [encode(age=age)["age"] for age in (-5, 0, 2.5, 5, 10, 1e300)] == [-1, -1, -0.5, 0, 1, 1]


@STEADY
@given(st.floats(-1e6, 1e6), st.integers(-100, 100))
def test_a_cycle_returns_after_its_period_and_has_length_one(hour: float, turns: int) -> None:
    once, again = encode(hour=hour), encode(hour=hour + 24.0 * turns)
    assert math.hypot(once["hour:sin"], once["hour:cos"]) == pytest.approx(1.0)
    assert again["hour:sin"] == pytest.approx(once["hour:sin"], abs=1e-8)
    assert again["hour:cos"] == pytest.approx(once["hour:cos"], abs=1e-8)


@pytest.mark.parametrize(
    ("context", "message"),
    [
        ({"hour": "late"}, "$.context.hour: got 'late'; expected a number"),
        ({"hour": math.nan}, "$.context.hour: got nan; expected a finite number"),
        ({"hour": [20]}, "$.context.hour: got a list; expected a number"),
        ({"hour": True}, "$.context.hour: got true; expected a number"),
        ({"age": -math.inf}, "$.context.age: got -inf; expected a finite number"),
        (
            {"age": 10**400},
            "$.context.age: got a number of more than 40 digits; expected a finite number",
        ),
        ({"score": 1e7}, "$.context.score: got 10000000.0; expected a number within ±1,000,000"),
        ({"device": 3}, "$.context.device: got 3; expected text"),
        ({"device": ["tv"]}, "$.context.device: got a list; expected text"),
        ({"taste": 0.5}, "$.context.taste: got 0.5; expected a mapping from key to number"),
        ({"taste": {"drama": "much"}}, "$.context.taste.drama: got 'much'; expected a number"),
        (
            {"taste": {"drama": math.nan}},
            "$.context.taste.drama: got nan; expected a finite number",
        ),
        ({"kids": 1}, "$.context.kids: got 1; expected true or false"),
        (
            {"devise": None},
            "$.context.devise: got an undeclared feature; "
            "expected one of device, hour, taste, age, score, kids; did you mean device?",
        ),
        (["tv"], "$.context: got a list; expected a mapping from feature name to value"),
    ],
)
def test_what_does_not_fit_is_named_with_its_path(context: Any, message: str) -> None:
    with pytest.raises(BadRequest) as caught:
        ENCODER.encode(context)
    assert str(caught.value) == message


def test_faults_lists_everything_where_encode_stops_at_the_first() -> None:
    problems = ENCODER.problems({"hour": "late", "age": 5, "kids": "no", "devise": "tv"})
    assert [problem.path for problem in problems] == [".hour", ".kids", ".devise"]


def test_an_experiment_without_features_takes_none() -> None:
    empty = Encoder(())
    assert empty.encode({}).shape == (0,)
    with pytest.raises(BadRequest, match="declares no features"):
        empty.encode({"device": "tv"})


def test_actions_become_one_matrix() -> None:
    actions = [Action("a", {"kids": True}), Action("b"), Action("c", {"age": 10})]
    encoded = ENCODER.encode_actions(actions)
    assert encoded.ids == ("a", "b", "c")
    assert encoded.features.shape == (3, 10)
    np.testing.assert_array_equal(
        encoded.features, [ENCODER.encode(action.features) for action in actions]
    )
    assert ENCODER.encode_actions([]).features.shape == (0, 10)
    assert Encoder(()).encode_actions([Action("a")]).features.shape == (1, 0)


def test_an_action_that_does_not_fit_is_named_by_its_place() -> None:
    with pytest.raises(BadRequest) as caught:
        ENCODER.encode_actions([Action("a"), Action("b", {"hour": "late"})])
    assert caught.value.path == "$.actions[1].features.hour"


_RAW: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


@STEADY
@given(st.dictionaries(st.sampled_from([*FULL, "other"]), _RAW, max_size=6))
def test_any_mapping_gives_finite_numbers_or_a_bad_request(context: dict[str, Any]) -> None:
    try:
        encoded = ENCODER.encode(context)
    except BadRequest:
        encoded = None
    assert (encoded is None) is bool(list(ENCODER.problems(context)))
    if encoded is not None:
        assert encoded.shape == (ENCODER.size,)
        assert np.isfinite(encoded).all()


# Hashed: any JSON

HASHED = Encoder((Feature("any", "hashed", size=64),))
NESTED = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(10**30), 10**30),
        st.floats(allow_nan=False),
        st.text(max_size=5),
    ),
    lambda part: st.one_of(
        st.lists(part, max_size=4), st.dictionaries(st.text(max_size=4), part, max_size=4)
    ),
    max_leaves=12,
)


def hashed(value: Any) -> list[float]:
    return [float(v) for v in HASHED.encode({"any": value})]


@STEADY
@given(st.dictionaries(st.text(max_size=4), NESTED, max_size=4))
def test_any_json_hashes_to_finite_numbers_or_a_bad_request(value: dict[str, Any]) -> None:
    try:
        found = hashed(value)
    except BadRequest:
        return
    assert len(found) == 64
    assert all(math.isfinite(v) for v in found)
    assert np.allclose(found, hashed(dict(reversed(value.items()))), atol=1e-9), (
        "keys have no order"
    )
    assert np.allclose(found, hashed([{name: part} for name, part in value.items()]), atol=1e-9), (
        "a list adds up"
    )


def test_hashed_names_tell_values_and_paths_apart_and_numbers_by_their_size() -> None:
    assert hashed({"a": "x"}) != hashed({"a": "y"}) != hashed({"b": "y"})
    assert hashed({"a": {"b": 1}}) == hashed({"a.b": 1})
    assert np.linalg.norm(hashed({"a": "x"})) == np.linalg.norm(hashed({"a": True})) == 1.0
    assert np.linalg.norm(hashed({"a": 1e9})) == pytest.approx(math.asinh(1e9))
    assert hashed({"a": [1.0, 2.0]}) != hashed({"a": [2.0, 1.0]}), "numbers of a list have places"
    assert hashed({"a": ["x", "y"]}) == hashed({"a": ["y", "x"]}), "words of a list have none"
    assert hashed({"a": False, "b": None, "_c": 1, "d": {"_e": "x"}, "f": 0}) == [0.0] * 64


def test_signs_of_hashed_names_are_even_so_that_collisions_cancel_on_average() -> None:
    signs = [sum(hashed({f"name{i}": True})) for i in range(2_000)]
    assert abs(sum(signs)) < 4 * math.sqrt(2_000), "four standard deviations of fair signs"
    columns = {
        max(range(64), key=lambda c: abs(found[c]))
        for found in (hashed({f"n{i}": True}) for i in range(2_000))
    }
    assert len(columns) == 64


@pytest.mark.parametrize("value", [{"a": float("inf")}, {"a": {"b": [float("nan")]}}, 7, "text"])
def test_what_cannot_be_hashed_is_named(value: Any) -> None:
    with pytest.raises(BadRequest, match="any"):
        hashed(value)


def test_deep_nesting_is_refused() -> None:
    value: Any = 1
    for _ in range(30):
        value = {"a": value}
    with pytest.raises(BadRequest, match="at most 16 levels"):
        hashed(value)

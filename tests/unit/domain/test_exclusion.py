"""Who is left out: the same by Python, when it is decided, and by SQL, when the record is read."""

from __future__ import annotations

import json
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topbill.domain.exclusion import NOBODY, Exclusion
from topbill.domain.sql import quoted

_NAMES = st.sampled_from(["is_bot", "device", 'a "b" \\ c', "hour", "a.b"])
_SCALARS = st.one_of(
    st.booleans(),
    st.integers(-2, 2),
    st.sampled_from([0.5, 1.0, -1.5]),
    st.sampled_from(["", "1"]),
    st.sampled_from(["true", "tv", "it's"]),
)
_ANY = st.one_of(_SCALARS, st.none(), st.lists(_SCALARS, max_size=2))


@settings(max_examples=60)
@given(
    st.dictionaries(_NAMES, st.one_of(_SCALARS, st.lists(_SCALARS, min_size=1, max_size=3))),
    st.lists(st.sampled_from(["u1", "u'2"]), max_size=2, unique=True),
    st.lists(st.dictionaries(_NAMES, _ANY), min_size=1, max_size=4),
)
def test_python_and_sql_leave_out_the_same(
    conditions: dict[str, Any], units: list[str], contexts: list[dict[str, Any]]
) -> None:
    exclusion = Exclusion.of({"context": conditions, "units": units})
    with duckdb.connect() as connection:
        for context in contexts:
            for unit in ("u1", "u'2", "u3"):
                text = quoted(json.dumps(context))
                sql = exclusion.reason_sql("unit", "context")
                query = f"SELECT {sql} FROM (SELECT {quoted(unit)} AS unit, {text} AS context)"  # noqa: S608
                ((got,),) = connection.execute(query).fetchall()
                assert got == exclusion.reason(unit, context)


@pytest.mark.parametrize(
    ("context", "reason"),
    [
        ({"is_bot": True}, "excluded_context"),
        ({"is_bot": 1}, None),
        ({"is_bot": "true"}, None),
        ({"is_bot": None}, None),
        ({"device": "probe"}, "excluded_context"),
        ({"device": "tv"}, None),
        ({"hour": 3.0}, "excluded_context"),
        ({}, None),
        (None, None),
    ],
)
def test_values_compare_as_json_has_them(context: Any, reason: str | None) -> None:
    exclusion = Exclusion.of(
        {"context": {"is_bot": True, "device": ["probe", "lab"], "hour": 3}, "units": ["staff"]}
    )
    assert exclusion.reason("u", context) == reason
    assert exclusion.reason("staff", context) == "excluded_unit"
    assert NOBODY.reason("staff", context) is None
    assert not NOBODY

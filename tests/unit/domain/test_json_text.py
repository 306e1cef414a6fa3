"""What may be stored of a body: JSON that every reader takes for the same value."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from topbill.domain import json_text
from topbill.domain.errors import BadRequest, Malformed
from topbill.domain.json_text import (
    DEEPEST,
    LONGEST_EXPLAINED,
    MOST_CONTAINERS,
    check_json,
)

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    # Half of a surrogate pair is no character, and no text that JSON can carry.
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner)
    ),
    max_leaves=20,
)


def nested(levels: int) -> bytes:
    """A list in a list, so many times."""
    return b"[" * levels + b"]" * levels


@given(VALUES, st.booleans())
@example({":": {"a:b": ":"}, "\\u003a": 1}, True)
@example({"a": "\\u003A"}, True)
def test_what_a_library_writes_is_taken(value: Any, ascii_only: bool) -> None:
    check_json(json.dumps(value, ensure_ascii=ascii_only).encode())
    check_json(msgspec.json.encode(value))


WRONG: dict[str, tuple[bytes, str]] = {
    "not UTF-8": (b'{"a":"\xff"}', "$: got byte 0xff at 6; expected UTF-8"),
    "an encoded surrogate": (b'"\xed\xa0\x80"', "$: got byte 0xed at 1; expected UTF-8"),
    "UTF-16": ('{"a":1}'.encode("utf-16"), "expected UTF-8"),
    "half a pair": (b'{"a":["\\ud800"]}', "$.a[0]: got half of a surrogate pair"),
    "half a pair in a name": (b'{"a":{"\\udc00":1}}', "$.a: got half of a surrogate pair"),
    "NaN": (b'{"a":[1,NaN]}', "$.a[1]: NaN is no JSON number"),
    "an infinity": (b'{"a":-Infinity}', "$.a: -Infinity is no JSON number"),
    "past every double": (b'{"a":{"b":1e999}}', "$.a.b: got a number past"),
    "a name twice": (b'{"a":{"b":1,"b":1}}', "$.a: 'b' is there twice"),
    "a name twice, quoted": (b'{"b":1,"\\u0062":1}', "$: 'b' is there twice"),
    "a name twice, and a quoted colon": (b'{"c":"\\u003a","c":1}', "$: 'c' is there twice"),
    "too deep": (b'{"a":' + nested(DEEPEST) + b"}", "deeper nesting"),
    "far too deep": (nested(900), "deeper nesting"),
    "too many lists": (b"[" + b"[]," * MOST_CONTAINERS + b"1]", "100,001 lists and objects"),
    "beyond any stack": (nested(100_000), "deeper nesting"),
    "a bracket alone": (b"[" * 100_000, "deeper nesting"),
    "nothing": (b"", "expected JSON"),
    "half of it": (b'{"a":', "expected JSON"),
    "two of it": (b"{}{}", "expected JSON"),
    "too long a number": (b'{"a":%s}' % (b"1" * 5_000), "got Integer value out of range"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_readers_would_not_take_alike_is_refused_with_its_place(name: str) -> None:
    text, message = WRONG[name]
    with pytest.raises(BadRequest) as refused:
        check_json(text)
    assert message in str(refused.value)


LONG = b'{"b":[%s' % (b"1," * LONGEST_EXPLAINED)
LONG_WRONG: dict[str, tuple[bytes, str]] = {
    "not UTF-8": (LONG + b'"\xff"]}', "expected UTF-8"),
    "past every double": (LONG + b"1e999]}", f"[{LONGEST_EXPLAINED}]: got Number out of range"),
    "a name twice": (LONG + b'{"a":1,"a":2}]}', "a name is there twice in one object"),
    "a name twice, and a quoted colon": (LONG + b'{"\\u003a":1,"c":{},"c":2}]}', "twice"),
    "NaN": (LONG + b"NaN]}", "invalid character"),
    "too deep": (LONG + nested(DEEPEST) + b"]}", "deeper nesting"),
}


@pytest.mark.parametrize("name", LONG_WRONG)
def test_a_long_text_is_refused_without_being_read_slowly(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, message = LONG_WRONG[name]
    monkeypatch.setattr(json_text, "_flaw_in", None)
    with pytest.raises(BadRequest) as refused:
        check_json(text)
    assert message in str(refused.value)
    check_json(LONG + b'"\\\\u003a",{"a":":"}]}')


def test_as_deep_as_may_be_is_taken() -> None:
    check_json(nested(DEEPEST))
    check_json(b"[" + b"[]," * (MOST_CONTAINERS - 1) + b"1]")
    check_json(b"[" + b",".join([nested(DEEPEST - 1)] * 3) + b"]")


@given(VALUES, st.data())
def test_text_with_bytes_changed_is_refused_or_reads_alike_everywhere(
    value: Any, data: st.DataObject
) -> None:
    text = bytearray(json.dumps(value).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(text) - 1))
        width = data.draw(st.integers(0, 1))
        text[place : place + width] = data.draw(st.binary(min_size=1, max_size=3))
    try:
        check_json(bytes(text))
    except BadRequest:
        return
    assert json.loads(text.decode()) == msgspec.json.decode(text)


def test_only_what_is_no_json_at_all_is_malformed() -> None:
    for text in (b"{", b'"\xff"', b"nul"):
        with pytest.raises(Malformed):
            check_json(text)
    with pytest.raises(BadRequest) as refused:
        check_json(b'{"a":1,"a":2}')
    assert not isinstance(refused.value, Malformed)

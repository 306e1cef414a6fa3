"""What JSON text must be before any of it is stored: looked at once, at the edge, in the same way
for every door.

Much of a body is kept as the text that came, and is read again by others: the log, policies, Arrow,
DuckDB, whoever opens the lake. What one of them cannot read, or two of them read differently, must
not get in.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from topbill.domain.errors import BadRequest, Malformed

DEEPEST = 64
"""Levels of nesting that JSON text may have: far above what anybody means, and far below where some
reader's stack ends."""
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


def check_json(raw: bytes, path: str = "$") -> None:
    """Raises where `raw` is not what every reader of JSON takes for the same value.

    Args:
        raw: JSON text, as it came.
        path: Where it stands, for messages.

    Raises:
        Malformed: It is no JSON, or not UTF-8.
        BadRequest: A name is there twice in one object; a number is none, or none that a double
            holds; a text has half a surrogate pair; it is nested deeper than `DEEPEST`.

    >>> check_json(b'{"a": [1, 2], "b": {"a": null}}')
    """
    try:
        value = _decode(raw)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise _refusal(raw, path, str(error)) from None
    # The decoder drops doubles without a word, and a parser that tells of them is ten times as
    # slow. But a name takes a colon: where all colons come out again, no name was dropped.
    if _encode(value).count(b":") != _colons(raw) or _is_too_deep(raw, value):
        flaw = _flaw_in(raw, path)
        if flaw is not None:
            raise flaw


def _colons(raw: bytes) -> int:
    """How many colons the text stands for, or more than that where a backslash is quoted."""
    colons = raw.count(b":")
    if b"\\u003" in raw:
        colons += raw.count(b"\\u003a") + raw.count(b"\\u003A")
    return colons


def _is_too_deep(raw: bytes, value: Any) -> bool:
    # Most bodies have fewer brackets than the levels that they may have.
    if raw.count(b"[") + raw.count(b"{") <= DEEPEST:
        return False
    level = [value]
    for _ in range(DEEPEST):
        level = [part for parent in level for part in _containers(parent)]
        if not level:
            return False
    return True


def _containers(value: Any) -> list[Any]:
    """The objects and lists that stand in a value."""
    kind = type(value)
    if kind is dict:
        return [part for part in value.values() if type(part) is dict or type(part) is list]
    if kind is list:
        return [part for part in value if type(part) is dict or type(part) is list]
    return []


# ------------------------------------------------------------------ what is wrong, slowly


class _Members(NamedTuple):
    """An object with all its names, also those that are there twice."""

    pairs: list[tuple[str, Any]]


class _Constant(NamedTuple):
    """NaN or an infinity, which Python writes and JSON does not have."""

    name: str


def _refusal(raw: bytes, path: str, message: str) -> BadRequest:
    """Why text that could not be decoded is refused: the flaw that can be named, or the decoder's
    own words."""
    try:
        flaw = _flaw_in(raw, path)
    except UnicodeDecodeError as error:
        byte = raw[error.start]
        return Malformed(path, f"got byte 0x{byte:02x} at {error.start:,}; expected UTF-8")
    except ValueError:
        return Malformed(path, f"got {message}; expected JSON")
    return flaw or Malformed(path, f"got {message}; expected JSON")


def _flaw_in(raw: bytes, path: str) -> BadRequest | None:
    """The first flaw of a text that Python's tolerant parser can read. Raises ValueError for one
    that it can't."""
    try:
        # Decoded here: the parser would also take UTF-16 and UTF-32.
        value = json.loads(
            bytes(raw).decode(), object_pairs_hook=_Members, parse_constant=_Constant
        )
    except RecursionError:
        return _too_deep(path)
    return next(_flaws(value, path, 0), None)


def _flaws(value: Any, path: str, depth: int) -> Iterator[BadRequest]:
    if depth >= DEEPEST and isinstance(value, _Members | list):
        yield _too_deep(path)
    elif isinstance(value, _Members):
        yield from _flaws_of_members(value, path, depth)
    elif isinstance(value, list):
        for index, part in enumerate(value):
            yield from _flaws(part, f"{path}[{index}]", depth + 1)
    elif isinstance(value, str):
        if not _is_text(value):
            yield BadRequest(path, "got half of a surrogate pair; expected whole characters")
    elif isinstance(value, _Constant):
        yield BadRequest(path, f"{value.name} is no JSON number; expected a finite number")
    elif isinstance(value, float) and not math.isfinite(value):
        yield BadRequest(path, "got a number past 1.8e308; expected a finite number")


def _flaws_of_members(value: _Members, path: str, depth: int) -> Iterator[BadRequest]:
    names = set[str]()
    for name, part in value.pairs:
        if not _is_text(name):
            yield BadRequest(path, "got half of a surrogate pair in a name; expected whole ones")
            return
        if name in names:
            yield BadRequest(path, f"{name[:64]!r} is there twice; expected each name once")
        names.add(name)
        yield from _flaws(part, f"{path}.{name[:64]}", depth + 1)


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _too_deep(path: str) -> BadRequest:
    return BadRequest(path[:200], f"got deeper nesting; expected at most {DEEPEST} levels")

"""What JSON text must be before any of it is stored: looked at once, at the edge, in the same way
for every door.

Much of a body is kept as the text that came, and is read again by others: the log, policies, Arrow,
DuckDB, whoever opens the lake. What one of them cannot read, or two of them read differently, must
not get in.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from topbill.domain.errors import BadRequest, Malformed

DEEPEST = 64
"""Levels of nesting that JSON text may have: far above what anybody means, and far below where some
reader's stack ends."""
MOST_CONTAINERS = 100_000
"""Lists and objects that JSON text may have: what the largest batch has. Each costs a reader a
thousand times what a byte of text does, and whoever waits meanwhile waits for all of them."""
LONGEST_EXPLAINED = 50_000
"""Bytes of a text that is read again, slowly, to say where its flaw is. Of a longer one that would
keep others waiting."""
_ESCAPED = re.compile(rb"\\.", re.DOTALL)
_STRING = re.compile(rb'"[^"]*"')
_BRACKETS = bytes.maketrans(b"{}", b"[]")
_ALL_ELSE = bytes(set(range(256)) - set(b"[]{}"))
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


def check_json(raw: bytes, path: str = "$") -> Any:
    """The value of JSON text. Raises where it is not what every reader takes for the same one.

    Args:
        raw: JSON text, as it came.
        path: Where it stands, for messages.

    Raises:
        Malformed: It is no JSON, or not UTF-8.
        BadRequest: A name is there twice in one object; a number is none, or none that a double
            holds; a text has half a surrogate pair; it is nested deeper than `DEEPEST`, or has more
            than `MOST_CONTAINERS`.

    >>> check_json(b'{"a": [1, 2], "b": {"a": null}}')
    {'a': [1, 2], 'b': {'a': None}}
    """
    # Most bodies have fewer brackets than the levels that they may have.
    if raw.count(b"[") + raw.count(b"{") > DEEPEST:
        _check_brackets(raw, path)
    try:
        value = _decode(raw)
    except RecursionError:
        raise _too_deep(path) from None
    except (msgspec.DecodeError, UnicodeError) as error:
        raise _refusal(raw, path, error) from None
    # The decoder drops doubles without a word, and a parser that tells of them is ten times as
    # slow. But a name takes a colon: where all colons come out again, no name was dropped.
    written = _encode(value)
    if _colons(raw) != written.count(b":") and _names(raw) != _names(written):
        raise _explained(raw, path) or BadRequest(
            path, "a name is there twice in one object; expected each name once"
        )
    return value


def at_path(error: msgspec.ValidationError, root: str = "$") -> BadRequest:
    """msgspec's message as a BadRequest: the message and the path of the culprit, below `root`."""
    message, _, path = str(error).partition(" - at `")
    return BadRequest(root + path.rstrip("`").removeprefix("$"), message)


def _colons(raw: bytes) -> int:
    """How many colons the text stands for, or more than that where a backslash is quoted."""
    colons = raw.count(b":")
    if b"\\u003" in raw:
        colons += raw.count(b"\\u003a") + raw.count(b"\\u003A")
    return colons


def _names(raw: bytes) -> int:
    """How many names stand in JSON text."""
    return _without_strings(raw).count(b":")


def _check_brackets(raw: bytes, path: str) -> None:
    brackets = _without_strings(raw).translate(_BRACKETS, _ALL_ELSE)
    containers = brackets.count(b"[")
    if containers > MOST_CONTAINERS:
        raise BadRequest(
            path,
            f"got {containers:,} lists and objects; expected at most {MOST_CONTAINERS:,}: send "
            "less at once",
        )
    for _ in range(DEEPEST):
        brackets = brackets.replace(b"[]", b"")  # the innermost ones
    if b"[" in brackets:
        raise _too_deep(path)


def _without_strings(raw: bytes) -> bytes:
    if b"\\" in raw:
        raw = _ESCAPED.sub(b"", raw)
    return _STRING.sub(b"", raw)


# ------------------------------------------------------------------ what is wrong, slowly


class _Members(NamedTuple):
    """An object with all its names, also those that are there twice."""

    pairs: list[tuple[str, Any]]


class _Constant(NamedTuple):
    """NaN or an infinity, which Python writes and JSON does not have."""

    name: str


def _refusal(raw: bytes, path: str, problem: Exception) -> BadRequest:
    """Why text that could not be decoded is refused: the flaw that can be named, or the decoder's
    own words."""
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        byte = raw[error.start]
        return Malformed(path, f"got byte 0x{byte:02x} at {error.start:,}; expected UTF-8")
    try:
        flaw = _explained(raw, path)
    except ValueError:
        flaw = None
    if flaw is not None:
        return flaw
    if isinstance(problem, msgspec.ValidationError):
        wrong = at_path(problem, path)
        return BadRequest(wrong.path, f"got {wrong.message}; expected a number that a double holds")
    return Malformed(path, f"got {problem}; expected JSON")


def _explained(raw: bytes, path: str) -> BadRequest | None:
    return None if len(raw) > LONGEST_EXPLAINED else _flaw_in(raw, path)


def _flaw_in(raw: bytes, path: str) -> BadRequest | None:
    """The first flaw of a text that Python's tolerant parser can read. Raises ValueError for one
    that it can't."""
    # Decoded here: the parser would also take UTF-16 and UTF-32.
    value = json.loads(raw.decode(), object_pairs_hook=_Members, parse_constant=_Constant)
    return next(_flaws(value, path), None)


def _flaws(value: Any, path: str) -> Iterator[BadRequest]:
    if isinstance(value, _Members):
        yield from _flaws_of_members(value, path)
    elif isinstance(value, list):
        for index, part in enumerate(value):
            yield from _flaws(part, f"{path}[{index}]")
    elif isinstance(value, str):
        if not _is_text(value):
            yield BadRequest(path, "got half of a surrogate pair; expected whole characters")
    elif isinstance(value, _Constant):
        yield BadRequest(path, f"{value.name} is no JSON number; expected a finite number")
    elif isinstance(value, float) and not math.isfinite(value):
        yield BadRequest(path, "got a number past 1.8e308; expected a finite number")


def _flaws_of_members(value: _Members, path: str) -> Iterator[BadRequest]:
    names = set[str]()
    for name, part in value.pairs:
        if not _is_text(name):
            yield BadRequest(path, "got half of a surrogate pair in a name; expected whole ones")
            return
        if name in names:
            yield BadRequest(path, f"{name[:64]!r} is there twice; expected each name once")
        names.add(name)
        yield from _flaws(part, f"{path}.{name[:64]}")


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _too_deep(path: str) -> BadRequest:
    return BadRequest(path, f"got deeper nesting; expected at most {DEEPEST} levels")

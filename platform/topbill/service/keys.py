"""The keys that callers may use: who each one is of, what it may do, how often and until when. Only
hashes are kept, on disk and in memory.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

from topbill.domain.errors import BadRequest, SpecError, TopbillError
from topbill.domain.instants import instant
from topbill.spec.fields import (
    INVALID,
    SECONDS,
    Choice,
    JsonSchema,
    Key,
    ListOf,
    Location,
    Name,
    Section,
    Text,
)
from topbill.spec.yaml import MAX_BYTES, parse

SCOPES = ("decide", "reward", "read", "admin")
"""What a key may do; `admin` may do all of it, and whatever else there will be."""
_SHORTEST = 16
_RATE = r"^[1-9][0-9]{0,6}/(s|m|h)$"
_ADVICE = "make one with: topbill key NAME --scopes decide,reward"


@dataclass(frozen=True)
class ApiKey:
    """A key, by its hash.

    Attributes:
        name: Who calls with it: in metrics and in the audit log.
        digest: (32 bytes) SHA-256 of the key.
        scopes: Some of SCOPES.
        expires: From then on it is refused, in seconds since the epoch; None for never.
        rate: Requests a second; None for as many as come.
        per: The rate as the file says it.
    """

    name: str
    digest: bytes
    scopes: frozenset[str] = frozenset(SCOPES)
    expires: float | None = None
    rate: float | None = None
    per: str = ""

    def may(self, scope: str) -> bool:
        """Whether it may do what `scope` is for."""
        return scope in self.scopes or "admin" in self.scopes


@dataclass(frozen=True)
class Keys:
    """The keys that a service was started with, and the file where they may change."""

    entries: tuple[ApiKey, ...] = ()
    file: Path | None = None

    @classmethod
    def plain(cls, keys: Sequence[str]) -> Keys:
        """Keys of the old form, in clear: each of them may do everything."""
        return cls(_plain(keys))

    @classmethod
    def from_json(cls, entries: str, file: Path | None) -> Keys:
        """Keys from the JSON of another process."""
        return cls(msgspec.json.decode(entries, type=tuple[ApiKey, ...]), file)

    def to_json(self) -> str:
        """The keys for another process: their hashes, never a key."""
        return msgspec.json.encode(self.entries).decode()


class _Expiry:
    """A date (the key works to its end, UTC) or a time → seconds since the epoch."""

    def read(self, value: Any, at: Location) -> Any:
        if isinstance(value, str):
            try:
                return expiry("expires", value)
            except BadRequest:
                pass
        return at.wrong(value, "a date such as 2027-06-30, or a time such as 2027-06-30T12:00:00Z")

    def schema(self) -> JsonSchema:
        return {"type": "string"}


_ENTRIES = ListOf(
    Section(
        {
            "name": Key(Name, "Who calls with it.", required=True),
            "sha256": Key(
                Text(64, r"^[0-9a-f]{64}$", "the key's SHA-256, 64 hexadecimal digits"),
                "The key's hash.",
                required=True,
            ),
            "scopes": Key(
                ListOf(Choice(SCOPES), len(SCOPES), 1, unique=True),
                "What it may do.",
                required=True,
            ),
            "expires": Key(_Expiry(), "Until when it works."),
            "rate": Key(
                Text(10, _RATE, "a rate such as 1000/s, 600/m or 100/h"), "How often it may call."
            ),
        }
    ),
    most=1_000,
    least=1,
)


def read_keys(file: Path) -> Keys:
    """The keys of a file: a YAML list of `name`, `sha256`, `scopes` and maybe `expires` and `rate`;
    or, as before 0.2.0, a key in clear on each line.

    Raises TopbillError where the file can't be read, others may read or change it, or something
    in it is no key.
    """
    try:
        check_mode(file, "the keys")
        data = file.read_bytes()
    except OSError as error:
        raise TopbillError(f"{file}: cannot read the keys: {error.strerror or error}") from error
    text = data.decode(errors="replace")
    first = next((line for line in text.splitlines() if line.strip() and line[0] != "#"), "")
    if re.match(r"\s*(-\s|-$|\[|---)", first):
        return Keys(_listed(data, file.name), file)
    lines = [line.strip() for line in text.splitlines()]
    keys = [line for line in lines if line and not line.startswith("#")]
    if not keys:
        raise TopbillError(f"{file}: no key; {_ADVICE}")
    return Keys(_plain(keys), file)


def keys_of_environment() -> Keys:
    """The keys of TOPBILL_KEYS, separated by commas. The variable is taken away, so that no process
    started later gets it. Raises TopbillError for what is no key."""
    text = os.environ.pop("TOPBILL_KEYS", "")
    return Keys.plain([key.strip() for key in text.split(",") if key.strip()])


def new_key(
    name: str, scopes: Sequence[str], expires: str | None, rate: str | None
) -> tuple[str, str]:
    """A fresh key, and its entry for the file. Raises TopbillError for what no entry can be."""
    secret = f"topbill_{secrets.token_hex(24)}"
    lines = [
        f"- name: {name}",
        f"  sha256: {_digest(secret).hex()}",
        f"  scopes: [{', '.join(scopes)}]",
    ]
    if expires is not None:
        lines.append(f"  expires: {expires}")
    if rate is not None:
        lines.append(f"  rate: {rate}")
    entry = "\n".join(lines) + "\n"
    # Words that the file would be refused for are refused here.
    (key,) = _listed(entry.encode(), "key")
    if key.expires is not None and key.expires <= time.time():
        raise TopbillError(f"key: expires is {expires}, which is past; expected a later date")
    return secret, entry


def expiry(name: str, text: str) -> float:
    """When a key that expires on a date (at its end, UTC) or at a time does, in seconds since the
    epoch. Raises BadRequest, naming `name`."""
    moment = instant(name, text)
    if re.fullmatch(r"\d{4}-\d{2}-\d{2}", text):
        moment += timedelta(days=1)
    return moment.timestamp()


def day(seconds: float) -> str:
    """Seconds since the epoch as a time, UTC."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"


def check_mode(file: Path, what: str) -> None:
    """Raises TopbillError where others than the owner's group may read the file, or others than the
    owner may write it; `what` it holds, for the message."""
    mode = stat.S_IMODE(file.stat().st_mode)
    if mode & (stat.S_IRWXO | stat.S_IWGRP):
        raise TopbillError(
            f"{file}: its mode is {mode:04o}, so that others may read or change {what}; "
            f"expected 0600 or 0640: chmod 600 {file}"
        )


def _listed(data: bytes, name: str) -> tuple[ApiKey, ...]:
    if len(data) > MAX_BYTES:
        raise TopbillError(f"{name}: {len(data):,} bytes; expected at most {MAX_BYTES:,}")
    raw, problems, lines = parse(data, name)
    at = Location(name, problems=problems, lines=lines)
    entries = _ENTRIES.read(raw, at)
    if entries is INVALID or at.problems:
        raise SpecError(at.problems)
    keys = tuple([_of(entry) for entry in entries])
    for what in ("name", "digest"):
        values = [getattr(key, what) for key in keys]
        for index, value in enumerate(values):
            if value in values[:index]:
                column = "sha256" if what == "digest" else what
                shown = value.hex() if isinstance(value, bytes) else value
                at.item(index).key(column).wrong(shown, "another one for each key")
    if at.problems:
        raise SpecError(at.problems)
    return keys


def _of(entry: dict[str, Any]) -> ApiKey:
    per = entry.get("rate", "")
    rate = None
    if per:
        count, _, unit = per.partition("/")
        rate = int(count) / float(SECONDS[unit])
    return ApiKey(
        entry["name"],
        bytes.fromhex(entry["sha256"]),
        frozenset(entry["scopes"]),
        entry.get("expires"),
        rate,
        per,
    )


def _plain(keys: Sequence[str]) -> tuple[ApiKey, ...]:
    if any(" " in key for key in keys):
        raise TopbillError(
            "a key has a space in it; expected a YAML list of keys (`- name: …`), or a key a line"
        )
    if any(len(key) < _SHORTEST for key in keys):
        raise TopbillError(f"a key is shorter than {_SHORTEST} characters; {_ADVICE}")
    # Keys without names are called by their place.
    return tuple([ApiKey(f"key-{i}", _digest(key)) for i, key in enumerate(keys, start=1)])


def _digest(key: str) -> bytes:
    return sha256(key.encode()).digest()

"""What may stand at a key of an experiment file. Each form reads a plain value and gives its own
JSON Schema, so that what the loader accepts and what the schema promises come from one
declaration."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from difflib import SequenceMatcher, get_close_matches
from typing import Any, Protocol

import msgspec

from topbill.domain.errors import FileProblem, SpecError

MAX_TEXT = 512
MAX_PROBLEMS = 200
SECONDS = {
    "ms": Decimal("0.001"),
    "s": Decimal(1),
    "m": Decimal(60),
    "h": Decimal(3600),
    "d": Decimal(86400),
}
PERCENT = r"^-?[0-9]{1,9}(\.[0-9]{1,4})?%$"
DURATION = r"^[0-9]{1,9}(\.[0-9]{1,3})?(ms|s|m|h|d)$"
NAME = r"^[A-Za-z]([A-Za-z0-9_-]{0,62}[A-Za-z0-9])?$"
BAD = object()
"""What `read` returns for a value that it has noted a problem for."""

Schema = dict[str, Any]


@dataclass(frozen=True)
class At:
    """A place in a file, and the list that takes the problems found there and below."""

    file: str
    path: str = ""
    problems: list[FileProblem] = field(default_factory=list)

    def key(self, name: str) -> At:
        return replace(self, path=f"{self.path}.{name}" if self.path else name)

    def item(self, index: int) -> At:
        return replace(self, path=f"{self.path}[{index}]")

    def has_problem(self, name: str) -> bool:
        """Whether a problem was noted of key `name` of this place."""
        path = self.key(name).path
        return any(problem.path == path for problem in self.problems)

    def wrong(self, got: Any, expected: str, hint: str = "") -> Any:
        """Note a problem; returns BAD. `got` is shown as it is when it is a `Said`, as a value
        otherwise.

        Raises SpecError when there are MAX_PROBLEMS: nobody reads more, and a hostile file could
        hold very many.
        """
        said = got if isinstance(got, Said) else show(got)
        self.problems.append(FileProblem(self.file, self.path or "file", str(said), expected, hint))
        if len(self.problems) >= MAX_PROBLEMS:
            raise SpecError(self.problems)
        return BAD


class Said(str):
    """A description of what was got, as against the value itself."""


class Form(Protocol):
    def read(self, value: Any, at: At) -> Any:
        """The value in its final type, or BAD after noting what is wrong."""
        ...

    def schema(self) -> Schema: ...


def show(value: Any) -> str:
    """A value as a reader of the file would know it again."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return repr(value) if len(value) <= 60 else f"{value[:40]!r}… ({len(value)} characters)"
    if isinstance(value, Mapping):
        return f"a mapping with {listed(value)}" if value else "an empty mapping"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return repr(value)


def listed(names: Iterable[str], most: int = 30) -> str:
    names = list(names)
    return ", ".join(name[:64] for name in names[:most]) + (", …" if len(names) > most else "")


def nearest(name: str, names: Iterable[str]) -> str:
    """A hint that names the nearest of `names`, and asks whether it was meant when it is near
    indeed.
    """
    names = list(names)
    found = get_close_matches(name[:64], names, n=1, cutoff=0.0 if len(names) <= 100 else 0.6)
    if not found:
        return ""
    close = SequenceMatcher(None, name[:64], found[0]).ratio() >= 0.6
    return f"did you mean {found[0]}?" if close else f"nearest is {found[0]}"


def percent(fraction: float) -> str:
    return f"{round(fraction * 100, 4):g}%"


@dataclass(frozen=True)
class Text:
    """Text, printable, of at most `longest` characters; `pattern` narrows it, and `means` says what
    the pattern is.
    """

    longest: int = MAX_TEXT
    pattern: str = ""
    means: str = "text"

    def read(self, value: Any, at: At) -> Any:
        if not isinstance(value, str):
            return at.wrong(
                value, self.means, f"put it in quotes: '{show(value)}'" if _is_scalar(value) else ""
            )
        if len(value) > self.longest:
            return at.wrong(value, f"{self.means} of at most {self.longest} characters")
        if self.pattern and not re.fullmatch(self.pattern, value):
            return at.wrong(value, self.means)
        return value

    def schema(self) -> Schema:
        return {"type": "string", "maxLength": self.longest} | (
            {"pattern": self.pattern} if self.pattern else {}
        )


Name = Text(64, NAME, "a name: a letter, then letters, digits, - or _, at most 64, not - or _ last")
Id = Text(
    128,
    r"^[^\s\x00-\x1f\x7f]([^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f])?$",
    "an id: printable text without outer spaces",
)


def _is_scalar(value: Any) -> bool:
    return isinstance(value, bool | int | float)


@dataclass(frozen=True)
class Choice:
    """One of a few words; a registry stands for the names in it, as they are when a file is read."""

    words: Collection[str]

    def read(self, value: Any, at: At) -> Any:
        if isinstance(value, str) and value in self.words:
            return value
        return at.wrong(
            value,
            "one of " + listed(self.words),
            nearest(value, self.words) if isinstance(value, str) else "",
        )

    def schema(self) -> Schema:
        return {"enum": list(self.words)}


@dataclass(frozen=True)
class Flag:
    """true or false."""

    def read(self, value: Any, at: At) -> Any:
        if isinstance(value, bool):
            return value
        return at.wrong(value, "true or false")

    def schema(self) -> Schema:
        return {"type": "boolean"}


@dataclass(frozen=True)
class Number:
    """A number in [low, high]; `above` leaves `low` itself out."""

    low: float
    high: float
    whole: bool = False
    above: bool = False

    def read(self, value: Any, at: At) -> Any:
        kinds = int if self.whole else (int, float)
        inside = (
            isinstance(value, kinds)
            and not isinstance(value, bool)
            and self.low <= value <= self.high
        )
        if not inside or (self.above and value == self.low):
            return at.wrong(value, self._expected())
        return value if self.whole else float(value)

    def _expected(self) -> str:
        noun = "a whole number" if self.whole else "a number"
        low = "above" if self.above else "from"
        return f"{noun} {low} {self.low:,.15g} to {self.high:,.15g}"

    def schema(self) -> Schema:
        low = "exclusiveMinimum" if self.above else "minimum"
        return {"type": "integer" if self.whole else "number", low: self.low, "maximum": self.high}


@dataclass(frozen=True)
class Percent:
    """`20%` → 0.2, from 0% to 100%, with up to four decimals. A bare number is refused: is 1 all or
    a hundredth?
    """

    def read(self, value: Any, at: At) -> Any:
        if isinstance(value, str) and re.fullmatch(PERCENT, value):
            fraction = Decimal(value[:-1]) / 100
            return (
                float(fraction)
                if 0 <= fraction <= 1
                else at.wrong(value, "a percentage from 0% to 100%")
            )
        hint = ""
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 100:
            hint = f"write {percent(value if 0 < value < 1 else value / 100)}"
        return at.wrong(value, "a percentage such as 20%", hint)

    def schema(self) -> Schema:
        return {"type": "string", "pattern": PERCENT, "examples": ["20%"]}


@dataclass(frozen=True)
class Duration:
    """`30m` → 1800 seconds; units ms, s, m, h, d; above zero and at most 400 days."""

    def read(self, value: Any, at: At) -> Any:
        if isinstance(value, str) and (found := re.fullmatch(DURATION, value)):
            seconds = float(Decimal(value.removesuffix(found[2])) * SECONDS[found[2]])
            return (
                seconds
                if 0 < seconds <= 400 * 86400
                else at.wrong(value, "a duration above 0s and at most 400d")
            )
        bare = isinstance(value, int | float) and not isinstance(value, bool)
        return at.wrong(
            value,
            "a duration such as 10s, 30m, 6h or 7d",
            f"give it a unit, for example {value}m" if bare else "",
        )

    def schema(self) -> Schema:
        return {"type": "string", "pattern": DURATION, "examples": ["30m"]}


@dataclass(frozen=True)
class Covariate:
    """A duration, or a feature's name."""

    def read(self, value: Any, at: At) -> Any:
        if isinstance(value, str) and re.fullmatch(DURATION, value):
            return Duration().read(value, at)
        if isinstance(value, str) and re.fullmatch(NAME, value):
            return value
        return at.wrong(value, "a duration such as 28d, or the name of a number in context")

    def schema(self) -> Schema:
        return {"anyOf": [Duration().schema(), Name.schema()]}


@dataclass(frozen=True)
class Json:
    """Anything that JSON can hold, of at most 16 kB."""

    def read(self, value: Any, at: At) -> Any:
        size = len(msgspec.json.encode(value))
        return (
            value if size <= 16_000 else at.wrong(Said(f"{size:,} bytes as JSON"), "at most 16,000")
        )

    def schema(self) -> Schema:
        return {}

"""What may stand at a key of an experiment file. Each form reads a plain value and gives its own JSON Schema,
so that what the loader accepts and what the schema promises come from one declaration."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from difflib import SequenceMatcher, get_close_matches
from typing import Any, Protocol

import msgspec

from topbill.errors import Problem

MAX_TEXT = 512
SECONDS = {"ms": Decimal("0.001"), "s": Decimal(1), "m": Decimal(60), "h": Decimal(3600), "d": Decimal(86400)}
PERCENT = r"^-?[0-9]{1,9}(\.[0-9]{1,4})?%$"
DURATION = r"^[0-9]{1,9}(\.[0-9]{1,3})?(ms|s|m|h|d)$"
NAME = r"^[A-Za-z][A-Za-z0-9_-]{0,63}$"
BAD = object()
"""What `read` returns for a value that it has noted a problem for."""

Schema = dict[str, Any]


@dataclass(frozen=True)
class At:
    """A place in a file, and the list that takes the problems found there and below."""

    file: str
    path: str = ""
    problems: list[Problem] = field(default_factory=list)

    def key(self, name: str) -> At:
        return replace(self, path=f"{self.path}.{name}" if self.path else name)

    def item(self, index: int) -> At:
        return replace(self, path=f"{self.path}[{index}]")

    def wrong(self, got: Any, expected: str, hint: str = "") -> Any:
        """Note a problem; returns BAD. `got` is shown as it is when it is a `Said`, as a value otherwise."""
        said = got if isinstance(got, Said) else show(got)
        self.problems.append(Problem(self.file, self.path or "file", str(said), expected, hint))
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
    """A hint that names the nearest of `names`, and asks whether it was meant when it is near indeed."""
    found = get_close_matches(name[:64], list(names), n=1, cutoff=0.0)
    if not found:
        return ""
    close = SequenceMatcher(None, name[:64], found[0]).ratio() >= 0.6
    return f"did you mean {found[0]}?" if close else f"nearest is {found[0]}"


def percent(fraction: float) -> str:
    return f"{round(fraction * 100, 4):g}%"


@dataclass(frozen=True)
class Text:
    """Text, printable, of at most `longest` characters; `pattern` narrows it, and `means` says what the pattern is."""

    longest: int = MAX_TEXT
    pattern: str = ""
    means: str = "text"

    def read(self, value: Any, at: At) -> Any:
        if not isinstance(value, str):
            return at.wrong(value, self.means, f"put it in quotes: '{show(value)}'" if _is_scalar(value) else "")
        if len(value) > self.longest:
            return at.wrong(value, f"{self.means} of at most {self.longest} characters")
        if self.pattern and not re.fullmatch(self.pattern, value):
            return at.wrong(value, self.means)
        return value

    def schema(self) -> Schema:
        return {"type": "string", "maxLength": self.longest} | ({"pattern": self.pattern} if self.pattern else {})


Name = Text(64, NAME, "a name: a letter, then letters, digits, - or _ (at most 64)")
Id = Text(
    128, r"^[^\s\x00-\x1f\x7f]([^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f])?$", "an id: printable text without outer spaces"
)


def _is_scalar(value: Any) -> bool:
    return isinstance(value, bool | int | float)


@dataclass(frozen=True)
class Choice:
    """One of a few words."""

    words: tuple[str, ...]

    def read(self, value: Any, at: At) -> Any:
        if isinstance(value, str) and value in self.words:
            return value
        return at.wrong(
            value, "one of " + listed(self.words), nearest(value, self.words) if isinstance(value, str) else ""
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
        inside = isinstance(value, kinds) and not isinstance(value, bool) and self.low <= value <= self.high
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
    """`20%` → 0.2, from 0% to 100%, with up to four decimals. A bare number is refused: is 1 all or a hundredth?"""

    def read(self, value: Any, at: At) -> Any:
        if isinstance(value, str) and re.fullmatch(PERCENT, value):
            fraction = Decimal(value[:-1]) / 100
            return float(fraction) if 0 <= fraction <= 1 else at.wrong(value, "a percentage from 0% to 100%")
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
            return seconds if 0 < seconds <= 400 * 86400 else at.wrong(value, "a duration above 0s and at most 400d")
        bare = isinstance(value, int | float) and not isinstance(value, bool)
        return at.wrong(value, "a duration such as 10s, 30m, 6h or 7d", f"give it a unit: {value}m?" if bare else "")

    def schema(self) -> Schema:
        return {"type": "string", "pattern": DURATION, "examples": ["30m"]}


@dataclass(frozen=True)
class Json:
    """Anything that JSON can hold, of at most 16 kB."""

    def read(self, value: Any, at: At) -> Any:
        size = len(msgspec.json.encode(value))
        return value if size <= 16_000 else at.wrong(Said(f"{size:,} bytes as JSON"), "at most 16,000")

    def schema(self) -> Schema:
        return {}


@dataclass(frozen=True)
class ListOf:
    """A list → tuple."""

    form: Form
    most: int
    least: int = 0
    unique: bool = False

    def read(self, value: Any, at: At) -> Any:
        if not isinstance(value, list):
            return at.wrong(value, "a list")
        if not self.least <= len(value) <= self.most:
            return at.wrong(value, f"a list of {self.least:,} to {self.most:,}")
        items = [self.form.read(item, at.item(i)) for i, item in enumerate(value)]
        if self.unique:
            first: dict[Any, int] = {}
            for i, item in enumerate(items):
                if item is not BAD and first.setdefault(item, i) != i:
                    at.item(i).wrong(item, f"every value once: it is at [{first[item]}] already")
        return BAD if any(item is BAD for item in items) else tuple(items)

    def schema(self) -> Schema:
        unique = {"uniqueItems": True} if self.unique else {}
        return {"type": "array", "items": self.form.schema(), "minItems": self.least, "maxItems": self.most} | unique


@dataclass(frozen=True)
class MapOf:
    """A mapping from names of one's own to one form → dict of what could be read."""

    form: Form
    most: int
    least: int = 0
    name: Text = Name

    def read(self, value: Any, at: At) -> Any:
        if not isinstance(value, dict):
            return at.wrong(value, "a mapping from name to value")
        if not self.least <= len(value) <= self.most:
            return at.wrong(value, f"a mapping of {self.least:,} to {self.most:,} names")
        items = {
            key: self.form.read(item, at.key(key))
            for key, item in value.items()
            if self.name.read(key, at.key(key)) is not BAD
        }
        return {key: item for key, item in items.items() if item is not BAD}

    def schema(self) -> Schema:
        names = {"propertyNames": self.name.schema()}
        sizes = {"minProperties": self.least, "maxProperties": self.most}
        return {"type": "object", "additionalProperties": self.form.schema()} | names | sizes


@dataclass(frozen=True)
class Key:
    """A key of a section: its form, what it is for, whether it must be there."""

    form: Form
    about: str
    required: bool = False


@dataclass(frozen=True)
class Section:
    """A mapping with fixed keys → dict of the keys that are there and could be read; BAD when it is no mapping."""

    keys: Mapping[str, Key]

    def read(self, value: Any, at: At) -> Any:
        if not isinstance(value, dict):
            return at.wrong(value, "a mapping with " + listed(self.keys))
        missing = {name for name, key in self.keys.items() if key.required and name not in value}
        for name in [name for name in value if name not in self.keys]:
            hint = nearest(name, self.keys)
            missing -= {key for key in missing if hint == f"did you mean {key}?"}
            at.key(name[:64]).wrong(Said("an unknown key"), "one of " + listed(self.keys), hint)
        for name in [name for name in self.keys if name in missing]:
            at.key(name).wrong(Said("nothing"), "this key, which is required", self.keys[name].about)
        read = {name: key.form.read(value[name], at.key(name)) for name, key in self.keys.items() if name in value}
        return {name: item for name, item in read.items() if item is not BAD}

    def schema(self) -> Schema:
        return {
            "type": "object",
            "properties": {name: key.form.schema() | {"description": key.about} for name, key in self.keys.items()},
            "required": [name for name, key in self.keys.items() if key.required],
            "additionalProperties": False,
        }


@dataclass(frozen=True)
class Tagged:
    """A section whose keys depend on the word at `tag`, which may be left out where there is a `default`."""

    tag: str
    sections: Mapping[str, Section]
    about: str
    default: str = ""

    def read(self, value: Any, at: At) -> Any:
        if not isinstance(value, dict):
            return at.wrong(value, f"a mapping with {self.tag} and more")
        word = value.get(self.tag, self.default)
        if word == "" and self.tag not in value:
            return at.key(self.tag).wrong(Said("nothing"), "one of " + listed(self.sections))
        if Choice(tuple(self.sections)).read(word, at.key(self.tag)) is BAD:
            return BAD
        rest = {name: item for name, item in value.items() if name != self.tag}
        section = self.sections[word]
        known = Section({self.tag: Key(Choice(tuple(self.sections)), self.about), **section.keys})
        return known.read({self.tag: word, **rest}, at)

    def schema(self) -> Schema:
        def one(word: str, section: Section) -> Schema:
            schema = section.schema()
            schema["properties"] = {self.tag: {"const": word, "description": self.about}} | schema["properties"]
            schema["required"] = ([] if word == self.default else [self.tag]) + schema["required"]
            return schema

        return {"anyOf": [one(word, section) for word, section in self.sections.items()]}

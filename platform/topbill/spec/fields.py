"""What may stand at a key of a file. Each field reads a plain value and gives its own JSON Schema,
so that what the loader accepts and what the schema promises come from one declaration.

Simple fields come first, then those made of others: lists, mappings, and sections with their keys.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any, Protocol

import msgspec

from topbill.domain.errors import BadRequest, FileProblem, SpecError
from topbill.domain.instants import instant
from topbill.domain.margin import EXPECTED, Margin
from topbill.domain.suggestion import nearest, nearest_name
from topbill.domain.zones import is_zone, nearest_zone

MAX_TEXT = 512
MAX_PROBLEMS = 200
SECONDS = {
    "ms": Decimal("0.001"),
    "s": Decimal(1),
    "m": Decimal(60),
    "h": Decimal(3600),
    "d": Decimal(86400),
}
# Decimals, not floats: 0.1% must become the float nearest to 0.001, as a reader would compute it.
PERCENT = r"^-?[0-9]{1,9}(\.[0-9]{1,4})?%$"
MARGIN = r"^[0-9]{1,9}(\.[0-9]{1,4})?(%|pp)$"
DURATION = r"^[0-9]{1,9}(\.[0-9]{1,3})?(ms|s|m|h|d)$"
LONGEST_DURATION = 400 * 86_400
NAME = r"^[A-Za-z]([A-Za-z0-9_-]{0,62}[A-Za-z0-9])?$"
INVALID = object()
"""What `read` returns for a value that it has noted a problem for."""

JsonSchema = dict[str, Any]


@dataclass(frozen=True)
class Location:
    """A place in a file, and the list that takes the problems noted there and below."""

    file: str
    path: str = ""
    problems: list[FileProblem] = field(default_factory=list)
    lines: Mapping[str, int] = field(default_factory=dict)
    """The line of each key and item by its path, where the text is known."""

    def key(self, name: str) -> Location:
        """The place of a key below this one."""
        return replace(self, path=f"{self.path}.{name}" if self.path else name)

    def item(self, index: int) -> Location:
        """The place of a list's item below this one."""
        return replace(self, path=f"{self.path}[{index}]")

    def has_problem(self, name: str) -> bool:
        """Whether a problem was noted of key `name` of this place."""
        path = self.key(name).path
        return any(problem.path == path for problem in self.problems)

    def wrong(self, got: Any, expected: str, hint: str = "") -> Any:
        """Note a problem; returns INVALID. `got` is shown as it is when it is `Verbatim`, as a
        value otherwise.

        Raises SpecError when there are MAX_PROBLEMS: nobody reads more, and a hostile file could
        hold very many.
        """
        # What is shown of a value is cut short: it may be a megabyte.
        words = str(got) if isinstance(got, Verbatim) else show(got)
        line = line_of(self.path, self.lines)
        problem = FileProblem(self.file, self.path or "file", words, expected, hint, line)
        self.problems.append(problem)
        if len(self.problems) >= MAX_PROBLEMS:
            raise SpecError(self.problems)
        return INVALID


def line_of(path: str, lines: Mapping[str, int]) -> int:
    """The line of a path. What is missing has none: that of what it is missing from is where to
    write it. 0 where no line is known.
    """
    while path and path not in lines:
        path = path[: max(path.rfind("."), path.rfind("["), 0)]
    return lines[path] if path else min(lines.values(), default=0)


class Verbatim(str):
    """A description of what was got, as against the value itself."""


class Field(Protocol):
    """What may stand at a key."""

    # Nothing raises for a bad value: it is noted, and what is beside it is read on.
    def read(self, value: Any, at: Location) -> Any:
        """The value in its final type, or INVALID after noting what is wrong."""
        ...

    def schema(self) -> JsonSchema:
        """The JSON Schema of what may be written there."""
        ...


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
    """Names for a message: `most` of them at most, each cut where it is very long."""
    names = list(names)
    more = ", …" if len(names) > most else ""
    return ", ".join(name[:64] for name in names[:most]) + more


_FEW = 12
"""Keys of a section that a message lists."""
_ELSEWHERE = {"hash_units": "say it in settings.yaml of the data folder"}
"""Where a key is said that is of no file of experiments."""


def percent(fraction: float) -> str:
    """0.025 → 2.5%, with at most four decimals."""
    return f"{round(fraction * 100, 4):g}%"


def _is_number(value: Any) -> bool:
    """Whether it is a number; true and false are none, although Python counts them as such."""
    return isinstance(value, int | float) and not isinstance(value, bool)


@dataclass(frozen=True)
class Text:
    """Text, printable, of at most `longest` characters; `pattern` narrows it, and `means` says what
    the pattern is.
    """

    longest: int = MAX_TEXT
    pattern: str = ""
    means: str = "text"

    def read(self, value: Any, at: Location) -> Any:
        if not isinstance(value, str):
            is_scalar = isinstance(value, bool | int | float)
            hint = f"put it in quotes: '{show(value)}'" if is_scalar else ""
            return at.wrong(value, self.means, hint)
        # Length first, so that no pattern runs over very long text.
        if len(value) > self.longest:
            return at.wrong(value, f"{self.means} of at most {self.longest} characters")
        if self.pattern and not re.fullmatch(self.pattern, value):
            return at.wrong(value, self.means)
        return value

    def schema(self) -> JsonSchema:
        schema: JsonSchema = {"type": "string", "maxLength": self.longest}
        if self.pattern:
            schema["pattern"] = self.pattern
        return schema


Name = Text(64, NAME, "a name: a letter, then letters, digits, - or _, at most 64, not - or _ last")
FeatureName = Text(
    64,
    # Either of the two, so that the second need not be escaped anew in the schema.
    f"({NAME})|(^\\*$)",
    f"{Name.means}; or * for all that is not declared",
)
Id = Text(
    128,
    r"^[^\s\x00-\x1f\x7f]([^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f])?$",
    "an id: printable text without outer spaces",
)


@dataclass(frozen=True)
class Choice:
    """One of a few words."""

    words: Collection[str]

    def read(self, value: Any, at: Location) -> Any:
        if isinstance(value, str) and value in self.words:
            return value
        hint = nearest(value, self.words) if isinstance(value, str) else ""
        return at.wrong(value, "one of " + listed(self.words), hint)

    def schema(self) -> JsonSchema:
        return {"enum": list(self.words)}


@dataclass(frozen=True)
class Flag:
    """true or false."""

    def read(self, value: Any, at: Location) -> Any:
        if isinstance(value, bool):
            return value
        return at.wrong(value, "true or false")

    def schema(self) -> JsonSchema:
        return {"type": "boolean"}


@dataclass(frozen=True)
class Number:
    """A number in [low, high]; `above` leaves `low` itself out."""

    low: float
    high: float
    whole: bool = False
    above: bool = False

    def read(self, value: Any, at: Location) -> Any:
        if not self._accepts(value):
            noun = "a whole number" if self.whole else "a number"
            low = "above" if self.above else "from"
            return at.wrong(value, f"{noun} {low} {self.low:,.15g} to {self.high:,.15g}")
        return value if self.whole else float(value)

    def _accepts(self, value: Any) -> bool:
        if not _is_number(value) or (self.whole and not isinstance(value, int)):
            return False
        if self.above and value == self.low:
            return False
        return bool(self.low <= value <= self.high)

    def schema(self) -> JsonSchema:
        low = "exclusiveMinimum" if self.above else "minimum"
        return {"type": "integer" if self.whole else "number", low: self.low, "maximum": self.high}


@dataclass(frozen=True)
class Percent:
    """`20%` → 0.2, from 0% to 100%, with up to four decimals. A bare number is refused: is 1 all or
    a hundredth?
    """

    def read(self, value: Any, at: Location) -> Any:
        if isinstance(value, str) and re.fullmatch(PERCENT, value):
            fraction = Decimal(value[:-1]) / 100
            if 0 <= fraction <= 1:
                return float(fraction)
            return at.wrong(value, "a percentage from 0% to 100%")
        hint = ""
        if _is_number(value) and 0 <= value <= 100:
            # Below 1 a share of 1 was meant, from 1 on a number of hundredths.
            hint = f"write {percent(value if 0 < value < 1 else value / 100)}"
        return at.wrong(value, "a percentage such as 20%", hint)

    def schema(self) -> JsonSchema:
        return {"type": "string", "pattern": PERCENT, "examples": ["20%"]}


@dataclass(frozen=True)
class MarginField:
    """`10%` of the control's value, `2pp` of a rate, or a number in the metric's own unit."""

    def read(self, value: Any, at: Location) -> Any:
        try:
            margin = Margin.parse(value)
        except BadRequest:
            return at.wrong(value, EXPECTED)
        if margin.unit != "absolute" and margin.value > 1.0:
            return at.wrong(value, "a margin of at most 100%")
        return margin

    def schema(self) -> JsonSchema:
        text: JsonSchema = {"type": "string", "pattern": MARGIN, "examples": ["10%", "2pp"]}
        return {"anyOf": [text, {"type": "number", "minimum": 0, "maximum": 1e12}]}


@dataclass(frozen=True)
class Level:
    """A quantile's level, `99%` or `0.99` → 0.99, above 0 and below 1."""

    def read(self, value: Any, at: Location) -> Any:
        level = value
        if isinstance(value, str) and re.fullmatch(PERCENT, value):
            level = float(Decimal(value[:-1]) / 100)
        if _is_number(level) and 0 < level < 1:
            return float(level)
        return at.wrong(value, "a quantile between 0% and 100%, such as 99% or 0.99")

    def schema(self) -> JsonSchema:
        number = {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}
        return {"anyOf": [Percent().schema(), number]}


@dataclass(frozen=True)
class Duration:
    """`30m` → 1800 seconds; units ms, s, m, h, d; above zero and at most 400 days."""

    def read(self, value: Any, at: Location) -> Any:
        match = re.fullmatch(DURATION, value) if isinstance(value, str) else None
        if match is None:
            hint = f"give it a unit, for example {value}m" if _is_number(value) else ""
            return at.wrong(value, "a duration such as 10s, 30m, 6h or 7d", hint)
        unit = match[2]
        seconds = float(Decimal(value.removesuffix(unit)) * SECONDS[unit])
        if 0 < seconds <= LONGEST_DURATION:
            return seconds
        return at.wrong(value, "a duration above 0s and at most 400d")

    def schema(self) -> JsonSchema:
        return {"type": "string", "pattern": DURATION, "examples": ["30m"]}


@dataclass(frozen=True)
class Moment:
    """A date or a time, `2026-03-02` or `2026-03-02T10:00Z` → seconds since the epoch; UTC where it
    names no zone."""

    def read(self, value: Any, at: Location) -> Any:
        try:
            return instant(at.path, value if isinstance(value, str) else "").timestamp()
        except (BadRequest, OverflowError, ValueError):
            return at.wrong(value, "a date or time such as 2026-03-02 or 2026-03-02T10:00Z")

    def schema(self) -> JsonSchema:
        return {"type": "string", "examples": ["2026-03-02", "2026-03-02T10:00Z"]}


@dataclass(frozen=True)
class TimeZone:
    """The name of a time zone, as the IANA's database has it."""

    def read(self, value: Any, at: Location) -> Any:
        if isinstance(value, str) and is_zone(value):
            return value
        hint = nearest_zone(value) if isinstance(value, str) else ""
        return at.wrong(value, "the name of a time zone, such as Europe/Berlin", hint)

    def schema(self) -> JsonSchema:
        return {"type": "string", "examples": ["Europe/Berlin"]}


@dataclass(frozen=True)
class Covariate:
    """A duration, or a feature's name."""

    def read(self, value: Any, at: Location) -> Any:
        if isinstance(value, str) and re.fullmatch(DURATION, value):
            return Duration().read(value, at)
        if isinstance(value, str) and re.fullmatch(NAME, value):
            return value
        return at.wrong(value, "a duration such as 28d, or the name of a number in context")

    def schema(self) -> JsonSchema:
        return {"anyOf": [Duration().schema(), Name.schema()]}


@dataclass(frozen=True)
class Values:
    """A value of a context, or a list of them → tuple of booleans, numbers and texts."""

    most: int = 1_000

    def read(self, value: Any, at: Location) -> Any:
        items = value if isinstance(value, list) else [value]
        if not 1 <= len(items) <= self.most:
            return at.wrong(value, f"a value, or a list of 1 to {self.most:,}")
        for item in items:
            if not isinstance(item, bool | str) and not _is_number(item):
                return at.wrong(item, "true or false, a number or a text, or a list of those")
        return tuple(items)

    def schema(self) -> JsonSchema:
        one: JsonSchema = {"type": ["boolean", "number", "string"]}
        several = {"type": "array", "items": one, "minItems": 1, "maxItems": self.most}
        return {"anyOf": [one, several]}


@dataclass(frozen=True)
class Json:
    """Anything that JSON can hold, of at most 16 kB."""

    def read(self, value: Any, at: Location) -> Any:
        # Every decision carries the payloads of what it shows to the caller.
        size = len(msgspec.json.encode(value))
        if size <= 16_000:
            return value
        return at.wrong(Verbatim(f"{size:,} bytes as JSON"), "at most 16,000")

    def schema(self) -> JsonSchema:
        return {}


@dataclass(frozen=True)
class ListOf:
    """A list → tuple."""

    field: Field
    most: int
    least: int = 0
    unique: bool = False

    def read(self, value: Any, at: Location) -> Any:
        if not isinstance(value, list):
            return at.wrong(value, "a list")
        if not self.least <= len(value) <= self.most:
            return at.wrong(value, f"a list of {self.least:,} to {self.most:,}")
        items = [self.field.read(item, at.item(index)) for index, item in enumerate(value)]
        if self.unique:
            self._check_unique(items, at)
        return INVALID if any(item is INVALID for item in items) else tuple(items)

    def _check_unique(self, items: list[Any], at: Location) -> None:
        first: dict[Any, int] = {}
        for index, item in enumerate(items):
            if item is INVALID:
                continue
            earlier = first.setdefault(item, index)
            if earlier != index:
                at.item(index).wrong(item, f"every value once: it is at [{earlier}] already")

    def schema(self) -> JsonSchema:
        schema: JsonSchema = {
            "type": "array",
            "items": self.field.schema(),
            "minItems": self.least,
            "maxItems": self.most,
        }
        if self.unique:
            schema["uniqueItems"] = True
        return schema


@dataclass(frozen=True)
class MapOf:
    """A mapping from names of one's own to one field → dict of what could be read."""

    field: Field
    most: int
    least: int = 0
    name: Text = Name

    def read(self, value: Any, at: Location) -> Any:
        if not isinstance(value, dict):
            return at.wrong(value, "a mapping from name to value")
        if not self.least <= len(value) <= self.most:
            return at.wrong(value, f"a mapping of {self.least:,} to {self.most:,} names")
        items = {}
        for key, part in value.items():
            # Below a name that can't be one, paths of further problems would mean nothing.
            if self.name.read(key, at.key(key)) is INVALID:
                continue
            item = self.field.read(part, at.key(key))
            if item is not INVALID:
                items[key] = item
        return items

    def schema(self) -> JsonSchema:
        return {
            "type": "object",
            "additionalProperties": self.field.schema(),
            "propertyNames": self.name.schema(),
            "minProperties": self.least,
            "maxProperties": self.most,
        }


@dataclass(frozen=True)
class Key:
    """A key of a section: its field, what it is for, whether it must be there."""

    field: Field
    about: str
    required: bool = False
    unless: Callable[[Mapping[str, Any]], bool] | None = None
    """Of a required key: whether what stands beside it makes it needless."""

    def is_missing(self, name: str, value: Mapping[str, Any]) -> bool:
        """Whether it has to be in a mapping, as `name`, and is not."""
        if not self.required or name in value:
            return False
        return self.unless is None or not self.unless(value)


@dataclass(frozen=True)
class Section:
    """A mapping with fixed keys → dict of the keys that are there and could be read; INVALID when
    it is no mapping. `renamed` says what a key of an older version is called today; `documented`,
    of a section with many keys, where they are listed.
    """

    keys: Mapping[str, Key]
    renamed: Mapping[str, str] = field(default_factory=dict)
    documented: str = ""

    def read(self, value: Any, at: Location) -> Any:
        if not isinstance(value, dict):
            return at.wrong(value, "a mapping with " + listed(self.keys))
        value, written = self._todays_names(value, at)
        self._check_keys(value, at)
        parts = {}
        # In the order of the declaration, whatever the file's: so problems are always told in it.
        for name, key in self.keys.items():
            if name not in value:
                continue
            item = key.field.read(value[name], at.key(written.get(name, name)))
            if item is not INVALID:
                parts[name] = item
        return parts

    def _todays_names(
        self, value: dict[str, Any], at: Location
    ) -> tuple[dict[str, Any], dict[str, str]]:
        """The mapping under today's names, after a problem for each old one; and by which old name
        a key was written.

        What stands at an old key is read as if it stood at the new one, so that the one mistake
        isn't followed by others that renaming would repair.
        """
        modern = dict(value)
        written: dict[str, str] = {}
        for old, name in self.renamed.items():
            if old not in value or name not in self.keys:
                continue
            at.key(old).wrong(
                Verbatim("a key that has another name today"),
                name,
                f"write {name} instead of {old}",
            )
            item = modern.pop(old)
            if name not in value:
                modern[name] = item
                written[name] = old
        return modern, written

    def _check_keys(self, value: Mapping[str, Any], at: Location) -> None:
        """Note every key that is unknown, then every required one that is missing. A missing key
        that an unknown one was surely meant to be is told once, with the unknown one.
        """
        intended = set()
        for name in value:
            if name in self.keys:
                continue
            intended.add(nearest_name(name, self.keys))
            hint = _ELSEWHERE.get(name) or nearest(name, self.keys)
            # Nobody finds a key among thirty in a message.
            are_few = len(self.keys) <= _FEW or not self.documented
            expected = "one of " + (listed(self.keys) if are_few else self.documented)
            at.key(name[:64]).wrong(Verbatim("an unknown key"), expected, hint)
        for name, key in self.keys.items():
            if key.is_missing(name, value) and name not in intended:
                at.key(name).wrong(Verbatim("nothing"), "this key, which is required", key.about)

    def schema(self) -> JsonSchema:
        properties, required = {}, []
        for name, key in self.keys.items():
            properties[name] = key.field.schema() | {"description": key.about}
            # What depends on other keys is left to the loader.
            if key.required and key.unless is None:
                required.append(name)
        return {
            "type": "object",
            "properties": properties,
            "required": required,
            "additionalProperties": False,
        }


@dataclass(frozen=True)
class CountRange:
    """From `least` to `most`, both included."""

    least: int
    most: int


@dataclass(frozen=True)
class Count:
    """A whole number in [1, high], or `{min, max}` → CountRange; n is from n to n."""

    high: int

    def read(self, value: Any, at: Location) -> Any:
        if isinstance(value, dict):
            parts = self._section.read(value, at)
            if len(parts) < 2:
                return INVALID
            if parts["min"] >= parts["max"]:
                got = Verbatim(f"{parts['max']} with min: {parts['min']}")
                return at.key("max").wrong(got, "a number above min; a fixed count is one number")
            return CountRange(parts["min"], parts["max"])
        if not _is_number(value):
            return at.wrong(value, f"a whole number from 1 to {self.high}, or {{min, max}}")
        number = self._number.read(value, at)
        return INVALID if number is INVALID else CountRange(number, number)

    @property
    def _number(self) -> Number:
        return Number(1, self.high, whole=True)

    @property
    def _section(self) -> Section:
        return Section(
            {
                "min": Key(self._number, "At least so many.", True),
                "max": Key(self._number, "At most so many.", True),
            }
        )

    def schema(self) -> JsonSchema:
        return {"anyOf": [self._number.schema(), self._section.schema()]}


@dataclass(frozen=True)
class Tagged:
    """A section whose keys depend on the word at `tag`, which may be left out where there is a
    `default`.
    """

    tag: str
    sections: Mapping[str, Section]
    about: str
    default: str = ""

    def read(self, value: Any, at: Location) -> Any:
        if not isinstance(value, dict):
            return at.wrong(value, f"a mapping with {self.tag} and more")
        if self.tag not in value and (slip := self._misspelt_tag(value)):
            return at.key(slip).wrong(
                Verbatim("an unknown key"), self.tag, f"did you mean {self.tag}?"
            )
        word = value.get(self.tag, self.default)
        if word == "" and self.tag not in value:
            return at.key(self.tag).wrong(Verbatim("nothing"), "one of " + listed(self.sections))
        words = Choice(tuple(self.sections))
        if words.read(word, at.key(self.tag)) is INVALID:
            self._read_shared(value, at)
            return INVALID
        section = self.sections[word]
        # The tag is one of the section's keys, so that unknown keys are compared with it as well.
        keys = {self.tag: Key(words, self.about), **section.keys}
        whole = replace(section, keys=keys)
        return whole.read({self.tag: word} | value, at)

    def _read_shared(self, value: Mapping[str, Any], at: Location) -> None:
        """Note what is wrong with the keys that mean the same in every section: they are wrong
        whatever the tag was meant to be.
        """
        first, *others = (section.keys for section in self.sections.values())
        for name, key in first.items():
            if name in value and all(keys.get(name) == key for keys in others):
                key.field.read(value[name], at.key(name))

    def _misspelt_tag(self, value: Mapping[str, Any]) -> str | None:
        """The key that was meant to be the tag: it is spelt alike, and no section has it."""
        names: set[str] = set()
        for section in self.sections.values():
            names.update(section.keys)
        unknown = [name for name in value if name not in names]
        return nearest_name(self.tag, unknown) or None

    def schema(self) -> JsonSchema:
        schemas = []
        for word, section in self.sections.items():
            schema = section.schema()
            tag = {self.tag: {"const": word, "description": self.about}}
            schema["properties"] = tag | schema["properties"]
            if word != self.default:
                schema["required"] = [self.tag, *schema["required"]]
            schemas.append(schema)
        return {"anyOf": schemas}


def schema_document(title: str, about: str, section: Section) -> JsonSchema:
    """JSON Schema 2020-12 of a whole file (its YAML read as JSON), for editors."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": title,
        "description": about,
        **section.schema(),
    }

"""YAML text → plain values, and nothing else: text, numbers, true/false, nothing, lists and
mappings with text keys.

Read from the parser's events, so that a hostile file cannot do more than be refused: no tags, no
aliases (a few lines of them can mean billions of values), bounded size and depth. Plain scalars
follow YAML 1.2, where only `true` and `false` are booleans: a category value `no` stays text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import yaml

from topbill.domain.errors import FileProblem, SpecError

MAX_BYTES = 1_000_000
MAX_DEPTH = 32
# YAML 1.2's core schema, without its octal and hexadecimal numbers. Eighteen digits fit 64 bits.
_INT = re.compile(r"[-+]?[0-9]{1,18}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_CONSTANTS: dict[str, bool | None] = {
    "": None,
    "~": None,
    **dict.fromkeys(("null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
# libyaml's parser where PyYAML was built with it: the same events, ten times as fast.
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def contents(path: Path) -> bytes:
    """What `parse` takes of a file. Raises SpecError for one that cannot be read."""
    try:
        with path.open("rb") as file:
            # One byte more than is allowed: enough to see that it is too long, however long it is.
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        got = error.strerror or "an error"
        expected = "a readable YAML file"
        if not path.exists() and path.suffix not in (".yaml", ".yml"):
            expected = "a YAML file, or a folder of them"
        raise SpecError([FileProblem(path.name, "file", got, expected)]) from None


class ParsedYaml(NamedTuple):
    """What a text says. `problems` are those that don't stop the reading: keys that are there twice
    (the last value is taken). `lines` has the line of each key and item by its path
    (`metrics.play.window`, `actions[2]`).
    """

    value: Any
    problems: list[FileProblem]
    lines: dict[str, int]


def parse(data: bytes, file: str) -> ParsedYaml:
    """The one document in `data`.

    Raises SpecError for what is not plain YAML.
    """
    if len(data) > MAX_BYTES:
        raise SpecError([FileProblem(file, "file", "too many bytes", f"at most {MAX_BYTES:,}")])
    try:
        return _Reader(file).read(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        where = f"byte {error.start}"
        problem = FileProblem(file, where, "bytes that are not UTF-8", "UTF-8 text")
    except yaml.MarkedYAMLError as error:
        # The context is where the construct began; the problem is where it could not go on.
        mark = error.problem_mark or error.context_mark
        where, line = (f"column {mark.column + 1}", mark.line + 1) if mark else ("file", 0)
        got = f"broken YAML ({error.problem or error.context})"
        problem = FileProblem(file, where, got, "valid YAML", _syntax_hint(error), line)
    except yaml.YAMLError as error:
        problem = FileProblem(file, "file", str(error).splitlines()[0], "valid YAML")
    raise SpecError([problem])


def _syntax_hint(error: yaml.MarkedYAMLError) -> str:
    problem = error.problem or ""
    if "cannot start any token" in problem:
        return "indent with spaces, not tabs; put text with special characters in quotes"
    if "mapping values are not allowed" in problem:
        return "put text that holds a colon in quotes"
    return "look at the brackets, quotes and indentation on this line and the one before"


class _Reader:
    """Builds values from events; see `ParsedYaml`."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.problems: list[FileProblem] = []
        self.lines: dict[str, int] = {}

    def read(self, text: str) -> ParsedYaml:
        self.events: Iterator[Any] = yaml.parse(text, Loader=_Loader)
        value: Any = None
        documents = 0
        # `value` takes all events of a document from the same iterator, so this loop meets only
        # those between documents.
        for event in self.events:
            if not isinstance(event, yaml.DocumentStartEvent):
                continue
            documents += 1
            if documents > 1:
                self.stop(event, "a second document (`---`)", "one experiment a file")
            value = self.value(next(self.events), "", 0)
        return ParsedYaml(value, self.problems, self.lines)

    def stop(self, event: Any, got: str, expected: str, hint: str = "") -> NoReturn:
        line = _line(event)
        problem = FileProblem(self.file, "", got, expected, hint, line)
        raise SpecError([*self.problems, problem])

    def value(self, event: Any, path: str, depth: int) -> Any:
        # A few lines of aliases of aliases expand to billions of values.
        if isinstance(event, yaml.AliasEvent):
            self.stop(event, f"an alias (*{event.anchor})", "plain values", "write the value out")
        # Tags make PyYAML build objects; `!` and `!!str` only say that a scalar is text.
        if getattr(event, "tag", None) not in (None, "!", "tag:yaml.org,2002:str"):
            self.stop(event, f"a tag ({event.tag})", "plain values")
        if depth > MAX_DEPTH:
            self.stop(event, f"more than {MAX_DEPTH} levels of nesting", "a flat file")
        if isinstance(event, yaml.ScalarEvent):
            is_plain = event.implicit[0]  # neither quoted nor a block: its type is read off it
            return _scalar(event.value) if is_plain else event.value
        if isinstance(event, yaml.SequenceStartEvent):
            return self.sequence(path, depth)
        return self.mapping(path, depth)

    def sequence(self, path: str, depth: int) -> list[Any]:
        items: list[Any] = []
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            inner = f"{path}[{len(items)}]"
            self.lines[inner] = _line(event)
            items.append(self.value(event, inner, depth + 1))
        return items

    def mapping(self, path: str, depth: int) -> dict[str, Any]:
        lines: dict[str, int] = {}
        items: dict[str, Any] = {}
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent):
                self.stop(event, "a key that is not text", "keys that are plain text")
            key = event.value
            line = _line(event)
            inner = f"{path}.{key}" if path else key
            if key in lines:
                got = f"the key twice, in lines {lines[key]} and {line}"
                self.problems.append(
                    FileProblem(
                        self.file, inner, got, "every key once", "remove one of the two", line
                    )
                )
            # The first line, so that a third one is told beside it too.
            lines.setdefault(key, line)
            self.lines.setdefault(inner, line)
            items[key] = self.value(next(self.events), inner, depth + 1)
        return items


def _line(event: Any) -> int:
    return event.start_mark.line + 1 if event.start_mark else 0


def _scalar(text: str) -> Any:
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _INT.fullmatch(text):
        return int(text)
    # 1e999 would be infinite, which JSON can't hold: it stays text, and is refused as a number.
    if _FLOAT.fullmatch(text) and math.isfinite(number := float(text)):
        return number
    return text

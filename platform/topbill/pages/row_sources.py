"""What a page file says of its rows' sources, and the rows that this makes: a source `because` is a
row for each of several titles.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from topbill.candidates import GIVEN, SOURCES, RowSource
from topbill.rules import Rules
from topbill.spec.fields import (
    Choice,
    Duration,
    Id,
    Json,
    JsonSchema,
    Key,
    ListOf,
    Location,
    MapOf,
    Name,
    Section,
    Text,
    Verbatim,
)

UNFINISHED_FOR = 90 * 86_400.0
"""Seconds for which a title that was begun stays unfinished, where the page file doesn't say it."""
_SEEDS = 3
"""Titles of which `because` makes a row each, where the page file doesn't say it."""
_MOST_SEEDS = 10
_LAST = r"^last ([1-9]|10)$"
_KEYS = {
    "genres": "genre",
    "titles": "titles",
    "within": "unfinished",
    "after": "again",
    "of": "because",
    "by": "trending",
    "file": "external",
    "table": "external",
    "signal": "external",
    "with": "external",
}
"""Key → the one source that it is for."""
_NEEDED = ("genres", "titles")
"""Those without which their source is of nothing."""


@dataclass(frozen=True)
class Last:
    """`last 3`, or 3: how many of the latest; 1 to 10."""

    def read(self, value: Any, at: Location) -> Any:
        match = re.fullmatch(_LAST, value) if isinstance(value, str) else None
        if match is not None:
            return int(match[1])
        if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= _MOST_SEEDS:
            return value
        return at.wrong(value, f"last 1 to last {_MOST_SEEDS}, such as last 3")

    def schema(self) -> JsonSchema:
        text: JsonSchema = {"type": "string", "pattern": _LAST, "examples": ["last 3"]}
        return {"anyOf": [text, {"type": "integer", "minimum": 1, "maximum": _MOST_SEEDS}]}


ROW = Section(
    {
        "source": Key(
            Choice((*SOURCES, "genre", "titles", "mixed", *GIVEN)),
            "Where the row's titles come from.",
            True,
        ),
        "genres": Key(ListOf(Name, 20, 1, unique=True), "For source genre: which."),
        "titles": Key(ListOf(Id, 500, 1, unique=True), "For source titles: the editors' list."),
        "within": Key(
            Duration(), "For source unfinished: how long what was begun stays there (default 90d)."
        ),
        "after": Key(
            Duration(),
            "For source again: when what was watched comes again (default: the again_after of the "
            "rule seen).",
        ),
        "by": Key(
            Choice(("region",)),
            "For source trending: region for what is trending where the viewer is.",
        ),
        "file": Key(
            Text(),
            "For source external: a file with columns title, score and, if any, unit, beside this "
            "one: CSV, Parquet or DuckDB.",
        ),
        "table": Key(Text(128), "Its table, where that file is a DuckDB database."),
        "signal": Key(
            Name, "For source external: a candidate signal of an installed package, by its name."
        ),
        "with": Key(MapOf(Json(), 100), "The signal's own parameters."),
        "of": Key(
            Last(), "For source because: a row for each of the last titles liked (default last 3)."
        ),
    }
)


def rows_of(parts: Mapping[str, Mapping[str, Any]], at: Location) -> dict[str, list[str]]:
    """Each row of the file, with the rows of the page that it is: more than one where it is made of
    several titles, each of a row of its own.
    """
    rows: dict[str, list[str]] = {}
    for name, row in parts.items():
        rows[name] = [name]
        if row["source"] == "because":
            rows[name] += [f"{name}-{number}" for number in range(2, row.get("of", _SEEDS) + 1)]
    owner: dict[str, str] = {}
    for name, repeats in rows.items():
        for repeat in repeats:
            other = owner.setdefault(repeat, name)
            if other != name:
                at.key(name).wrong(
                    Verbatim(f"a row called {repeat}"), f"another name: row {other} has it"
                )
    return rows


def read(
    parts: Mapping[str, Mapping[str, Any]], rows: Mapping[str, Sequence[str]], at: Location
) -> dict[str, RowSource]:
    """What each row of the page is made of.

    Args:
        parts: The sources as ROW read them.
        rows: What `rows_of` says of them.
        at: Where they stand in the file.
    """
    sources: dict[str, RowSource] = {}
    for name, own in parts.items():
        _check(name, own, at)
        for seed, repeat in enumerate(rows[name]):
            sources[repeat] = RowSource(
                own["source"],
                own.get("genres", ()),
                own.get("titles", ()),
                within=own.get("within", UNFINISHED_FOR),
                after=own.get("after"),
                by_region="by" in own,
                row=repeat if own["source"] == "external" else "",
                seed=seed,
            )
    return sources


def _check(name: str, parts: Mapping[str, Any], at: Location) -> None:
    """Keys belong to the source that they are for, and to no other."""
    if name == "rows":
        at.key(name).wrong(
            Verbatim("a row called rows"), "another name: decisions about which rows are called so"
        )
    source = parts["source"]
    if "with" in parts and "signal" not in parts:
        at.key(name).key("with").wrong(Verbatim("no signal"), "signal beside it, whose they are")
    for key, owner in _KEYS.items():
        is_missing = key in _NEEDED and source == owner and key not in parts
        if is_missing or (key in parts and source != owner):
            at.key(name).wrong(
                Verbatim(f"source {source}"), f"{key} with source {owner}, and with no other"
            )


def candidate_files(
    parts: Mapping[str, Mapping[str, Any]], folder: Path
) -> dict[str, tuple[Path, str | None]]:
    """Row → the file of its candidates and the table in it, for each row that has one."""
    files: dict[str, tuple[Path, str | None]] = {}
    for name, row in parts.items():
        if "file" in row:
            files[name] = (folder / row["file"], row.get("table"))
    return files


def in_each_row(
    rules: Sequence[Mapping[str, Any]], rows: Mapping[str, Sequence[str]]
) -> list[dict[str, Any]]:
    """The rules as read, where what is said of a row of the file holds in all that it is."""
    spread: list[dict[str, Any]] = []
    for rule in rules:
        own = dict(rule)
        for key in ("except", "rows"):
            if key in own:
                names = [repeat for name in own[key] for repeat in rows.get(name, [name])]
                own[key] = tuple(names)
        spread.append(own)
    return spread


def check_beside(sources: Mapping[str, RowSource], rules: Rules, at: Location) -> None:
    """Rows of each viewer's own beside the page's rules: `again` has to know when, and a pin would
    stand in a row that speaks of what the viewer did.
    """
    for name, row in sources.items():
        if row.source in GIVEN and rules.pins.get(name):
            at.key(name).wrong(
                Verbatim(f"source {row.source}, and a rule that pins a title there"),
                "no pin in a row that each viewer has of one's own",
            )
        if row.source == "again" and row.after is None and rules.again_after == math.inf:
            at.key(name).wrong(
                Verbatim("source again, and no rule that says when"),
                "after: 30d here, or a rule {rule: seen, again_after: 90d}",
            )

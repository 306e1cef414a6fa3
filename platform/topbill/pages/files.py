"""Page files (`experiments/pages/home.yaml`): which experiment decides each layer, what rows are
made of, and the house's rules. Beside a page file, in the folder named like it, lie the experiments
that are the page's alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec

from topbill.candidates import SOURCES, RowSource
from topbill.domain.errors import FileProblem, SpecError
from topbill.pages.features import PICTURE_FEATURES, TITLE_FEATURES
from topbill.rules import RULE, Rules, build
from topbill.spec import Experiment, renames, yaml_in
from topbill.spec.forms import (
    BAD,
    At,
    Choice,
    Duration,
    Id,
    Name,
    Number,
    Said,
    Text,
    listed,
    nearest,
)
from topbill.spec.plain import MAX_BYTES, parse
from topbill.spec.sections import Key, ListOf, MapOf, Section

_SLOTS = Number(1, 100, whole=True)
_AGE = Number(0, 21, whole=True)
_ROW = Section(
    {
        "source": Key(
            Choice((*SOURCES, "genre", "titles", "mixed")),
            "Where the row's titles come from.",
            True,
        ),
        "genres": Key(ListOf(Name, 20, 1, unique=True), "For source genre: which."),
        "titles": Key(ListOf(Id, 500, 1, unique=True), "For source titles: the editors' list."),
    }
)
PAGE = Section(
    {
        "page": Key(Name, "Its key: what services send.", True),
        "title": Key(Text(), "What people call it."),
        "catalogue": Key(
            Text(), "The catalogue's file, beside this one: CSV, Parquet or DuckDB.", True
        ),
        "table": Key(Text(128), "The catalogue's table, where the file is a DuckDB database."),
        "region": Key(Name, "The region of viewers who name none.", True),
        "rows": Key(
            Section(
                {
                    "experiment": Key(
                        Name, "The experiment that orders rows; its actions are the rows.", True
                    ),
                    "count": Key(_SLOTS, "How many rows a page has.", True),
                    "pinned": Key(
                        MapOf(Number(0, 99, whole=True), 100),
                        "Rows that editors put at a position.",
                    ),
                }
            ),
            "The first layer.",
            True,
        ),
        "titles": Key(
            Section(
                {
                    "experiment": Key(Name, "The experiment that chooses a row's titles.", True),
                    "count": Key(_SLOTS, "How many titles a row has.", True),
                    "candidates": Key(
                        Number(1, 500, whole=True), "From how many candidates (default 60)."
                    ),
                }
            ),
            "The second layer.",
            True,
        ),
        "artwork": Key(
            Section(
                {"experiment": Key(Name, "The experiment that chooses a title's artwork.", True)}
            ),
            "The third layer; left out: a title's first picture.",
        ),
        "sources": Key(MapOf(_ROW, 100, 1), "What each row is made of.", True),
        "rules": Key(ListOf(RULE, 200), "What may stand where."),
        "session_ttl": Key(
            Duration(), "How long a session sees the same page (default: every call is a new page)."
        ),
        "kids_max_age": Key(_AGE, "The age limit of kids' profiles (default 7)."),
        "guest_max_age": Key(_AGE, "The age limit of viewers without a profile (default 16)."),
        "budget_ms": Key(
            Number(0, 10_000, above=True), "Milliseconds after which editors' orders step in."
        ),
    },
    renames.PAGE,
)


@dataclass(frozen=True)
class PageFile:
    """One page file, valid beside its experiments: `source` is its name, `catalogue` where its
    catalogue lies.
    """

    key: str
    title: str
    catalogue: Path
    table: str | None
    region: str
    layers: Mapping[str, str]
    rows: int
    titles: int
    candidates: int
    pinned: Mapping[str, int]
    sources: Mapping[str, RowSource]
    rules: Rules
    session_ttl: float
    kids_max_age: int
    guest_max_age: int
    budget_ms: float
    raw: dict[str, Any] = field(compare=False, hash=False)
    source: str = field(default="", compare=False)

    @property
    def revision(self) -> str:
        """12 hex digits that change with anything that the file says, but not with what a key is
        called: it stands beside every decision of a page, of older versions too.
        """
        canonical = renames.rename(self.raw, {name: old for old, name in renames.PAGE.items()})
        return blake2b(
            msgspec.json.encode(canonical, order="deterministic"), digest_size=6
        ).hexdigest()


def experiment_folders(experiments: Path) -> list[Path]:
    """The experiments' folder, and the folders of the pages' own experiments: what `spec.load_all`
    is to load.
    """
    own = [folder for folder in sorted(experiments.glob("pages/*/")) if yaml_in(folder)]
    return own if own and not yaml_in(experiments) else [experiments, *own]


def folder_of(path: Path) -> Path:
    """The experiments' folder of a page file, or of the folder of page files: a page is checked
    beside what it names. Any other path is its own."""
    if path.name == "pages" and path.is_dir():
        return path.parent
    return path.parent.parent if path.parent.name == "pages" and path.is_file() else path


def load_all(experiments: Path, known: Sequence[Experiment]) -> list[PageFile]:
    """Every page file of an experiments' folder. Raises SpecError with every problem of every
    file.
    """
    found = [verdict for _, verdict in verdicts(experiments, known)]
    problems = [
        problem
        for verdict in found
        if isinstance(verdict, SpecError)
        for problem in verdict.problems
    ]
    if problems:
        raise SpecError(problems)
    return [verdict for verdict in found if isinstance(verdict, PageFile)]


def verdicts(
    experiments: Path, known: Sequence[Experiment]
) -> list[tuple[Path, PageFile | SpecError]]:
    """Each page file with its page, or with what is wrong with it, alone or beside the others."""
    found: list[tuple[Path, PageFile | SpecError]] = []
    owner: dict[str, str] = {}
    for path in yaml_in(experiments / "pages"):
        try:
            page = load(path, known)
            if (other := owner.setdefault(page.key, path.name)) != path.name:
                expected = f"a key of its own: {other} has this one already"
                raise SpecError([FileProblem(path.name, "page", repr(page.key), expected)])
            found.append((path, page))
        except SpecError as error:
            found.append((path, error))
    return found


def load(path: Path, known: Sequence[Experiment]) -> PageFile:
    """The page in a file, checked against the experiments that it names. Raises SpecError with
    every problem.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise SpecError(
            [FileProblem(path.name, "file", error.strerror or "an error", "a readable YAML file")]
        ) from None
    raw, problems = parse(data, path.name)
    at = At(path.name, problems=problems)
    read = PAGE.read(raw, at)
    if read is BAD or at.problems:
        raise SpecError(at.problems)
    page = _build(read, raw, path, at)
    _check_layers(read, {e.key: e for e in known}, at)
    if at.problems:
        raise SpecError(at.problems)
    return page


def _build(read: Mapping[str, Any], raw: dict[str, Any], path: Path, at: At) -> PageFile:
    sources = {
        name: _row(name, parts, at.key("sources")) for name, parts in read["sources"].items()
    }
    count = read["titles"]["count"]
    candidates = read["titles"].get("candidates", max(60, count))
    if candidates < count:
        at.key("titles").key("candidates").wrong(
            candidates, f"at least {count}, the titles of a row"
        )
    genres = {name: row.genres if row.source == "genre" else () for name, row in sources.items()}
    layers = {
        name: read[name]["experiment"] for name in ("rows", "titles", "artwork") if name in read
    }
    _check_pinned(read["rows"], sources, at.key("rows"))
    return PageFile(
        key=read["page"],
        title=read.get("title", read["page"]),
        catalogue=path.parent / read["catalogue"],
        table=read.get("table"),
        region=read["region"],
        layers=layers,
        rows=read["rows"]["count"],
        titles=count,
        candidates=candidates,
        pinned=read["rows"].get("pinned", {}),
        sources=sources,
        rules=build(read.get("rules", ()), at.key("rules"), genres, count),
        session_ttl=read.get("session_ttl", 0.0),
        kids_max_age=read.get("kids_max_age", 7),
        guest_max_age=read.get("guest_max_age", 16),
        budget_ms=read.get("budget_ms", 60.0),
        raw=raw,
        source=path.name,
    )


def _row(name: str, parts: Mapping[str, Any], at: At) -> RowSource:
    row = RowSource(parts["source"], parts.get("genres", ()), parts.get("titles", ()))
    if name == "rows":
        at.key(name).wrong(
            Said("a row called rows"), "another name: decisions about which rows are called so"
        )
    for key, source in (("genres", "genre"), ("titles", "titles")):
        if (key in parts) != (row.source == source):
            at.key(name).wrong(
                Said(f"source {row.source}"), f"{key} with source {source}, and with no other"
            )
    return row


def _check_pinned(rows: Mapping[str, Any], sources: Mapping[str, RowSource], at: At) -> None:
    places: dict[int, str] = {}
    for name, position in rows.get("pinned", {}).items():
        where = at.key("pinned").key(name)
        if name not in sources:
            where.wrong(Said("an unknown row"), "one of " + listed(sources), nearest(name, sources))
        if position >= rows["count"]:
            where.wrong(position, f"0 to {rows['count'] - 1}: the page has {rows['count']} rows")
        if (other := places.setdefault(position, name)) != name:
            where.wrong(position, f"a position of its own: {other} is pinned there")


def _check_layers(read: Mapping[str, Any], known: Mapping[str, Experiment], at: At) -> None:
    """Each layer names an experiment of its surface; rows has the page's rows as actions, the
    others have none.
    """
    for layer in ("rows", "titles", "artwork"):
        if layer not in read:
            continue
        where, name = at.key(layer).key("experiment"), read[layer]["experiment"]
        experiment = known.get(name)
        if experiment is None:
            where.wrong(name, "one of the experiments " + listed(known), nearest(name, known))
            continue
        if experiment.surface != layer:
            where.wrong(
                Said(f"{name}, which decides {experiment.surface}"),
                f"an experiment with surface: {layer}",
            )
        actions = {action.id for action in experiment.actions}
        if layer != "rows":
            if actions:
                where.wrong(
                    Said(f"{name} with actions of its own"),
                    "actions: [], since the page brings them",
                )
            _check_features(layer, experiment, where)
        elif actions != set(read["sources"]):
            odd = sorted(actions ^ set(read["sources"]))
            at.key("sources").wrong(
                Said(listed(read["sources"])), f"the rows of {name}; {listed(odd)} differ"
            )
        elif read["rows"]["count"] > len(actions):
            at.key("rows").key("count").wrong(
                read["rows"]["count"], f"at most {len(actions)}, the rows that there are"
            )


def _check_features(layer: str, experiment: Experiment, at: At) -> None:
    offered = TITLE_FEATURES if layer == "titles" else PICTURE_FEATURES
    for feature in experiment.action_features:
        if offered.get(feature.name) != feature.kind:
            told = ", ".join(f"{name} ({kind})" for name, kind in offered.items())
            at.wrong(
                Said(f"action feature {feature.name} ({feature.kind})"),
                f"those that pages fill: {told}",
            )

"""Page files (`experiments/pages/home.yaml`): which experiment decides each layer, what rows are
made of, and the house's rules. Beside a page file, in the folder named like it, lie the experiments
that are the page's alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any, cast

import msgspec
import pyarrow as pa

from topbill import spec
from topbill.candidates import RowSource
from topbill.catalog import UNKNOWN_AGE, Catalog, read_joined
from topbill.domain.errors import FileProblem, SpecError
from topbill.domain.features import FeatureKind
from topbill.domain.profile import PROFILE_TYPE
from topbill.domain.rewards import CLICK_MODELS
from topbill.domain.slate import Length
from topbill.domain.suggestion import nearest
from topbill.pages import row_sources
from topbill.pages.boosts import BOOST, Boost
from topbill.pages.boosts import build as build_boosts
from topbill.pages.features import TITLE_FEATURES
from topbill.pages.viewing_history import PICK, SIGNALS
from topbill.rules import RULE, PageShape, Rules, build
from topbill.spec import Experiment, renames, with_lines, yaml_in
from topbill.spec import load_all as load_files
from topbill.spec.fields import (
    INVALID,
    Choice,
    Count,
    CountRange,
    Duration,
    Flag,
    JsonSchema,
    Key,
    ListOf,
    Location,
    MapOf,
    Name,
    Number,
    Section,
    Text,
    Verbatim,
    listed,
    schema_document,
)
from topbill.spec.model import ClickModelName
from topbill.spec.yaml import contents, parse

LAYERS = ("rows", "titles", "artwork")
"""What decides a page, from its top downwards."""
_SAME_VALUES: tuple[frozenset[FeatureKind], ...] = (
    frozenset(("number", "cycle")),
    frozenset(("vector", "hashed")),
)
"""Kinds of features that take the same values: numbers, and mappings."""
_SLOTS = Count(100)
_COST = Number(0.0, 1.0, above=True)
_AGE = Number(0, 21, whole=True)
PAGE = Section(
    {
        "page": Key(Name, "Its key: what services send.", True),
        "title": Key(Text(), "What people call it."),
        "catalogue": Key(
            Text(), "The catalogue's file, beside this one: CSV, Parquet or DuckDB.", True
        ),
        "table": Key(Text(128), "The catalogue's table, where the file is a DuckDB database."),
        "pictures": Key(
            Text(),
            "A file of the titles' pictures, beside this one: a row each, with title (its id), url "
            "and features. Left out: the catalogue's column pictures.",
        ),
        "pictures_table": Key(
            Text(128), "The pictures' table, where that file, or the catalogue, is a database."
        ),
        "demo": Key(
            Flag(), "true makes up what the catalogue leaves out, to try things (default false)."
        ),
        "region": Key(Name, "The region of viewers who name none.", True),
        "rows": Key(
            Section(
                {
                    "experiment": Key(
                        Name, "The experiment that orders rows; its actions are the rows.", True
                    ),
                    "count": Key(
                        _SLOTS, "How many rows a page has; {min, max} decides it per viewer.", True
                    ),
                    "row_cost": Key(
                        _COST,
                        "Of a count {min, max}: what one more row must be worth, in units of the "
                        "objective of its experiment.",
                    ),
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
                    "count": Key(
                        _SLOTS, "How many titles a row has; {min, max} decides it per viewer.", True
                    ),
                    "title_cost": Key(
                        _COST,
                        "Of a count {min, max}: what one more title must be worth, in units of the "
                        "objective of its experiment.",
                    ),
                    "candidates": Key(
                        Number(1, 500, whole=True), "From how many candidates (default 60)."
                    ),
                    "diversity": Key(
                        Number(0.0, 10.0),
                        "What likeness to a title above in its row takes from a title's score, in "
                        "logits for one that is the same in all (default 0).",
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
        "sources": Key(MapOf(row_sources.ROW, 100, 1), "What each row is made of.", True),
        "rules": Key(ListOf(RULE, 200), "What may stand where."),
        "boosts": Key(ListOf(BOOST, 200), "What editors add to the scores of titles, with dates."),
        "signals": Key(
            MapOf(Number(-100, 100), 100),
            "Event → what it says of a title: above 0 for it, below 0 against it "
            f"(default: {', '.join(f'{event} {weight:g}' for event, weight in SIGNALS.items())}).",
        ),
        "click_model": Key(
            Choice(CLICK_MODELS),
            "At what viewers look, for all of its layers. examined: where events seen say so "
            "(default: what each experiment says).",
        ),
        "session_ttl": Key(
            Duration(), "How long a session sees the same page (default: every call is a new page)."
        ),
        "kids_max_age": Key(
            Number(0, UNKNOWN_AGE - 1, whole=True), "The age limit of kids' profiles (default 7)."
        ),
        "guest_max_age": Key(_AGE, "The age limit of viewers without a profile (default 16)."),
        "budget_ms": Key(
            Number(0, 10_000, above=True), "Milliseconds after which editors' orders step in."
        ),
    },
    renames.PAGE,
    "the keys of docs/pages.md, which `topbill schema page` prints",
)


def page_schema() -> JsonSchema:
    """JSON Schema 2020-12 of a page file (its YAML read as JSON)."""
    about = "A homepage of three layers, each decided by an experiment."
    return schema_document("Topbill page", about, PAGE)


@dataclass(frozen=True)
class PageFile:
    """One page file, valid beside its experiments.

    Attributes:
        key: What services send, and what the page's own decisions are logged under.
        catalogue: Where its catalogue lies; `table` names the table where that is a database.
        pictures: Where pictures have a file of their own, and None elsewhere; `pictures_table`
            names the table where that, or the catalogue, is a database.
        demo: Whether what the catalogue leaves out is made up.
        region: The region of viewers who name none.
        layers: Layer (of LAYERS) → the key of the experiment that decides it.
        rows: How many rows a page has at most; `row_length` decides how many, None where each has
            as many.
        titles: How many titles a row has at most, of at most `candidates`; `title_length` likewise.
        pinned: Row → the position at which editors put it.
        sources: Row → what it is made of.
        repeats: Row → the row of the file that it is one of, where that is several: `because` is a
            row for each of several titles.
        candidate_files: Row → the file of its candidates and the table in it, where it has one.
        rules: What may stand where.
        diversity: What likeness to a title above takes from a title's score, in logits.
        boosts: What editors add to the scores of titles.
        signals: Event → what it says for a title, below 0 against it, in plays.
        click_model: That of all its layers' experiments; None where each says its own.
        session_ttl: Seconds for which a session sees the same page; 0 for a new one every time.
        kids_max_age: The age limit of kids' profiles, in years.
        guest_max_age: The age limit of viewers without a profile, in years.
        budget_ms: Milliseconds after which editors' orders step in.
        raw: The file's content.
        source: The file's name.
    """

    key: str
    title: str
    catalogue: Path
    table: str | None
    pictures: Path | None
    pictures_table: str | None
    demo: bool
    region: str
    layers: Mapping[str, str]
    rows: int
    titles: int
    candidates: int
    row_length: Length | None
    title_length: Length | None
    pinned: Mapping[str, int]
    sources: Mapping[str, RowSource]
    repeats: Mapping[str, str]
    candidate_files: Mapping[str, tuple[Path, str | None]]
    rules: Rules
    diversity: float
    boosts: tuple[Boost, ...]
    signals: Mapping[str, float]
    click_model: str | None
    session_ttl: float
    kids_max_age: int
    guest_max_age: int
    budget_ms: float
    raw: dict[str, Any] = field(compare=False, hash=False)
    source: str = field(default="", compare=False)

    @property
    def catalogue_files(self) -> tuple[Path, ...]:
        """The files that its catalogue is read from."""
        return (self.catalogue,) if self.pictures is None else (self.catalogue, self.pictures)

    def read_table(self) -> pa.Table:
        """Its catalogue's rows as the files have them now, with the pictures. Raises NotFound and
        BadData.
        """
        return read_joined(self.catalogue, self.table, self.pictures, self.pictures_table)

    def catalog(self, table: pa.Table) -> Catalog:
        """The catalogue of such rows. Raises BadData."""
        return Catalog(table, self.catalogue.name, demo=self.demo)

    def read_catalog(self) -> Catalog:
        """Its catalogue as the files have it now. Raises NotFound and BadData."""
        return self.catalog(self.read_table())

    @property
    def signal_rows(self) -> dict[str, tuple[str, dict[str, Any]]]:
        """Row → the candidate signal of a package that it is made of, and that one's parameters."""
        rows: dict[str, tuple[str, dict[str, Any]]] = {}
        for row, parts in self.raw["sources"].items():
            if "signal" in parts:
                rows[row] = (parts["signal"], parts.get("with", {}))
        return rows

    @property
    def lengths(self) -> dict[str, dict[str, float]]:
        """Layer → between how many there are and what one more costs, where that is drawn."""
        spans: dict[str, dict[str, float]] = {}
        drawn = {"rows": (self.row_length, self.rows), "titles": (self.title_length, self.titles)}
        for layer, (length, most) in drawn.items():
            if length is not None:
                spans[layer] = {"min": length.least, "max": most, "cost": length.cost}
        return spans

    def unit_types(self, experiments: Iterable[Experiment]) -> frozenset[str]:
        """What those of the experiments that are its layers' call their units: events of such units
        are its viewers'.
        """
        own = set(self.layers.values())
        found = set()
        for experiment in experiments:
            if experiment.key in own and experiment.unit is not None:
                found.add(experiment.unit)
        return frozenset(found or [PROFILE_TYPE])

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
    # A folder that holds pages alone is no mistake; one that holds nothing is, and `spec.load_all`
    # says so.
    if own and not yaml_in(experiments):
        return own
    return [experiments, *own]


def load_experiments(experiments: Path) -> list[Experiment]:
    """Every experiment of an experiments' folder and of its pages; those of a page's layers with
    the click model that the page says for all of them. Raises SpecError with every problem of
    theirs; page files are not checked here (`load_all`).
    """
    loaded = load_files(experiment_folders(experiments))
    said: dict[str, str] = {}
    for path in yaml_in(experiments / "pages"):
        said |= _click_models(path)
    return [_with_click_model(experiment, said) for experiment in loaded]


def _click_models(path: Path) -> dict[str, str]:
    """Experiment → the click model that a page file says for it; nothing of a file that is wrong,
    which is told where pages are checked."""
    raw, problems, _ = parse(contents(path), path.name)
    model = raw.get("click_model") if isinstance(raw, dict) else None
    if problems or not isinstance(model, str) or model not in CLICK_MODELS:
        return {}
    sections = [raw.get(layer) for layer in LAYERS]
    keys = [part.get("experiment") for part in sections if isinstance(part, dict)]
    return {key: model for key in keys if isinstance(key, str)}


def _with_click_model(experiment: Experiment, said: Mapping[str, str]) -> Experiment:
    """The experiment as if its own file said it: so the audit has it, and whoever reads that."""
    model = said.get(experiment.key)
    if model is None or "click_model" in experiment.raw:
        return experiment
    return replace(
        experiment,
        click_model=cast(ClickModelName, model),
        raw={**experiment.raw, "click_model": model},
    )


def experiments_of(experiments: Path) -> list[Experiment]:
    """All experiments of the folder of something that runs, those of its pages included: none where
    the folder is readable and empty, for whoever removes the last file stops what it said.

    Raises SpecError with every problem of every file, also where the folder is gone or closed.
    """
    try:
        list(experiments.iterdir())
    except OSError as error:
        got = error.strerror or str(error)
        problem = FileProblem(str(experiments), "directory", got, "a folder that can be read")
        raise SpecError([problem]) from error
    return load_experiments(experiments) if spec.marks(experiments) else []


def folder_of(path: Path) -> Path:
    """The experiments' folder of a page file, or of the folder of page files: a page is checked
    beside what it names. Any other path is its own.
    """
    if path.name == "pages" and path.is_dir():
        return path.parent
    if path.parent.name == "pages" and path.is_file():
        return path.parent.parent
    return path


def load_all(experiments: Path, known: Sequence[Experiment]) -> list[PageFile]:
    """Every page file of an experiments' folder.

    Args:
        experiments: The folder; pages lie in `pages/` below it.
        known: All its experiments, the pages' own included (`experiment_folders`).

    Raises:
        SpecError: With every problem of every file.
    """
    pages: list[PageFile] = []
    problems: list[FileProblem] = []
    for _, verdict in load_each(experiments, known):
        if isinstance(verdict, PageFile):
            pages.append(verdict)
        else:
            problems += verdict.problems
    if problems:
        raise SpecError(problems)
    return pages


def load_each(
    experiments: Path, known: Sequence[Experiment]
) -> list[tuple[Path, PageFile | SpecError]]:
    """Each page file with its page, or with what is wrong with it, alone or beside the others."""
    verdicts: list[tuple[Path, PageFile | SpecError]] = []
    owners: dict[str, str] = {}
    for path in yaml_in(experiments / "pages"):
        try:
            page = load(path, known)
        except SpecError as error:
            verdicts.append((path, error))
            continue
        owner = owners.setdefault(page.key, path.name)
        if owner == path.name:
            verdicts.append((path, page))
        else:
            expected = f"a key of its own: {owner} has this one already"
            problem = FileProblem(path.name, "page", repr(page.key), expected)
            verdicts.append((path, with_lines(SpecError([problem]), path)))
    return verdicts


def load(path: Path, known: Sequence[Experiment]) -> PageFile:
    """The page in a file, checked against all experiments that there are.

    Raises:
        SpecError: With every problem of the file.
    """
    raw, problems, lines = parse(contents(path), path.name)
    at = Location(path.name, problems=problems, lines=lines)
    read = PAGE.read(raw, at)
    # What follows relies on every key being what it should be.
    if read is INVALID or at.problems:
        raise SpecError(at.problems)
    page = _build(read, raw, path, at)
    experiments = {experiment.key: experiment for experiment in known}
    _check_key(page.key, experiments, at)
    _check_layers(page, experiments, at)
    _check_contexts(page, experiments, at)
    if at.problems:
        raise SpecError(at.problems)
    return page


def _build(read: Mapping[str, Any], raw: dict[str, Any], path: Path, at: Location) -> PageFile:
    """The page of what was read, after noting what contradicts itself."""
    where = at.key("sources")
    rows = row_sources.rows_of(read["sources"], where)
    sources = row_sources.read(read["sources"], rows, where)
    genres: dict[str, Sequence[str]] = {}
    for name, row in sources.items():
        genres[name] = row.genres if row.source == "genre" else ()
    rules = row_sources.in_each_row(read.get("rules", ()), rows)
    counts: CountRange = read["rows"]["count"]
    titles: CountRange = read["titles"]["count"]
    candidates = read["titles"].get("candidates", max(60, titles.most))
    if candidates < titles.most:
        at.key("titles").key("candidates").wrong(
            candidates, f"at least {titles.most}, the titles of a row"
        )
    _check_pinned(read["rows"], sources, at.key("rows"))
    built = build(rules, at.key("rules"), PageShape(genres, titles))
    row_sources.check_beside(sources, built, where)
    return PageFile(
        key=read["page"],
        title=read.get("title", read["page"]),
        catalogue=path.parent / read["catalogue"],
        table=read.get("table"),
        pictures=path.parent / read["pictures"] if "pictures" in read else None,
        pictures_table=read.get("pictures_table"),
        demo=read.get("demo", False),
        region=read["region"],
        layers={layer: read[layer]["experiment"] for layer in LAYERS if layer in read},
        rows=counts.most,
        titles=titles.most,
        candidates=candidates,
        row_length=_length(read["rows"], "row_cost", at.key("rows")),
        title_length=_length(read["titles"], "title_cost", at.key("titles")),
        pinned=read["rows"].get("pinned", {}),
        sources=sources,
        repeats={repeat: name for name, own in rows.items() for repeat in own[1:]},
        candidate_files=row_sources.candidate_files(read["sources"], path.parent),
        rules=built,
        diversity=read["titles"].get("diversity", 0.0),
        boosts=build_boosts(read.get("boosts", ()), at.key("boosts")),
        # What viewers pick at the start is kept, unless the file says what it is worth.
        signals={PICK: SIGNALS[PICK]} | read["signals"] if "signals" in read else SIGNALS,
        click_model=read.get("click_model"),
        session_ttl=read.get("session_ttl", 0.0),
        kids_max_age=read.get("kids_max_age", 7),
        guest_max_age=read.get("guest_max_age", 16),
        budget_ms=read.get("budget_ms", 60.0),
        raw=raw,
        source=path.name,
    )


def _length(read: Mapping[str, Any], cost: str, at: Location) -> Length | None:
    """What decides how many there are; None where their number is fixed, and has no cost."""
    span: CountRange = read["count"]
    is_fixed = span.least == span.most
    if is_fixed and cost in read:
        at.key(cost).wrong(
            read[cost], f"none beside a fixed count; with count: {{min, max}}, {cost} decides"
        )
    elif not is_fixed and cost not in read:
        at.key(cost).wrong(
            Verbatim("nothing"), "what one more must be worth, in units of the objective"
        )
    return None if is_fixed else Length(span.least, read.get(cost, 0.0))


def _check_pinned(rows: Mapping[str, Any], sources: Mapping[str, RowSource], at: Location) -> None:
    """Pinned rows are the page's, at positions that there are, each at one of its own."""
    row_at: dict[int, str] = {}
    for name, position in rows.get("pinned", {}).items():
        where = at.key("pinned").key(name)
        if name not in sources:
            where.wrong(
                Verbatim("an unknown row"), "one of " + listed(sources), nearest(name, sources)
            )
        most = rows["count"].most
        if position >= most:
            where.wrong(position, f"0 to {most - 1}: the page has {most} rows")
        pinned_there = row_at.setdefault(position, name)
        if pinned_there != name:
            where.wrong(position, f"a position of its own: {pinned_there} is pinned there")


def _check_key(key: str, known: Mapping[str, Experiment], at: Location) -> None:
    """Pages and experiments share one space of keys: `topbill report KEY` takes either, and the
    log keeps a page's own decisions under the page's key as if it were an experiment's.
    """
    if key in known:
        at.key("page").wrong(key, "a key that no experiment has", "name the page otherwise")


def _check_layers(page: PageFile, known: Mapping[str, Experiment], at: Location) -> None:
    """Each layer names an experiment of its surface; rows has the page's rows as actions, the
    others have none.
    """
    for layer, name in page.layers.items():
        where = at.key(layer).key("experiment")
        experiment = known.get(name)
        if experiment is None:
            where.wrong(name, "one of the experiments " + listed(known), nearest(name, known))
            continue
        if experiment.surface != layer:
            where.wrong(
                Verbatim(f"{name}, which decides {experiment.surface}"),
                f"an experiment with surface: {layer}",
            )
        own = experiment.raw.get("click_model", page.click_model)
        if page.click_model not in (None, own):
            at.key("click_model").wrong(
                page.click_model,
                f"what {name} says, {own}: say it in one of the two files",
            )
        if layer == "rows":
            _check_row_actions(page, experiment, at)
            continue
        if experiment.actions:
            where.wrong(
                Verbatim(f"{name} with actions of its own"),
                "actions: [], since the page brings them",
            )
        _check_features(layer, experiment, where)


def _check_row_actions(page: PageFile, experiment: Experiment, at: Location) -> None:
    actions = {action.id for action in experiment.actions}
    rows = [name for name in page.sources if name not in page.repeats]
    if actions != set(rows):
        odd = sorted(actions ^ set(rows))
        at.key("sources").wrong(
            Verbatim(listed(rows)), f"the rows of {experiment.key}; {listed(odd)} differ"
        )
    elif page.rows > len(page.sources):
        at.key("rows").key("count").wrong(
            page.rows, f"at most {len(page.sources)}, the rows that there are"
        )


def _check_contexts(page: PageFile, known: Mapping[str, Experiment], at: Location) -> None:
    """A page's request has one context for all layers: a feature that two of them declare takes
    what both can read.
    """
    first: dict[str, tuple[str, FeatureKind]] = {}
    for layer, name in page.layers.items():
        experiment = known.get(name)
        for feature in () if experiment is None else experiment.context:
            owner, kind = first.setdefault(feature.name, (name, feature.kind))
            if not _read_alike(kind, feature.kind):
                at.key(layer).key("experiment").wrong(
                    Verbatim(f"{name}, whose context feature {feature.name} is a {feature.kind}"),
                    f"a {kind}, as {owner} declares it: no request could be right for both",
                )


def _read_alike(one: FeatureKind, other: FeatureKind) -> bool:
    """Whether some value is right for features of both kinds."""
    return one == other or any(one in kinds and other in kinds for kinds in _SAME_VALUES)


def _check_features(layer: str, experiment: Experiment, at: Location) -> None:
    """Features that pages fill themselves are of their type. What columns and pictures have, their
    catalogue says (`checks`).
    """
    if layer == "artwork":
        return
    for feature in experiment.sent_action_features:
        kind = TITLE_FEATURES.get(feature.name, feature.kind)
        if kind != feature.kind:
            at.wrong(
                Verbatim(f"action feature {feature.name} ({feature.kind})"),
                f"type {kind}, as pages fill it",
            )

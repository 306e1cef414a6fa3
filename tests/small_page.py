"""A small page with its catalogue and experiments, that tests of several packages compose. Their
`conftest.py` take the fixtures from here.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from topbill import lake, pages, spec
from topbill.catalog import Catalog
from topbill.domain.decision import decision_rows, reward_rows
from topbill.domain.origin import Origin
from topbill.domain.records import Decision, RewardEvent
from topbill.engine import Engine
from topbill.pages import CompiledPage, ComposedPage, PageFile, PageRequest, compose

NOW = 1_790_000_000.0
"""A day in September 2026."""
HEADER = (
    "id,title,year,genres,maturity,regions,franchise,added,available_from,available_until,"
    "popularity,pictures"
)
GENRES = ("comedy", "drama", "action", "scifi")

LAYER = """
experiment: {key}
surface: {surface}
unit: profile_id
budget_ms: 9000
context:
  taste: {{type: vector, keys: [comedy, drama, action]}}
action_features: {features}
actions: {actions}
metrics:
  play: {{event: play, kind: binary, window: 1s}}
objective: {{play: 1.0}}
variants:
  only: {{{policy}, share: 100%, control: true}}
"""
PAGE = """
page: home
catalogue: titles.csv
region: us
budget_ms: 9000
rows: {experiment: rows, count: 3}
titles: {experiment: titles, count: 6, candidates: 16}
artwork: {experiment: artwork}
sources:
  best: {source: popular}
  fun: {source: genre, genres: [comedy]}
  tension: {source: genre, genres: [action, drama]}
  fresh: {source: new}
"""
ROWS = "[{id: best}, {id: fun}, {id: tension}, {id: fresh}]"
RULES = """
rules:
  - {rule: at_most, count: 3, of: genre, per: row, except: [fun, tension]}
  - {rule: at_most, count: 2, of: franchise, per: page}
  - {rule: pin, title: t07, row: best, position: 2}
  - {rule: fresh, count: 2, within: 60d, rows: [best]}
  - {rule: block, titles: [t01]}
"""


def catalogue(now: float = NOW, size: int = 60) -> str:
    """Titles t00, t01, … by falling popularity: genres in turn, some for adults, some German only,
    some gone, some new at that time (seconds since the epoch).
    """
    lines = [HEADER]
    lately = (datetime.fromtimestamp(now, UTC) - timedelta(days=20)).date().isoformat()
    for i in range(size):
        genres = f"{GENRES[i % 4]}|{GENRES[(i // 4 + 1) % 4]}" if i % 3 == 0 else GENRES[i % 4]
        age = 18 if i % 7 == 3 else 7 if i % 2 else 0
        regions = "de" if i % 9 == 4 else "us|de"
        added = lately if i % 5 == 2 else "2020-01-01"
        until = "2026-01-01" if i % 11 == 5 else "2040-01-01"
        pictures = "|".join(("warm", "cold", "dark")[: 1 + i % 3])
        cells = (
            f"t{i:02d}",
            f"Title {i}",
            1950 + i,
            genres,
            age,
            regions,
            f"saga{i % 20}",
            added,
            added,
            until,
        )
        lines.append(",".join(map(str, (*cells, round(1 - i / size, 3), pictures))))
    return "\n".join(lines) + "\n"


def layer(key: str, surface: str, policy: str, features: str = "{}", actions: str = "[]") -> str:
    """One layer's experiment."""
    return LAYER.format(key=key, surface=surface, policy=policy, features=features, actions=actions)


TITLE_FEATURES = (
    "{genres: {type: vector, keys: [comedy, drama, action]}, new: {type: flag}, "
    "similar: {type: number}, "
    "match: {type: number}, "
    "sources: {type: vector, keys: [trending, popular, new]}, "
    "popularity: {type: number, min: 0, max: 1}}"
)


class Home:
    """A folder with one page, its catalogue and its experiments, of some time."""

    def __init__(self, folder: Path, now: float = NOW) -> None:
        self.folder, self.now = folder, now
        self.write()

    def write(
        self, rules: str = RULES, page: str = PAGE, policy: str = "policy: thompson, model: shared"
    ) -> None:
        """Write all files; `rules` is that section of the page file, `policy` chooses titles."""
        own = self.folder / "pages" / "home"
        own.mkdir(parents=True, exist_ok=True)
        (self.folder / "pages" / "home.yaml").write_text(page + rules)
        (self.folder / "pages" / "titles.csv").write_text(catalogue(self.now))
        (self.folder / "art.yaml").write_text(
            layer("art", "artwork", "policy: uniform", actions="[{id: a}, {id: b}]")
        )
        (own / "rows.yaml").write_text(layer("rows", "rows", "policy: uniform", actions=ROWS))
        (own / "titles.yaml").write_text(layer("titles", "titles", policy, TITLE_FEATURES))
        (own / "artwork.yaml").write_text(layer("artwork", "artwork", "policy: uniform"))

    def experiments(self) -> list[spec.Experiment]:
        """All experiments of the folder."""
        return spec.load_all(pages.experiment_folders(self.folder))

    def file(self) -> PageFile:
        """The page file."""
        (file,) = pages.load_all(self.folder, self.experiments())
        return file

    def catalog(self) -> Catalog:
        """Its catalogue."""
        return Catalog.read(self.folder / "pages" / "titles.csv")

    def compiled_page(self) -> CompiledPage:
        """The page, ready."""
        return CompiledPage(
            self.file(), Engine(self.experiments(), clock=lambda: 0.0), self.catalog()
        )

    def compose(self, compiled_page: CompiledPage, number: int = 0, **asked: Any) -> ComposedPage:
        """A page for a viewer."""
        request = msgspec.convert({"page": "home", "profile": f"u{number}", **asked}, PageRequest)
        viewer = compiled_page.viewer(request, f"page-{number}")
        return compose(compiled_page, request, viewer, f"page-{number}", self.now)


def lay(
    data: Path,
    experiments: list[spec.Experiment],
    decisions: list[Decision],
    events: list[RewardEvent],
    published: int,
) -> None:
    """Decisions and events as the lake of some experiments, published at a time (µs)."""
    record = lake.Lake(data)
    record.append("decisions", decision_rows(list(enumerate(decisions, 1))), len(decisions))
    by_id = {d.decision_id: Origin.of(d) for d in decisions}
    rows = [(seq, event, by_id[event.decision_id]) for seq, event in enumerate(events, 1)]
    record.append("rewards", reward_rows(rows), len(rows))
    record.write_database(experiments, published)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """The small page."""
    return Home(tmp_path / "experiments")


@pytest.fixture(scope="session")
def home_class() -> type[Home]:
    """The small page's class, for fixtures that outlive a test."""
    return Home

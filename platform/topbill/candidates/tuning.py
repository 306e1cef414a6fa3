"""How much each kind of evidence for a title is worth: fitted to plays that were held out, and
measured on others.

A held-out play is the last of a viewer's, told from what that viewer played before by a conditional
logit (McFadden 1974): of all titles, the one with evidence e is played with odds exp(weights · e).
The sum over all titles is estimated from the most popular ones, which make most of it, and a sample
of the others with their weight.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.special import logsumexp

from topbill.candidates.signals import EVIDENCE, HUNCH, Matrix, Play, Recall, Signals, count
from topbill.candidates.stage import Stage
from topbill.catalog import Catalog
from topbill.domain.records import Floats, Indices

MOST = 200
"""How many candidates recall is told for."""
HELD = 1_200
"""Viewers whose last play is held out, at most: half of them fit the weights, half measure
recall.
"""
LEAST = 60
"""Held-out plays without which nothing is fitted."""
RECENT = 20
"""How many plays of a viewer are told from, as serving does."""
_POPULAR, _OTHERS = 300, 700
_STIFF = 4.0
"""Held-out plays that the hunch is worth."""


class Held(NamedTuple):
    """A play held out: rows `watched` before by the viewer, newest last, the row `played`, and in
    which region.
    """

    watched: Sequence[int]
    played: int
    region: str = ""


def learn(plays: Iterable[Play], catalog: Catalog, now: float) -> Signals:
    """Signals of plays, in any order, with the evidence's worth fitted and recall measured where
    there are enough viewers with two plays. What is held out takes no part in what the fit is made
    from, and all plays in what is returned."""
    everything = list(plays)
    found = count(everything, catalog, now)
    kept, held = hold_out(everything, catalog)
    if len(held) < LEAST:
        return found
    stage = Stage(catalog, count(kept, catalog, now))
    stage.weights = fit(stage, held[::2], now)
    return replace(found, weights=stage.weights, recall=recall(stage, held[1::2], now))


def hold_out(plays: Sequence[Play], catalog: Catalog) -> tuple[list[Play], list[Held]]:
    """The plays without the last title of each of at most HELD viewers, and those last plays."""
    own: dict[str, list[Play]] = {}
    for play in plays:
        if play.title in catalog.index:
            own.setdefault(play.unit, []).append(play)
    able = [unit for unit, seen in own.items() if len({play.title for play in seen}) > 1]
    chosen = np.random.default_rng(0).permutation(len(able))[:HELD].tolist()
    last: dict[str, str] = {}
    held = []
    for unit in (able[i] for i in chosen):
        seen = sorted(own[unit], key=lambda play: play.at)
        title = last[unit] = seen[-1].title
        before = dict.fromkeys(catalog.index[play.title] for play in seen if play.title != title)
        held.append(Held(list(before)[-RECENT:], catalog.index[title], seen[-1].region))
    return [play for play in plays if last.get(play.unit) != play.title], held


def fit(stage: Stage, held: Sequence[Held], now: float) -> tuple[float, ...]:
    """The weights under which the held-out plays are likeliest, drawn towards the HUNCH as if it
    were a few plays.
    """
    rng = np.random.default_rng(0)
    rest = stage.popular[_POPULAR:]
    others = rng.choice(rest, size=min(_OTHERS, len(rest)), replace=False)
    columns = np.concatenate([stage.popular[:_POPULAR], others])
    stands_for = np.repeat(
        [1.0, len(rest) / max(len(others), 1)], [len(columns) - len(others), len(others)]
    )
    found, given = [], []
    for one in held:
        found.append(_evidence(stage, one, np.concatenate([[one.played], columns]), now))
        out = np.isin(columns, [one.played, *one.watched])
        given.append(np.log(np.concatenate([[1.0], np.where(out, 1e-300, stands_for)])))
    E, offset, hunch = np.array(found), np.array(given), np.array(HUNCH)

    def loss(w: Floats) -> tuple[float, Floats]:
        logit = E @ w + offset
        total = logsumexp(logit, axis=1)
        expected = np.einsum("nm,nmk->k", np.exp(logit - total[:, None]), E)
        off = w - hunch
        return float((total - logit[:, 0]).sum() + _STIFF / 2.0 * off @ off), expected - E[
            :, 0
        ].sum(axis=0) + _STIFF * off

    return tuple(minimize(loss, hunch, jac=True, method="L-BFGS-B").x.tolist())


def _evidence(stage: Stage, one: Held, rows: Indices, now: float) -> Floats:
    """(rows × EVIDENCE) what speaks for these titles to the viewer."""
    found = np.concatenate(
        [stage.evidence(one.region, now, rows), stage.likeness(one.watched, rows)]
    )
    return found.T.astype(np.float64)


def recall(stage: Stage, held: Iterable[Held], now: float, most: int = MOST) -> Recall:
    """How many of the held-out plays are among the `most` titles that all evidence together speaks
    for most, and how many among the `most` most popular; what a viewer watched before counts in
    neither."""
    found = popular = asked = 0
    for one in held:
        evidence = stage.evidence(one.region, now)
        merit, plays = (
            stage.merit(evidence, stage.likeness(one.watched)),
            evidence[EVIDENCE.index("popular")],
        )
        found += _before(merit, one) < most
        popular += _before(plays, one) < most
        asked += 1
    return Recall(found, popular, asked, most)


def _before(scores: Matrix, one: Held) -> int:
    """How many titles come before the one that was played."""
    better = scores > scores[one.played]
    return int(better.sum()) - int(better[list(one.watched)].sum())

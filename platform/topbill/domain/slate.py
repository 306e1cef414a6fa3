"""Slates position by position without replacement: the draw, its propensities, and those of a given
slate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import msgspec
import numpy as np

from topbill.domain.chance import FEW, draw, invert, with_min_probability
from topbill.domain.errors import OverBudget, PolicyError
from topbill.domain.records import (
    Actions,
    Floats,
    Indices,
    Mask,
    Scored,
    Stop,
    Terms,
    length_propensity,
)

LARGEST_MATRIX = 1024
"""Above this many numbers (positions × eligible actions) a slate does not carry its probability
matrix.
"""


class Slate(msgspec.Struct, frozen=True, gc=False):
    """Rows placed (first position first), the propensity of each given those before it, and their
    product.

    `probabilities[k][j]` is the probability of `eligible[j]` at position k, 0 for what was placed
    above; None when it would hold more than `LARGEST_MATRIX` numbers. `stops`: where it could have
    ended; `propensity` counts them too.
    """

    rows: tuple[int, ...]
    propensities: tuple[float, ...]
    probabilities: tuple[tuple[float, ...], ...] | None
    propensity: float
    stops: tuple[Stop, ...] = ()
    terms: Terms | None = None


class Length(msgspec.Struct, frozen=True, gc=False):
    """What decides how long a slate gets: at least `least`, and one more as long as that is
    expected to be worth more than its `cost`, in units of the objective. `reach`: how much more is
    earned where the slate stands than elsewhere.
    """

    least: int
    cost: float
    reach: float = 1.0

    def stop_probability(self, worth: float) -> float:
        """The probability to stop where one more is expected to be worth that: one half where it is
        worth its cost, 1% where it is worth half as much again, and never more than `_MOST_SURE`.
        So what lies just below the end is tried as often as not, and what lies far below it now
        and then.
        """
        # Above 700 the exponential overflows.
        exponent = min((worth / self.cost - 1.0) / _HESITATION, 700.0)
        return _MOST_SURE / (1.0 + math.exp(exponent))


_HESITATION = 0.1
"""By what part of its cost the worth of one more must exceed that for odds of e to go on. The
chance to stop comes anew with each position: were it much wider, slates would end long before
their end."""
_MOST_SURE = 0.98
"""The largest probability to stop: what another length would have earned can be told of the log."""


class Stopping(NamedTuple):
    """A slate's length while it is drawn: what decides it, (K,) the `mean` of each action at the
    first position, what one of a mean is worth at a position, and its uniforms; whether chance has
    a say.
    """

    length: Length
    mean: Floats
    worth: Callable[[int, float], float]
    uniforms: Callable[[int], float]
    explore: bool = True

    def at(self, position: int, may: Indices, p: Sequence[float] | Floats) -> Stop | None:
        """The chance to end before `position`, where `may` would be drawn with `p`; None where the
        slate has to go on.
        """
        if position < self.length.least:
            return None
        length = self.length
        worth = self.worth(position, float(np.dot(self.mean[may], p)) * length.reach)
        probability = float(worth < length.cost)
        if self.explore:
            probability = length.stop_probability(worth)
        return Stop(position, worth, probability, length.reach, length.cost)

    def ends(self, stop: Stop) -> bool:
        """Whether the slate ends there: drawn by its position's own uniform."""
        return self.uniforms(stop.position) < stop.probability


class ScoreTerms:
    """What is added to the scores of K actions before each draw, in logits: a `boost` (K,), and
    less for what is alike what stands above on the slate: `weight` times the largest cosine with
    any of that, of their `vectors` (K × c, of unit length or 0), in hundredths. One object serves
    one slate.
    """

    def __init__(self, boost: Floats, weight: float = 0.0, vectors: Floats | None = None) -> None:
        self._boost, self._weight, self._vectors = boost, weight, vectors
        self._alike: list[tuple[int, ...]] = []
        self._largest: Floats = np.zeros(len(boost))

    def at(self, placed: Sequence[int]) -> Floats:
        """(K,) what is added at the position below those `placed`."""
        if self._weight == 0.0 or self._vectors is None:
            return self._boost
        for row in placed[len(self._alike) :]:
            # In hundredths, as the log has them: what is drawn from is what can be had again.
            alike = np.rint(np.maximum(self._vectors @ self._vectors[row], 0.0) * 100.0)
            self._alike.append(tuple(alike.astype(int).tolist()))
            self._largest = np.maximum(self._largest, alike)
        return self._boost - self._weight * (self._largest / 100.0)

    @property
    def record(self) -> Terms:
        """What was added up to now, for the log."""
        boosted = np.flatnonzero(self._boost).tolist()
        boosts = tuple((row, float(self._boost[row])) for row in boosted)
        return Terms(boosts, self._weight, tuple(self._alike))


def shifted(scored: Scored, by: Floats) -> Scored:
    """The same with `by` (K,) added to the scores, in logits. Where a policy has no scores to add
    to, its probabilities are multiplied with exp(by): those that are 0 stay 0.
    """
    own = getattr(scored, "shifted", None)
    return _Tilted(scored, by) if own is None else own(by)


class _Tilted:
    """Probabilities times exp(by)."""

    def __init__(self, scored: Scored, by: Floats) -> None:
        self._scored, self._by = scored, by
        self.mean, self.width = scored.mean, scored.width

    def probabilities(self, remaining: Indices) -> Floats:
        return tilted(self._scored.probabilities(remaining), self._by[remaining])


def tilted(probabilities: Floats, by: Floats) -> Floats:
    """Probabilities times exp(by), with the sum 1."""
    p = probabilities * np.exp(by - by.max())
    total = float(p.sum())
    # What is buried by so much that nothing is left of it is not buried among its like.
    return np.asarray(p / total) if total > 0.0 else probabilities


class Best:
    """What a policy holds to be the best of those that remain, for certain: the first of the
    highest mean, or of the highest probability where the policy estimates no means."""

    def __init__(self, scored: Scored) -> None:
        self._scored = scored

    @property
    def mean(self) -> Floats | None:
        """(K,) the policy's own."""
        return self._scored.mean

    @property
    def width(self) -> Floats | None:
        """(K,) the policy's own."""
        return self._scored.width

    def shifted(self, by: Floats) -> Best:
        """The best with `by` added to the scores."""
        return Best(shifted(self._scored, by))

    def probabilities(self, remaining: Indices) -> Floats:
        """(len(remaining),) 1 for the best, 0 for the others."""
        mean = self._scored.mean
        worth = self._scored.probabilities(remaining) if mean is None else mean[remaining]
        certain = np.zeros(len(remaining))
        certain[int(np.argmax(worth))] = 1.0
        return certain


class Allowed(Protocol):
    """Rules over one slate, asked position by position before each draw; one object serves one
    slate.
    """

    def rows(self, position: int, placed: Sequence[int]) -> Indices:
        """The rows that may stand at `position` below those `placed` above; none of these, and none
        at all where the slate ends here."""
        ...

    @property
    def masks(self) -> tuple[Mask, ...]:
        """What the rules did up to now, for the log."""
        ...


class SlateRules(NamedTuple):
    """What rules say of a slate of K rows before its first draw, for compiled calls. They draw from
    it what `Allowed.rows` would let through position by position. Whoever asks for it makes it
    anew, since it is used up.

    Attributes:
        only: The rows that alone may stand at a position, one position after the other. They count
            in no cap that is `left` and in no `quota`: they have been counted.
        starts: (slots + 1,) where those of each position begin. At one that has none, any row may
            stand that is open.
        is_open: (K,) 1 for these, else 0; whatever is drawn of them is open no more.
        caps: The caps that a row counts in, of one row after the other,
        caps_end: (K,) where those of each row end.
        left: (C,) how many rows each cap takes; at 0, what counts in it is open no more.
        fresh: (K,) 1 for the rows of which there is a quota.
        quota: How many of them are to be drawn,
        due: before which position.
    """

    only: Indices
    starts: Indices
    is_open: Indices
    caps: Indices
    caps_end: Indices
    left: Indices
    fresh: Indices
    quota: int = 0
    due: int = 0


class AllowedAhead(Allowed, Protocol):
    """Rules that can be said before the first draw."""

    def ahead(self) -> SlateRules:
        """What they say."""
        ...

    def note(self, placed: Sequence[int]) -> None:
        """Do what asking for the rows at each position would have done, where the slate got those
        `placed`."""
        ...


class SlateRequest(msgspec.Struct, frozen=True, gc=False):
    """What `rank` is to draw for a decision, with chance as its id has it; under `rules`, where it
    has some, it is these that say what is eligible.
    """

    decision_id: str
    eligible: Indices
    slots: int
    least: float
    late: Callable[[], bool] | None = None
    rules: SlateRules | None = None


class SlatesRequest(NamedTuple):
    """What `rank` is to draw for several decisions between the same actions."""

    decision_ids: Sequence[str]
    eligible: Indices
    slots: int
    least: float


class TurnsRequest(NamedTuple):
    """What `rank` is to draw for several decisions in one context, where each position has choices
    of its own.

    Attributes:
        decision_ids: Of n decisions, each of which has one position or more.
        ends: (n,) where the positions of each decision end among those of all.
        starts: (positions + 1,) where the choices of each position begin among all actions; each
            has one or more.
        least: The floor.
    """

    decision_ids: Sequence[str]
    ends: Sequence[int]
    starts: Indices
    least: float


class DrawsSlates(Protocol):
    """A policy that draws whole slates, faster than `rank` draws of its scores."""

    def slate(self, x: Floats, actions: Actions, request: SlateRequest) -> Slate | None:
        """What `rank` draws of what the policy scores, within 1e-12; None where it has to be
        asked itself.
        """
        ...


class DrawsTogether(Protocol):
    """A policy that draws slates of several decisions at once."""

    def slates(
        self, xs: Floats, actions: Actions, request: SlatesRequest
    ) -> Sequence[Slate] | None:
        """(n) what `slate` draws for each of the contexts `xs` (n × d); None where it has to be
        asked for one after the other.
        """
        ...


class DrawsTurns(Protocol):
    """A policy that draws at once what `slate` draws under rules by which each position has its own
    choices."""

    def turns(self, x: Floats, actions: Actions, request: TurnsRequest) -> Sequence[Slate] | None:
        """(n) each decision's slate, with rows among its own part of `actions`, which are those of
        all decisions, one after the other; None where it has to be asked for one after the other.
        """
        ...


def rank(
    scored: Scored,
    eligible: Indices,
    slots: int,
    least: float,
    uniforms: Callable[[int], float] | Sequence[float],
    allowed: Allowed | None = None,
    late: Callable[[], bool] | None = None,
    stopping: Stopping | None = None,
    terms: ScoreTerms | None = None,
) -> Slate:
    """Draw min(slots, len(eligible)) of the rows in `eligible`, each position from what remains.

    At each position the policy's probabilities are taken anew over the remaining rows, lifted to
    `least`, and drawn from with the position's own uniform in [0, 1). Under rules, `allowed` says
    in place of `eligible` what may be drawn at each position; such a slate carries no matrix and
    may end early, `terms` are added to its scores, and with `stopping` it may end by chance, before
    any position from its least on. Raises PolicyError when the policy's vector is no simplex, and
    OverBudget once `late`, asked before every position after the first, says so.
    """
    uniform = uniforms if callable(uniforms) else uniforms.__getitem__
    if allowed is not None:
        return _rank_allowed(scored, allowed, slots, least, uniform, late, stopping, terms)
    size = len(eligible)
    # Most decisions are of one slot: without the loop below, they take half the time.
    if slots == 1 and size:
        p = _probabilities(scored, eligible, least)
        j = _drawn(p, uniform(0))
        drawn = float(p[j])
        line = p if isinstance(p, list) else p.tolist()
        matrix = (tuple(line),) if size <= LARGEST_MATRIX else None
        return Slate((int(eligible[j]),), (drawn,), matrix, drawn)
    return _rank_many(scored, eligible, min(slots, size), least, uniform, late)


def _rank_many(
    scored: Scored,
    eligible: Indices,
    slots: int,
    least: float,
    uniform: Callable[[int], float],
    late: Callable[[], bool] | None,
) -> Slate:
    remaining = np.arange(len(eligible))
    rows: list[int] = []
    propensities: list[float] = []
    matrix: list[tuple[float, ...]] | None = [] if slots * len(eligible) <= LARGEST_MATRIX else None
    joint = 1.0
    for position in range(slots):
        if position and late is not None and late():
            raise OverBudget(f"{position} of {slots} positions were drawn when time was up")
        p = _probabilities(scored, eligible[remaining], least)
        j = _drawn(p, uniform(position))
        rows.append(int(eligible[remaining[j]]))
        propensities.append(float(p[j]))
        joint *= propensities[-1]
        if matrix is not None:
            # In places of the eligible, not of what remained: every position's line has the same
            # columns, with 0 for what was placed above.
            full = np.zeros(len(eligible))
            full[remaining] = p
            matrix.append(tuple(full.tolist()))
        # `np.delete` takes several times as long.
        remaining = np.concatenate((remaining[:j], remaining[j + 1 :]))
    return Slate(tuple(rows), tuple(propensities), None if matrix is None else tuple(matrix), joint)


def _rank_allowed(
    scored: Scored,
    allowed: Allowed,
    slots: int,
    least: float,
    uniform: Callable[[int], float],
    late: Callable[[], bool] | None,
    stopping: Stopping | None,
    terms: ScoreTerms | None,
) -> Slate:
    rows: list[int] = []
    propensities: list[float] = []
    stops: list[Stop] = []
    joint = 1.0
    for position in range(slots):
        if position and late is not None and late():
            raise OverBudget(f"{position} of {slots} positions were drawn when time was up")
        may = allowed.rows(position, rows)
        if not len(may):
            break
        now = scored if terms is None else shifted(scored, terms.at(rows))
        p = _probabilities(now, may, least)
        if stopping is not None and (stop := stopping.at(position, may, p)) is not None:
            stops.append(stop)
            if stopping.ends(stop):
                break
        j = _drawn(p, uniform(position))
        rows.append(int(may[j]))
        propensities.append(float(p[j]))
        joint *= propensities[-1]
    joint *= length_propensity(stops, len(rows))
    record = None if terms is None else terms.record
    return Slate(tuple(rows), tuple(propensities), None, joint, tuple(stops), record)


def _drawn(p: list[float] | Floats, u: float) -> int:
    """The index that u draws from what `_probabilities` says."""
    return invert(p, u) if isinstance(p, list) else draw(p, u)


def _probabilities(scored: Scored, may: Indices, least: float) -> list[float] | Floats:
    """What `distribution` says of `may`, bit for bit. A page draws some 400 times from few actions
    each, where plain Python is several times faster than NumPy."""
    size = len(may)
    if size > FEW:
        return distribution(scored, may, least)
    values: list[float] = scored.probabilities(may).tolist()
    if len(values) != size or not (min(values) >= 0.0 and abs(sum(values) - 1.0) <= 1e-6):
        distribution(scored, may, least)  # raises, and says what is wrong
    if least > 0.0:
        f = min(least, 1.0 / size)
        keep = 1.0 - size * f
        values = [keep * p + f for p in values]
    return values


def in_order(order: Sequence[int], allowed: Allowed, slots: int) -> Slate:
    """The first of `order` that the rules allow at each position: surely, so with propensity 1."""
    rows: list[int] = []
    for position in range(slots):
        may = set(allowed.rows(position, rows).tolist())
        first = next((row for row in order if row in may), None)
        if first is None:
            break  # the slate ends here: nothing that is left fits
        rows.append(first)
    return Slate(tuple(rows), (1.0,) * len(rows), None, 1.0)


def choices(masks: Sequence[Mask], size: int, position: int, above: Sequence[int]) -> Indices:
    """Which of `size` eligible rows could be drawn at `position`, below the rows placed `above`,
    under a decision's `masks`."""
    among: set[int] | None = None
    without = set(above)
    for mask in masks:
        if mask.start <= position < mask.stop:
            if not mask.only:
                without.update(mask.rows)
            elif among is None:
                among = set(mask.rows)
            else:
                # Several rules may narrow one position: what is left is what all of them allow.
                among &= set(mask.rows)
    if among is not None:
        # As a rule a few of many, such as the pictures of one title: no array of all is made.
        return np.array(sorted(among - without), dtype=np.intp)
    may = np.ones(size, dtype=bool)
    may[list(without)] = False
    return np.flatnonzero(may)


def propensities(
    scored: Scored, eligible: Indices, slate_rows: Sequence[int] | Indices, least: float
) -> Floats:
    """(len(slate_rows),) the probability of each placed row given those above it, had this policy
    decided.

    For off-policy evaluation of another policy on a logged slate. A row that is not eligible, or
    placed twice, raises PolicyError.
    """
    remaining = np.asarray(eligible, dtype=np.intp)
    out = np.empty(len(slate_rows))
    for position, row in enumerate(slate_rows):
        at = np.flatnonzero(remaining == row)
        if at.size != 1:
            raise PolicyError(
                f"slate position {position} holds row {row}, "
                "which is not among the eligible that remain"
            )
        out[position] = distribution(scored, remaining, least)[at[0]]
        remaining = np.delete(remaining, at[0])
    return out


def distribution(scored: Scored, remaining: Indices, least: float) -> Floats:
    """(len(remaining),) the policy's probabilities over `remaining`, checked to be a simplex,
    lifted to `least`.
    """
    p = scored.probabilities(remaining)
    if p.shape != (len(remaining),):
        raise PolicyError(
            f"policy returned probabilities of shape {p.shape} for {len(remaining)} actions"
        )
    total, lowest = float(np.add.reduce(p)), float(np.minimum.reduce(p))
    # NaN fails both comparisons, which is why they are not turned round.
    if not (lowest >= 0.0 and abs(total - 1.0) <= 1e-6):
        raise PolicyError(
            f"policy returned no probability simplex: sum {total}, least {lowest}; "
            "expected sum 1 within 1e-6, least ≥ 0"
        )
    return with_min_probability(p, least)

"""Other lengths of pages: how much likelier each page would have been, had another cost or another
span decided how many rows and titles there are.

Before each position at which a slate could end, the log has what one more was expected to be worth
and the probability to end there (`Decision.stops`). With another cost the same worth has another
probability, so the ratio is exact. What is shorter than the shortest that the log could have, or
longer than its longest, it cannot tell: such pages are left out, and counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf, log
from typing import Any, NamedTuple

import msgspec

from topbill.domain.errors import BadRequest
from topbill.domain.records import Decision, Stop
from topbill.domain.slate import Length
from topbill.ope.replay.logged_data import LoggedData

LENGTHS_TOLD = ("rips", "snrips", "sips", "snsips")
"""Estimators that can tell of other lengths: they weigh all that stands above, and that there is
this place at all with it.
"""
KEYS = ("row_cost", "title_cost", "rows.count", "titles.count")
"""What may be asked for, as the page file has it."""
BEYOND = "shorter or longer than the log could tell"
_LAYERS = ("rows", "titles")


class LengthSpan(msgspec.Struct, frozen=True):
    """How many there were at least and at most, and what one more cost, as a page's own decision
    has it (`CompiledPage.facts`).
    """

    min: int
    max: int
    cost: float


class LengthSpans(msgspec.Struct, frozen=True):
    """Of a page's rows, and of the titles of each; None where their number was fixed."""

    rows: LengthSpan | None = None
    titles: LengthSpan | None = None

    @property
    def told(self) -> str:
        """For people."""
        spans = {"rows": self.rows, "titles": self.titles}
        parts = [f"{name} {span.min}-{span.max}" for name, span in spans.items() if span]
        return ", ".join(parts)


class _Facts(msgspec.Struct):
    lengths: LengthSpans | None = None


class StopRatio(NamedTuple):
    """ln of how much likelier it would have been to go on, or to end, before a position; and
    Σ_a π²/p of the two.
    """

    log_ratio: float
    moment: float


StopRatios = Mapping[int, StopRatio]
"""By position."""


@dataclass(frozen=True)
class OtherLengths:
    """The lengths that are asked for: what is None stays as it was."""

    costs: Mapping[str, float | None]
    counts: Mapping[str, tuple[int, int] | None]
    name: str

    def asks(self, layer: str) -> bool:
        """Whether it says anything of a layer."""
        return self.costs[layer] is not None or self.counts[layer] is not None


def other_lengths(asked: Mapping[str, Any]) -> OtherLengths | None:
    """What KEYS of `asked` say: costs as numbers, counts as (least, most), both as text too
    (`4-12`); None where they say nothing. Raises BadRequest.
    """
    named = [f"{key}: {_shown(asked[key])}" for key in KEYS if key in asked]
    if not named:
        return None
    costs = {"rows": _cost(asked, "row_cost"), "titles": _cost(asked, "title_cost")}
    counts = {layer: _count(asked, f"{layer}.count") for layer in _LAYERS}
    return OtherLengths(costs, counts, ", ".join(named))


def _shown(value: Any) -> str:
    return "-".join(map(str, value)) if isinstance(value, tuple | list) else str(value)


def _cost(asked: Mapping[str, Any], key: str) -> float | None:
    if key not in asked:
        return None
    try:
        cost = float(asked[key])
    except (TypeError, ValueError):
        cost = -1.0
    if not 0.0 < cost <= 1.0:
        expected = "a number above 0, and 1 at most"
        raise BadRequest("instead", f"got {key}={asked[key]!s:.60}; expected {expected}")
    return cost


def _count(asked: Mapping[str, Any], key: str) -> tuple[int, int] | None:
    if key not in asked:
        return None
    value = asked[key]
    parts = value.split("-") if isinstance(value, str) else value
    try:
        least, most = (int(part) for part in parts)
    except (TypeError, ValueError):
        least, most = 0, 0
    if not 1 <= least <= most:
        got = f"got {key}={_shown(value):.60}"
        raise BadRequest("instead", f"{got}; expected LEAST-MOST, as {key}=4-12")
    return least, most


def spans_of(context: str) -> LengthSpans | None:
    """What a page's own decision says of its lengths; None where they were fixed."""
    return msgspec.json.decode(context, type=_Facts).lengths


@dataclass
class LengthsLog:
    """What the layers' logs say of lengths, by decision.

    Attributes:
        asked: The lengths that are asked for.
        drawn: The variants that draw lengths, by layer: the others' are as long as may be.
    """

    asked: OtherLengths
    drawn: dict[str, set[str]] = field(default_factory=lambda: {layer: set() for layer in _LAYERS})
    _slates: dict[str, tuple[tuple[Stop, ...], int, str | None]] = field(default_factory=dict)

    def read(self, log_of: LoggedData, layer: str) -> None:
        """Take in a layer's log."""
        for _, decision, _ in log_of:
            self.note(decision, layer)

    def note(self, decision: Decision, layer: str) -> None:
        """Take in one decision of a layer."""
        variant = decision.variant if decision.reason == "policy" else None
        slate = (decision.stops, len(decision.slate), variant)
        self._slates[decision.decision_id] = slate
        if decision.stops and variant is not None:
            self.drawn[layer].add(variant)

    def unfit(self, spans: LengthSpans | None, decisions: Mapping[str, list[str]]) -> str | None:
        """Why a page tells nothing of these lengths; None where it does. `decisions` are its
        own, by layer.
        """
        for layer in _LAYERS:
            span = None if spans is None else getattr(spans, layer)
            if span is None and self.asked.asks(layer):
                return f"{layer} of a fixed count"
            count = self.asked.counts[layer]
            if span is None or not self._moves(layer, spans):
                continue
            if count is not None and (count[0] < span.min or count[1] > span.max):
                return BEYOND
            for decision in decisions[layer]:
                _, _, variant = self._slates.get(decision, ((), 0, None))
                if variant not in self.drawn[layer]:
                    return f"{layer} by a variant that draws no lengths, or a fallback"
        return None

    def _moves(self, layer: str, spans: LengthSpans | None) -> bool:
        """Whether a layer's stops have other probabilities. What a row costs, its titles cost
        too.
        """
        has_titles = spans is not None and spans.titles is not None
        return self.asked.asks(layer) or (
            layer == "rows" and has_titles and self.asked.asks("titles")
        )

    def ratios(self, spans: LengthSpans | None, layer: str, decision: str) -> StopRatios:
        """Of a decision's stops; none where they stay as they were."""
        span = None if spans is None else getattr(spans, layer)
        if span is None or spans is None or not self._moves(layer, spans):
            return {}
        stops, length, _ = self._slates.get(decision, ((), 0, None))
        least, most = self.asked.counts[layer] or (span.min, span.max)
        ratios: dict[int, StopRatio] = {}
        for stop in stops:
            cost = self._title_cost(spans) if layer == "titles" else self._row_cost(spans, stop)
            probability = Length(least, cost).stop_probability(stop.worth)
            if stop.position < least:
                probability = 0.0
            elif stop.position >= most:
                probability = 1.0
            ratios[stop.position] = stop_ratio(stop, probability, ended=stop.position == length)
        if length > most and most not in ratios:
            # A pin kept it going: no page of these lengths could be like this one.
            ratios[most] = StopRatio(-inf, 1.0)
        return ratios

    def _title_cost(self, spans: LengthSpans) -> float:
        own = 0.0 if spans.titles is None else spans.titles.cost
        return self.asked.costs["titles"] or own

    def _row_cost(self, spans: LengthSpans, stop: Stop) -> float:
        """What one more row costs with its titles, as many as rows had on average at that time."""
        own = 0.0 if spans.rows is None else spans.rows.cost
        cost = self.asked.costs["rows"] or own
        if spans.titles is None:
            return cost
        least, _ = self.asked.counts["titles"] or (spans.titles.min, 0)
        usual = (stop.cost - own) / spans.titles.cost
        return cost + self._title_cost(spans) * max(float(least), usual)


def stop_ratio(stop: Stop, probability: float, *, ended: bool) -> StopRatio:
    """Of one stop, had it had another `probability`."""
    logged, other = stop.probability, probability
    if not ended:
        logged, other = 1.0 - logged, 1.0 - other
    moment = probability**2 / stop.probability + (1.0 - probability) ** 2 / (1.0 - stop.probability)
    return StopRatio(log(other / logged) if other > 0.0 else -inf, moment)

"""An experiment's log as the lake has it: decisions in their order, each with its events, and the
spec it ran under.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import pairwise
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

from topbill import lake
from topbill.domain.decision import (
    DECISION_COLUMNS,
    decision_of,
    decisions_in,
    event_of,
    events_sql,
    read_sql,
)
from topbill.domain.errors import BadData, BadRequest, NotFound
from topbill.domain.records import Decision, RewardEvent
from topbill.domain.suggestion import nearest
from topbill.entities import EntityStore
from topbill.lake.buckets import BUCKETS, BucketWalk
from topbill.lake.places import lake_place
from topbill.spec import Experiment, from_audit

SORTED = 100_000
"""So many decisions of a long log are put in order at a time."""
_MINE = "experiment = $key AND ($below::VARCHAR IS NULL OR md5(unit) < $below)"
_SPAN = f"{_MINE} AND seq > $after AND seq <= $through"
_POLICY = "FROM decisions WHERE experiment = $key AND reason = 'policy'"
# Decisions offer the same few lists again and again: lists are counted first, then their actions.
_OFFERS = f"""
SELECT action, sum(n) FROM (
    SELECT unnest(eligible) AS action, n
    FROM (SELECT eligible, count(*) AS n {_POLICY} GROUP BY eligible)
) GROUP BY action ORDER BY action
"""  # noqa: S608  (our own text; values are parameters)
_HASHES = 2**128
"""MD5 gives whole numbers below this one, evenly, and the same ones on every engine."""


_USABLE = """
FROM decisions WHERE experiment = $key AND reason = 'policy'
    AND list_contains($variants::VARCHAR[], variant)
    AND ($since::BIGINT IS NULL OR epoch_us(decided_at) >= $since)
    AND ($until::BIGINT IS NULL OR epoch_us(decided_at) < $until)
"""


class Usable(NamedTuple):
    """Which part of a log there is to use: its first `seq`, its last, and how many decisions."""

    first: int
    last: int
    decisions: int


def _query(mine: str = _MINE, unread: Sequence[str] = ()) -> str:
    """What is read of decisions that are `mine` but for columns that are `unread`, as they are
    registered now. Only events of these decisions are put in order, which takes longer than to
    find them.
    """
    columns = [column for column in DECISION_COLUMNS if column.name not in unread]
    return f"""
SELECT {read_sql(columns, "d")}, r.events
FROM decisions d LEFT JOIN (
    SELECT w.decision_id, {events_sql("w")} AS events
    FROM rewards w
    WHERE w.decision_id IN (SELECT decision_id FROM decisions WHERE {mine})
    GROUP BY w.decision_id
) r ON r.decision_id = d.decision_id
WHERE {mine}
"""  # noqa: S608  (our own text; values are parameters)


def judged_by(experiment: Experiment, objective: str | Mapping[str, float]) -> Experiment:
    """The experiment with another objective: weights by metric, as a mapping or as text
    (`play=1,watched=0.5`; a name alone weighs 1).

    Raises BadRequest for a metric that it has not, a weight that is no number, or nothing to earn.
    """
    weights = _weights(objective) if isinstance(objective, str) else dict(objective)
    names = [metric.name for metric in experiment.metrics]
    for name, weight in weights.items():
        if name not in names:
            hint = nearest(name, names)
            raise BadRequest(
                "objective",
                f"got metric {name!r}; expected some of {', '.join(names)}"
                + f"; {hint}" * bool(hint),
            )
        if not isfinite(weight):
            raise BadRequest("objective", f"got {name}={weight}; expected a finite weight")
    if not any(weight > 0 for weight in weights.values()):
        raise BadRequest(
            "objective", f"got {objective!r}; expected a weight above 0, or nothing can be earned"
        )
    return replace(experiment, objective=weights)


def _weights(text: str) -> dict[str, float]:
    weights: dict[str, float] = {}
    for part in text.split(","):
        name, sign, weight = (piece.strip() for piece in part.partition("="))
        try:
            number = float(weight) if sign else 1.0
        except ValueError:
            number = float("nan")
        if not name or name in weights or number != number:
            raise BadRequest(
                "objective",
                f"got {text!r}; expected METRIC=WEIGHT once each, as play=1,watched=0.5",
            )
        weights[name] = number
    return weights


class LoggedDecision(NamedTuple):
    """One decision of the log, its place in it, and its events."""

    seq: int
    decision: Decision
    events: list[RewardEvent]


class Offers(NamedTuple):
    """What could be shown in a log: by action, in how many of its `decisions` it was offered.

    `own` are the actions of the published file, where decisions chose among them. One of these that
    was never offered was kept away by rules or callers, as it would be from any other policy.
    """

    counts: dict[str, int]
    decisions: int
    own: frozenset[str]

    def has(self, action: str) -> bool:
        """Whether the action was offered, or kept away from everybody."""
        return action in self.counts or action in self.own


class LoggedData:
    """The published log of one experiment. `published` is the lake's own time, in µs since the
    epoch.

    `sampled` is the share of its units that are read: 1, or less where `most` decisions are wanted
    and there are more. A unit is in it with all its decisions or with none, so that what is
    clustered by unit stays whole. `experiment` is as published; `judged` has the objective by which
    decisions are judged, which another one may be (see `judged_by`). `tables` has the versions of
    tables of features that decisions name.
    """

    def __init__(
        self,
        data: Path,
        key: str,
        *,
        most: int | None = None,
        memory_limit: str = "",
        objective: str | Mapping[str, float] | None = None,
        buckets: int | None = None,
    ) -> None:
        """`buckets`: into how many of units the log is taken apart; None for what the lake is.

        Raises NotFound where the lake or the experiment is not there, and BadRequest for an
        objective that its metrics cannot make.
        """
        self._engine = lake.open_engine(lake.database_of(Path(data)), memory_limit=memory_limit)
        self.key = key
        self.buckets = buckets or (BUCKETS if lake_place(Path(data)).is_store else 1)
        self.tables = EntityStore(Path(data))
        specs = {
            key: rest for key, *rest in self._rows("SELECT key, spec, revision FROM experiments")
        }
        if key not in specs:
            raise NotFound(
                f"experiment {key!r} is not in the lake; expected one of "
                f"{', '.join(specs) or '(none)'}"
            )
        spec, revision = specs[key]
        self.experiment = from_audit(spec, f"{key} (as published)", revision)
        self.judged = (
            self.experiment if objective is None else judged_by(self.experiment, objective)
        )
        self.published = self._number("SELECT epoch_us(published_at) FROM published")
        own = {"key": key}
        self.events = self._number("SELECT count(*) FROM rewards WHERE experiment = $key", own)
        self.decisions = self._number("SELECT count(*) FROM decisions WHERE experiment = $key", own)
        self.sampled = 1.0
        if most is not None and self.decisions > most:
            self.sampled = most / self.decisions
        # Units whose hash is below this; the hash depends on nothing else, so that a second look
        # takes the same units.
        below = None if self.sampled == 1.0 else f"{int(self.sampled * _HASHES):032x}"
        self._parameters: dict[str, object] = {"key": key, "below": below}
        if self.sampled < 1.0:
            within = f"SELECT count(*) FROM decisions WHERE {_MINE}"  # noqa: S608  (our own text)
            self.decisions = self._number(within, self._parameters)

    def _number(self, query: str, parameters: dict[str, Any] | None = None) -> int:
        return int(self._engine.execute(query, parameters).fetchall()[0][0])

    @cached_property
    def offers(self) -> Offers:
        """Which actions could be shown, over all decisions of the experiment but fallbacks."""
        own = {"key": self.key, "revision": self.experiment.fingerprint}
        counts = {str(action): int(n) for action, n in self._rows(_OFFERS, {"key": self.key})}
        decisions = self._number(f"SELECT count(*) {_POLICY}", {"key": self.key})
        # Only a decision that brings no actions along chooses among the file's.
        chose = self._number(
            f"SELECT count(*) {_POLICY} AND revision = $revision AND actions IS NULL", own
        )
        names = frozenset(action.id for action in self.experiment.actions)
        return Offers(counts, decisions, names if chose else frozenset())

    @cached_property
    def variants(self) -> frozenset[str]:
        """Whose decisions there are, and whose there may be: an imported log has variants that no
        file knows.
        """
        query = "SELECT DISTINCT variant FROM decisions WHERE experiment = $key"
        logged = {str(name) for (name,) in self._rows(query, {"key": self.key}) if name is not None}
        return frozenset(logged | {variant.name for variant in self.experiment.variants})

    @cached_property
    def shadows(self) -> tuple[str, ...]:
        """The variants that were in shadow, in the order of their names."""
        rows = self._rows(
            "SELECT DISTINCT shadow.variant FROM "
            "(SELECT unnest(shadows) AS shadow FROM decisions WHERE experiment = $key) ORDER BY 1",
            {"key": self.key},
        )
        return tuple([str(name) for (name,) in rows])

    def _rows(self, query: str, parameters: dict[str, Any] | None = None) -> list[tuple[Any, ...]]:
        return list(self._engine.execute(query, parameters).fetchall())

    @property
    def window(self) -> float:
        """Seconds until a decision's objective is complete: the longest window of its metrics."""
        return self.judged.goal.window

    def __iter__(self) -> Iterator[LoggedDecision]:
        """Every decision in the order of the log, read in batches."""
        for batch in self._engine.batches(f"{_query()} ORDER BY d.seq", self._parameters):
            yield from _logged_in(batch.to_pydict())

    def between(
        self, after: int, through: int, unread: Sequence[str] = ()
    ) -> Iterator[LoggedDecision]:
        """The decisions of after < seq ≤ through, in the order of the log, read in batches; what is
        in columns that are `unread` has its defaults.
        """
        query = f"{_query(_SPAN, unread)} ORDER BY d.seq"
        for low, high in pairwise([after, *self._stops(after, through), through]):
            span = {**self._parameters, "after": low, "through": high}
            for batch in self._engine.batches(query, span):
                yield from _logged_in(batch.to_pydict())

    def _stops(self, after: int, through: int) -> list[int]:
        """The `seq` of each `SORTED`th of those decisions: they are read so many at a time, since
        to put all of a long log in order takes as much memory as it is long.
        """
        if through - after <= SORTED:
            return []
        span = {**self._parameters, "after": after, "through": through}
        places = (
            f"SELECT seq, row_number() OVER (ORDER BY seq) AS place FROM decisions WHERE {_SPAN}"  # noqa: S608  (our own text; values are parameters)
        )
        query = f"SELECT seq FROM ({places}) WHERE place % {SORTED} = 0 ORDER BY seq"  # noqa: S608  (our own text; values are parameters)
        return [int(seq) for (seq,) in self._rows(query, span)]

    def usable(self, variants: Sequence[str], since: int | None, until: int | None) -> Usable:
        """Of the decisions that policies of these variants made, from `since` on and before `until`
        (µs): the first `seq`, the last, and how many they are. Raises BadData where there are none.
        """
        span = {"key": self.key, "variants": list(variants), "since": since, "until": until}
        query = f"SELECT min(seq), max(seq), count(*) {_USABLE}"
        ((first, last, count),) = self._rows(query, span)
        if not count:
            raise BadData(
                "decisions",
                f"got none of {self.key} by {', '.join(variants)} in that time; expected some",
            )
        return Usable(int(first), int(last), int(count))

    def seq_at(
        self, variants: Sequence[str], since: int | None, until: int | None, offset: int
    ) -> int:
        """The `seq` of one of those that `usable` counts, from 0 in the order of the log."""
        span = {"key": self.key, "variants": list(variants), "since": since, "until": until}
        query = f"SELECT seq {_USABLE} ORDER BY seq LIMIT 1 OFFSET {int(offset)}"
        return self._number(query, span)

    def decided_after(self, seq: int) -> int:
        """When the next decision after `seq` was made (µs since the epoch)."""
        query = (
            "SELECT coalesce(min(epoch_us(decided_at)), 0) FROM decisions "
            "WHERE experiment = $key AND seq > $seq"
        )
        return self._number(query, {"key": self.key, "seq": seq})

    @property
    def is_embedded(self) -> bool:
        """Whether this process reads the log."""
        return self._engine.is_embedded

    def by_bucket(self, walk: Callable[[], BucketWalk]) -> list[bytes]:
        """What a walk of its own makes of the rows of each bucket of units (see `logged_of`)."""
        return self._engine.by_bucket(_query(), self._parameters, self.buckets, walk)

    def close(self) -> None:
        """Let go of the lake."""
        self._engine.close()


def logged_of(row: Mapping[str, Any]) -> LoggedDecision:
    """The decision that a row of the log says."""
    events = [event_of(event) for event in row["events"] or ()]
    return LoggedDecision(row["seq"], decision_of(row), events)


def _logged_in(columns: Mapping[str, list[Any]]) -> Iterator[LoggedDecision]:
    """The decisions that a batch of rows says, given as its columns."""
    decisions = decisions_in(columns)
    for seq, decision, events in zip(columns["seq"], decisions, columns["events"], strict=True):
        yield LoggedDecision(seq, decision, [event_of(event) for event in events or ()])


def weight_of(decision: Decision) -> float:
    """How many decisions it stands for: 1, but in a log that was sub-sampled."""
    return 1.0 if decision.row_weight is None else decision.row_weight

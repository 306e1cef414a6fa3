"""What was ordered of an experiment, by people and by its launch, as the record holds it."""

from __future__ import annotations

from datetime import datetime

import msgspec

from topbill.log.orders import order_name
from topbill.log.protocol import OrderKind
from topbill.reporting.queries.database import AnalyticsDatabase, has_table

_ORDERS = """SELECT o.ordered_at AS at, o.revision, o.made, o.who, o.kind, o.step, o.traffic,
    o.status, o.because, c.concluded_at IS NOT NULL AS concludes, c.winner
FROM orders o
LEFT JOIN conclusions c ON c.experiment = o.experiment AND c.concluded_at = o.ordered_at
WHERE o.experiment = $key ORDER BY o.ordered_at, o.step"""
"""A conclusion and its order are stamped as one."""


class RecordedOrder(msgspec.Struct, frozen=True, kw_only=True):
    """An order as the record holds it, at a time in UTC: see `topbill.log.protocol.Order`.
    `concludes` says whether it ended the experiment, with this `winner` or with none."""

    at: datetime
    revision: str
    made: str
    who: str
    kind: OrderKind
    step: int
    traffic: float | None
    status: str | None
    because: str
    concludes: bool
    winner: str | None

    @property
    def name(self) -> str:
        """In a few words: `25% of traffic`, `rolled back`, `concluded, calm won`."""
        if self.concludes:
            return f"concluded, {self.winner or 'nobody'} won"
        return order_name(self.kind, self.traffic, self.status)

    @property
    def changes_what_runs(self) -> bool:
        """Whether it made another revision of the file; others only say how a launch stands."""
        return self.kind in ("status", "traffic", "pause", "rollback")

    @property
    def sentence(self) -> str:
        """The same, and why."""
        because = f": {self.because.rstrip('.')}" if self.because else ""
        return f"{self.name[:1].upper()}{self.name[1:]}{because}."


def recorded_orders(database: AnalyticsDatabase, key: str) -> list[RecordedOrder]:
    """Every order of an experiment, the oldest first."""
    if not (has_table(database, "orders") and has_table(database, "conclusions")):
        return []
    return [RecordedOrder(**row) for row in database.rows(_ORDERS, key=key)]

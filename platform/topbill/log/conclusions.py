"""Conclusions in the embedded log's file: how experiments ended, each with its report as it stood
then."""

from __future__ import annotations

from topbill.log.database import LogDatabase
from topbill.log.orders import OrderTable
from topbill.log.protocol import Clock, ConclusionLine, Order

_QUERY = """SELECT experiment, revision, made, at, who, winner, because, report FROM conclusions
WHERE ? IS NULL OR experiment = ? ORDER BY place"""


class ConclusionTable:
    """The table `conclusions` of a database. Its methods are those of `Log`."""

    def __init__(self, database: LogDatabase, orders: OrderTable, clock: Clock) -> None:
        self._database = database
        self._orders = orders
        self._clock = clock

    def conclude(self, line: ConclusionLine, order: Order | None) -> None:
        """Add a line and the order that it follows from, in one step, both stamped now."""
        at = self._clock()
        row = [value or "" for value in line._replace(at=at)]
        with self._database.transaction():
            self._database.insert("conclusions", [row])
            if order is not None:
                self._orders.insert(order, at)

    def read(self, experiment: str | None) -> list[ConclusionLine]:
        """The lines of one experiment, or of all, oldest first."""
        rows = self._database.rows(_QUERY, (experiment, experiment))
        lines = [ConclusionLine(*row) for row in rows]
        return [line._replace(winner=line.winner or None) for line in lines]

"""Conclusions in a log's database: how experiments ended, each with its report as it stood
then."""

from __future__ import annotations

from topbill.log.orders import OrderTable
from topbill.log.protocol import Clock, ConclusionLine, Order
from topbill.log.sql_database import SqlDatabase

_QUERY = """SELECT experiment, revision, made, at, who, winner, because, report FROM conclusions
WHERE CAST(? AS TEXT) IS NULL OR experiment = ? ORDER BY place"""


class ConclusionTable:
    """The table `conclusions` of a database. Its methods are those of `Log`."""

    def __init__(self, database: SqlDatabase, orders: OrderTable, clock: Clock) -> None:
        self._database = database
        self._orders = orders
        self._clock = clock

    def conclude(self, line: ConclusionLine, order: Order | None) -> None:
        """Add a line and the order that it follows from, in one step, both stamped now."""
        at = self._clock()
        row = ["" if value is None else value for value in line._replace(at=at)]
        with self._database.transaction():
            self._database.insert("conclusions", [row])
            if order is not None:
                self._orders.insert(order, at)

    def read(self, experiment: str | None) -> list[ConclusionLine]:
        """The lines of one experiment, or of all, oldest first."""
        rows = self._database.rows(_QUERY, (experiment, experiment))
        lines = [ConclusionLine(*row) for row in rows]
        return [line._replace(winner=line.winner or None) for line in lines]

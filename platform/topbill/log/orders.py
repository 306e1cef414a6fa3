"""Orders: what somebody said of an experiment at once, without its file. An order holds for the
file as it was, and outranks it until it changes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from topbill.domain.errors import NotFound
from topbill.log.database import LogDatabase
from topbill.log.protocol import Clock, Log, Order
from topbill.spec import Experiment, Status, from_audit


class OrderTable:
    """The table `orders` of a database. Its methods are those of `Log`."""

    def __init__(self, database: LogDatabase, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def give(self, order: Order) -> None:
        """Add a line, stamped now."""
        row = order._replace(at=self._clock())
        values = tuple([value or "" for value in row])
        with self._database.transaction():
            self._database.insert("orders", [values])

    def read(self) -> list[Order]:
        """All lines, oldest first."""
        rows = self._database.rows(
            "SELECT experiment, revision, made, at, who, status, because FROM orders ORDER BY place"
        )
        orders = []
        for row in rows:
            order = Order(*row)
            orders.append(order._replace(status=order.status or None))
        return orders


def obeyed(experiments: Iterable[Experiment], orders: Iterable[Order]) -> list[Experiment]:
    """The experiments of the files, each under the last order that was given for it as its file
    is."""
    last = {(order.experiment, order.revision): order for order in orders}
    result = []
    for experiment in experiments:
        order = last.get((experiment.key, experiment.fingerprint))
        result.append(experiment if order is None else with_status(experiment, order.status))
    return result


def with_status(experiment: Experiment, status: Status | None) -> Experiment:
    """The experiment, with another status than its file says; None for the file's own."""
    if status is None or status == experiment.status:
        return experiment
    return dataclasses.replace(experiment, status=status, raw={**experiment.raw, "status": status})


def give_order(log: Log, key: str, status: Status | None, who: str, because: str) -> Order:
    """Order an experiment, as it was last taken over, to have a status; None gives it back to its
    file. Needs no file: neither a broken one nor a folder out of reach keeps anybody from stopping.

    Services obey within seconds. Raises NotFound where the log knows no such experiment.
    """
    revisions = log.revisions(key)
    if not revisions:
        keys = ", ".join(sorted({line.experiment for line in log.revisions()})) or "(none)"
        raise NotFound(f"experiment {key!r} was never taken over here; expected one of {keys}")
    newest = revisions[-1].revision
    given = [order for order in log.orders() if order.experiment == key]
    # What runs now may itself be what an order made of the file.
    file = next((o.revision for o in reversed(given) if newest in (o.made, o.revision)), newest)
    line = next(line for line in reversed(revisions) if line.revision == file)
    made = with_status(from_audit(line.spec, key, file), status)
    order = Order(key, file, made.fingerprint, 0, who, status, because)
    log.give_order(order)
    return order


def in_force(log: Log) -> list[Order]:
    """The orders that hold now: of each experiment the last one, where what it made of the file is
    what was last taken over."""
    newest = {line.experiment: line.revision for line in log.revisions()}
    last = {order.experiment: order for order in log.orders()}
    return [
        order
        for key, order in last.items()
        if order.status is not None and newest.get(key) == order.made
    ]


def halted(running: Sequence[Experiment], readable: Iterable[Experiment]) -> list[Experiment]:
    """What runs, while some file cannot be read: but for what the others say of stopping and
    pausing, all stays as it was."""
    said = {experiment.key: experiment.status for experiment in readable}
    result = []
    for experiment in running:
        status = said.get(experiment.key)
        halts = experiment.status == "running" and status in ("stopped", "paused", "draft")
        result.append(with_status(experiment, status) if halts else experiment)
    return result

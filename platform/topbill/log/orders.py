"""Orders: what somebody said of an experiment at once, without its file. An order holds for the
file as it was, and outranks it until it changes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import msgspec

from topbill.domain.errors import NotFound
from topbill.log.database import LogDatabase
from topbill.log.protocol import Clock, Log, Order
from topbill.spec import Conclusion, Experiment, Status, from_audit

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Conclusion).decode


class OrderTable:
    """The table `orders` of a database. Its methods are those of `Log`."""

    def __init__(self, database: LogDatabase, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def give(self, order: Order) -> None:
        """Add a line, stamped now."""
        with self._database.transaction():
            self.insert(order, self._clock())

    def insert(self, order: Order, at: int) -> None:
        """The same as of `at` (µs), inside of a transaction."""
        concluded = "" if order.conclusion is None else _encode(order.conclusion).decode()
        about = (order.experiment, order.revision, order.made, at, order.who)
        row = (*about, order.status or "", order.because, concluded)
        self._database.insert("orders", [row])

    def read(self) -> list[Order]:
        """All lines, oldest first."""
        rows = self._database.rows(
            """SELECT experiment, revision, made, at, who, status, because, conclusion
            FROM orders ORDER BY place"""
        )
        orders = []
        for row in rows:
            order = Order(*row)
            conclusion = _decode(row[-1]) if row[-1] else None
            orders.append(order._replace(status=order.status or None, conclusion=conclusion))
        return orders


def obeyed(experiments: Iterable[Experiment], orders: Iterable[Order]) -> list[Experiment]:
    """The experiments of the files, each under the last order that was given for it as its file
    is."""
    last = {(order.experiment, order.revision): order for order in orders}
    result = []
    for experiment in experiments:
        order = last.get((experiment.key, experiment.fingerprint))
        result.append(experiment if order is None else under(experiment, order))
    return result


def under(experiment: Experiment, order: Order) -> Experiment:
    """What an order makes of the experiment as its file is."""
    return with_status(with_conclusion(experiment, order.conclusion), order.status)


def with_conclusion(experiment: Experiment, conclusion: Conclusion | None) -> Experiment:
    """The experiment, ended as said instead of as its file says; None for the file's own way."""
    if conclusion is None or conclusion == experiment.conclusion:
        return experiment
    raw = {**experiment.raw, "conclusion": conclusion.raw}
    return dataclasses.replace(experiment, conclusion=conclusion, raw=raw)


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
    file = as_its_file(log, key)
    last = last_order(log, file)
    # What is stopped or paused stays concluded; given back to its file, it is as that says.
    conclusion = None if last is None or status is None else last.conclusion
    order = order_of(file, Order(key, "", "", 0, who, status, because, conclusion))
    log.give_order(order)
    return order


def order_of(file: Experiment, order: Order) -> Order:
    """An order with the fingerprints of the experiment, as its file is, and of what it makes of
    it."""
    made = under(file, order).fingerprint
    return order._replace(revision=file.fingerprint, made=made)


def as_its_file(log: Log, key: str) -> Experiment:
    """An experiment as its file was when it was last taken over, whatever was ordered since.

    Raises NotFound where the log knows no such experiment.
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
    return from_audit(line.spec, key, file)


def last_order(log: Log, file: Experiment) -> Order | None:
    """The last order that was given for an experiment as its file is; None where none was."""
    orders = [o for o in log.orders() if (o.experiment, o.revision) == (file.key, file.fingerprint)]
    return orders[-1] if orders else None


def in_force(log: Log) -> list[Order]:
    """The orders that hold now: of each experiment the last one, where what it made of the file is
    what was last taken over."""
    newest = {line.experiment: line.revision for line in log.revisions()}
    last = {order.experiment: order for order in log.orders()}
    return [
        order
        for key, order in last.items()
        if (order.status or order.conclusion) and newest.get(key) == order.made
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

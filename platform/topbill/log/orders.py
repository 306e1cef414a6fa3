"""Orders: what somebody said of an experiment at once, without its file. An order holds for the
file as it was, and outranks it until it changes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from topbill.domain.errors import Conflict, NotFound
from topbill.log.protocol import Clock, Log, Order, OrderKind
from topbill.log.sql_database import SqlDatabase
from topbill.spec import Conclusion, Experiment, Status, from_audit
from topbill.spec.fields import percent

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Conclusion).decode


_NAMES: dict[OrderKind, str] = {
    "gate": "gate passed",
    "refusal": "gate not passed",
    "shadow": "unseen",
    "tell": "harm told",
    "pause": "paused for harm",
    "rollback": "rolled back",
    "approval": "approved",
}


def order_name(kind: OrderKind, traffic: float | None, status: str | None) -> str:
    """An order, or a step of a launch, in a few words: `25% of traffic`, `rolled back`,
    `stopped`."""
    if kind == "traffic" and traffic is not None:
        return f"{percent(traffic)} of traffic"
    return _NAMES.get(kind) or status or "as its file says"


class OrderTable:
    """The table `orders` of a database. Its methods are those of `Log`."""

    def __init__(self, database: SqlDatabase, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def give(self, order: Order, after: int | None) -> None:
        """Add a line, stamped now; see `Log.give_order`."""
        with self._database.transaction():
            self._check(order, after)
            self.insert(order, self._clock())

    def _check(self, order: Order, after: int | None) -> None:
        query = "SELECT count(*), max(step) FROM orders WHERE experiment = ? AND revision = ?"
        rows = self._database.rows(query, (order.experiment, order.revision))
        check_order(order, after, *rows[0])

    def insert(self, order: Order, at: int) -> None:
        """The same as of `at` (µs), inside of a transaction."""
        concluded = "" if order.conclusion is None else _encode(order.conclusion).decode()
        about = (order.experiment, order.revision, order.made, at, order.who)
        traffic = "" if order.traffic is None else repr(order.traffic)
        launch = (order.kind, order.step, traffic, ",".join(order.about))
        row = (*about, order.status or "", order.because, concluded, *launch)
        self._database.insert("orders", [row])

    def read(self) -> list[Order]:
        """All lines, oldest first."""
        rows = self._database.rows(
            """SELECT experiment, revision, made, at, who, status, because, conclusion,
                kind, step, traffic, about
            FROM orders ORDER BY place"""
        )
        return [_order(row) for row in rows]


def _order(row: Sequence[Any]) -> Order:
    experiment, revision, made, at, who, status, because, conclusion, *launch = row
    kind, step, traffic, about = launch
    return Order(
        experiment,
        revision,
        made,
        at,
        who,
        status or None,
        because,
        _decode(conclusion) if conclusion else None,
        kind,
        step,
        float(traffic) if traffic else None,
        tuple(about.split(",")) if about else (),
    )


def check_order(order: Order, after: int | None, given: int, last_step: int | None) -> None:
    """Raises Conflict where a step of a launch was given before, or orders came in between.

    Args:
        order: The order that is to be given.
        after: How many orders its giver knows for this state of the file.
        given: How many there are.
        last_step: The last step of the launch among them.
    """
    if after is not None and given != after:
        raise Conflict(
            f"{order.experiment}: got an order that follows from {after} others; expected one that "
            f"follows from {given}: somebody ordered something meanwhile, look again"
        )
    if order.step and order.step <= (last_step or 0):
        raise Conflict(
            f"{order.experiment}: got step {order.step} of the launch; expected step "
            f"{(last_step or 0) + 1}: it was given already"
        )


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
    launched = with_traffic(experiment, order.traffic)
    return with_status(with_conclusion(launched, order.conclusion), order.status)


def with_traffic(experiment: Experiment, traffic: float | None) -> Experiment:
    """The experiment at a step of its launch; None for one that has not begun.

    What becomes of it is what its file would be without a `launch`: so the block may be taken out
    of the file when the last step is done, and nothing changes.
    """
    if traffic is None or experiment.launch is None:
        return experiment
    raw = {key: value for key, value in experiment.raw.items() if key != "launch"}
    if traffic < 1.0:
        raw["traffic"] = percent(traffic)
    else:
        raw.pop("traffic", None)
    return dataclasses.replace(experiment, launch=None, traffic=traffic, raw=raw)


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
    while True:
        given = orders_of(log, file)
        order = Order(key, "", "", 0, who, status, because, traffic=traffic_of(given))
        if given and status is not None:
            # What is stopped or paused stays concluded; given back to its file, it is as that says.
            order = order._replace(conclusion=given[-1].conclusion)
        order = order_of(file, order)
        # The launch may have made a step meanwhile: the order then follows from it.
        with suppress(Conflict):
            log.give_order(order, after=len(given))
            return order


def traffic_of(orders: Iterable[Order]) -> float | None:
    """The traffic of a launch by the orders for one state of a file; None before its ramp."""
    return max([order.traffic for order in orders if order.traffic is not None], default=None)


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


def orders_of(log: Log, file: Experiment) -> list[Order]:
    """The orders that were given for an experiment as its file is, oldest first."""
    key = (file.key, file.fingerprint)
    return [order for order in log.orders() if (order.experiment, order.revision) == key]


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

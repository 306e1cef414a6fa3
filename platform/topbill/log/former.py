"""What ran before a launch and goes on beside it: the former revision of an experiment.

A launch brings variants to a growing part of the traffic. Whoever is not of that part yet stays
with the revision that ran before, as a whole: its shares, its audience and its policies as they
were. A former revision follows from the audit and the orders alone, so that every process finds the
same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import msgspec

from topbill.domain.errors import SpecError
from topbill.log.learning import as_learned
from topbill.log.protocol import Log, Order, Revision
from topbill.spec import Experiment, from_audit


def former_of(
    file: Experiment, revisions: Sequence[Revision], orders: Iterable[Order]
) -> Experiment | None:
    """What ran when a launch's file came; None where nothing did, where the file has no launch, or
    where the two do not give the same units their place: another unit, surface or layer.

    A launch that did not reach its last step, or was rolled back, is no former: what ran before it
    is.

    Args:
        file: The experiment as its file says, without orders.
        revisions: The audit, oldest first.
        orders: All orders, oldest first.
    """
    if file.launch is None:
        return None
    own_orders = [order for order in orders if order.experiment == file.key]
    audit = [line for line in revisions if line.experiment == file.key]
    for place in reversed(range(len(audit))):
        if not _is_of_unfinished_launch(file.fingerprint, audit[: place + 1], own_orders):
            return _beside(audit[place], file)
    return None


def with_formers(
    experiments: Iterable[Experiment], files: Iterable[Experiment], log: Log
) -> list[Experiment]:
    """The experiments under their orders, each with the former that goes on beside its launch.

    Args:
        experiments: What orders made of the files (`orders.obeyed`).
        files: The same as their files say.
        log: Gives the audit and the orders.
    """
    by_key = {file.key: file for file in files if file.launch is not None}
    if not by_key:
        return list(experiments)
    revisions, orders = log.revisions(), log.orders()
    result = []
    for experiment in experiments:
        file = by_key.get(experiment.key)
        if file is not None:
            own = [o for o in orders if (o.experiment, o.revision) == (file.key, file.fingerprint)]
            if goes_on(file, own):
                former = former_of(file, revisions, orders)
                former = None if former is None else as_learned(former, log)
                experiment = dataclasses.replace(experiment, former=former)
        result.append(experiment)
    return result


def goes_on(file: Experiment, orders: Sequence[Order]) -> bool:
    """Whether what ran before a launch goes on beside it: until its last step, and again where the
    launch was rolled back or paused because of harm. Where somebody stopped, paused or concluded
    the experiment, all of it is.

    Args:
        file: The experiment as its file says, without orders.
        orders: All that were given for this state of its file, oldest first.
    """
    if file.launch is None or file.status != "running" or file.conclusion is not None:
        return False
    if not orders:
        return True
    last = orders[-1]
    if last.conclusion is not None:
        return False
    if last.status is not None:
        # The order that halted it; those since then have only kept its status.
        halts = [order for order in orders if order.kind in ("status", "rollback", "pause")]
        return bool(halts) and halts[-1].kind != "status"
    return last.traffic is None or last.traffic < file.launch.ramp[-1]


def _is_of_unfinished_launch(file: str, audit: Sequence[Revision], orders: Sequence[Order]) -> bool:
    """Whether the last revision of an audit is the launch's own `file`, or one that was made of it;
    or one that some launch made of another file, and that launch did not get to its end."""
    *earlier, line = audit
    launched_from = _file_of(line.revision, earlier, orders)
    if file in (line.revision, launched_from):
        return True
    if "conclusion" in _content(line):
        return False
    if "launch" in _content(line):
        return True  # it waited for its first step
    given = [order for order in orders if order.revision == launched_from]
    before = next((one for one in earlier if one.revision == launched_from), None)
    if before is None or "launch" not in _content(before):
        return False
    if any(order.kind == "rollback" for order in given):
        return True
    # What its last step made is the file without a launch: its traffic is the file's.
    return _content(line).get("traffic") != _content(before).get("traffic")


def _file_of(revision: str, earlier: Sequence[Revision], orders: Sequence[Order]) -> str | None:
    """The revision of the file that an order made this revision of; None where none did. What a
    launch makes at its last step may be what ran before it: so the file has to have come earlier.
    """
    files = {line.revision for line in earlier}
    made_of = [order.revision for order in orders if order.made == revision]
    return next((file for file in reversed(made_of) if file in files), None)


def _content(line: Revision) -> dict[str, object]:
    return msgspec.json.decode(line.spec, type=dict[str, object])


def _beside(line: Revision, file: Experiment) -> Experiment | None:
    """A revision as what goes on beside a launch; None where it cannot."""
    try:
        former = from_audit(line.spec, f"{file.key} (as it ran)", line.revision)
    except SpecError:
        return None  # this version cannot read it
    same = (former.unit, former.surface, former.layer) == (file.unit, file.surface, file.layer)
    # In a layer with others it must not reach into their slices.
    fits = file.layer == file.key or former.traffic <= file.traffic
    if not same or not fits or former.status != "running":
        return None
    return dataclasses.replace(former, layer_start=file.layer_start, source=file.source)

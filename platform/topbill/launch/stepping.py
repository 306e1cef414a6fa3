"""Giving a launch a step: the order that says it, by the worker or by somebody who approves."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from topbill.domain.errors import Conflict
from topbill.launch.launch_state import state_of
from topbill.launch.ramp import Step, approval
from topbill.log import Log
from topbill.log.orders import as_its_file, order_of, orders_of
from topbill.log.protocol import Order
from topbill.spec import Experiment


def give_step(log: Log, file: Experiment, orders: Sequence[Order], step: Step, who: str) -> Order:
    """Give a step that follows from these orders.

    Args:
        log: The log.
        file: The experiment as its file says.
        orders: All that were given for this state of its file, oldest first.
        step: What is to be done.
        who: Who says so; `launch` for the worker.

    Raises Conflict, and gives nothing, where others were given meanwhile.
    """
    order = Order(file.key, "", "", 0, who, step.status, step.because)
    order = order._replace(
        kind=step.kind,
        step=state_of(orders).step + 1,
        traffic=step.traffic,
        about=step.about,
    )
    order = order_of(file, order)
    log.give_order(order, after=len(orders))
    return order


def approve(log: Log, key: str, who: str, because: str = "") -> Order:
    """Approve what the launch of an experiment waits for, or will before its next step. Needs no
    file.

    Raises:
        NotFound: The log knows no such experiment.
        Conflict: It has no launch, or nothing of it is to be approved.
    """
    file = as_its_file(log, key)
    if file.launch is None:
        raise Conflict(f"{key}: its file has no launch; expected one with something to approve")
    orders = orders_of(log, file)
    step = approval(file.launch, state_of(orders))
    if because:
        step = msgspec.structs.replace(step, because=f"{step.because}: {because}")
    return give_step(log, file, orders, step, who)

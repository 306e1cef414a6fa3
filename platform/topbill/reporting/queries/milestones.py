"""What happened to an experiment and when: the phases of its file, the steps of its launch, and
what somebody ordered. A course over time is read beside it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import msgspec

from topbill.domain.formatting import listing
from topbill.reporting.queries.database import open_database
from topbill.reporting.queries.history import revision_lines
from topbill.reporting.queries.orders import RecordedOrder, recorded_orders

_CHANGES_NOTHING = ("gate", "refusal", "approval")
"""Kinds of orders after which all viewers get what they got before."""


class Milestone(msgspec.Struct, frozen=True, kw_only=True):
    """What happened at a moment (UTC): in a few words, and in a sentence."""

    at: datetime
    label: str
    sentence: str


def milestones(data: Path | str, key: str) -> list[Milestone]:
    """Phases, steps and orders of an experiment, the oldest first.

    Raises:
        NotFound: Nothing was published yet.
    """
    with open_database(data) as database:
        orders = recorded_orders(database, key)
    marks = [_of_order(order) for order in orders if order.kind not in _CHANGES_NOTHING]
    for line in revision_lines(data, key):
        # What an order made of the file is told as the order.
        if line.change.phase and not line.order:
            sentence = f"{listing(line.change.phase, 8)}, by {line.who}"
            marks.append(
                Milestone(at=line.since, label=_short(line.change.phase), sentence=sentence)
            )
    return sorted(marks, key=lambda mark: mark.at)


def _of_order(order: RecordedOrder) -> Milestone:
    because = f": {order.because}" if order.because else ""
    return Milestone(
        at=order.at, label=order.name, sentence=f"{order.name}, by {order.who}{because}"
    )


def _short(phase: Sequence[str]) -> str:
    more = f" (+{len(phase) - 1})" if len(phase) > 1 else ""
    return f"{phase[0]}{more}"

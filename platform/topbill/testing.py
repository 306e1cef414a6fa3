"""What tests need to run Topbill without files: a log in memory.

For your own tests as for Topbill's. Every handle keeps the contract of `topbill.log.Log`, which one
suite of tests holds over the embedded log and this one alike; so what passes here passes there.

>>> from topbill.testing import a_decision, memory_log
>>> with memory_log() as log:
...     receipt = log.append([a_decision("d1")])
...     log.decision("d1").variant
'a'

A log that cannot be written, as on a full disk:

>>> from topbill.domain.errors import LogError
>>> with memory_log() as log:
...     log.fail_with("has no space left on its device")
...     try:
...         log.append([a_decision("d1")])
...     except LogError as error:
...         print(error)
memory: has no space left on its device
"""

from __future__ import annotations

from typing import Any

from topbill.domain.records import Decision, Placement
from topbill.log import Clock, now_micros
from topbill.log.memory import MemoryLog

__all__ = ["MemoryLog", "a_decision", "memory_log"]


def memory_log(name: str = "", clock: Clock = now_micros) -> MemoryLog:
    """A log in this process's memory.

    Args:
        name: Handles of one name share a log, in all threads; `open_log(f"memory:{name}")` is
            another one. Without a name it is a log of its own.
        clock: Gives the time in microseconds since the epoch; a test may set its own.
    """
    return MemoryLog(name, clock)


def a_decision(decision_id: str, **fields: Any) -> Decision:
    """A small decision of experiment `home`, variant `a`; any field may be given."""
    defaults: dict[str, Any] = {
        "experiment": "home",
        "revision": "r1",
        "variant": "a",
        "unit": "u1",
        "eligible": ("x",),
        "slate": (Placement(0, "x", 1.0),),
        "policy": "uniform",
        "reason": "policy",
    }
    return Decision(decision_id=decision_id, **{**defaults, **fields})

"""Alarms: what kinds there are, and one of them from when it was raised until it was resolved."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple, get_args

AlarmKind = Literal[
    "guardrail_harmed",
    "sample_ratio",
    "reward_silence",
    "exploration_collapsed",
    "feature_drift",
    "propensity_mismatch",
    "learning_stuck",
    "record_stale",
]
AlarmState = Literal["raised", "resolved"]
KINDS: tuple[AlarmKind, ...] = get_args(AlarmKind)
"""Every kind, the worst for viewers first."""
TITLES: Mapping[AlarmKind, str] = MappingProxyType(
    {
        "guardrail_harmed": "Guardrail failed",
        "sample_ratio": "Sample ratio mismatch (SRM)",
        "reward_silence": "Rewards have stopped",
        "exploration_collapsed": "Exploration collapsed",
        "feature_drift": "Drift (PSI)",
        "propensity_mismatch": "Propensity mismatch",
        "learning_stuck": "Learning is stuck",
        "record_stale": "Stale data",
    }
)
"""What each kind is called."""


class AlarmLine(NamedTuple):
    """One line of the log's alarms: at `at` (µs since the epoch) a fault was found, or found to be
    over.

    `alarm` is the fault's id, the same in both lines and in every message about it. `experiment` is
    empty where a fault is of all of them; `subject` what of the experiment it is about (a variant,
    a guardrail's metric), empty where it is the whole. `cause` is a code of
    `domain.reasons.CAUSES`.
    """

    alarm: str
    state: AlarmState
    kind: AlarmKind
    experiment: str
    subject: str
    cause: str
    message: str
    at: int


class AlarmMessage(NamedTuple):
    """A message that a channel took at `at` (µs): that of an alarm's line."""

    alarm: str
    state: AlarmState
    channel: str
    at: int


class AlarmWatch(NamedTuple):
    """Up to when (`through`, µs) an experiment's record was looked at for faults, and what has to
    be remembered of it, as JSON."""

    experiment: str
    through: int
    memory: bytes


def headline(line: AlarmLine) -> str:
    """One line that says what it is: "home-artwork: Sample ratio mismatch (SRM) (resolved)"."""
    place = line.experiment or "Topbill"
    if line.subject:
        place = f"{place}, {line.subject}"
    over = " (resolved)" if line.state == "resolved" else ""
    return f"{place}: {TITLES[line.kind]}{over}"


def standing(lines: Iterable[AlarmLine]) -> list[AlarmLine]:
    """The alarms that stand: raised, and not resolved since. The worst first, then by age."""
    raised: dict[str, AlarmLine] = {}
    for line in lines:
        if line.state == "raised":
            raised[line.alarm] = line
        else:
            raised.pop(line.alarm, None)
    return sorted(raised.values(), key=lambda line: (KINDS.index(line.kind), line.at))

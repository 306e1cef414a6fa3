"""What days add up to, kept: a report that reads it says what one says that reads every row,
whatever came late, was erased, or was changed meanwhile.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple
from unittest.mock import patch

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topbill import backup, reporting
from topbill.domain.decision import decision_rows, reward_rows
from topbill.domain.origin import Origin
from topbill.domain.records import Decision, Placement, RewardEvent
from topbill.lake import Lake
from topbill.lake.erasing import erase_from_lake, find_in_lake
from topbill.lake.kept import SUMS, forget_until, kept_files
from topbill.reporting.experiment import build
from topbill.spec import Experiment, from_audit
from topbill.worker.damage import damage

DAY = 86_400_000_000
HOUR = DAY // 24
START = 20_000 * DAY  # 2024-10-04
DEVICES = (b"tv", b"mobile")
METRICS: dict[str, Any] = {
    "play": {"event": "play", "kind": "binary", "window": "30m"},
    "watched": {"event": "watch", "kind": "max", "window": "6h", "cap": 2.0},
    "plays": {"event": "play", "kind": "count", "window": "12h", "cap": 3, "per": "unit"},
    "came_back": {"event": "back", "kind": "binary", "window": "30h", "per": "unit"},
    "depth": {"kind": "ratio", "numerator": "watched", "denominator": "play"},
}


class Line(NamedTuple):
    """A line of the audit."""

    experiment: str
    revision: str
    at: int
    who: str
    spec: str


def experiment(shares: tuple[int, int, int], **more: Any) -> Experiment:
    names = zip(("old", "fresh", "learned"), shares, strict=True)
    variants: dict[str, Any] = {n: {"policy": "uniform", "share": f"{s}%"} for n, s in names}
    variants["old"]["control"] = True
    raw = {
        "experiment": "home",
        "surface": "artwork",
        "unit": "profile",
        "actions": [{"id": "x"}, {"id": "y"}],
        "context": {"device": {"type": "category", "values": ["tv", "mobile"]}},
        "metrics": METRICS,
        "objective": {"play": 1.0, "watched": 2.0},
        "guardrails": [{"metric": "came_back", "better": "higher", "margin": "10%"}],
        "variants": variants,
        **more,
    }
    return from_audit(json.dumps(raw), "home.yaml")


class Record:
    """A lake that grows: days of random units, and rewards that may come days late."""

    def __init__(self, folder: Path, seed: int, units: int) -> None:
        self.folder = folder
        self.rng = np.random.default_rng(seed)
        self.units = units
        self.experiment = experiment((40, 30, 30))
        self.audit: list[Line] = []
        self.decisions: list[Decision] = []
        self.late: list[RewardEvent] = []
        self.rewards = 0
        self.days = 0
        self.lake = Lake(folder)
        self.revise(self.experiment)

    def revise(self, changed: Experiment) -> None:
        """A file that is in force from the middle of the coming day on."""
        self.experiment = changed
        spec = msgspec.json.encode(changed.raw).decode()
        at = START + self.days * DAY + DAY // 2
        self.audit.append(Line("home", changed.fingerprint, at, "me", spec))

    def live(self, decisions: int) -> None:
        """One more day."""
        begins = START + self.days * DAY
        new = [self.decision(begins) for _ in range(decisions)]
        new.sort(key=lambda d: d.decided_at)
        first = len(self.decisions) + 1
        self.decisions += new
        self.lake.append("decisions", decision_rows(list(enumerate(new, first))), first + len(new))
        events = [event for decision in new for event in self.events(decision)]
        is_late = self.rng.random(len(events)) < 0.2
        self.send([e for e, late in zip(events, is_late, strict=True) if not late])
        self.late += [e for e, late in zip(events, is_late, strict=True) if late]
        self.days += 1

    def decision(self, begins: int) -> Decision:
        at = begins + int(self.rng.integers(DAY))
        number = int(self.rng.integers(self.units))
        in_force = [line for line in self.audit if line.at <= at] or self.audit[:1]
        variant = ("old", "fresh", "learned")[(number + (self.rng.random() < 0.02)) % 3]
        is_held = number % 11 == 10
        return Decision(
            decision_id=f"d{len(self.decisions)}-{self.rng.integers(10**12)}",
            experiment="home",
            revision=in_force[-1].revision,
            variant=None if is_held else variant,
            unit=f"u{number}",
            context=msgspec.Raw(b'{"device":"%s"}' % DEVICES[int(self.rng.integers(2))]),
            eligible=("x", "y"),
            slate=(Placement(0, "xy"[number % 2], 0.5),),
            propensity=0.5,
            probabilities=((0.5, 0.5),),
            policy="uniform",
            reason="traffic" if is_held else "policy",
            latency_us=int(self.rng.integers(100, 120)),
            decided_at=at,
        )

    def events(self, decision: Decision) -> list[RewardEvent]:
        events = []
        for name, chance in (("play", 0.4), ("play", 0.2), ("watch", 0.4), ("back", 0.3)):
            if self.rng.random() < chance:
                events.append(
                    RewardEvent(
                        decision_id=decision.decision_id,
                        event_id=f"{name}{len(events)}",
                        event=name,
                        value=float(self.rng.normal(1.5)) if name == "watch" else 1.0,
                        received_at=decision.decided_at + int(self.rng.integers(20 * HOUR)),
                    )
                )
        return events

    def send(self, events: Sequence[RewardEvent]) -> None:
        by_id = {d.decision_id: Origin.of(d) for d in self.decisions}
        rows = [(self.rewards + i, e, by_id[e.decision_id]) for i, e in enumerate(events, 1)]
        self.rewards += len(rows)
        if rows:
            self.lake.append("rewards", reward_rows(rows), self.rewards)

    def publish(self) -> None:
        self.lake.write_database([self.experiment], START + self.days * DAY + HOUR, self.audit)

    def erase(self, unit: str) -> None:
        erase_from_lake(self.folder, find_in_lake(self.folder, unit, None, ()), unit, None, ())
        self.lake = Lake(self.folder)

    def check(self, *, falls_back: bool = False) -> reporting.Report:
        """The report from what is kept is that from every row, which it `falls_back` to."""
        self.publish()
        with patch.object(build, "LARGE", 10**9):
            plain = reporting.load_experiment_report("home", self.folder)
        with patch.object(build, "LARGE", 1), watched() as warnings:
            kept = reporting.load_experiment_report("home", self.folder)
        assert bool(warnings) == falls_back, warnings
        assert_same(json.loads(reporting.to_json(plain)), json.loads(reporting.to_json(kept)))
        return plain


@contextmanager
def watched() -> Iterator[list[str]]:
    """What is logged meanwhile."""
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda line: said.append(line.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("topbill")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield said
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def assert_same(one: Any, other: Any, where: str = "report") -> None:
    assert type(one) is type(other), where
    if isinstance(one, dict):
        assert list(one) == list(other), where
        for key in one:
            assert_same(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list):
        assert len(one) == len(other), where
        for i, pair in enumerate(zip(one, other, strict=True)):
            assert_same(*pair, f"{where}[{i}]")
    elif isinstance(one, float):
        assert math.isclose(one, other, rel_tol=1e-10, abs_tol=1e-12), (where, one, other)
    else:
        assert one == other, where


def is_kept(folder: Path, part: str) -> list[Path]:
    return [path for path in kept_files(folder) if path.parent.name == part]


@pytest.fixture
def record(tmp_path: Path) -> Record:
    record = Record(tmp_path, seed=1, units=60)
    for _ in range(4):
        record.live(150)
    return record


STEPS = st.lists(st.sampled_from(["live", "late", "erase", "revise", "compact"]), max_size=5)


def live(record: Record, step: str, zone: str) -> None:
    if step == "late":
        record.send(record.late)
        record.late = []
    elif step == "erase":
        number = int(record.rng.integers(len(record.decisions)))
        record.erase(str(record.decisions[number].unit))
    elif step == "compact":
        record.lake.compact(thorough=True)
    else:
        if step == "revise":
            record.revise(experiment((20, 50, 30), time_zone=zone))
        record.live(80)


def check_history(seed: int, units: int, steps: list[str], zone: str) -> None:
    """Three days and what happens after, looked at before and after one more day."""
    with TemporaryDirectory() as folder:
        record = Record(Path(folder), seed, units)
        record.revise(experiment((40, 30, 30), time_zone=zone))
        for step in ["live", "live", "live", *steps]:
            live(record, step, zone)
        record.check()
        live(record, "live", zone)
        live(record, "late", zone)
        record.check()


ZONES = st.sampled_from(["UTC", "America/New_York"])


@settings(max_examples=2, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1), units=st.integers(3, 200), steps=STEPS, zone=ZONES)
def test_a_report_of_kept_days_is_that_of_every_row(
    seed: int, units: int, steps: list[str], zone: str
) -> None:
    check_history(seed, units, steps, zone)


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), units=st.integers(3, 200), steps=STEPS, zone=ZONES)
def test_so_it_is_of_many_records(seed: int, units: int, steps: list[str], zone: str) -> None:
    check_history(seed, units, steps, zone)


def test_days_that_are_over_are_kept_and_asked_anew_when_rewards_come_late(record: Record) -> None:
    record.check()
    before = is_kept(record.folder, "report_units")
    # The day before yesterday is over 30 hours after its last decision, yesterday is not.
    assert [path.name[:10] for path in before] == ["2024-10-04", "2024-10-05"]
    first = [e for e in record.late if by_day(record, e) == 0]
    record.send(first)
    record.check()
    after = is_kept(record.folder, "report_units")
    assert len(set(after) - set(before)) == 1
    assert (set(after) - set(before)).pop().name.startswith("2024-10-04")


def by_day(record: Record, event: RewardEvent) -> int:
    at = next(d.decided_at for d in record.decisions if d.decision_id == event.decision_id)
    return (at - START) // DAY


def test_rows_that_were_merged_into_other_files_are_the_same_rows(record: Record) -> None:
    record.check()
    before = is_kept(record.folder, "report_units")
    record.lake.compact(thorough=True)
    record.check()
    assert is_kept(record.folder, "report_units") == before


def test_another_definition_is_another_sum(record: Record) -> None:
    record.check()
    before = is_kept(record.folder, "report_units")
    metrics = {**METRICS, "play": {**METRICS["play"], "window": "2h"}}
    record.experiment = experiment((40, 30, 30), metrics=metrics)
    record.check()
    assert set(is_kept(record.folder, "report_units")) > set(before)


def test_a_damaged_file_is_told_and_never_read(record: Record) -> None:
    record.check()
    path = is_kept(record.folder, "report_counts")[0]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert any(str(path) in line for line in damage(record.folder))
    record.check(falls_back=True)
    record.check()
    assert not any(str(path) in line for line in damage(record.folder))


def test_what_cannot_be_kept_is_asked_anew(record: Record) -> None:
    (record.folder / SUMS).write_text("a file where the folder should be")
    record.check(falls_back=True)


def test_days_up_to_a_date_are_forgotten(record: Record) -> None:
    record.check()
    forget_until(record.folder, date(2024, 10, 4))
    names = [path.name[:10] for path in kept_files(record.folder)]
    assert set(names) == {"2024-10-05"}


def test_backups_leave_it_out() -> None:
    assert SUMS in backup._NOT_COPIED


def test_what_is_no_sum_is_read_from_every_row(record: Record) -> None:
    metrics = {**METRICS, "half": {"kind": "quantile", "of": "watched", "q": 0.5}}
    record.experiment = experiment((40, 30, 30), metrics=metrics)
    record.check()
    assert not is_kept(record.folder, "report_units")
    assert is_kept(record.folder, "report_counts")

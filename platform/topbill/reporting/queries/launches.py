"""Where launches stand, as of the last publication: which step, since when, what it waits for, and
what was done before and why."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from topbill.domain.errors import SpecError
from topbill.domain.formatting import listing, minute, several, window
from topbill.reporting.queries.database import AnalyticsDatabase, has_table, open_database
from topbill.reporting.queries.orders import recorded_orders
from topbill.spec import Launch, from_audit
from topbill.spec.fields import percent


class LaunchEvent(msgspec.Struct, frozen=True, kw_only=True):
    """What was done, or somebody ordered, during a launch; times in UTC."""

    at: datetime
    name: str
    """In a few words: 25% of traffic, rolled back."""
    step: int
    """Its number; 0 for an order of a person that is no step."""
    who: str
    because: str
    traffic: float | None
    status: str | None


class LaunchStanding(msgspec.Struct, frozen=True, kw_only=True):
    """Where the launch of an experiment stands; times in UTC.

    Attributes:
        experiment: Its key.
        stage: `gate`, `shadow`, `ramp` or `over`.
        step: The number of its last step; 0 before the first.
        traffic: None before its ramp.
        since: When its present stage began, or went on after a halt.
        reason: The code of what it waits for.
        sentence: The same for people.
        until: When that ends, where only time ends it.
        next_traffic: The traffic of the next step; None where none comes.
        needs_approval: Whether `topbill approve KEY` ends it.
        ramp: The traffic of each step.
        launched: The variants that it brings.
        beside: The revision that ran before and goes on for whoever it has not come to; empty where
            none does.
        approve_at: Those of them that begin only when somebody approved.
        each_step: What each step lasts for and waits for, as its file says.
        steps: What was done, oldest first.
    """

    experiment: str
    stage: str
    step: int
    traffic: float | None
    since: datetime | None
    reason: str
    sentence: str
    until: datetime | None
    next_traffic: float | None
    needs_approval: bool
    ramp: list[float]
    launched: list[str] = []
    beside: str = ""
    approve_at: list[float] = []
    each_step: str = ""
    steps: list[LaunchEvent] = []

    @property
    def state(self) -> str:
        """Where it stands in a word of the glossary's states."""
        if self.stage == "over":
            return "Stopped at its gate" if self.traffic is None else "Rolled back"
        if self.needs_approval:
            return "Waits for approval"
        if self.stage == "ramp":
            return "Launched" if self.reason == "done" else "Ramping"
        return _BEFORE_RAMP[self.stage]

    @property
    def goes_on(self) -> str:
        """What goes on beside it, in one sentence without a stop; empty where nothing does."""
        if not self.beside:
            return ""
        if self.stage == "over" or self.reason == "harm_paused":
            return f"everybody is with what ran before again (revision {self.beside})"
        brings = listing(self.launched) if self.launched else "no variant that is new"
        others = "whoever it has not come to stays with what ran before"
        return f"it brings {brings}; {others} (revision {self.beside})"

    @property
    def says(self) -> str:
        """Where it stands in one sentence, without a stop."""
        where = "before its first step"
        if self.traffic is not None:
            where = f"at {percent(self.traffic)} of traffic"
        if self.since is not None:
            where += f" since {minute(self.since)}"
        if self.stage == "over":
            return self.sentence
        until = "" if self.until is None else f", until {minute(self.until)}"
        then = "" if self.next_traffic is None else f"; {percent(self.next_traffic)} is next"
        # A question or several sentences may stand there, from a record that must be repaired.
        return f"{where}: {self.sentence.rstrip('.')}{until}{then}"


_BEFORE_RAMP = {"gate": "At its gate", "shadow": "In shadow"}


def launches(data: Path | str) -> list[LaunchStanding]:
    """Every launch whose file is there, by key.

    Raises NotFound where nothing was published yet.
    """
    with open_database(data) as database:
        if not has_table(database, "launches"):
            return []
        rows = database.rows("FROM launches ORDER BY experiment")
        return [_standing(database, row) for row in rows]


def launch_of(data: Path | str, key: str) -> LaunchStanding | None:
    """The launch of one experiment; None where its file has none."""
    return next((launch for launch in launches(data) if launch.experiment == key), None)


def _standing(database: AnalyticsDatabase, row: dict[str, Any]) -> LaunchStanding:
    revision = row.pop("revision")
    steps = []
    for order in recorded_orders(database, row["experiment"]):
        # Those of another state of the file are none of this launch.
        if order.revision == revision:
            steps.append(
                LaunchEvent(
                    at=order.at,
                    name=order.name,
                    step=order.step,
                    who=order.who,
                    because=order.because,
                    traffic=order.traffic,
                    status=order.status,
                )
            )
    launch = _launch_of(database, row["experiment"], revision)
    if launch is None:
        return LaunchStanding(**row, steps=steps)
    return LaunchStanding(
        **row, approve_at=list(launch.approve_at), each_step=_each_step(launch), steps=steps
    )


def _launch_of(database: AnalyticsDatabase, key: str, revision: str) -> Launch | None:
    """How a revision of the file is launched; None where this version cannot read it."""
    rows = database.rows(
        "SELECT spec FROM revisions WHERE experiment = $key AND revision = $revision",
        key=key,
        revision=revision,
    )
    if not rows:
        return None
    try:
        return from_audit(rows[0]["spec"], key, revision).launch
    except SpecError:
        return None


def _each_step(launch: Launch) -> str:
    lasts = f"Each step lasts at least {window(launch.hold.at_least)}"
    if launch.hold.units:
        lasts += f" and {several(launch.hold.units, 'unit')}"
    asked = []
    if launch.advance_if.guardrails == "not_failed":
        asked.append("no guardrail failed")
    if launch.advance_if.sample_ratio == "ok":
        asked.append("units are split as intended")
    if launch.advance_if.health == "ok":
        asked.append("the record is sound")
    return f"{lasts}; the next one comes if {listing(asked)}." if asked else f"{lasts}."

"""The worker gives each launch its next step when it is due: after a publication, from what the
record says then. A step is in the log before it is true, and each is there once; so a worker may be
killed at any moment, and the next one goes on from where the log stands.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import msgspec

from topbill.domain.errors import Conflict, TopbillError
from topbill.lake import LaunchLine
from topbill.launch.evidence import LaunchEvidence, launch_evidence
from topbill.launch.gate import GateResult, run_gate
from topbill.launch.launch_state import LaunchState, state_of
from topbill.launch.ramp import MICROS, Look, Step, Wait, next_step
from topbill.launch.stepping import give_step
from topbill.log import Log
from topbill.log.former import former_of, goes_on
from topbill.log.orders import orders_of, under
from topbill.log.protocol import Clock, Order, now_micros
from topbill.reporting.queries.shadows import ShadowSummary, shadows
from topbill.spec import Experiment, Gate, Launch

_logger = logging.getLogger("topbill")
LOOK_EVERY = 10.0
"""Seconds between two looks at the evidence of one launch, at least."""
SHARE = 0.05
"""Of the worker's time, at most, that looking takes."""
ASK_EVERY = 3_600.0
"""Seconds after which a log that did not let a launch pass is asked again."""


class ReadsEvidence(Protocol):
    """What tells how a launch stands: `launch_evidence`."""

    def __call__(
        self,
        key: str,
        data: Path,
        *,
        since: datetime | None,
        step_since: datetime | None,
        beside: str | None,
    ) -> LaunchEvidence: ...


class ReadsShadows(Protocol):
    """What tells what became of variants in shadow: `shadows`."""

    def __call__(self, data: Path, key: str, since: datetime, /) -> Sequence[ShadowSummary]: ...


class AsksLog(Protocol):
    """What asks a log of a candidate: `run_gate`."""

    def __call__(self, gate: Gate, experiment: Experiment, data: Path, /) -> GateResult: ...


class _AskedGate(msgspec.Struct):
    """A log that is being asked, or what it said, and when it was asked (seconds)."""

    answer: Future[GateResult]
    at: float


class Launching:
    """Gives the launches of a data folder their steps.

    Attributes:
        lines: Where each launch stands, and what it waits for, as of the last look.
    """

    def __init__(
        self,
        log: Log,
        data: Path,
        *,
        clock: Clock = now_micros,
        evidence: ReadsEvidence = launch_evidence,
        gate: AsksLog = run_gate,
        shadows: ReadsShadows = shadows,
    ) -> None:
        self._log, self._data = log, data
        self._micros, self._evidence, self._gate = clock, evidence, gate
        self._shadows = shadows
        self._due: dict[str, float] = {}
        """By experiment: when its evidence is looked at again, in seconds."""
        # Of its own: to ask a log may take minutes, and learning goes on meanwhile.
        self._asking = ThreadPoolExecutor(1, "gate")
        self._gates: dict[str, _AskedGate] = {}
        self.lines: dict[str, LaunchLine] = {}

    def step(self, files: Sequence[Experiment]) -> int:
        """Give every step that is due; returns how many were. One launch's trouble is its own: it
        is logged, and told as what the launch waits for.

        Args:
            files: The experiments as their files say, without orders.
        """
        launched = [file for file in files if file.launch is not None]
        keys = {file.key for file in launched}
        self.lines = {key: line for key, line in self.lines.items() if key in keys}
        if not launched:
            return 0
        given = 0
        revisions, orders = self._log.revisions(), self._log.orders()
        for file in launched:
            former = former_of(file, revisions, orders)
            try:
                given += self._step(dataclasses.replace(file, former=former))
            except TopbillError as error:
                self._note_trouble(file.key, str(error))
        return given

    def _now(self) -> float:
        """Seconds since the epoch, by the clock that stamps the log."""
        return self._micros() / MICROS

    def close(self) -> None:
        """Ask no log any more."""
        self._asking.shutdown(wait=False, cancel_futures=True)

    def _step(self, file: Experiment) -> bool:
        """Whether a step was given; `file` is with what ran before, also where that goes on no
        more."""
        launch = file.launch
        if launch is None:
            return False
        orders = orders_of(self._log, file)
        state, now = state_of(orders), self._now()
        is_read = state.traffic is not None or state.shadow_since is not None
        if is_read and now < self._due.get(file.key, 0.0):
            return False
        look = self._look(file, orders, state)
        result = next_step(launch, state, look, now)
        if isinstance(result, Wait):
            self.lines[file.key] = _line(file, launch, orders, state, result)
            return False
        self._give(file, orders, result)
        return True

    def _give(self, file: Experiment, orders: Sequence[Order], step: Step) -> None:
        try:
            give_step(self._log, file, orders, step, "launch")
        except Conflict as error:
            # Somebody ordered something meanwhile: the next look sees it.
            _logger.info("%s", error)
            return
        self._due.pop(file.key, None)
        _logger.warning("%s: launch, %s: %s", file.key, step.name, step.because)

    def _look(self, file: Experiment, orders: Sequence[Order], state: LaunchState) -> Look:
        running = under(file, orders[-1]) if orders else file
        revisions = self._log.revisions(file.key)
        look = Look(
            is_running=running.status == "running" and running.conclusion is None,
            is_taken_over=bool(revisions) and revisions[-1].revision == running.fingerprint,
        )
        if state.over or not (look.is_running and look.is_taken_over):
            return look
        if state.traffic is not None:
            return msgspec.structs.replace(look, evidence=self._read(file, state))
        if file.launch is None:
            return look
        gate = file.launch.gate
        if gate is not None and state.gate != "passed":
            return msgspec.structs.replace(look, gate=self._ask(file, gate))
        if state.shadow_since is not None:
            seen = self._read_shadows(file, state.shadow_since, file.launch.shadow)
            return msgspec.structs.replace(look, shadows=seen)
        return look

    def _read_shadows(
        self, file: Experiment, began: int, length: float
    ) -> tuple[ShadowSummary, ...]:
        """What became of the variants that decide unseen since it `began` (µs), in the last
        `length` (seconds); nothing before it has lasted so long."""
        since = self._now() - length
        if since < began / MICROS:
            return ()
        names = {variant.name for variant in file.launched}
        seen = self._shadows(self._data, file.key, _moment(round(since * MICROS)))
        self._due[file.key] = self._now() + LOOK_EVERY
        return tuple([one for one in seen if one.variant in names])

    def _read(self, file: Experiment, state: LaunchState) -> LaunchEvidence:
        """What the record says of the launch; of guardrails, of the variants that it brings."""
        key = file.key
        beside = None if file.former is None else file.former.fingerprint
        names = {variant.name for variant in file.launched}
        started = time.monotonic()
        since = None if state.launched_at is None else _moment(state.launched_at)
        step_since = _moment(state.since)
        evidence = self._evidence(
            key, self._data, since=since, step_since=step_since, beside=beside
        )
        took = time.monotonic() - started
        self._due[key] = self._now() + max(LOOK_EVERY, took / SHARE)
        guardrails = [one for one in evidence.guardrails if one.variant in names]
        return msgspec.structs.replace(evidence, guardrails=tuple(guardrails))

    def _ask(self, file: Experiment, gate: Gate) -> GateResult | None:
        """What the log says; None while it is being asked."""
        asked = self._gates.get(file.fingerprint)
        if asked is None or (asked.answer.done() and self._now() - asked.at >= ASK_EVERY):
            answer = self._asking.submit(self._gate, gate, file, self._data)
            asked = _AskedGate(answer, self._now())
            self._gates[file.fingerprint] = asked
        return asked.answer.result() if asked.answer.done() else None

    def _note_trouble(self, key: str, message: str) -> None:
        before = self.lines.get(key)
        if before is None or before.sentence != message:
            _logger.warning("%s: its launch waits: %s", key, message)
        if before is not None:
            self.lines[key] = before._replace(reason="trouble", sentence=message)
        self._due[key] = self._now() + LOOK_EVERY


def _line(
    file: Experiment, launch: Launch, orders: Sequence[Order], state: LaunchState, wait: Wait
) -> LaunchLine:
    until = None if wait.until is None else round(wait.until * MICROS)
    former = file.former if goes_on(file, orders) else None
    return LaunchLine(
        experiment=file.key,
        revision=file.fingerprint,
        step=state.step,
        stage=state.stage,
        traffic=state.traffic,
        since=state.since or None,
        reason=wait.reason,
        sentence=wait.sentence,
        until=until,
        next_traffic=wait.next_traffic,
        needs_approval=wait.needs_approval,
        ramp=launch.ramp,
        launched=tuple([variant.name for variant in file.launched]),
        beside="" if former is None else former.fingerprint,
    )


def _moment(micros: int) -> datetime:
    return datetime.fromtimestamp(micros / MICROS, UTC)

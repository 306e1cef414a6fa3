"""What a service acknowledges while a shared log is away: into a journal of its own, on the disk of
its machine, from which the log gets it when it is back.

    put ──▶ log ──▶ answer                       while the spool is empty
             ✗
    put ──▶ journal ──▶ answer                   from the first group on that the log did not take
               └──▶ log, in a thread, again and again until nothing is left

A service that dies on the way sends rows once more when it is started again: the log stores an id
once.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Event, Lock, Thread

import msgspec

from topbill.domain.durable import sync
from topbill.domain.errors import LogError
from topbill.domain.records import Decision, RewardEvent, UnitEvent
from topbill.engine import made_at
from topbill.log import Entry, Log, Receipt, now_micros
from topbill.log.bundles import decisions_of
from topbill.log.entries import EventKey, Rows, UnitEventKey, admit, all_keyed
from topbill.log.frames import Frame
from topbill.log.journal import Journal, Position
from topbill.service import telemetry
from topbill.service.page_memory import PREFIX

_logger = logging.getLogger("topbill")
_EVERY = 0.2
"""Seconds between two looks whether something is to be sent, or the log is back."""
_AHEAD = 1_000_000
"""µs by which callers' clocks may be ahead of this machine's for their ids to be taken for new."""
_DIGITS = re.compile(r"[0-9a-f]{32}")
_decode_decision = msgspec.json.Decoder(Decision).decode
_decode_event = msgspec.json.Decoder(RewardEvent).decode
_decode_unit_event = msgspec.json.Decoder(UnitEvent).decode


class _Waiting:
    """The ids that wait in the journal; see `Stored`."""

    def __init__(self) -> None:
        self.decisions: dict[str, Decision] = {}
        self.events: set[EventKey] = set()
        self.unit_events: set[UnitEventKey] = set()
        self.let_go: set[str] = set()

    def add(self, entries: Sequence[Entry]) -> None:
        """What entries hold is stored."""
        for entry in entries:
            for decision in entry.decisions:
                self.decisions.setdefault(decision.decision_id, decision)
            self.events.update((e.decision_id, e.event_id) for e in entry.events)
            self.unit_events.update(e.key for e in entry.unit_events)


class Spool:
    """The journal in a folder, for one process at a time, and the thread that empties it.

    Args:
        folder: Where it lies; made where it is not there.
        open_log: Gives a handle on the log that the rows go to.

    Raises:
        LogError: The folder can't be written to, another process uses it, or what waits in it is of
            another log.
    """

    def __init__(self, folder: Path, open_log: Callable[[], Log]) -> None:
        self._folder, self._open_log = folder, open_log
        with open_log() as log:
            identity = log.identity
            self._log_name = log.name
        self._claim()
        try:
            self._journal = Journal(folder / "spool.journal", self._drained)
            try:
                self._check_log(identity)
                self._waiting = _Waiting()
                self._index()
            except BaseException:
                self._journal.close()
                raise
        except OSError as error:
            os.close(self._claimed)
            raise self._unusable(error) from error
        except BaseException:
            os.close(self._claimed)
            raise
        self._sent = 0
        """Up to which byte of the journal the log has all."""
        self._log_took_at = now_micros()
        """When the log took the last group (µs), by this machine's clock."""
        # The journal is written on the loop's thread and the writer's, and begun anew on the one
        # that empties it.
        self._lock = Lock()
        self._stopped = Event()
        self._thread = Thread(target=self._run, name="topbill-spool", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop sending; what waits is sent when the service starts again."""
        self._stopped.set()
        # A server that stands still holds the thread up, which ends with the process.
        self._thread.join(2.0)
        if not self._thread.is_alive():
            self._journal.close()
            os.close(self._claimed)

    # ------------------------------------------------------------------ opening

    def _claim(self) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            path = self._folder / "spool.lock"
            self._claimed = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise self._unusable(error) from error
        try:
            fcntl.flock(self._claimed, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._claimed)
            if not isinstance(error, BlockingIOError):
                raise self._unusable(error) from error
            raise LogError(
                f"{self._folder}: another process uses it as its spool; expected a folder for each"
            ) from error

    def _unusable(self, error: OSError) -> LogError:
        return LogError(
            f"{self._folder}: cannot be a spool: {error}; expected a folder to write to, on a disk "
            "that stays"
        )

    def _check_log(self, identity: str) -> None:
        """Raises LogError where rows wait for another log; notes which one they will wait for."""
        path = self._folder / "spool.log"
        noted = path.read_text().strip() if path.exists() else identity
        if noted != identity and not self._journal.empty:
            raise LogError(
                f"{self._folder}: rows wait in it for another log than {self._log_name}; start the "
                "service once over that one, or choose another folder"
            )
        self._note(path, identity)

    def _drained(self) -> Position:
        """The generation of which the log does not have all, from its beginning."""
        path = self._folder / "spool.sent"
        # Not from 0, which is what the journal's free space looks like.
        return (int(path.read_text()) if path.exists() else 1), 0

    def _note(self, path: Path, text: str) -> None:
        draft = path.with_suffix(".new")
        draft.write_text(f"{text}\n")
        sync(draft)
        draft.replace(path)
        sync(self._folder)

    def _index(self) -> None:
        """Know what waits, as the journal has it."""
        self._waiting = _Waiting()
        _, end = self._journal.position
        for frame in self._journal.read(0, end):
            self._waiting.add(_entries_of(frame))
        self._measure()

    def _measure(self) -> None:
        telemetry.SPOOL_BYTES.set(self.size)

    # ------------------------------------------------------------------ taking

    @property
    def is_empty(self) -> bool:
        """Whether the log has all that was acknowledged."""
        return self._journal.empty

    @property
    def size(self) -> int:
        """Bytes that wait."""
        return self._journal.position[1]

    def decisions(self, decision_ids: Collection[str]) -> dict[str, Decision]:
        """Those of the decisions that wait, by id."""
        waiting = self._waiting.decisions
        return {i: waiting[i] for i in decision_ids if i in waiting} if waiting else {}

    def log_took_a_group(self, begun_at: int) -> None:
        """Note that the log was there at `begun_at` (µs)."""
        self._log_took_at = begun_at

    def take(self, entries: Sequence[Entry], why: LogError) -> list[Receipt | LogError]:
        """Store a group durably on this machine; of each entry its receipt, or `why`, the log's
        error, where only the log could say what its ids were used for.
        """
        with self._lock:
            try:
                with self._journal.locked():
                    return self._take(entries, why)
            except LogError as error:
                # Ids were noted of what was not written.
                with suppress(LogError):
                    self._index()
                _logger.warning("%s; %s", why, error)
                return [error] * len(entries)

    def _take(self, entries: Sequence[Entry], why: LogError) -> list[Receipt | LogError]:
        at, rows = now_micros(), Rows.none()
        answers: list[Receipt | LogError] = []
        taken = []
        for entry in entries:
            if self._may_be_used(entry):
                answers.append(why)
                continue
            receipt = admit(entry, at, self._waiting, rows)
            answers.append(receipt)
            if receipt.conflict is None and not (entry.whole and receipt.stored):
                taken.append(entry)
        if rows:
            if self._journal.empty:
                _logger.warning("%s; what comes meanwhile is kept in %s", why, self._folder)
            self._journal.write(rows, at)
            self._measure()
        self._waiting.add(taken)
        return answers

    def _may_be_used(self, entry: Entry) -> bool:
        """Whether one of the callers' ids may be of a decision that the log has: it does not say of
        itself that it was made since the log was last there.
        """
        latest = now_micros() + _AHEAD
        for decision_id in entry.keyed_decisions:
            if decision_id in self._waiting.decisions:
                continue
            if not self._log_took_at < _made_at(decision_id) <= latest:
                return True
        return False

    # ------------------------------------------------------------------ sending

    def _run(self) -> None:
        """Until it is stopped: send what waits. The log may be away for as long as it likes."""
        log: Log | None = None
        while not self._stopped.wait(_EVERY):
            if self.is_empty:
                continue
            try:
                log = log or self._open_log()
                self._send(log)
            except LogError:
                if log is not None:
                    log.close()
                log = None
            except Exception:
                _logger.exception("%s: sending what waits failed", self._folder)
        if log is not None:
            log.close()

    def _send(self, log: Log) -> None:
        """Give the log what waits, and begin the journal anew when it has all."""
        rows = others = 0
        while not self._stopped.is_set():
            generation, end = self._journal.position
            for frame in self._journal.read(self._sent, end):
                entries = _entries_of(frame)
                others += _others(entries, log.commit(entries))
                rows += sum(len(entry.decisions) + len(entry.events) for entry in entries)
                self._sent = frame.end
                if self._stopped.is_set():
                    return
            with self._lock, self._journal.locked():
                if self._journal.position == (generation, self._sent):
                    self._note(self._folder / "spool.sent", str(generation + 1))
                    self._journal.restart(generation + 1)
                    self._waiting, self._sent = _Waiting(), 0
                    self._measure()
                    break
        _logger.warning("%s is back and has the %d rows of %s", self._log_name, rows, self._folder)
        if others:
            _logger.warning(
                "%d decisions were made elsewhere under the same ids; those count", others
            )


def _made_at(decision_id: str) -> int:
    """When an id was made (µs), of whatever form that has a time; 0 for any other. Of a page's
    decision it is the page's.
    """
    own = decision_id.removeprefix(PREFIX).partition(":")[0]
    made = made_at(own)
    if made is None and _DIGITS.fullmatch(own) is not None:
        # Of chance alone it would hardly be of these minutes.
        made = int(own[:12], 16) * 1_000
    return made or 0


def _entries_of(frame: Frame) -> list[Entry]:
    """What a frame holds, each decision or page an entry, their events behind them."""
    rows = frame.rows
    entries = []
    for _, bundle in rows.bundles:
        entries.append(all_keyed(decisions_of(bundle), (), ())._replace(whole=True))
    for _, _, body in rows.decisions:
        entries.append(all_keyed([_decode_decision(body)], (), ()))
    events = [_decode_event(body) for *_, body in rows.events]
    unit_events = [_decode_unit_event(body) for *_, body in rows.unit_events]
    if events or unit_events:
        entries.append(all_keyed((), events, unit_events))
    return entries


def _others(entries: Sequence[Entry], receipts: Sequence[Receipt]) -> int:
    """How many decisions the log has from elsewhere, as another answer."""
    others = 0
    for entry, receipt in zip(entries, receipts, strict=True):
        for decision in entry.decisions:
            stored = receipt.stored.get(decision.decision_id, decision)
            is_refused = decision.decision_id in (receipt.conflict, receipt.let_go)
            others += is_refused or stored.slate != decision.slate
    return others

"""What every log promises: the contract that the service, the worker and the tests rely on.

The log is the transactional intake. What it acknowledged is durable; what it stored stands in one
order that everybody reads alike; and beside the rows it keeps the versions of policies that decide,
and the audit of what experiments were. `tests/unit/log/test_contract.py` holds every registered log
against this text.

Three ideas carry it:

- **Ids make writing idempotent.** A caller that got no answer sends the same ids again; the receipt
  then says what was stored before it, and nothing is stored twice.
- **`seq` is a place that stays.** Each decision, each reward event and each event of a unit has
  one, in a sequence of their own that only grows and is never given twice, also not after
  forgetting. Along it stamps never fall.
- **A barrier closes the past.** At or before it nothing can be added any more. Therefore a reader
  who remembers one number, the last `seq` that it has read, misses nothing and meets nothing twice.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Literal, NamedTuple, Protocol, Self

import msgspec

from topbill.domain.alarm import AlarmLine, AlarmMessage, AlarmWatch
from topbill.domain.errors import AlreadyDecided, Conflict
from topbill.domain.origin import Origin
from topbill.domain.profile import Merge, MergedProfile, ProfileChange, ProfileLimits
from topbill.domain.records import (
    Decision,
    Offer,
    QuarantinedRow,
    QuarantineStage,
    RewardEvent,
    RowKind,
    Snapshot,
    SnapshotHead,
    UnitEvent,
)
from topbill.log.entries import Entry, Receipt, all_keyed
from topbill.log.log_time import SETTLED, ClockStep, offset_at
from topbill.spec import Conclusion
from topbill.spec.model import Status

REMEMBERED_FOR = 48 * 3_600.0
"""Seconds, counted from when a row was stored, for which its id is known in any case: the horizon
of idempotence.
"""
Clock = Callable[[], int]
"""Gives the time in microseconds since the epoch, UTC."""


def now_micros() -> int:
    """Microseconds since the epoch, UTC."""
    return time.time_ns() // 1_000


class Ends(NamedTuple):
    """The last `seq` of a log's decisions, reward events and events of units, as of one moment; 0
    where there was none.
    """

    decisions: int
    events: int
    unit_events: int


class Matured(NamedTuple):
    """A decision that reached an age, and the reward events that had come by then; and what it
    offered, where that was read with it.
    """

    seq: int
    decision: Decision
    events: list[RewardEvent]
    offers: Sequence[Offer] | None = None


class Named(NamedTuple):
    """A decision by its id alone, and its stamp in µs."""

    seq: int
    decision_id: str
    decided_at: int


class Revision(NamedTuple):
    """One line of the audit: from `at` (µs) on, `experiment` was what `spec` (JSON text) says."""

    experiment: str
    revision: str
    at: int
    who: str
    spec: str


OrderKind = Literal[
    "status", "gate", "refusal", "shadow", "traffic", "tell", "pause", "rollback", "approval"
]
"""What an order says: a person's word on the status, or a step of a launch: its gate passed or did
not, its variants decide unseen, traffic grows, harm was told, it paused, it went back; or somebody
approved."""


class Order(NamedTuple):
    """What somebody said of an experiment at `at` (µs) without its file: a status (None: the file's
    own), how it ended, or a step of its launch, for the file as it was, of fingerprint `revision`;
    `made` is what becomes of it. Each order says all that holds from then on."""

    experiment: str
    revision: str
    made: str
    at: int
    who: str
    status: Status | None
    because: str
    conclusion: Conclusion | None = None
    kind: OrderKind = "status"
    step: int = 0
    """Of a launch: 1, 2, 3, …, each once; 0 for what is no step."""
    traffic: float | None = None
    """Of a launch, since its ramp began."""
    about: tuple[str, ...] = ()
    """Of harm: metric:variant each. Of an approval: what was approved."""


class ConclusionLine(NamedTuple):
    """How an experiment ended at `at` (µs), by an order or by its file: `winner` is None where
    nobody won, `revision` what was compared, `made` what runs since, and `report` the report (JSON,
    compressed by zlib) as it stood then: sums only, of nobody's own.
    """

    experiment: str
    revision: str
    made: str
    at: int
    who: str
    winner: str | None
    because: str
    report: bytes


class Erasure(NamedTuple):
    """One line of the audit of erasures: at `at` (µs) so many decisions and rewards of a unit were
    taken out of an experiment, whose newest policy version was `version` then; 0 where it had none.
    `by_age`: not of a unit, but because of their age.
    """

    at: int
    experiment: str
    version: int
    decisions: int
    rewards: int
    by_age: bool = False


class Retention(NamedTuple):
    """When what was older than is kept was last removed (`at`, µs), from when on rows are left
    (`kept_since`, µs), and how many of each kind went then.
    """

    at: int
    kept_since: int
    decisions: int
    rewards: int
    events: int
    quarantined: int


class Heartbeat(NamedTuple):
    """The worker's last sign of life: it was at work at `at`, and every row stamped up to
    `published_at` is in the lake (both µs since the epoch; the latter 0 where nothing is).
    """

    at: int
    published_at: int


class Duty(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that some worker has to do, and how it gets on with it.

    Attributes:
        name: Of the lease under which it is done: `learn:KEY`, or `publish`.
        worker: Who does it: host and process.
        at: When that was so, µs; stamped by the log.
        fingerprint: Of what is learned: the rest is said of that.
        through: Decisions up to this `seq` no learner reads again; see `PolicyFold`.
        lag: Seconds that the next decision has waited to be learned.
        failing: Why nothing can be learned; empty where it can.
        behind: How far learning is behind what comes; empty where it keeps up.
        unreadable: What is wrong with the newest version; empty where it can be read.
    """

    name: str
    worker: str
    at: int = 0
    fingerprint: str = ""
    through: int = 0
    lag: float = 0.0
    failing: str = ""
    behind: str = ""
    unreadable: str = ""


class Lease(Protocol):
    """What one holder has at a time, or several who share it. It ends with the process that holds
    it, however that ends.
    """

    @abstractmethod
    def check(self) -> None:
        """Raises LogError where it was lost: another one may hold it by now."""

    @abstractmethod
    def release(self) -> None:
        """Give it back."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()


class Listener(Protocol):
    """Hears when a version of some policy is written."""

    @abstractmethod
    def wait(self, seconds: float) -> bool:
        """Whether one was since the last call, waiting for it for so long. Raises LogError where
        that cannot be heard any more.
        """

    @abstractmethod
    def close(self) -> None:
        """Hear no more."""


class Leases(Protocol):
    """Several leases of one holder, which come and go; all of them end with its process."""

    name: str
    """How messages call the log."""
    me: int
    """By what `holders` knows this one."""

    @abstractmethod
    def take(self, name: str, *, shared: bool = False) -> bool:
        """Whether it could be taken, or was held already; see `Log.lease`. Raises LogError."""

    @abstractmethod
    def give_back(self, name: str) -> None:
        """Let others have it. Raises LogError."""

    @abstractmethod
    def holders(self, names: Iterable[str]) -> dict[str, list[int]]:
        """Who holds each of these now; those that nobody does are left out. Raises LogError."""

    @abstractmethod
    def check(self) -> None:
        """Raises LogError where all were lost: others may hold them by now."""

    @abstractmethod
    def close(self) -> None:
        """Give all of them back."""


class Log(Protocol):
    """A handle on a log. It is for one thread at a time: a thread that works beside others opens
    its own handle on the same log with `open_log`.

    All times are microseconds since the epoch, UTC. Whatever cannot be written, read or trusted is
    a LogError that names the log; after one nothing of that call is stored, and the handle can be
    used again.
    """

    name: str
    """How messages call it: the path, or the URL without secrets."""
    is_remote: bool = False
    """Whether a call waits for another machine: then an event loop must not wait for it."""

    identity: str = ""
    """What no other log is called, of one that is shared."""
    keeps_origins: bool = False
    """Whether it knows the `origins` of decisions that it has let go: then none needs to stay whole
    for the rewards that come late."""

    def now(self) -> int:
        """The time (µs) by the clock that stamps what is noted beside the rows, such as signs of
        life: they are compared with it.
        """
        return now_micros()

    # ------------------------------------------------------------------ intake

    @abstractmethod
    def commit(self, entries: Sequence[Entry]) -> list[Receipt]:
        """Store a group of entries with one write, and return when they are durable.

        Each entry is stored whole or not at all, whatever becomes of the others of its group;
        entries take effect in their order. Only ids that an entry calls keyed are looked up: the
        others must be new (`topbill.engine.new_id`).

        Args:
            entries: Decisions, their events and events of units, an entry for what belongs
                together.

        Returns:
            A receipt for each entry, in order.

        Raises:
            LogError: Nothing of the whole group was stored.
        """

    def append(
        self,
        decisions: Sequence[Decision] = (),
        events: Sequence[RewardEvent] = (),
        unit_events: Sequence[UnitEvent] = (),
    ) -> Receipt:
        """Store one entry durably, every id of which counts as the caller's.

        Raises:
            Conflict: A decision id was used before with another request; nothing was stored.
            AlreadyDecided: A decision id was used before and is only remembered; nothing was
                stored.
            LogError: Nothing was stored.
        """
        receipt = self.commit([all_keyed(decisions, events, unit_events)])[0]
        if receipt.let_go is not None:
            raise AlreadyDecided.under("decision_id", receipt.let_go)
        if receipt.conflict is not None:
            raise Conflict(
                f"decision_id {receipt.conflict!r} was used before with another request; "
                "use a new id"
            )
        return receipt

    # ------------------------------------------------------------------ look-ups

    @abstractmethod
    def decisions(self, decision_ids: Collection[str]) -> dict[str, Decision]:
        """The stored decisions of these ids, by id; ids that are not there are left out.

        Sees everything that was acknowledged before the call, by whichever handle.
        """

    def decision(self, decision_id: str) -> Decision | None:
        """The stored decision of that id, or None."""
        return self.decisions((decision_id,)).get(decision_id)

    @abstractmethod
    def places(self, decision_ids: Collection[str]) -> dict[str, int]:
        """The `seq` that decisions had which `forget` has let go, by id. Ids that nobody remembers
        are left out, and so are decisions that are still here.
        """

    def origins(self, decision_ids: Collection[str]) -> dict[str, Origin]:  # noqa: ARG002 (for those that keep them)
        """What a late reward needs of decisions that `forget` has let go, by id; those of which
        that was not kept are left out, and stand where `places` says.
        """
        return {}

    @abstractmethod
    def events(self, decision_id: str) -> list[RewardEvent]:
        """All reward events of a decision, in the order in which they came."""

    # ------------------------------------------------------------------ feed

    @abstractmethod
    def barrier(self) -> int:
        """A time such that every row stamped at or before it can be read now, and every row that is
        still to come is stamped after it.
        """

    @abstractmethod
    def ends(self) -> Ends:
        """The last `seq` of each kind of row as of one moment, no earlier than this handle's last
        barrier: all that is stamped up to that is there, and the decision of every event. Who reads
        up to there comes to an end, however much is written meanwhile.
        """

    def unhurried(self) -> AbstractContextManager[None]:
        """Within it reads may leave out what was committed since anybody's last barrier, and a
        barrier may be that one: for who comes again soon, beside a worker that gives one all the
        time, and should not do its work.
        """
        return nullcontext()

    @abstractmethod
    def clock_steps(self) -> list[ClockStep]:
        """Where the machine's clock was set by more than minutes, oldest first: from there on, log
        time and its time are so far apart.

        Barriers, ages and what `matured` gives are of log time, which never falls and never leaps.
        All other rows are read with the time that the clock gave.
        """

    def clock_time(self, at: int) -> int:
        """The time of the machine's clock at a log time."""
        return at - offset_at(self.clock_steps(), at)

    @abstractmethod
    def clock_trouble(self, within: int = SETTLED) -> str | None:
        """Notes where the machine's clock was set, and says so for as long as `within` µs after it;
        None where it goes as it should.
        """

    @abstractmethod
    def read_decisions(self, after_seq: int, limit: int) -> list[tuple[int, Decision]]:
        """Decisions of all experiments with seq > `after_seq`, in order, at most `limit`.

        What is returned is final: no row can later appear before the last `seq` of the answer.
        """

    @abstractmethod
    def read_events(self, after_seq: int, limit: int) -> list[tuple[int, RewardEvent]]:
        """Reward events with seq > `after_seq`, in order, at most `limit`; final likewise."""

    @abstractmethod
    def read_unit_events(self, after_seq: int, limit: int) -> list[tuple[int, UnitEvent]]:
        """Events of units with seq > `after_seq`, in order, at most `limit`; final likewise."""

    @abstractmethod
    def matured(
        self,
        experiment: str,
        after_seq: int,
        age: int,
        barrier: int,
        limit: int,
        share: float = 1.0,
    ) -> list[Matured]:
        """The next decisions of an experiment that were `age` µs old at `barrier`, in order, each
        with the events that had come when it reached that age.

        The answer for a decision is the same whenever it is asked for: learning from it again gives
        the same policy, bit by bit.

        Args:
            experiment: Key of the experiment.
            after_seq: The last decision that was read before.
            age: µs between a decision and the last event that counts (that one included).
            barrier: What `barrier` returned.
            limit: Most decisions of the answer. It may have fewer where there are more: only an
                empty one says that there are no more.
            share: Only of those that `chance.is_learned` draws for this share.
        """

    @abstractmethod
    def named(self, experiment: str, after_seq: int, barrier: int, limit: int) -> list[Named]:
        """The decisions that `matured` gives of age 0, in order, by their ids: for who knows what
        they say. At most `limit`; fewer only where there are no more.
        """

    @abstractmethod
    def last_matured(self, experiment: str, after_seq: int, age: int, barrier: int) -> int | None:
        """The `seq` of the last decision that `matured` looks at, whatever its share; None where
        there is none.
        """

    @abstractmethod
    def first_seq(self) -> int | None:
        """The `seq` of the oldest decision that is still here; None when there is none."""

    @abstractmethod
    def next_seq(self, experiment: str, after_seq: int) -> int | None:
        """The `seq` of an experiment's first decision after `after_seq`; None when there is
        none.
        """

    @abstractmethod
    def forget(
        self, decisions_through: int, events_through: int, older_than: int, limit: int = 2_000
    ) -> int:
        """Delete the oldest decisions with all their events, as far as nobody needs them. Their ids
        are remembered, until `forget_ids`: a decision or an event that comes again is not stored.

        Events that came when their decision was gone already go as soon as they are as old.

        Goes from the oldest on and stops at the first decision that must stay: so what remains is
        the whole end of the log, without gaps.

        Args:
            decisions_through: Last decision that is safe elsewhere; later ones stay.
            events_through: Last event that is safe elsewhere; a decision with a later one stays.
            older_than: Decisions stamped at or after this time stay.
            limit: Most decisions to delete in one call, so that no writer waits long.

        Returns:
            How many decisions went.
        """

    @abstractmethod
    def forget_ids(self, older_than: int, limit: int = 20_000) -> int:
        """Forget ids that `forget` remembered: a decision that comes again afterwards is new.

        Args:
            older_than: Ids of rows stamped at or after this time stay.
            limit: Most ids to forget in one call.

        Returns:
            How many went.
        """

    @abstractmethod
    def forget_unit_events(self, through: int, older_than: int, limit: int = 2_000) -> int:
        """Delete the oldest events of units. An id that was forgotten is new when it comes again.

        Args:
            through: Last event that is safe elsewhere; later ones stay.
            older_than: Events stamped at or after this time stay.
            limit: Most events to delete in one call.

        Returns:
            How many went.
        """

    # ------------------------------------------------------------------ snapshots

    @abstractmethod
    def versions(self) -> dict[str, int]:
        """The newest policy version of every experiment that has one."""

    def version(self, experiment: str) -> int:
        """The newest policy version of an experiment; 0 where nothing was learned yet."""
        return self.versions().get(experiment, 0)

    @abstractmethod
    def snapshot(self, experiment: str, version: int | None = None) -> Snapshot | None:
        """The newest snapshot of an experiment, or that of `version`; None when there is none.

        Raises DamagedSnapshot where its state cannot be read.
        """

    @abstractmethod
    def snapshot_heads(self, experiment: str) -> list[SnapshotHead]:
        """What is known of an experiment's snapshots without reading their states, newest first."""

    @abstractmethod
    def write_snapshot(self, snapshot: Snapshot) -> None:
        """Store state, watermark and version at once; `at` is stamped by the log.

        Raises:
            Conflict: It is not the successor of the newest version. A learner that was overtaken,
                or woke up late, must not write over its successor's work; this fence is what makes
                a second learner harmless.
            LogError: Nothing was stored.
        """

    def listen(self) -> Listener | None:
        """Something that hears of new versions at once; None where to look for them often costs
        nothing. Raises LogError.
        """
        return None

    @abstractmethod
    def forget_snapshots(self, before: int) -> int:
        """Delete the snapshots that had a successor by `before` µs: nothing was decided from them
        since.

        The newest of each experiment stays, and so does the one that was the newest then.

        Returns:
            How many went.
        """

    # ------------------------------------------------------------------ quarantine

    @abstractmethod
    def set_aside(self, rows: Sequence[QuarantinedRow]) -> int:
        """Note rows that could not be read, published or learned; each once for each stage.

        Returns:
            How many were not noted before.
        """

    @abstractmethod
    def quarantine(
        self, experiment: str | None = None, limit: int = 1_000_000
    ) -> list[QuarantinedRow]:
        """The last `limit` rows that were set aside, of one experiment or of all, oldest first; the
        bodies are left out.
        """

    @abstractmethod
    def quarantine_counts(self) -> dict[tuple[RowKind, QuarantineStage], int]:
        """How many rows were set aside, by kind and stage."""

    # ------------------------------------------------------------------ the worker's sign of life

    @abstractmethod
    def beat(self, published_at: int) -> None:
        """Note that the worker is at work now, and up to when (µs) everything is in the lake."""

    @abstractmethod
    def heartbeat(self) -> Heartbeat | None:
        """What was noted last; None where no worker has been at work yet."""

    @abstractmethod
    def note_duties(self, duties: Sequence[Duty]) -> None:
        """Note what a worker does and how it gets on, stamped now, in place of what was said of the
        same duties before.
        """

    @abstractmethod
    def duties(self) -> dict[str, Duty]:
        """What was said last of each duty, by its name. Lines of another version are left out."""

    # ------------------------------------------------------------------ audit

    @abstractmethod
    def revise(self, experiment: str, revision: str, who: str, spec: str) -> bool:
        """Note in the audit that `experiment` is now what `spec` (JSON text) says.

        Returns:
            False when it was so already, and nothing was noted.
        """

    @abstractmethod
    def revisions(self, experiment: str | None = None) -> list[Revision]:
        """The audit, oldest first: of one experiment, or of all."""

    def newest_revisions(self) -> dict[str, str]:
        """The newest revision of every experiment in the audit, by key."""
        return {line.experiment: line.revision for line in self.revisions()}

    @abstractmethod
    def give_order(self, order: Order, after: int | None = None) -> None:
        """Store an order, stamped now.

        Args:
            order: What is said.
            after: How many orders for this state of the file its giver knows; None where it follows
                from none of them.

        Raises Conflict, and stores nothing, where there are others by now, or where its step of the
        launch was given before.
        """

    @abstractmethod
    def orders(self) -> list[Order]:
        """All orders that were given, oldest first."""

    @abstractmethod
    def conclude(self, line: ConclusionLine, order: Order | None = None) -> None:
        """Store how an experiment ended, and the order that says so where no file does, in one
        step; both stamped now."""

    @abstractmethod
    def conclusions(self, experiment: str | None = None) -> list[ConclusionLine]:
        """How experiments ended, oldest first: one of them, or all."""

    def erasures(self, experiment: str) -> list[Erasure]:  # noqa: ARG002 (for those that erase)
        """What was erased from an experiment, oldest first."""
        return []

    def retention(self) -> Retention | None:
        """When rows were last removed because of their age; None where none ever were."""
        return None

    # ------------------------------------------------------------------ alarms

    @abstractmethod
    def note_alarms(self, lines: Sequence[AlarmLine], watch: AlarmWatch | None = None) -> None:
        """Store what was found, and up to where was looked, in one step."""

    @abstractmethod
    def alarms(self, limit: int = 1_000) -> list[AlarmLine]:
        """The lines of alarms, oldest first: the last `limit`, and those of alarms that stand."""

    @abstractmethod
    def alarm_watch(self, experiment: str) -> AlarmWatch | None:
        """Up to where an experiment was looked at; None where it never was."""

    @abstractmethod
    def note_message(self, message: AlarmMessage) -> None:
        """Note that a channel took a message; once is enough."""

    @abstractmethod
    def alarm_messages(self, limit: int = 10_000) -> list[AlarmMessage]:
        """The last messages that channels took, oldest first."""

    # ------------------------------------------------------------------ profiles

    @abstractmethod
    def profile(self, unit: str) -> ProfileLimits | None:
        """What a profile may see, as it is now for every process; None where nothing was set."""

    @abstractmethod
    def change_profile(self, unit: str, unit_type: str, change: ProfileChange) -> ProfileLimits:
        """Change what a profile may see, durably, and return what it may see then. `unit_type`:
        what experiments call their `unit`, for erasures of one type.
        """

    @abstractmethod
    def remove_profile(self, unit: str) -> bool:
        """Remove what was set of a profile; returns whether anything was."""

    @abstractmethod
    def merge_profile(
        self, unit: str, unit_type: str, merged: str, limited_by: Iterable[str]
    ) -> MergedProfile:
        """Note durably that what `merged`, a guest, did is of profile `unit` as well.

        With it, in one step, the profile gets the strictest of its limits and those of
        `limited_by`: what a guest may not see, nobody sees by signing in. Of a merge that is known
        nothing changes, its limits included: they may have been lifted since.

        Args:
            unit: The profile.
            unit_type: What experiments call their `unit`, for erasures of one type.
            merged: The guest.
            limited_by: The units whose limits hold for the guest.
        """

    @abstractmethod
    def merges(self, after: int = 0, limit: int = 2**62) -> list[Merge]:
        """The merges that stand after a place, in their order, at most `limit`."""

    # ------------------------------------------------------------------ upkeep

    @abstractmethod
    def check(self) -> None:
        """Raises LogError where what this handle writes to is no longer what its name leads to."""

    def belong_to(self, home: str) -> str:
        """The id of the data folder that the log belongs to: `home`, where none was noted yet. One
        that lies in its data folder belongs to that.
        """
        return home

    def probe(self) -> None:
        """Write what every commit writes, without any row. Raises LogError where that fails."""
        self.commit([Entry()])

    @abstractmethod
    def lease(self, name: str, *, shared: bool = False) -> Lease:
        """Take what one holder, of all that use this log, may have at a time; with `shared`,
        whatever many may have together, and nobody who wants it alone meanwhile.

        Raises:
            Conflict: Another one has it.
            LogError: Nobody can tell.
        """

    @abstractmethod
    def tend(self, *, thorough: bool = False) -> None:
        """Upkeep that some process must see to several times a second; cheap when nothing is due.

        Args:
            thorough: Also what may take a moment: for the worker, not for a process that answers.
        """

    def forget_recent(self) -> None:
        """Keep nothing of any row in this handle's memory: what it needs, it reads again."""
        return

    @abstractmethod
    def close(self) -> None:
        """Let go of files and connections; what was acknowledged is durable already."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

"""Does a reader of the shared log miss a row, meet one twice, or meet one too early?

    python -m benchmarks.shared.feed [--seconds 60] [--alone]

Four writers append to a PostgreSQL of the benchmark's own; one of ten of their transactions stays
open for up to 0.3 s after its rows were stamped, so that transactions end in another order than
they began. Three readers follow them: one that goes on behind its last `seq`, one that takes
`pg_snapshot_xmax` for the next transaction's number, and the log's own. In the second third of the
time the server's clock is set back by 5 s; before the last third the server is killed, and its
synchronous standby, whose clock is 5 s further back, takes its place (not with `--alone`). Where
libfaketime is, that is the clock of all its processes; else the log is told another reading.

Prints a line for each reader; exits 1 where the log's own reader skipped a row, met one twice or
out of order, or where acknowledged rows are not there; and where the first reader skipped none,
since then nothing was shown.
"""

from __future__ import annotations

import argparse
import random
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from itertools import pairwise
from typing import Any, NamedTuple, Self

import msgspec
import psycopg
from tests import postgres_server

from topbill.domain.errors import LogError
from topbill.domain.records import Decision, Placement
from topbill.log import migrate_log, open_log
from topbill.log.sql_database import checksum

WRITERS = 4
ROWS = 8
"""Of a writer's transaction."""
LONGEST_OPEN = 0.3
"""Seconds."""
BACK = 5_000
"""Milliseconds by which a clock is set back."""
EVERY = 0.05
"""Seconds between two looks of a reader."""
_APPEND = """SELECT append(%s::bigint, '{}', '{}', ARRAY[%s], '{home}', '{NULL}',
    ARRAY[%s::bytea], ARRAY[%s::bigint], '{NULL}', '{}', '{}', '{}', '{}',
    '{}', '{}', '{}', '{}', '{}')"""
_CLOCK = """CREATE OR REPLACE FUNCTION clock_reading(reading bigint) RETURNS bigint
    LANGUAGE plpgsql AS $$ BEGIN
        RETURN coalesce(reading, floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint - {});
    END $$"""
_LOST = (psycopg.OperationalError, psycopg.InterfaceError)
"""What a connection raises whose server is gone."""


class SlowWriter:
    """A writer whose transaction stays open until it is told to end."""

    def __init__(self, url: str) -> None:
        self._connection = psycopg.connect(url)

    def append(self, decision_id: str, reading: int | None = None) -> None:
        """Append a decision, at a reading of the clock (ms) or of the server's own."""
        decision = Decision(
            decision_id=decision_id,
            experiment="home",
            revision="r1",
            variant="a",
            unit="u",
            context=msgspec.Raw(b'{"hour":3}'),
            slate=(Placement(0, "close-up", 0.25),),
            policy="uniform",
            reason="policy",
            request_hash="h",
        )
        body = msgspec.json.encode(decision)
        crc = checksum((decision_id, "home", body))
        self._connection.execute(_APPEND, (reading, decision_id, body, crc))

    def commit(self) -> None:
        """End the transaction."""
        self._connection.commit()

    def close(self) -> None:
        """Let go of the connection, and of what was not committed."""
        self._connection.close()


class NaiveReader:
    """Reads what is behind its last `seq`: what commits later than what came after it is
    skipped."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._after = 0
        self.met: list[int] = []
        self.connect()

    def connect(self) -> None:
        """Begin anew with the server that is there."""
        self.connection = psycopg.connect(self._url, autocommit=True)

    def end(self) -> int:
        """The first `seq` that is not to be read yet."""
        return 2**62

    def read(self, end: int) -> None:
        """Read on, up to `end`."""
        query = "SELECT seq FROM decisions WHERE seq > %s AND seq < %s ORDER BY seq"
        for (seq,) in self.connection.execute(query, (self._after, end)).fetchall():
            self.met.append(seq)
            self._after = seq

    def skipped(self) -> int:
        """How many rows it has gone past."""
        query = "SELECT count(*) FROM decisions WHERE seq <= %s AND NOT seq = ANY(%s)"
        return int(self.connection.execute(query, (self._after, self.met)).fetchall()[0][0])

    def close(self) -> None:
        """Let go of the connection."""
        self.connection.close()


class XmaxReader(NaiveReader):
    """Takes `pg_snapshot_xmax` for the next transaction's number. It is the one after the last that
    has *ended*: of those under way, some have a higher one, and it does not wait for them.
    """

    def connect(self) -> None:
        """Begin anew; what is known of another server's transactions says nothing."""
        super().connect()
        self._waiting: list[tuple[int, int]] = []
        self._end = 0

    def end(self) -> int:
        """The first `seq` that is not to be read yet, it thinks."""
        ((now,),) = self.connection.execute("SELECT clock_reading(NULL)").fetchall()
        query = """SELECT pg_snapshot_xmin(s)::text::bigint, pg_snapshot_xmax(s)::text::bigint
            FROM pg_current_snapshot() s"""
        ((oldest, highest),) = self.connection.execute(query).fetchall()
        self._waiting.append((now, highest))
        while self._waiting and self._waiting[0][1] <= oldest:
            self._end = self._waiting.pop(0)[0] + 1 << 20
        return self._end


class Met(NamedTuple):
    """What a reader met, against what is there."""

    rows: int
    skipped: int
    twice: int
    out_of_order: int

    def line(self, name: str) -> str:
        """One line of the answer."""
        return (
            f"{name:<22} {self.rows:>8,} rows, skipped {self.skipped:,}, twice {self.twice:,}, "
            f"out of order {self.out_of_order:,}"
        )


def met(seqs: Sequence[int], there: set[int]) -> Met:
    """Of the `seq`s that a reader met, in its order. What is behind the last one it may still
    read."""
    last = max(seqs, default=0)
    skipped = sum(seq <= last for seq in there - set(seqs))
    falls = sum(one > other for one, other in pairwise(seqs))
    return Met(len(seqs), skipped, len(seqs) - len(set(seqs)), falls)


class _Threads:
    """Threads, one for each of `of`, that run until they are stopped."""

    def __init__(self, run: Callable[[Any], None], of: Iterable[Any]) -> None:
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=run, args=(each,)) for each in of]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


class Writers(_Threads):
    """Threads that write until they are stopped, whatever becomes of the server."""

    def __init__(self, url: str) -> None:
        super().__init__(self._run, range(WRITERS))
        self._url = url
        self.acknowledged: list[str] = []

    def _run(self, number: int) -> None:
        delays = random.Random(number)
        count = 0
        while not self._stop.is_set():
            with suppress(*_LOST), closing(SlowWriter(self._url)) as writer:
                while not self._stop.is_set():
                    count += 1
                    names = [f"{number}-{count}-{row}" for row in range(ROWS)]
                    for name in names:
                        writer.append(name)
                    if delays.random() < 0.1:
                        time.sleep(delays.random() * LONGEST_OPEN)
                    writer.commit()
                    self.acknowledged += names
            time.sleep(EVERY)


class Followers(_Threads):
    """Threads in which the two other readers read."""

    def __init__(self, readers: Sequence[NaiveReader]) -> None:
        super().__init__(self._run, readers)

    def _run(self, reader: NaiveReader) -> None:
        while not self._stop.is_set():
            try:
                reader.read(reader.end())
            except _LOST:
                reader.close()
                with suppress(*_LOST):
                    reader.connect()
            time.sleep(EVERY)


def set_back(url: str, milliseconds: int) -> None:
    """Have the server's clock be so far back, for the log that lies at `url`."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(_CLOCK.format(milliseconds).encode())


@contextmanager
def places(*, alone: bool) -> Iterator[tuple[str, Callable[[], None] | None]]:
    """The URL of a server, and what has its standby take its place with another clock, if there is
    one.
    """
    with ExitStack() as stack:
        if alone:
            yield stack.enter_context(postgres_server.cluster()).url, None
        else:
            is_true = postgres_server.can_set_clocks()
            pair = postgres_server.FailoverPair(stack, 2 * BACK // 1_000 if is_true else 0)

            def fail_over() -> None:
                pair.fail_over()
                set_back(pair.url, 0 if is_true else 2 * BACK)

            yield pair.url, fail_over


def feed(url: str, seconds: float, fail_over: Callable[[], None] | None = None) -> list[str]:
    """Have all read for so long what is written into a new log at `url`, and print what each met;
    returns what is wrong.
    """
    migrate_log(url)

    steps: list[tuple[float, Callable[[], None]]] = [(seconds / 3, lambda: set_back(url, BACK))]
    if fail_over is not None:
        steps.append((seconds * 2 / 3, fail_over))
    seqs: list[int] = []
    with ExitStack() as stack:
        naive = stack.enter_context(closing(NaiveReader(url)))
        xmax = stack.enter_context(closing(XmaxReader(url)))
        log = stack.enter_context(open_log(url))

        def follow() -> None:
            with suppress(LogError):  # while no server is there
                while rows := log.read_decisions(seqs[-1] if seqs else 0, 2_000):
                    seqs.extend(seq for seq, _ in rows)

        with Writers(url) as writers, Followers([naive, xmax]):
            start = time.monotonic()
            while (passed := time.monotonic() - start) < seconds:
                if steps and passed >= steps[0][0]:
                    steps.pop(0)[1]()
                follow()
                time.sleep(EVERY)
        follow()
        query = "SELECT seq, decision_id FROM decisions"
        there: dict[int, str] = dict(naive.connection.execute(query).fetchall())
    lost = set(writers.acknowledged) - set(there.values())
    ours = met(seqs, set(there))
    others = met(naive.met, set(there)), met(xmax.met, set(there))
    print(others[0].line("seq > last:"))
    print(others[1].line("pg_snapshot_xmax:"))
    print(ours.line("the log's own reader:"))
    print(f"{len(writers.acknowledged):,} rows acknowledged, lost {len(lost):,}")
    wrong = []
    if ours != (len(there), 0, 0, 0):
        wrong.append(f"the log's own reader met {ours}; expected all of {len(there):,} rows once")
    if lost:
        wrong.append(f"{len(lost):,} acknowledged rows are not there")
    if not others[0].skipped:
        wrong.append("no reader could skip a row: nothing was shown; run it longer")
    return wrong


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns its exit code."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--alone", action="store_true", help="without a standby")
    given: Any = parser.parse_args(arguments)
    with places(alone=given.alone) as (url, fail_over):
        wrong = feed(url, given.seconds, fail_over)
    for each in wrong:
        print(f"error: {each}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

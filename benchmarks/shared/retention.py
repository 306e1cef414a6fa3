"""What the shared log holds of a decision that is learned and published, and what it costs to let
go of one.

    python -m benchmarks.shared.retention [--decisions 100000]

Fills a PostgreSQL of the benchmark's own with decisions as an experiment of ten slots makes them
(1.5 kB) and half as many rewards, over five hours of a clock that is set, then has all be let go.
Prints what it costs to store one and to let go of it, in the server's processor time (a reward's
half included) and in its write-ahead log; the bytes that one takes before and after; and how many
dead rows a vacuum has to sweep.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import psycopg
from tests import postgres_server

from topbill.domain.records import Decision, Placement, RewardEvent
from topbill.engine import new_id
from topbill.log import Entry
from topbill.log.postgres import PostgresLog

HOURS = 5
GROUP = 64
_MICROS = 3_600_000_000
_TABLES = """SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)
    FROM pg_class c WHERE relkind = 'r' AND relnamespace = current_schema()::regnamespace
    AND relname ~ '^(decision|stubs|bundles|remembered_ids)'"""
_DEAD = """SELECT coalesce(sum(n_dead_tup), 0) FROM pg_stat_user_tables
    WHERE relname ~ '^(decision|stubs|bundles|remembered_ids)'"""


def decision(slots: int = 10) -> Decision:
    """One of an experiment that ranks titles."""
    eligible = tuple(f"title-{i:05}" for i in range(40))
    slate = tuple(Placement(i, eligible[i], 0.1) for i in range(slots))
    return Decision(
        decision_id=new_id(),
        experiment="home-titles",
        revision="0a1b2c3d4e5f",
        variant="thompson",
        unit="viewer-0123456789",
        context=msgspec.Raw(b'{"device":"tv","hour":20,"country":"se"}'),
        eligible=eligible,
        slate=slate,
        policy="thompson",
        policy_version=17,
        reason="policy",
        request_hash="0123456789abcdef",
        latency_us=230,
    )


def _event(decision: Decision) -> RewardEvent:
    return RewardEvent(decision_id=decision.decision_id, event_id=new_id(), event="play", value=1.0)


class Server:
    """What the server says of itself."""

    def __init__(self, url: str) -> None:
        self._connection = psycopg.connect(url, autocommit=True)

    def one(self, query: str) -> int:
        """The number that a query gives."""
        ((number,),) = self._connection.execute(query.encode()).fetchall()
        return int(number)

    def run(self, statement: str) -> None:
        """Have a statement be run."""
        self._connection.execute(statement.encode())

    def wal(self) -> int:
        """Bytes of the write-ahead log up to now."""
        return self.one("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn")


class Cost:
    """Prints what a part cost a decision: the server's processor, and its write-ahead log."""

    def __init__(self, name: str, server: Server, backend: int, count: int) -> None:
        self._name, self._server, self._count = name, server, count
        self._stat = Path(f"/proc/{backend}/stat")

    def _ticks(self) -> int:
        user, system = self._stat.read_text().rpartition(")")[2].split()[11:13]
        return int(user) + int(system)

    def __enter__(self) -> None:
        self._before = self._ticks(), self._server.wal()

    def __exit__(self, *_: object) -> None:
        ticks, wal = self._ticks() - self._before[0], self._server.wal() - self._before[1]
        micros = ticks / os.sysconf("SC_CLK_TCK") / self._count * 1e6
        each = f"{micros:,.1f} µs of the server, {wal / self._count:,.0f} B of write-ahead log"
        print(f"{self._name}: {each}")


def fill(log: PostgresLog, clock: list[int], count: int) -> None:
    """Store so many decisions, and half as many rewards, over the hours."""
    for start in range(0, count, GROUP):
        clock[0] = _MICROS + HOURS * _MICROS * start // count
        decisions = [decision() for _ in range(min(GROUP, count - start))]
        events = [_event(d) for d in decisions[::2]]
        log.commit([Entry(decisions, events)])
        if start % (100 * GROUP) == 0:
            log.tend(thorough=True)
            log._tended_at = 0.0
    # A later one, so that the last of the hours is over.
    clock[0] += 2 * _MICROS
    log.append([decision()])
    clock[0] += 1_000
    log.barrier()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns its exit code."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--decisions", type=int, default=100_000)
    given: Any = parser.parse_args(arguments)
    count: int = given.decisions
    clock = [_MICROS]
    with ExitStack() as stack:
        cluster = stack.enter_context(postgres_server.cluster(fsync="on"))
        log = stack.enter_context(PostgresLog(cluster.url, lambda: clock[0]))
        # Once connected, a log has one backend, which does all the work.
        backend = log._database.rows("SELECT pg_backend_pid()")[0][0]
        server = Server(cluster.url)
        with Cost("stored", server, backend, count):
            fill(log, clock, count)
        held = server.one(_TABLES)
        server.run("CHECKPOINT")
        with Cost("let go", server, backend, count):
            while log.forget(2**62, 2**62, clock[0]):
                pass
        server.run("SELECT pg_stat_force_next_flush()")
        dead, kept = server.one(_DEAD), server.one(_TABLES)
        with Cost("vacuum", server, server.one("SELECT pg_backend_pid()"), count):
            server.run("VACUUM")
        print(
            f"a decision takes {held / count:,.0f} B, and {kept / count:,.0f} B when it is let go, "
            f"{server.one(_TABLES) / count:,.0f} after a vacuum of {dead / count:,.2f} dead rows"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())

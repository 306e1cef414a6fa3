"""What is the shared log's own beyond the contract: its feed while transactions are under way, and
what becomes of a server that ends, lies or is another one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing

import msgspec
import pytest
from tests import postgres_server
from tests.unit.log.test_contract import decision, event, ids, of_unit

from topbill.domain.errors import LogError, NotFound
from topbill.domain.records import Decision
from topbill.log import Entry, migrate_log, open_log
from topbill.log.bundles import LEAST, decisions_of

psycopg = pytest.importorskip("psycopg", reason="no psycopg: pip install -r requirements-dev.lock")

from benchmarks.shared import feed  # noqa: E402 (needs psycopg)
from benchmarks.shared.feed import NaiveReader, SlowWriter, XmaxReader  # noqa: E402

from topbill.log import postgres_database  # noqa: E402
from topbill.log.postgres import PostgresLog  # noqa: E402
from topbill.log.postgres_schema import VERSION  # noqa: E402


@pytest.fixture
def url() -> str:
    return postgres_server.fresh_url()


@pytest.fixture
def log(url: str) -> Iterator[PostgresLog]:
    with PostgresLog(url) as log:
        yield log


def test_what_commits_late_is_skipped_by_naive_readers_and_not_by_ours(
    url: str, log: PostgresLog
) -> None:
    """Two transactions end in another order than they began."""
    with ExitStack() as stack:
        early, late = (stack.enter_context(closing(SlowWriter(url))) for _ in range(2))
        naive = stack.enter_context(closing(NaiveReader(url)))
        xmax = stack.enter_context(closing(XmaxReader(url)))
        log.append([decision("before")])
        assert ids(log.read_decisions(0, 9)) == ["before"]
        early.append("early")
        late.append("late")
        time.sleep(0.002)  # the next millisecond
        naive_end, xmax_end, barrier = naive.end(), xmax.end(), log.barrier()
        late.commit()
        naive.read(naive_end)
        xmax.read(xmax_end)
        assert ids(log.read_decisions(0, 9)) == ["before"], "what is not final is not read"
        early.commit()
        assert (naive.skipped(), xmax.skipped()) == (1, 1)
        rows = log.read_decisions(0, 9)
        assert ids(rows) == ["before", "early", "late"]
        assert all(row.decided_at > barrier for _, row in rows[1:])
        assert log.barrier() > rows[-1][1].decided_at


def test_a_new_handle_waits_for_its_first_barrier(
    url: str, log: PostgresLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With none, who reads up to it would take nothing for everything."""
    log.append([decision("before")])
    now = log.now()
    with closing(SlowWriter(url)) as writer, closing(PostgresLog(url)) as new:
        writer.append("slow")
        late = threading.Timer(0.2, writer.commit)
        late.start()
        assert new.barrier() >= now // 1_000 * 1_000
        assert ids(new.read_decisions(0, 9)) == ["before", "slow"]
        late.join()
        monkeypatch.setattr("topbill.log.postgres._LONGEST_WAIT", 0.1)
        writer.append("never")
        assert new.barrier() > 0, "one of a moment ago"
        with (
            closing(PostgresLog(url)) as another,
            pytest.raises(LogError, match=r"others have been writing for 0.1 s.*pg_stat_activity"),
        ):
            another.barrier()


def test_a_fence_holds_though_the_clock_goes_back(url: str, log: PostgresLog) -> None:
    """As that of a standby may which has become the primary."""
    log.append([decision("before")])
    barrier = log.barrier()
    with closing(SlowWriter(url)) as writer:
        writer.append("back", reading=barrier // 1_000 - 5_000)
        writer.commit()
    rows = log.read_decisions(0, 9)
    assert ids(rows) == ["before", "back"]
    assert rows[-1][1].decided_at > barrier


def test_of_writers_with_open_transactions_no_row_is_skipped_nor_read_twice(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """For some seconds, of which the last two thirds have a clock that is 5 s back."""
    assert feed.feed(url, 4.0) == []
    assert "skipped 0, twice 0, out of order 0" in capsys.readouterr().out.splitlines()[2]


@pytest.mark.slow
def test_nor_across_a_promotion_to_a_clock_that_is_further_back() -> None:
    lacking = postgres_server.missing()
    if lacking:
        pytest.skip(lacking)
    assert feed.main(["--seconds", "60"]) == 0


# ---------------------------------------------------------------------- intake


def page(count: int = 3) -> list[Decision]:
    """Decisions of one unit that offer much: they are stored as a bundle."""
    actions = msgspec.Raw(msgspec.json.encode([{"id": f"a{i}"} for i in range(LEAST // 8)]))
    eligible = tuple(f"a{i}" for i in range(LEAST // 8))
    return [
        msgspec.structs.replace(decision(f"p{i}"), actions=actions, eligible=eligible, slate=())
        for i in range(count)
    ]


def test_a_page_is_stored_as_a_bundle_and_is_read_until_its_last_decision_goes(
    log: PostgresLog,
) -> None:
    log.commit([Entry(page())])
    assert log._database.rows("SELECT count(*) FROM bundles") == [(1,)]
    rows = log.read_decisions(0, 9)
    assert ids(rows) == ["p0", "p1", "p2"]
    assert rows[2][1].actions == page()[2].actions
    assert log.forget(rows[1][0], 2**62, 2**62) == 2
    assert log.decision("p2") == rows[2][1]
    assert log.forget(rows[2][0], 2**62, 2**62) == 1
    assert log.decision("p2") is None


def test_who_is_slow_to_open_bundles_keeps_the_connection(
    log: PostgresLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server ends whoever is idle in a transaction for long."""
    log.commit([Entry(page())])
    log._database.rows("SELECT set_config('idle_in_transaction_session_timeout', '50', false)")

    def slowly(content: bytes) -> list[Decision]:
        time.sleep(0.3)
        return decisions_of(content)

    monkeypatch.setattr("topbill.log.postgres.decisions_of", slowly)
    assert ids(log.read_decisions(0, 9)) == ["p0", "p1", "p2"]
    with log._database.snapshot():
        time.sleep(0.3)
        assert log._database.rows("SELECT count(*) FROM decisions") == [(3,)]
    assert log._database.connections == 1


def test_ids_that_nobody_called_keyed_are_stored_once_and_hold_nobody_up(log: PostgresLog) -> None:
    log.commit([Entry(page())])
    again = [Entry([*page()[:2], *page(5)[3:]], [event("p0", "e"), event("p0", "e")])]
    log.commit([*again, Entry([decision("d")], unit_events=[of_unit("x"), of_unit("x")])])
    assert ids(log.read_decisions(0, 9)) == ["p0", "p1", "p2", "d", "p3", "p4"]
    assert len(log.read_events(0, 9)) == len(log.read_unit_events(0, 9)) == 1


def test_ids_may_have_any_character(log: PostgresLog) -> None:
    names = ["\0", "0\0\0", "\uffff", "\uffff0", "\uffff\0", "ä\\x00'"]
    log.append([decision(name) for name in names], [], [of_unit("e", name) for name in names])
    assert ids(log.read_decisions(0, 9)) == names
    assert sorted(log.decisions(names)) == sorted(names)
    assert log.append([], [], [of_unit("e", name) for name in names]).unit_duplicates == (True,) * 6


def test_a_row_that_is_not_as_it_was_stored_is_set_aside_and_the_others_are_read(
    log: PostgresLog,
) -> None:
    log.append([decision("a"), decision("b")], [event("a", "e")])
    log.commit([Entry(page())])
    with log._database.transaction():
        log._database.execute("UPDATE decisions SET body = 'x' WHERE decision_id = 'a'")
        log._database.execute("UPDATE bundles SET content = 'x'")
    for _ in range(2):
        assert ids(log.read_decisions(0, 9)) == ["b"]
    rows = log.quarantine()
    assert [(row.stage, row.id, row.experiment) for row in rows] == [
        ("read", name, "home") for name in ("a", "p0", "p1", "p2")
    ]
    assert "not what was stored" in rows[0].reason
    assert "missing or damaged" in rows[1].reason


# ---------------------------------------------------------------------- the server


def end_connections(url: str) -> None:
    """As a server does that is started again."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
            " AND backend_type = 'client backend'"
        )


def test_a_lost_connection_is_made_anew_and_nothing_is_stored_twice(
    url: str, log: PostgresLog
) -> None:
    log.append([decision("a")])
    end_connections(url)
    assert log.append([decision("b")]).stored == {}
    end_connections(url)
    assert ids(log.read_decisions(0, 9)) == ["a", "b"]


def test_an_answer_that_was_lost_is_looked_up(log: PostgresLog) -> None:
    """The group was committed, and nobody heard of it."""
    append = log._database.append

    def deaf(values: Sequence[object]) -> int | None:
        log._database.append = append  # type: ignore[method-assign]
        append(values)
        return None

    log._database.append = deaf  # type: ignore[method-assign]
    receipt = log.append([decision("a"), decision("b")])
    assert sorted(receipt.stored) == ["a", "b"]
    assert ids(log.read_decisions(0, 9)) == ["a", "b"]


def test_a_lease_is_free_when_its_holder_is_gone_and_he_is_told(url: str, log: PostgresLog) -> None:
    with log.lease("learn:home") as lost:
        end_connections(url)
        with PostgresLog(url) as other, other.lease("learn:home") as taken:
            with pytest.raises(LogError, match="'learn:home' with it; another process may"):
                lost.check()
            taken.check()


def test_another_log_at_the_same_place_is_noticed(url: str, log: PostgresLog) -> None:
    log.check()
    with log._database.transaction():
        log._database.execute("UPDATE schema_stamp SET id = gen_random_uuid()")
    with pytest.raises(LogError, match="another log lies there"):
        log.check()
    end_connections(url)
    with pytest.raises(LogError, match="another log lies there"):
        log.append([decision("a")])


def test_migrate_makes_a_log_once_and_brings_it_to_the_next_version(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(NotFound, match=r"no log there; .* run `topbill migrate --log URL`"):
        PostgresLog(url, create=False)
    assert migrate_log(url).endswith(f"a log was made, of schema version {VERSION}")
    assert migrate_log(url).endswith("nothing to do")
    with PostgresLog(url, create=False) as log:
        log.append([decision("a")])
    newer = VERSION + 1
    monkeypatch.setattr(postgres_database, "VERSION", newer)
    expected = f"version {VERSION}; expected {newer}: run `topbill migrate --log URL`"
    with pytest.raises(LogError, match=expected):
        PostgresLog(url, create=False)
    more = "CREATE TABLE more (x int)"
    monkeypatch.setattr(postgres_database, "UPGRADES", {VERSION: f"{more}; nonsense"})
    with pytest.raises(LogError, match="syntax error"):
        migrate_log(url)
    monkeypatch.setattr(postgres_database, "UPGRADES", {VERSION: more})
    assert migrate_log(url).endswith(f"of schema version {newer} now"), "nothing was left before"
    with PostgresLog(url, create=False) as log:
        assert ids(log.read_decisions(0, 9)) == ["a"]


def test_several_may_migrate_at_once(url: str) -> None:
    said: list[str] = []
    threads = [threading.Thread(target=lambda: said.append(migrate_log(url))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(sentence.endswith("nothing to do") for sentence in said) == [False, *[True] * 3]


def test_a_log_of_another_schema_version_is_refused(url: str, log: PostgresLog) -> None:
    with log._database.transaction():
        log._database.execute("UPDATE schema_stamp SET version = 99")
    for opening in (PostgresLog, migrate_log):
        with pytest.raises(
            LogError, match=f"version 99; expected {VERSION}: a newer Topbill made it"
        ):
            opening(url)


def test_a_server_that_takes_no_writes_is_named_and_nothing_acknowledged(
    url: str, log: PostgresLog
) -> None:
    log.append([decision("a")])
    with closing(PostgresLog(f"{url}%20-cdefault_transaction_read_only%3Don")) as standby:
        for write in (standby.probe, lambda: standby.append([decision("b")])):
            with pytest.raises(LogError, match=r"read-only transaction; nothing was acknowledged"):
                write()
        assert standby.decisions(["a", "b"]).keys() == {"a"}


def test_who_may_not_make_tables_is_told_so(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS guest")
        connection.execute("CREATE ROLE guest LOGIN")
    with pytest.raises(LogError, match=r"tables cannot be made: .*a role that may CREATE"):
        PostgresLog(url.replace("topbill@", "guest@"))
    with pytest.raises(NotFound, match="no log there"):
        PostgresLog(url, create=False)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("postgresql://u:secret@127.0.0.1:1/x", "Connection refused.*expected a PostgreSQL"),
        ("postgresql://u:secret@/x?host=/nowhere", "No such file.*expected a PostgreSQL"),
        ("postgresql://u:secret@[h/x", "is no URL of PostgreSQL; expected postgresql://USER"),
        ("postgresql://u@h/x?password=secret&nothing=1", "is no URL of PostgreSQL"),
    ],
)
def test_a_url_that_leads_nowhere_is_a_named_error_without_its_password(
    url: str, message: str
) -> None:
    with pytest.raises(LogError, match=message) as raised:
        open_log(url)
    assert "secret" not in str(raised.value)

"""How the shared log lets go: an hour's table at once, with a stub left of each decision; and how a
log of the version before, which deleted row by row, is taken over with its rows.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import pytest
from tests import postgres_server
from tests.unit.log.test_contract import decision, event, event_ids, ids
from tests.unit.log.test_postgres import page

from topbill.domain.errors import AlreadyDecided, LogError
from topbill.domain.origin import Origin
from topbill.log import Duty, Entry, migrate_log, open_log
from topbill.log.bundles import bundle_of
from topbill.log.sql_database import checksum

psycopg = pytest.importorskip("psycopg", reason="no psycopg: pip install -r requirements-dev.lock")

from topbill.log.postgres import PostgresLog  # noqa: E402 (needs psycopg)
from topbill.log.postgres_rows import PostgresRowTables  # noqa: E402
from topbill.log.postgres_schema import PLACE_IN_BUNDLE, VERSION  # noqa: E402

VERSION_1 = Path(__file__).parents[2] / "data/postgres/version-1.sql"
HOUR = 3_600_000_000
"""µs."""


@pytest.fixture
def url() -> str:
    return postgres_server.fresh_url()


class Hours:
    """A log whose clock stands where it is told to."""

    def __init__(self, url: str) -> None:
        self.now = 10 * HOUR
        self.log = PostgresLog(url, lambda: self.now)
        self.log.tend(thorough=True)

    def tables(self, parent: str = "decision_rows") -> list[str]:
        query = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = ?::regclass"
        found = [name.removeprefix(f"{parent}_") for (name,) in self._rows(query, parent)]
        return sorted(found, key=lambda name: name.zfill(9))

    def count(self, table: str) -> int:
        ((count,),) = self._rows(f"SELECT count(*) FROM {table}")  # noqa: S608 (own names)
        return int(count)

    def _rows(self, query: str, *values: str) -> list[Any]:
        return self.log._database.rows(query, values)


@pytest.fixture
def hours(url: str) -> Iterator[Hours]:
    hours = Hours(url)
    with hours.log:
        yield hours


def test_an_hour_goes_at_once_and_what_a_late_reward_needs_stays(hours: Hours) -> None:
    log = hours.log
    for hour in range(3):
        hours.now = (10 + hour) * HOUR + 5_000
        log.append([decision(f"d{hour}")], [event(f"d{hour}", "e")])
        log.commit([Entry(page())] if not hour else [])
    assert hours.tables()[:4] == ["10", "11", "12", "13"]
    last = log.read_decisions(0, 99)[-2][0]
    assert log.forget(last, 2**62, 2**62) == 5, "of three hours the last one stays"
    assert hours.tables()[:2] == ["11", "12"], "an hour of which all is gone; of that of d1, more"
    assert hours.tables("bundles")[:2] == ["11", "12"]
    assert ids(log.read_decisions(0, 99)) == ["d2"]
    assert (hours.count("decision_rows"), hours.count("stubs")) == (2, 6), "no row was deleted"
    assert log.decisions(["d0", "d1"]) == {}
    origin = Origin(10 * HOUR + 5_000, "home", "a", "u", ("close-up",))
    assert log.origins(["d0", "d2", "nobody's"]) == {"d0": origin}, "d2 is whole"
    with pytest.raises(AlreadyDecided):
        log.append([decision("d0")])
    assert log.append([], [event("d0", "late"), event("d0", "e")]).duplicates == (False, True)


def test_the_next_rows_are_read_in_the_order_of_an_index(
    hours: Hours, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To sort an hour for the next rows of it would take longer with every row."""
    log = hours.log
    for hour in range(3):
        hours.now = (10 + hour) * HOUR + 5_000
        log.commit([Entry([decision(f"{hour}-{i}") for i in range(200)])])
    log.barrier()
    log._database.rows("ANALYZE")
    plans = []
    rows = log._database.rows

    def explained(query: str, values: Sequence[Any] = (), **more: Any) -> list[Any]:
        if query.startswith("SELECT") and "FROM decisions" in query:
            plans.append("\n".join(line for (line,) in rows(f"EXPLAIN {query}", values)))
        return rows(query, values, **more)

    monkeypatch.setattr(log._database, "rows", explained)
    log.read_decisions(0, 10)
    log.matured("home", 0, 1_000, 2**50, 10)
    log.named("home", 0, 2**50, 10)
    log.forget(1, 1, 2**50, 10)
    assert len(plans) >= 4
    assert [plan for plan in plans if "Sort  (" in plan] == []


def test_a_table_of_the_next_hours_is_there_before_they_begin(hours: Hours) -> None:
    assert [name for name in hours.tables() if name.isdigit()][:4] == ["10", "11", "12", "13"]
    hours.now = 20 * HOUR
    hours.log.append([decision("with no table")])
    assert hours.count("decision_rows_rest") == 1
    hours.log._tend_partitions()
    assert "20" not in hours.tables(), "its rows are with the rest"
    assert "21" in hours.tables()
    hours.log.barrier()
    assert hours.log.forget(2**62, 2**62, 2**62) == 1
    hours.now = 22 * HOUR
    hours.log.append([decision("later")])
    hours.log.barrier()
    assert hours.log.forget(2**62, 2**62, 2**62) == 1
    assert hours.count("decision_rows_rest") == 0
    assert hours.log.read_decisions(0, 9) == []


def test_who_holds_a_table_up_is_not_waited_for(hours: Hours, url: str) -> None:
    hours.log.append([decision("a")])
    hours.now += HOUR + 5_000
    hours.log.append([decision("b")])
    with psycopg.connect(url) as reader:
        reader.execute("SELECT * FROM decisions")
        assert hours.log.forget(2**62, 2**62, 2**62) == 2
        assert "10" in hours.tables(), "it is dropped the next time"
        assert hours.log.read_decisions(0, 9) == []
        assert hours.log.append([decision("c")]).stored == {}
    hours.log._tend_partitions()
    assert "10" not in hours.tables()


def test_a_role_that_owns_no_table_lets_go_and_another_may_not(hours: Hours, url: str) -> None:
    hours.log.append([decision("a")])
    role = f"keeper_{uuid4().hex}"
    schema = url.rpartition("%3D")[2]
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in (
            f"CREATE ROLE {role} LOGIN",
            f"GRANT USAGE ON SCHEMA {schema} TO {role}",
            f"GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {role}",
        ):
            connection.execute(statement.encode())
        with PostgresLog(url.replace("topbill@", f"{role}@"), create=False) as log:
            with pytest.raises(LogError, match="permission denied to drop decisions"):
                log.tend(thorough=True)
            grant = f"GRANT INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {role}"
            connection.execute(grant.encode())
            log.tend(thorough=True)
            assert log.forget(2**62, 2**62, 2**62) == 1


def test_a_stub_that_is_not_as_it_was_is_not_believed(hours: Hours) -> None:
    hours.log.append([decision("a"), decision("b"), decision("c")])
    assert hours.log.forget(2**62, 2**62, 2**62) == 3
    with hours.log._database.transaction():
        hours.log._database.execute(
            "UPDATE stubs SET origin = set_byte(origin, 9, 65) WHERE decision_id = 'a'"
        )
        hours.log._database.execute("UPDATE stubs SET origin = 'x' WHERE decision_id = 'b'")
    assert list(hours.log.origins(["a", "b", "c"])) == ["c"]
    assert sorted(hours.log.places(["a", "b", "c"])) == ["a", "b", "c"], "the record has them"


def test_of_a_unit_stubs_are_found_and_deleted_and_its_rows_overwritten(
    hours: Hours, url: str
) -> None:
    own = msgspec.structs.replace(decision("a"), unit="viewer")
    hours.log.append([own, decision("b")])
    assert hours.log.forget(2**62, 2**62, 2**62) == 2
    tables = PostgresRowTables(url)
    try:
        assert tables.let_go_of("viewer") == [("a", "home")]
        assert tables.let_go_of("view") == []
        assert tables.units_let_go() == {"viewer", "u"}
        with tables.database.transaction():
            tables.delete_decisions(["a"])
        tables.wipe()
    finally:
        tables.close()
    assert hours.log.origins(["a", "b"]).keys() == {"b"}
    assert hours.count("decision_rows") == 0


# ---------------------------------------------------------------------- from the version before

_APPEND_1 = """SELECT append(NULL, '{}', %s::bytea[], %s::text[], %s::text[], %s::int[],
    %s::bytea[], %s::bigint[], '{d0}', '{e}', %s::bytea[], %s::bigint[],
    '{}', '{}', '{}', '{}', '{}')"""


def fill_version_1(url: str, role: str) -> None:
    """Make a log of version 1 with five rows of which two are a page's, and let `role` use it."""
    bundle = bundle_of(page(2))
    crc = zlib.crc32(bundle)
    bodies = [msgspec.json.encode(decision(f"d{i}")) for i in range(3)]
    bodies += [PLACE_IN_BUNDLE.pack(i, crc) for i in range(2)]
    names = ["d0", "d1", "d2", "p0", "p1"]
    checksums = [checksum((n, "home", b)) for n, b in zip(names, bodies, strict=True)]
    body = msgspec.json.encode(event("d0", "e"))
    schema = url.rpartition("%3D")[2]
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(VERSION_1.read_bytes())
        connection.execute("INSERT INTO schema_stamp VALUES (1, gen_random_uuid())")
        connection.execute(
            _APPEND_1,
            (
                *([bundle], names, ["home"] * 5, [None, None, None, 1, 1], bodies, checksums),
                *([body], [checksum(("d0", "e", body))]),
            ),
        )
        connection.execute(f"CREATE ROLE {role} LOGIN".encode())
        connection.execute(f"GRANT USAGE ON SCHEMA {schema} TO {role}".encode())
        for what in ("SELECT, INSERT, UPDATE, DELETE ON ALL TABLES", "USAGE ON ALL SEQUENCES"):
            connection.execute(f"GRANT {what} IN SCHEMA {schema} TO {role}".encode())


def test_a_log_of_version_1_is_taken_over_with_its_rows_and_its_rights(url: str) -> None:
    role = f"service_{uuid4().hex}"
    fill_version_1(url, role)
    with pytest.raises(LogError, match=f"of schema version 1; expected {VERSION}: run"):
        open_log(url, create=False)
    before = psycopg.connect(url, autocommit=True)
    assert migrate_log(url).endswith(f"is of schema version {VERSION} now")
    assert migrate_log(url).endswith("nothing to do")
    with before, pytest.raises(psycopg.errors.UndefinedFunction, match="append"):
        before.execute(_APPEND_1, ([], [], [], [], [], [], [], []))

    with open_log(url.replace("topbill@", f"{role}@"), create=False) as log:
        log.note_duties([Duty(name="publish", worker="a:1")])
        assert log.duties()["publish"].worker == "a:1"
        rows = log.read_decisions(0, 9)
        assert ids(rows) == ["d0", "d1", "d2", "p0", "p1"]
        assert rows[4][1].actions == page(2)[1].actions
        assert event_ids(log.read_events(0, 9)) == [("d0", "e")]
        assert log.append([decision("d1")]).stored.keys() == {"d1"}
        assert log.append([], [event("d0", "e")]).duplicates == (True,)
        log.append([decision("new")])
        log.tend(thorough=True)
        rows = log.read_decisions(0, 9)
        assert ids(rows)[-1] == "new"
        assert log.forget(rows[-1][0], 2**62, 2**62) == 6
        assert log.origins(["d0", "new"]).keys() == {"new"}, "of old rows nothing was kept"
        assert log.places(["d0", "new"]) == {"d0": rows[0][0], "new": rows[-1][0]}
    with psycopg.connect(url, autocommit=True) as connection:
        made = connection.execute("SELECT relname FROM pg_class WHERE relname LIKE '%_before'")
        assert {name for (name,) in made.fetchall()} >= {"decision_rows_before"}
        # As if the hours had gone by.
        connection.execute("UPDATE forgotten SET through = through + (3::bigint << 42)")
        connection.execute("SELECT tend_partitions(NULL)")
        query = "SELECT to_regclass('decision_rows_before'), to_regclass('bundles_before')"
        assert connection.execute(query).fetchall() == [(None, None)]

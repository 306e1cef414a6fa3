"""What becomes of a service whose PostgreSQL is gone, refuses, is full or stands still: it says so,
acknowledges nothing that is not stored, and goes on by itself when the server is back.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from starlette.testclient import TestClient
from tests import postgres_server
from tests.conftest import write
from tests.local_client import LocalClient
from tests.unit.log.test_contract import decision

from topbill.domain.errors import LogError, NotFound
from topbill.domain.log_url import LOG_VARIABLE
from topbill.log import Log, migrate_log, open_log, postgres_database
from topbill.service.app import create_app
from topbill.service.settings import Settings

SERVICE_RIGHTS = """
GRANT USAGE ON SCHEMA {schema} TO {role};
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {role};
GRANT USAGE ON ALL SEQUENCES IN SCHEMA {schema} TO {role};
"""
"""What docs/shared.md gives to services and workers."""


class Server:
    """A database of its own, that its owner may close to everybody."""

    def __init__(self) -> None:
        self.name = f"db_{uuid4().hex}"
        self.run(f"CREATE DATABASE {self.name}")
        self.url = postgres_server.shared_url().replace("/postgres?", f"/{self.name}?")

    def run(self, statement: str, *, inside: bool = False) -> None:
        url = self.url if inside else postgres_server.shared_url()
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(statement.encode())

    def go(self) -> None:
        """As if it were gone."""
        self.run(f"ALTER DATABASE {self.name} ALLOW_CONNECTIONS false")
        self.end_connections()

    def end_connections(self) -> None:
        with psycopg.connect(postgres_server.shared_url(), autocommit=True) as connection:
            query = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
            connection.execute(query, (self.name,))

    def come_back(self) -> None:
        self.run(f"ALTER DATABASE {self.name} ALLOW_CONNECTIONS true")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    lacking = postgres_server.missing()
    if lacking:
        pytest.skip(lacking)
    server = Server()
    migrate_log(server.url)
    monkeypatch.setenv(LOG_VARIABLE, server.url)
    return server


@pytest.fixture
def log(server: Server) -> Iterator[Log]:
    with open_log(server.url) as log:
        yield log


@pytest.fixture
def client(server: Server, tmp_path: Path) -> Iterator[TestClient]:
    settings = Settings(write(tmp_path / "experiments"), tmp_path / "data")
    with LocalClient(create_app(settings), raise_server_exceptions=False) as client:
        yield client


def decide(client: TestClient, decision_id: str) -> int:
    """The status of the answer, which names what is wrong where it is another than 200."""
    body = {"experiment": "art", "unit": "u", "decision_id": decision_id}
    response = client.post("/v1/decide", json=body)
    if response.status_code != 200:
        assert response.headers["retry-after"] == "1"
        assert response.json()["error"]["code"] == "log_unavailable"
    return response.status_code


def stored(log: Log) -> list[str]:
    return [decision.decision_id for _, decision in log.read_decisions(0, 99)]


def test_a_server_that_is_gone_is_a_503_until_it_is_back(
    client: TestClient, server: Server, log: Log
) -> None:
    assert decide(client, "before") == 200
    server.go()
    assert decide(client, "while it was gone") == 503
    reward = {"decision_id": "of another process", "event": "play"}
    assert client.post("/v1/reward", json=reward).status_code == 503, "nobody knows whether it is"
    ready = client.get("/readyz")
    assert (ready.status_code, ready.headers["retry-after"]) == (503, "1")
    assert "not currently accepting connections" in ready.json()["log"]
    assert server.name not in ready.text, "anybody may ask"
    assert client.get("/healthz").status_code == 200
    server.come_back()
    assert decide(client, "after") == 200
    assert client.get("/readyz").status_code == 200
    assert stored(log) == ["before", "after"]


def test_a_server_that_starts_again_is_not_noticed(
    client: TestClient, server: Server, log: Log
) -> None:
    for name in "abc":
        assert decide(client, name) == 200
        server.end_connections()
    assert stored(log) == ["a", "b", "c"]


def test_a_primary_that_has_become_a_standby_is_a_503(
    client: TestClient, server: Server, log: Log
) -> None:
    assert decide(client, "before") == 200
    server.run(f"ALTER DATABASE {server.name} SET default_transaction_read_only = on")
    server.end_connections()
    assert decide(client, "meanwhile") == 503
    assert "read-only" in client.get("/readyz").json()["log"], "it can store nothing"
    server.run(f"ALTER DATABASE {server.name} RESET default_transaction_read_only")
    assert decide(client, "after") == 200
    assert stored(log) == ["before", "after"]


def test_a_disk_that_is_full_is_a_503_and_nothing_of_the_group_is_stored(
    client: TestClient, server: Server, log: Log
) -> None:
    server.run(
        """CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            RAISE EXCEPTION 'could not extend file: No space left on device'
                USING ERRCODE = '53100'; END $$;
        CREATE TRIGGER full_disk BEFORE INSERT ON decision_rows EXECUTE FUNCTION full_disk()""",
        inside=True,
    )
    assert decide(client, "meanwhile") == 503
    server.run("DROP TRIGGER full_disk ON decision_rows", inside=True)
    assert decide(client, "after") == 200
    assert stored(log) == ["after"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 32 MB. Skips the test where none may be mounted."""
    place = Path(tempfile.mkdtemp(prefix="topbill-disk-", dir="/tmp"))
    line = ["mount", "-t", "tmpfs", "-o", "size=32m,mode=777", "tmpfs", place]
    if subprocess.run(line, capture_output=True).returncode:
        place.rmdir()
        pytest.skip("no file system may be mounted here")
    shutil.chown(place, "nobody")  # as whom the server runs where root starts it
    yield place
    subprocess.run(["umount", "-l", place], check=True)
    place.rmdir()


def test_a_disk_that_is_truly_full_loses_nothing_and_is_told(
    small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lacking = postgres_server.missing()
    if lacking:
        pytest.skip(lacking)
    with postgres_server.cluster() as cluster:
        with psycopg.connect(cluster.url, autocommit=True) as connection:
            connection.execute(f"CREATE TABLESPACE small LOCATION '{small_disk}'".encode())
            connection.execute("CREATE DATABASE small TABLESPACE small")
        url = cluster.url.replace("/postgres?", "/small?")
        migrate_log(url)
        monkeypatch.setenv(LOG_VARIABLE, url)
        settings = Settings(write(tmp_path / "experiments"), tmp_path / "data")
        with LocalClient(create_app(settings), raise_server_exceptions=False) as client:
            assert decide(client, "before") == 200
            with suppress(OSError), (small_disk / "what others write").open("wb") as other:
                while other.write(bytes(1 << 16)):
                    other.flush()
            # What is left of pages that there are already is still taken.
            names = [f"d{i}" for i in range(500)]
            acknowledged = ["before"]
            for name in names:
                if decide(client, name) != 200:
                    break
                acknowledged.append(name)
            assert decide(client, "refused") == 503
            assert len(acknowledged) < 500
            (small_disk / "what others write").unlink()
            assert decide(client, "after") == 200
            with open_log(url) as log:
                assert stored(log) == [*acknowledged, "after"]


def test_a_server_that_stands_still_is_a_503_within_seconds(
    client: TestClient, server: Server, log: Log
) -> None:
    with psycopg.connect(server.url) as connection:
        connection.execute("LOCK TABLE decision_rows IN ACCESS EXCLUSIVE MODE")
        start = time.monotonic()
        reward = {"decision_id": "of another process", "event": "play"}
        response = client.post("/v1/reward", json=reward)
        assert response.status_code == 503
        assert "has not answered for 2 s" in response.text
        assert time.monotonic() - start < 20.0
    assert decide(client, "after") == 200
    assert stored(log) == ["after"]


def test_a_service_needs_no_more_rights_than_the_manual_gives(server: Server) -> None:
    role = f"service_{uuid4().hex}"
    server.run(f"CREATE ROLE {role} LOGIN")
    url = server.url.replace("topbill@", f"{role}@")
    with pytest.raises(LogError, match=r"cannot open the log: permission denied for .* this role"):
        open_log(url, create=False)
    server.run(SERVICE_RIGHTS.format(schema="public", role=role), inside=True)
    with open_log(url, create=False) as log:
        log.probe()
        log.revise("home", "r", "me", "{}")
        log.beat(0)
        with log.lease("worker") as lease:
            lease.check()
    server.run(f"REVOKE INSERT ON decision_rows FROM {role}", inside=True)
    refused = pytest.raises(LogError, match=r"permission denied .*; nothing was acknowledged")
    with open_log(url, create=False) as log, refused:
        log.append([decision("a")])


def test_a_wrong_password_and_an_old_server_are_named(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(LogError, match='database "nowhere" does not exist'):
        open_log(server.url.replace(server.name, "nowhere"))
    role = f"guarded_{uuid4().hex}"
    with suppress(psycopg.errors.DuplicateObject):
        server.run("CREATE ROLE guarded")
    server.run(f"CREATE ROLE {role} LOGIN PASSWORD 'right' IN ROLE guarded")
    url = server.url.replace("topbill@", f"{role}:secret@")
    with pytest.raises(LogError, match="password authentication failed") as raised:
        open_log(url, create=False)
    assert "secret" not in str(raised.value)
    monkeypatch.setattr(postgres_database, "OLDEST_SERVER", 99)
    with pytest.raises(LogError, match=r"is PostgreSQL \d+; expected 99 or newer"):
        open_log(server.url)


@pytest.mark.parametrize(
    ("end", "begin", "message"),
    [
        ("ALTER ROLE {role} VALID UNTIL '2001-01-01'", "ALTER ROLE {role} VALID UNTIL 'infinity'",
         "password authentication failed"),
        ("ALTER ROLE {role} PASSWORD 'other'", "ALTER ROLE {role} PASSWORD 'right'",
         "password authentication failed"),
        ("REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {role}", SERVICE_RIGHTS,
         "permission denied"),
    ],
    ids=["expired", "changed", "revoked"],
)  # fmt: skip
def test_rights_that_end_while_a_service_is_at_work_are_a_503_until_they_are_back(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    end: str, begin: str, message: str,
) -> None:  # fmt: skip
    role = f"guarded_{uuid4().hex}"
    with suppress(psycopg.errors.DuplicateObject):
        server.run("CREATE ROLE guarded")
    server.run(f"CREATE ROLE {role} LOGIN PASSWORD 'right' IN ROLE guarded")
    given = {"role": role, "schema": "public"}
    server.run(SERVICE_RIGHTS.format(**given), inside=True)
    monkeypatch.setenv(LOG_VARIABLE, server.url.replace("topbill@", f"{role}:right@"))
    settings = Settings(write(tmp_path / "experiments"), tmp_path / "data")
    with LocalClient(create_app(settings), raise_server_exceptions=False) as client:
        assert decide(client, "before") == 200
        server.run(end.format(**given), inside=True)
        server.end_connections()
        assert decide(client, "meanwhile") == 503
        ready = client.get("/readyz")
        assert ready.status_code == 503
        assert message in ready.json()["log"]
        assert "right" not in ready.text
        server.run(begin.format(**given), inside=True)
        assert decide(client, "after") == 200
    with open_log(server.url) as log:
        assert stored(log) == ["before", "after"]


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("postgresql://u:secret@nowhere.invalid/db", "failed to resolve host 'nowhere.invalid'"),
        ("postgresql://u:secret@127.0.0.1:1/db", "Connection refused"),
        ("postgresql://u:secret@127.0.0.1:port/db", 'invalid integer value "port"'),
        ("postgresql://u:secret@/db?host=/nowhere", "No such file or directory"),
        ("postgresql:db", "is no URL of PostgreSQL; expected postgresql://USER@HOST:5432/DATABASE"),
        ("postgres://u:secret@h/db", "no log is known by 'postgres'; expected .*postgresql://"),
        ("mysql://u:secret@h/db", "no log is known by 'mysql'; expected .*postgresql://"),
    ],
)
def test_a_wrong_url_is_named_and_its_password_is_not(url: str, message: str) -> None:
    with pytest.raises(LogError, match=message) as raised:
        open_log(url, create=False)
    assert "secret" not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_service_over_a_log_that_nobody_made_does_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LOG_VARIABLE, postgres_server.fresh_url())
    settings = Settings(write(tmp_path / "experiments"), tmp_path / "data")
    with pytest.raises(NotFound, match=r"no log there; .* run `topbill migrate --log URL`"):
        settings.open_log()

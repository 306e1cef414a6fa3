"""A PostgreSQL server of the tests' own: in a temporary folder, on a Unix socket, without syncs."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path
from urllib.parse import quote
from uuid import uuid4

import pytest

_SETTINGS = {
    "listen_addresses": "",
    "fsync": "off",
    "full_page_writes": "off",
    # Its transactions would hold up what a test waits for.
    "autovacuum": "off",
    "shared_buffers": "16MB",
    "max_connections": "60",
    "max_wal_senders": "0",
    "wal_level": "minimal",
}
REPLICATED = {"wal_level": "replica", "max_wal_senders": "4", "fsync": "on"}
"""Settings of a primary and of its standby."""
_FOLDERS = "/usr/lib/postgresql/*/bin"
"""Where Debian puts them, which no PATH names."""


def missing() -> str:
    """What there is not of a server and of the driver for it; empty where both are there."""
    try:
        import psycopg  # noqa: F401
    except ImportError as error:
        return f"no psycopg here ({error}): pip install -r requirements-dev.lock"
    return "" if _programs() else "no PostgreSQL here: apt-get install postgresql"


def _programs() -> Path | None:
    """The folder of the newest server's programs."""
    found = sorted(Path("/").glob(f"{_FOLDERS[1:]}/initdb"), key=lambda path: int(path.parts[4]))
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    return Path(on_path).resolve().parent if on_path else None


_SHARED = ExitStack()


@cache
def shared_url() -> str:
    """The one server of this process's tests: started when it is first asked for."""
    return _SHARED.enter_context(running())


def stop() -> None:
    """End the server that tests shared, if there is one."""
    _SHARED.close()


def fresh_url() -> str:
    """The URL of a place for a log where none is yet: a schema of its own. Skips the test where
    there is no PostgreSQL.
    """
    lacking = missing()
    if lacking:
        pytest.skip(lacking)
    import psycopg

    name = f"log_{uuid4().hex}"
    with psycopg.connect(shared_url(), autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {name}".encode())
    return f"{shared_url()}&options=-csearch_path%3D{name}"


class Cluster:
    """A server that may be killed and started again. With `primary` it is the standby of that
    one; with `behind` its clock goes so many seconds behind this machine's.
    """

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, str],
        primary: Cluster | None = None,
        behind: int = 0,
    ) -> None:
        self.url = f"postgresql://topbill@/postgres?host={quote(str(folder), safe='')}"
        self._folder = folder
        self._settings = settings
        self._environment = os.environ | (_other_clock(behind) if behind else {})
        self._user: int | None = None
        programs = _programs()
        assert programs is not None
        self._programs = programs
        if os.geteuid() == 0:
            # It refuses to run as root.
            shutil.chown(folder, "nobody")
            self._user = folder.stat().st_uid
        data = folder / "data"
        line: list[str | Path]
        if primary is None:
            line = [programs / "initdb", "-D", data, "-U", "topbill", "-A", "trust", "-E", "UTF8"]
            line += ["--locale=C", "-N"]
        else:
            line = [programs / "pg_basebackup", "-D", data, "-U", "topbill", "-R", "-N"]
            line += ["-h", primary._folder, "-c", "fast"]
        subprocess.run(line, check=True, capture_output=True, user=self._user)
        if primary is None:
            # Members of that role need a password; all others are let in.
            rules = data / "pg_hba.conf"
            rules.write_text(f"local all +guarded scram-sha-256\n{rules.read_text()}")
        self.start()

    def start(self) -> None:
        options = [o for pair in self._settings.items() for o in ("-c", "=".join(pair))]
        data = self._folder / "data"
        line: list[str | Path] = [self._programs / "postgres", "-D", data, "-k", self._folder]
        with (self._folder / "server.log").open("ab") as log:
            self._server = subprocess.Popen(
                [*line, *options], stderr=log, user=self._user, env=self._environment
            )
        _wait(self._programs, self._folder)

    def kill(self) -> None:
        """All of its processes at once, as a power cut does."""
        for each in self.processes():
            with suppress(ProcessLookupError):
                os.kill(each, signal.SIGKILL)
        self._server.wait()

    def processes(self) -> list[int]:
        """Their ids, the server's own first."""
        pid = self._server.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [pid, *map(int, children)]

    def promote(self) -> None:
        """Have a standby become the primary."""
        data = self._folder / "data"
        promote = [str(self._programs / "pg_ctl"), "promote", "-D", str(data)]
        subprocess.run(promote, check=True, capture_output=True, user=self._user)

    def stop(self) -> None:
        self._server.send_signal(signal.SIGQUIT)  # at once, there is nothing to keep
        self._server.wait()


def can_set_clocks() -> bool:
    """Whether a server can have a clock of its own: by libfaketime."""
    return _faketime() is not None


def _faketime() -> Path | None:
    return next(iter(Path("/").glob("usr/lib/*/faketime/libfaketime.so.1")), None)


def _other_clock(behind: int) -> dict[str, str]:
    # Not by `faketime` itself, which would be the process that is killed. What the server waits
    # for, it measures by a clock that cannot be set.
    return {
        "LD_PRELOAD": str(_faketime()),
        "FAKETIME": f"-{behind}s",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }


@contextmanager
def cluster(primary: Cluster | None = None, behind: int = 0, **settings: str) -> Iterator[Cluster]:
    """Start a server, the standby of `primary` where one is named, and stop it afterwards."""
    # In memory where that can be. Not below TMPDIR: the path of a socket has at most 107 bytes, and
    # the user who runs the server must be able to reach it.
    parent = next(path for path in ("/dev/shm", "/tmp") if os.access(path, os.W_OK))  # noqa: S108
    folder = Path(tempfile.mkdtemp(prefix="topbill-postgres-", dir=parent))
    try:
        cluster = Cluster(folder, _SETTINGS | settings, primary, behind)
        try:
            yield cluster
        finally:
            cluster.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class FailoverPair:
    """A server whose synchronous standby takes its place; `url` leads to whichever takes writes.
    With `behind` the standby's clock goes so many seconds behind.
    """

    def __init__(self, stack: ExitStack, behind: int = 0) -> None:
        import psycopg

        self._primary = stack.enter_context(cluster(None, **REPLICATED))
        self._standby = stack.enter_context(cluster(self._primary, behind, **REPLICATED))
        with psycopg.connect(self._primary.url, autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
            connection.execute("SELECT pg_reload_conf()")
            # Else what was acknowledged last may be lost.
            query = "SELECT sync_state FROM pg_stat_replication"
            for _ in range(600):
                if connection.execute(query).fetchall() == [("sync",)]:
                    break
                time.sleep(0.05)
        hosts = [server.url.partition("host=")[2] for server in (self._primary, self._standby)]
        before, _, _ = self._primary.url.partition("host=")
        self.url = f"{before}host={','.join(hosts)}&target_session_attrs=read-write"

    def kill(self) -> None:
        self._primary.kill()

    def come_back(self) -> None:
        self._standby.promote()

    def fail_over(self) -> None:
        self.kill()
        self.come_back()


@contextmanager
def running() -> Iterator[str]:
    """Start a server, and stop it afterwards; yields the URL of its database."""
    with cluster() as server:
        yield server.url


def _wait(programs: Path, folder: Path) -> None:
    ready: list[str | Path] = [programs / "pg_isready", "-q", "-h", folder]
    for _ in range(600):
        if subprocess.run(ready).returncode == 0:
            return
    raise AssertionError((folder / "server.log").read_text())

"""A PostgreSQL that Patroni keeps available: two members as deploy/patroni/ has them, and one etcd,
as processes on loopback.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from urllib.request import urlopen

import psycopg
from benchmarks.shared.local_form import kill_with_children, until

_CONFIGURATION = Path(__file__).parents[2] / "deploy" / "patroni" / "patroni.yml"
MEMBERS = (1, 2)


class Patroni:
    """Leaving the `with` block ends all of it, and removes its folder."""

    def __init__(self) -> None:
        self._programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1]
        for program in ("etcd", "patroni"):
            if shutil.which(program) is None:
                raise RuntimeError(f"no {program} here: apt-get install etcd-server patroni")
        # Not below TMPDIR: the user who runs PostgreSQL must be able to reach it.
        self._folder = Path(tempfile.mkdtemp(prefix="topbill-patroni-", dir="/tmp"))
        self._folder.chmod(0o711)
        self._user = "postgres" if os.geteuid() == 0 else None
        self._password = secrets.token_hex(16)
        self.passwords = self._folder / "pgpass"
        """A password file for the roles postgres and topbill."""
        self.passwords.touch(0o600)
        self.passwords.write_text(f"127.0.0.1:*:*:*:{self._password}\n")
        self._ports = _free_ports(2 + 2 * len(MEMBERS))
        hosts = ",".join(f"127.0.0.1:{self._port(member)}" for member in MEMBERS)
        suffix = "?target_session_attrs=read-write&connect_timeout=3"
        self.url = f"postgresql://topbill@{hosts}/topbill{suffix}"
        self._admin = f"postgresql://postgres@{hosts}/postgres{suffix}"
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Patroni:
        own = self._folder / "members"
        own.mkdir(0o700)
        if self._user is not None:
            shutil.chown(own, self._user)
        client, peer = (f"http://127.0.0.1:{port}" for port in self._ports[:2])
        addresses = ["--listen-client-urls", client, "--advertise-client-urls", client]
        addresses += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]
        self._start(
            "etcd", "--data-dir", own / "etcd", *addresses, f"--initial-cluster=default={peer}"
        )
        for member in MEMBERS:
            self._start_member(member)
        os.environ["PGPASSFILE"] = str(self.passwords)
        until(self.is_whole, "a primary with its synchronous standby")
        with psycopg.connect(self._admin, autocommit=True) as connection:
            role = f"CREATE ROLE topbill LOGIN PASSWORD '{self._password}'"
            connection.execute(role.encode())
            connection.execute("CREATE DATABASE topbill OWNER topbill")
        return self

    def __exit__(self, *_problem: object) -> None:
        for process in reversed(self._running.values()):
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(30)
            process.kill()
            process.wait()
        for member in MEMBERS:
            self._kill_server(member)
        shutil.rmtree(self._folder)

    def kill(self, kind: str) -> None:
        """Kill the primary or the standby, with its Patroni, and start that again once the other
        one goes on: it finds its place by itself.
        """
        what = {"primary": "primary", "standby": "synchronous"}[kind]
        (member,) = (member for member in MEMBERS if self._is(member, what))
        kill_with_children(self._running[f"patroni-{member}"].pid)
        self._running[f"patroni-{member}"].wait()
        self._kill_server(member)
        until(self._takes_writes, f"the other member goes on without member {member}")
        self._start_member(member)

    def is_whole(self) -> bool:
        """Whether there is a member that Patroni lets take over: a synchronous standby."""
        return any(self._is(member, "synchronous") for member in MEMBERS) and self._takes_writes()

    def _is(self, member: int, what: str) -> bool:
        with suppress(OSError), urlopen(f"http://127.0.0.1:{self._api(member)}/{what}", timeout=2):
            return True  # any other status is raised
        return False

    def _takes_writes(self) -> bool:
        with suppress(psycopg.Error), psycopg.connect(self._admin) as connection:
            connection.execute("SET LOCAL statement_timeout = '2s'")
            connection.execute("SELECT pg_current_xact_id()")
            return True
        return False

    def _port(self, member: int) -> int:
        """Where a member's PostgreSQL listens."""
        return self._ports[2 * member]

    def _api(self, member: int) -> int:
        """Where its Patroni says what it is."""
        return self._ports[2 * member + 1]

    def _start_member(self, member: int) -> None:
        api, server = f"127.0.0.1:{self._api(member)}", f"127.0.0.1:{self._port(member)}"
        environment = {
            "NAME": f"db{member}",
            "ETCD3_HOSTS": f"127.0.0.1:{self._ports[0]}",
            "RESTAPI_LISTEN": api,
            "RESTAPI_CONNECT_ADDRESS": api,
            "POSTGRESQL_LISTEN": server,
            "POSTGRESQL_CONNECT_ADDRESS": server,
            "POSTGRESQL_DATA_DIR": str(self._data(member)),
            "POSTGRESQL_BIN_DIR": str(self._programs),
            "POSTGRESQL_PGPASS": str(self._folder / "members" / f"pgpass-{member}"),
        }
        for role, name in {
            "SUPERUSER": "postgres",
            "REPLICATION": "standby",
            "REWIND": "rewind",
        }.items():
            environment |= {f"{role}_USERNAME": name, f"{role}_PASSWORD": self._password}
        variables = {f"PATRONI_{name}": value for name, value in environment.items()}
        self._start("patroni", _CONFIGURATION, name=f"patroni-{member}", **variables)

    def _start(
        self, program: str, *arguments: str | Path, name: str = "", **variables: str
    ) -> None:
        name = name or program
        said = (self._folder / f"{name}.txt").open("ab")
        # Of its own: Patroni runs on the system's Python, which must not find our packages.
        system = {"PATH": "/usr/bin:/bin", "HOME": str(self._folder / "members"), "LC_ALL": "C"}
        self._running[name] = subprocess.Popen(
            [program, *map(str, arguments)],
            env=system | variables,
            stdout=said,
            stderr=said,
            user=self._user,
            start_new_session=True,
        )
        said.close()

    def _data(self, member: int) -> Path:
        return self._folder / "members" / f"data-{member}"

    def _kill_server(self, member: int) -> None:
        """A member's PostgreSQL with all its processes: it outlives its Patroni."""
        with suppress(OSError, ValueError):
            pid = int((self._data(member) / "postmaster.pid").read_text().split()[0])
            if str(self._data(member)) in Path(f"/proc/{pid}/cmdline").read_text():
                kill_with_children(pid)


def _free_ports(count: int) -> list[int]:
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports

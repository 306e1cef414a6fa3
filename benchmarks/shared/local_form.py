"""`deploy/local.sh` in a folder of its own, and who of it can be killed."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "deploy" / "local.sh"
_LONGEST = 400.0
"""Seconds that the script may take."""
LONGEST = 180.0
"""Seconds that anything may take to come about."""


class LocalForm:
    """The shared form as processes on loopback. Leaving the `with` block ends them, and removes the
    folder unless it is `kept`. `environment` has more variables of the script, such as how many
    replicas.
    """

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        # Not below TMPDIR: the user who runs PostgreSQL must be able to reach it.
        self.folder = Path(tempfile.mkdtemp(prefix="topbill-local-", dir="/tmp"))
        self.folder.chmod(0o711)
        self.data = self.folder / "data"
        self.kept = False
        self._environment = {**(environment or {}), "TOPBILL_LOCAL": str(self.folder)}

    def __enter__(self) -> LocalForm:
        return self

    def __exit__(self, *_problem: object) -> None:
        self.run("down")
        if not self.kept:
            shutil.rmtree(self.folder)

    def run(self, *arguments: str) -> str:
        """What the script says. Raises RuntimeError, with all of it, where it fails."""
        done = subprocess.run(
            [SCRIPT, *arguments],
            env={**os.environ, **self._environment},
            capture_output=True,
            text=True,
            timeout=_LONGEST,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"{SCRIPT.name} {' '.join(arguments)}: {done.stdout}{done.stderr}")
        return done.stdout

    def environment(self) -> dict[str, str]:
        """What commands of one's own need in theirs to find the log."""
        lines = (self.folder / "environment").read_text().splitlines()
        words = [shlex.split(line)[1] for line in lines]
        return dict(word.split("=", 1) for word in words)

    def replica_ports(self) -> list[int]:
        """Where the replicas listen."""
        return self._ports()[10 : 10 + len(self.names("serve"))]

    def ports(self) -> list[int]:
        """Where haproxy listens or, where there is none, the replicas."""
        return self._ports()[:1] if shutil.which("haproxy") else self.replica_ports()

    def _ports(self) -> list[int]:
        return list(map(int, (self.folder / "ports").read_text().split()))

    def names(self, kind: str = "") -> list[str]:
        """The processes of a kind, such as serve: serve-1, serve-2."""
        return sorted(name for name in self.pids() if name.startswith(kind))

    def pids(self) -> dict[str, int]:
        """All that are noted, by name."""
        notes = (self.folder / "run").iterdir()
        return {note.name: int(note.read_text().split()[0]) for note in notes}

    def processes(self) -> list[str]:
        """The command lines of all processes that have to do with the folder."""
        lines = []
        for process in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):  # it has just ended
                line = process.read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if str(self.folder) in line:
                    lines.append(line)
        return lines

    def kill(self, name: str) -> None:
        """The process and its children at once, as a power cut does; waits until another one has
        its place.
        """
        pid = self.pids()[name]
        kill_with_children(pid)
        until(lambda: self.pids().get(name, pid) != pid, f"{name} is started again")


class LocalServers:
    """The two PostgreSQL servers of a form."""

    def __init__(self, form: LocalForm) -> None:
        self._form = form

    def is_primary(self, name: str) -> bool:
        """Whether a server's folder is a primary's."""
        data = self._form.folder / name / "data"
        return (data / "PG_VERSION").exists() and not (data / "standby.signal").exists()

    def is_whole(self) -> bool:
        """Whether there is a standby that has all that is acknowledged."""
        return (self._form.folder / "synchronous").exists()

    def kill(self, kind: str) -> None:
        """The primary or the standby, with all its processes."""
        for name in self._form.names("postgres"):
            if self.is_primary(name) == (kind == "primary"):
                self._form.kill(name)
                return


def kill_with_children(pid: int) -> None:
    """Kill -9 of a process and its children, as far as they are there."""
    children = ""
    with suppress(OSError):
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    for each in (pid, *map(int, children.split())):
        with suppress(ProcessLookupError):
            os.kill(each, signal.SIGKILL)


def until(
    holds: Callable[[], bool], what: str, why_not: Callable[[], Iterable[str]] = tuple
) -> None:
    """Wait for it; raises RuntimeError after `LONGEST`, and says why it does not hold."""
    deadline = time.monotonic() + LONGEST
    while not holds():
        if time.monotonic() > deadline:
            reasons = "".join(f"\n  {reason}" for reason in why_not())
            raise RuntimeError(f"not after {LONGEST:.0f} s: {what}{reasons}")
        time.sleep(0.05)

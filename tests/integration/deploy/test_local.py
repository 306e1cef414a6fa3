"""The shared form as processes on loopback: what CI has of a cluster."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests import postgres_server

from .programs import DEPLOY

SCRIPT = DEPLOY / "local.sh"


class LocalForm:
    """A folder of `local.sh`, and what runs of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, *arguments: str) -> str:
        """What the script says; it must succeed."""
        done = subprocess.run(
            [SCRIPT, *arguments],
            env=os.environ | {"TOPBILL_LOCAL": str(self.folder)},
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def pids(self) -> dict[str, int]:
        """Those that are noted, by name."""
        notes = (self.folder / "run").iterdir()
        return {note.name: int(note.read_text().split()[0]) for note in notes}

    def kill(self, name: str) -> None:
        """The process and its children at once."""
        pid = self.pids()[name]
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for each in (pid, *map(int, children)):
            os.kill(each, signal.SIGKILL)

    def processes(self) -> list[str]:
        """The command lines of all processes that have to do with the folder."""
        lines = []
        for process in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                line = process.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue  # it has just ended
            if str(self.folder) in line:
                lines.append(line)
        return lines


@pytest.fixture
def form() -> Iterator[LocalForm]:
    lacking = postgres_server.missing()
    if lacking:
        pytest.skip(lacking)
    # Not below TMPDIR: the user who runs PostgreSQL must be able to reach it.
    folder = Path(tempfile.mkdtemp(prefix="topbill-local-", dir="/tmp"))
    folder.chmod(0o711)
    form = LocalForm(folder)
    try:
        yield form
    finally:
        form.run("down")
        shutil.rmtree(folder)


@pytest.mark.slow  # .ci/run names this file, so that CI runs it all the same
def test_the_demo_loses_nothing_on_the_shared_form_and_down_leaves_nothing(form: LocalForm) -> None:
    form.run("up")
    before = form.pids()
    form.run("up")
    assert form.pids() == before, "what runs is left as it is"
    named = {"serve-1", "serve-2", "worker-1", "worker-2", "postgres-1", "postgres-2"}
    assert named | {"dashboard", "tend"} <= before.keys()

    assert (form.folder / "pgpass").stat().st_mode & 0o777 == 0o600
    secrets = re.findall(r"([0-9a-f]{32})\n", (form.folder / "pgpass").read_text())
    assert len(secrets) == 3
    lines = "\n".join(form.processes())
    assert lines.count("topbill serve") == 2
    assert [secret for secret in secrets if secret in lines] == []

    for name in ("postgres-1", "serve-1", "worker-1"):
        form.kill(name)
    said = form.run("demo", "--seconds", "5")
    counted = re.search(r"^([\d,]+) decisions answered: .* 0 lost\.$", said, re.MULTILINE)
    assert counted is not None, said
    assert int(counted[1].replace(",", "")) > 100
    after = form.pids()
    assert after["serve-1"] != before["serve-1"]
    assert after["serve-2"] == before["serve-2"]
    assert not (form.folder / "postgres-2/data/standby.signal").exists()
    assert (form.folder / "postgres-1/data/standby.signal").exists()

    form.run("down")
    assert form.processes() == []
    assert form.pids() == {}


def test_a_wrong_word_is_refused(tmp_path: Path) -> None:
    done = subprocess.run([SCRIPT, "start"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "deploy/local.sh: got 'start'; expected up, demo or down\n"

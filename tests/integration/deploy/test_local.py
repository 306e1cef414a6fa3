"""The shared form as processes on loopback: what CI has of a cluster."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from benchmarks.shared.local_form import SCRIPT, LocalForm, LocalServers
from tests import postgres_server


@pytest.fixture
def form() -> Iterator[LocalForm]:
    lacking = postgres_server.missing()
    if lacking:
        pytest.skip(lacking)
    with LocalForm() as form:
        yield form


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
    servers = LocalServers(form)
    assert servers.is_primary("postgres-2")
    assert not servers.is_primary("postgres-1")

    form.run("down")
    assert form.processes() == []
    assert form.pids() == {}


@pytest.mark.slow
def test_processes_that_share_no_disk_lose_nothing_either() -> None:
    if lacking := postgres_server.missing():
        pytest.skip(lacking)
    for library in ("fsspec", "moto", "obstore"):
        pytest.importorskip(library, reason="pip install -r requirements-dev.lock")
    with LocalForm({"TOPBILL_LOCAL_LAKE": "s3"}) as form:
        said = form.run("demo", "--seconds", "5")
        assert re.search(r"^[\d,]+ decisions answered: .* 0 lost\.$", said, re.MULTILINE), said
        folders = {folder.name for folder in form.data.iterdir()}
        assert {"serve-1", "serve-2", "worker-1", "worker-2"} <= folders


def test_a_wrong_word_is_refused(tmp_path: Path) -> None:
    done = subprocess.run([SCRIPT, "start"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "deploy/local.sh: got 'start'; expected up, demo or down\n"

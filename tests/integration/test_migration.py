"""A data folder of 0.1.0 under the processes of today: migrated by whoever starts first, learned
states that follow from the log, and nothing lost."""

from __future__ import annotations

import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from topbill import lake
from topbill.domain.errors import TopbillError

from ..processes import topbill

ARCHIVE = Path(__file__).parents[1] / "data" / "0.1.0" / "folder.tar.xz"
DECISIONS = 548
KEYS = ("home-artwork", "home-rows", "home-titles", "page-artwork", "page-rows", "page-titles")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The data folder that 0.1.0 left."""
    with tarfile.open(ARCHIVE) as archive:
        # Python knows filters from 3.11.4 on, and asks for one from 3.14 on.
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        archive.extractall(tmp_path / "old")  # noqa: S202  (our own file)
    return tmp_path / "old" / "data"


def test_the_command_migrates_and_every_state_still_follows_from_the_log(data: Path) -> None:
    refused = topbill("report", "home-artwork", "--data", data)
    assert (refused.returncode, "topbill migrate" in refused.stderr) == (1, True)
    done = topbill("migrate", "--data", data)
    assert (done.returncode, done.stderr) == (0, "")
    assert "440 rows written under at → decided_at, micros → latency_us" in done.stdout
    assert str(next(data.glob("backup-*"))) in done.stdout
    for key in KEYS:
        verified = topbill("verify", key, "--data", data)
        assert verified.returncode == 0, verified.stdout + verified.stderr
    assert topbill("report", "home-artwork", "--data", data).returncode == 0
    assert "nothing to do" in topbill("migrate", "--data", data).stdout


def test_a_worker_migrates_the_folder_and_publishes_what_only_the_log_had(
    data: Path, folder: Path
) -> None:
    """`folder` has an experiment that the data don't know; what they know is as if removed."""
    command = ["worker", "--experiments", str(folder), "--data", str(data)]
    with subprocess.Popen(
        [sys.executable, "-m", "topbill", *command], stderr=subprocess.PIPE, text=True
    ) as worker:
        try:
            assert until_published(data) == DECISIONS
        finally:
            worker.send_signal(signal.SIGTERM)
            _, messages = worker.communicate(timeout=60)
    assert "is of schema version 2 now" in messages
    assert "is a copy of the lake as it was" in messages


def until_published(data: Path) -> int:
    """The decisions of the record, once all are there, or after some minutes."""
    published = 0
    for _ in range(600):
        try:
            rows = lake.sql(data / lake.DATABASE, "SELECT count(*) AS n FROM decisions").to_pylist()
            published = int(rows[0]["n"])
        except TopbillError:
            published = 0
        if published == DECISIONS:
            break
        time.sleep(0.5)
    return published

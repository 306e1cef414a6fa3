"""Acknowledged means durable: the short form of the kill benchmark, which strikes everything that
may be at work on a data folder.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.end_to_end

ROOT = Path(__file__).parents[2]
TARGETS = (
    "service",
    "worker",
    "publisher",
    "compaction",
    "backup",
    "restore",
    "erase",
    "retain",
    "migrate --down",
    "migrate",
    "up",
)


@pytest.mark.parametrize("kills", [12, pytest.param(150, marks=pytest.mark.slow)])
def test_nothing_acknowledged_is_lost_whatever_is_killed(kills: int) -> None:
    line = [sys.executable, "-m", "benchmarks.kill", "--kills", str(kills)]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    for target in TARGETS:
        assert re.search(rf"[(, ]{target} [1-9]", said), f"{target}: {said}"
    acknowledged = re.search(r"acknowledged: ([\d,]+) decisions", said.splitlines()[-1])
    assert acknowledged is not None, said
    assert int(acknowledged[1].replace(",", "")) > 100, said
    for experiment in ("home-artwork", "home-rows", "home-titles", "page-titles"):
        assert re.search(rf"{experiment} (0/)?0[,;]", said), f"{experiment}: {said}"

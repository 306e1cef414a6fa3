"""A bit that is flipped in a file of a data folder or a backup, of whatever kind, is harmless or
named. The long form is `python -m benchmarks.flips`.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_flipped_bit_is_harmless_or_named(tmp_path: Path) -> None:
    line = [sys.executable, "-m", "benchmarks.flips", "--flips", "40", "--folder", str(tmp_path)]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-2_000:]
    assert "40 flips, 0 bad" in done.stdout

"""The programs that check what is in deploy/, where they are here, and what deploy/ starts."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from topbill.cli import app

ROOT = Path(__file__).parents[3]
DEPLOY = ROOT / "deploy"


def run(program: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """What a program says; the test is skipped where it isn't here (`.ci/deploy` gets some)."""
    where = shutil.which(program)
    if where is None:
        pytest.skip(f"{program} is not here")
    return subprocess.run(
        [where, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        # A program in Python has packages of its own.
        env={"PATH": f"{Path(where).parent}:/usr/bin:/bin", "HOME": "/nonexistent"},
    )


def assert_command(arguments: list[str], verb: str) -> dict[str, object]:
    """`topbill ARGUMENTS` is that verb with options that it has; returns what they say."""
    assert arguments[0] == verb
    _, bound, _ = app.parse_args(arguments, print_error=False, exit_on_error=False)
    return dict(bound.arguments)

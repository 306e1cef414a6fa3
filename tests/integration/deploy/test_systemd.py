"""The units are taken by systemd, start what there is, and may do little."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from .programs import DEPLOY, assert_command, run

UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
VERBS = {
    "topbill-service": "serve",
    "topbill-worker": "worker",
    "topbill-dashboard": "dashboard",
}
BINARY = "/opt/topbill/bin/topbill"


def settings(unit: Path) -> dict[str, str]:
    return dict(re.findall(r"^(\w+)=(.*)$", unit.read_text(), re.MULTILINE))


def test_each_process_has_its_unit() -> None:
    assert {unit.stem for unit in UNITS} == VERBS.keys()


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_it_starts_what_there_is_and_starts_it_again(unit: Path) -> None:
    wanted = settings(unit)
    program, *arguments = shlex.split(wanted["ExecStart"])
    assert program == BINARY
    assert_command(arguments, VERBS[unit.stem])
    assert wanted["Restart"] == "always"
    assert int(wanted["TimeoutStopSec"]) >= 15
    assert wanted["User"] == "topbill"


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_it_may_write_its_data_and_nothing_else(unit: Path) -> None:
    wanted = settings(unit)
    assert wanted["NoNewPrivileges"] == "yes"
    assert wanted["ProtectSystem"] == "strict"
    assert wanted["ReadWritePaths"] == "/var/lib/topbill"
    assert wanted["CapabilityBoundingSet"] == ""
    # Numba compiles: memory is written and then executed.
    assert "MemoryDenyWriteExecute" not in wanted


@pytest.fixture
def installed(tmp_path: Path) -> list[Path]:
    """The units as of a machine where the program is."""
    program = tmp_path / "topbill"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    copies = []
    for unit in UNITS:
        copy = tmp_path / unit.name
        copy.write_text(unit.read_text().replace(BINARY, str(program)))
        copies.append(copy)
    return copies


def test_systemd_takes_them(installed: list[Path]) -> None:
    verified = run("systemd-analyze", "verify", *installed)
    assert (verified.returncode, verified.stderr) == (0, "")


def test_they_are_as_closed_as_systemd_calls_ok(installed: list[Path]) -> None:
    for unit in installed:
        judged = run("systemd-analyze", "security", "--offline=yes", "--threshold=25", unit)
        if "unrecognized option" in judged.stderr:
            pytest.skip("this systemd-analyze judges no files")
        assert judged.returncode == 0, judged.stdout + judged.stderr

"""The five-minute start does what it says: its commands print what the page shows, its Python
runs.
"""

from __future__ import annotations

import doctest
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from topbill.cli.supervise import Processes, commands, free_port

pytestmark = pytest.mark.end_to_end

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "five-minutes.md").read_text()
BLOCKS = re.findall(r"^```(console|python)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the page's paths exist."""
    folder = tmp_path_factory.mktemp("five-minutes")
    for name in ("experiments", "tests"):
        (folder / name).symlink_to(ROOT / name)
    return folder


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    """What `topbill up` starts, on a free port."""
    port = free_port("127.0.0.1", 0)
    with Processes() as processes:
        for name, command in commands(
            str(folder / "experiments"), str(folder / "data"), "127.0.0.1", port
        ).items():
            processes.start(name, *command)
        processes.wait_until(f"http://127.0.0.1:{port}/healthz", 300.0)
        yield f"http://127.0.0.1:{port}"


def run(command: list[str], folder: Path) -> str:
    """Everything that a command prints, on a terminal of 80 columns."""
    env = os.environ | {
        "COLUMNS": "80",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    done = subprocess.run(
        command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120
    )
    return done.stdout.decode()


def shown(block: str) -> tuple[str, str]:
    """A console block's command and the output that the page promises, without the bars' transient
    lines.
    """
    command, _, output = block.removeprefix("$ ").partition("\n")
    return command, output


def test_the_page_has_commands_and_python() -> None:
    assert [kind for kind, _ in BLOCKS] == ["console"] * 4 + ["python", "console"]
    assert all(block.startswith("$ topbill ") for kind, block in BLOCKS if kind == "console")


@pytest.mark.parametrize(
    "block", [block for kind, block in BLOCKS if kind == "console" and "sql" not in block]
)
def test_a_command_prints_what_the_page_shows(block: str, folder: Path) -> None:
    command, promised = shown(block)
    got = run(["sh", "-c", command], folder)
    assert doctest.OutputChecker().check_output(promised, got, FLAGS), got


def test_the_python_decides_and_rewards_and_the_record_holds_it(folder: Path, address: str) -> None:
    code = next(block for kind, block in BLOCKS if kind == "python")
    got = run([sys.executable, "-c", code.replace("http://127.0.0.1:8600", address)], folder)
    assert "Error" not in got
    assert "svg" in got
    command, promised = shown(BLOCKS[-1][1])
    for _ in range(20):
        got = run(["sh", "-c", command], folder)
        if doctest.OutputChecker().check_output(promised, got, FLAGS):
            return
    pytest.fail(got)

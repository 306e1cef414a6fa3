"""A live service and worker over the example experiments, for what is told to users to run."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from topbill.cli.supervise import Processes, commands, free_port

ROOT = Path(__file__).parents[3]
BANNER = ROOT / "docs" / "from-an-ab-tool.md"


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Its address."""
    folder = tmp_path_factory.mktemp("live")
    shutil.copytree(ROOT / "experiments", folder / "experiments")
    first = BANNER.read_text().split("```yaml\n")[1].split("```")[0]
    (folder / "experiments" / "signup-banner.yaml").write_text(first)
    port = free_port("127.0.0.1", 0)
    command = commands(str(folder / "experiments"), str(folder / "data"), "127.0.0.1", port)[
        "service"
    ]
    with Processes() as processes:
        processes.start("service", *command)
        processes.wait_until(f"http://127.0.0.1:{port}/healthz", 300.0)
        yield f"http://127.0.0.1:{port}"

"""A running application over a folder of experiments; a module with experiments of its own has its
own `settings`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from topbill.log import Log, open_log
from topbill.service.app import create_app
from topbill.service.settings import Settings

from ...local_client import LocalClient


@pytest.fixture
def settings(folder: Path, tmp_path: Path) -> Settings:
    """The small experiment, and no data yet."""
    return Settings(folder, tmp_path / "data")


@pytest.fixture
def client(settings: Settings) -> Iterator[TestClient]:
    """Who calls it."""
    with LocalClient(create_app(settings), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def log(settings: Settings, client: TestClient) -> Iterator[Log]:
    """A handle of its own on the log."""
    log = open_log(settings.log_path)
    yield log
    log.close()

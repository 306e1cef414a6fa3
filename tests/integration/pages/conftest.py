"""The small page of tests/small_page.py, and a service over it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from topbill.service.app import create_app
from topbill.service.settings import Settings

from ...local_client import LocalClient
from ...small_page import Home, home, home_class

__all__ = ["home", "home_class"]


@pytest.fixture
def settings(home: Home, tmp_path: Path) -> Settings:
    """A service over the small page."""
    return Settings(home.folder, tmp_path / "data")


@pytest.fixture
def client(settings: Settings) -> Iterator[TestClient]:
    """The service over HTTP."""
    with LocalClient(create_app(settings), raise_server_exceptions=False) as client:
        yield client

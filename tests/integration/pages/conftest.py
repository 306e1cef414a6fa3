"""The small page of tests/small_page.py, and a service over it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from topbill.service.app import create_app
from topbill.service.settings import Settings

from ...local_client import LocalClient
from ...small_page import Home, home_class

__all__ = ["home_class"]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """The small page as of now: a service goes by its own clock."""
    return Home(tmp_path / "experiments", time.time())


@pytest.fixture
def settings(home: Home, tmp_path: Path) -> Settings:
    """A service over the small page."""
    return Settings(home.folder, tmp_path / "data")


@pytest.fixture
def client(settings: Settings) -> Iterator[TestClient]:
    """The service over HTTP."""
    with LocalClient(create_app(settings), raise_server_exceptions=False) as client:
        yield client

"""A log in PostgreSQL that is made and empty, and that this process and those it starts use."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests import postgres_server

from topbill.domain.log_url import LOG_VARIABLE
from topbill.log import Log, migrate_log, open_log

pytest.importorskip("psycopg", reason="no psycopg: pip install -r requirements-dev.lock")


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch) -> str:
    """Where the log is."""
    url = postgres_server.fresh_url()
    migrate_log(url)
    monkeypatch.setenv(LOG_VARIABLE, url)
    return url


@pytest.fixture
def log(url: str) -> Iterator[Log]:
    """A handle on it."""
    with open_log(url) as log:
        yield log

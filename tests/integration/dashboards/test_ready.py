"""What the server works out as it starts, before anybody looks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import streamlit as st

from board import data, ready
from topbill.reporting import answer_cache
from topbill.reporting.queries import preview


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The questions that are put to the record, as they come, and nothing of before is kept."""
    st.cache_data.clear()
    st.cache_resource.clear()
    names = list[str]()
    find = answer_cache.find

    def found(where: str, query: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        names.append(answer_cache.query_name(query))
        return find(where, query, *arguments, **named)

    monkeypatch.setattr(answer_cache, "find", found)
    # Another thread would load them while the test has ended.
    monkeypatch.setattr(data, "get_ready", preview.load_policies)
    return names


def test_home_asks_nothing_that_takes_long_after_the_server_started(
    asked: list[str],
    alone: Path,
    open_app: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TOPBILL_DATA", str(alone))
    ready.prepare()
    assert asked == [answer_cache.query_name(query) for query in ready.QUERIES]
    asked.clear()
    app = open_app(alone)
    assert not app.exception
    assert "database.published_at" in asked
    assert not {*asked} & {*answer_cache.QUERIES, *map(answer_cache.query_name, ready.QUERIES)}


def test_a_large_record_is_left_to_the_worker(
    asked: list[str], alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOPBILL_DATA", str(alone))
    monkeypatch.setattr(answer_cache, "LARGE", 400)
    ready.prepare()
    assert asked == []


def test_without_a_record_nothing_is_prepared(
    asked: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOPBILL_DATA", str(tmp_path))
    ready.prepare()
    assert asked == []

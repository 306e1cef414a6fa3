"""Reading for the pages: everything comes from `topbill.reporting`, and is kept until the lake has
changed.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from threading import Thread
from typing import Any

import streamlit as st

from topbill import reporting
from topbill.domain.errors import TopbillError
from topbill.reporting import answer_cache
from topbill.reporting.queries import database, preview
from topbill.spec import Experiment

EVERY = 10.0
"""Seconds after which the record is looked at anew."""


def folder() -> Path:
    """The data folder that the dashboard was started on."""
    return Path(os.environ.get("TOPBILL_DATA", "data"))


def pictures() -> Path:
    """Where artwork lies that payloads name."""
    return Path(os.environ.get("TOPBILL_EXPERIMENTS", "experiments")) / "artwork"


@st.cache_data(
    ttl=EVERY, refresh_mode="background", max_entries=512, show_spinner="Reading the record …"
)
def _kept(name: str, where: str, *arguments: Any) -> Any:
    """The last answer at once, however old; where the record has moved on, a newer one is fetched
    behind it.
    """
    version, next_at = _last.get((name, where, arguments), ("", 0.0))
    if time.monotonic() >= next_at:
        version = database.version(where, EVERY)
    return _at(name, where, version, *arguments)


@st.cache_data(max_entries=512, show_spinner=False)
def _at(name: str, where: str, version: str, *arguments: Any) -> Any:
    started = time.monotonic()
    found = answer_cache.find(where, (name, *arguments)) if arguments else None
    answer = answer_cache.ASK[name](where, *arguments) if found is None else found.answer
    ended = time.monotonic()
    _last[name, where, arguments] = version, ended + 20.0 * (ended - started)
    return answer


_last: dict[tuple[str, str, tuple[Any, ...]], tuple[str, float]] = {}
"""Of which version the last answer was, and when a newer one may be asked for: what takes long is
asked seldom, so that reading takes a twentieth of the time."""


def ask(what: str, *arguments: Any) -> Any:
    """The answer of one of `reporting.kept.ASK`, kept for as long as the lake shows the same
    version.
    """
    return _kept(what, str(folder().resolve()), *arguments)


def loaded(key: str) -> reporting.Report:
    """The experiment's report."""
    return ask("report", key)  # type: ignore[no-any-return]


def as_of(key: str) -> datetime | None:
    """Of when the experiment's numbers are, where they were worked out before the latest record."""
    where = str(folder().resolve())
    return _moment(where, key, database.version(where, EVERY))


@st.cache_data(max_entries=512, show_spinner=False)
def _moment(where: str, key: str, version: str) -> datetime | None:  # noqa: ARG001
    found = answer_cache.find(where, ("report", key))
    return None if found is None else found.at


def listed() -> list[database.Listed]:
    """All experiments."""
    return ask("listed")  # type: ignore[no-any-return]


def one(key: str) -> database.Listed:
    """One line of that list."""
    return next(line for line in listed() if line.key == key)


def experiment(key: str) -> Experiment:
    """The experiment as it was published."""
    return ask("experiment", key)  # type: ignore[no-any-return]


@st.cache_resource(max_entries=16, show_spinner="Loading policies …")
def _policies(where: str, key: str, version: str) -> Any:  # noqa: ARG001
    return preview.load_policies(where, key)


@st.cache_resource(show_spinner=False)
def get_ready(where: str, key: str) -> None:
    """Load policies once behind the first page: compiled functions come with them, which Preview
    would wait for.
    """

    def load() -> None:
        with suppress(TopbillError):
            preview.load_policies(where, key)

    Thread(target=load, daemon=True).start()


def policies(key: str) -> Any:
    """The experiment with its newest published policies, to preview with."""
    return _policies(str(folder().resolve()), key, database.version(folder(), EVERY))

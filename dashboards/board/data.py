"""Reading for the pages: everything comes from `topbill.report`, and is kept until the lake has changed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import streamlit as st

from topbill import report
from topbill.report import drift, lookup, preview, reading, series, shown, worth

EVERY = 10.0
"""Seconds after which the record is looked at anew."""


def folder() -> Path:
    """The data folder that the dashboard was started on."""
    return Path(os.environ.get("TOPBILL_DATA", "data"))


def pictures() -> Path:
    """Where artwork lies that payloads name."""
    return Path(os.environ.get("TOPBILL_EXPERIMENTS", "experiments")) / "artwork"


@st.cache_data(ttl=EVERY, refresh_mode="background", max_entries=512, show_spinner="Reading the record …")
def _kept(_ask: Callable[..., Any], name: str, where: str, *arguments: Any) -> Any:
    """The last answer at once, however old; where the record has moved on, a newer one is fetched behind it."""
    version, next_at = _last.get((name, where, arguments), ("", 0.0))
    if time.monotonic() >= next_at:
        version = reading.version(where, EVERY)
    return _at(_ask, name, where, version, *arguments)


@st.cache_data(max_entries=512, show_spinner=False)
def _at(_ask: Callable[..., Any], name: str, where: str, version: str, *arguments: Any) -> Any:
    started = time.monotonic()
    found = _ask(where, *arguments)
    ended = time.monotonic()
    _last[name, where, arguments] = version, ended + 20.0 * (ended - started)
    return found


_last: dict[tuple[str, str, tuple[Any, ...]], tuple[str, float]] = {}
"""Of which version the last answer was, and when a newer one may be asked for: what takes long is asked seldom, so that
reading takes a twentieth of the time."""


def _ask(ask: Callable[..., Any], *arguments: Any) -> Any:
    """The answer of a function of `report`, kept for as long as the lake shows the same version."""
    return _kept(ask, f"{ask.__module__}.{ask.__qualname__}", str(folder().resolve()), *arguments)


def _report(where: str, key: str) -> report.Report:
    return report.load(key, where)


def loaded(key: str) -> report.Report:
    """The experiment's report."""
    return _ask(_report, key)  # type: ignore[no-any-return]


def listed() -> list[reading.Listed]:
    """All experiments."""
    return _ask(reading.listed)  # type: ignore[no-any-return]


def one(key: str) -> reading.Listed:
    """One line of that list."""
    return next(line for line in listed() if line.key == key)


def experiment(key: str) -> Any:
    """The experiment as it was published."""
    return _ask(reading.load_experiment, key)


ASK: dict[str, Callable[..., Any]] = {
    "revisions": reading.revisions,
    "published": reading.published_at,
    "troubles": reading.troubles,
    "progress": series.progress,
    "traffic": series.traffic,
    "units": series.units_over_time,
    "shares": shown.shares_over_time,
    "positions": shown.positions,
    "by_segment": shown.by_segment,
    "exploration": shown.exploration,
    "explored": shown.explored_by_position,
    "versions": shown.policy_versions,
    "worth": worth.worth,
    "groups": worth.groups,
    "find": lookup.find,
    "of_unit": lookup.of_unit,
    "latest": lookup.latest,
    "delays": lookup.delays,
    "joins": lookup.joins,
    "drift": drift.drift,
}


def ask(what: str, *arguments: Any) -> Any:
    """The answer of one of `ASK`, kept likewise."""
    return _ask(ASK[what], *arguments)


@st.cache_resource(max_entries=16, show_spinner="Loading policies …")
def _policies(where: str, key: str, version: str) -> Any:  # noqa: ARG001
    return preview.load_policies(where, key)


def policies(key: str) -> Any:
    """The experiment with its newest published policies, to preview with."""
    return _policies(str(folder().resolve()), key, reading.version(folder(), EVERY))

"""Reading for the pages: everything comes from functions of `topbill.reporting`, and is kept until
the record has changed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

import streamlit as st

from topbill import reporting
from topbill.domain.errors import TopbillError
from topbill.engine import CompiledExperiment
from topbill.lake import database_of
from topbill.launch import UnitAssignment, experiments_beside, unit_assignment
from topbill.log.tombstones import Mark, tombstones_mark
from topbill.pages import (
    PagePayloads,
    layer_files,
    layer_payloads,
    page_titles,
)
from topbill.reporting import answer_cache
from topbill.reporting.queries import database, preview
from topbill.reporting.visitors import PICTURE_HOSTS
from topbill.spec import Experiment

P = ParamSpec("P")
T = TypeVar("T")

EVERY = 10.0
"""Seconds after which the record is looked at anew."""
_AT_MOST = 1 / 20
"""Share of the time that reading one answer may take: what takes long is asked seldom."""


def folder() -> Path:
    """The data folder that the dashboard was started on."""
    return Path(os.environ.get("TOPBILL_DATA", "data"))


def experiments_folder() -> Path:
    """The experiments' folder that the dashboard was started on."""
    return Path(os.environ.get("TOPBILL_EXPERIMENTS", "experiments"))


def artwork() -> Path:
    """Where artwork lies that payloads of experiment files name."""
    return experiments_folder() / "artwork"


def picture_hosts() -> frozenset[str]:
    """The hosts that pictures may be shown from."""
    hosts = os.environ.get(PICTURE_HOSTS, "").lower().split(",")
    return frozenset(host.strip() for host in hosts if host.strip())


def page_payloads(key: str) -> PagePayloads | None:
    """What the actions look like that a page brings to the experiment; None where none does."""
    where = str(experiments_folder().resolve())
    return _page_payloads(where, key, _marks(where, key))


def page_title(key: str) -> str:
    """What people call a page; "" where its file cannot be read."""
    return _page_titles(str(experiments_folder().resolve())).get(key, "")


@st.cache_data(ttl=EVERY, show_spinner=False)
def _page_titles(where: str) -> dict[str, str]:
    return page_titles(Path(where))


@st.cache_data(ttl=EVERY, show_spinner=False)
def _marks(where: str, key: str) -> tuple[tuple[str, int], ...]:
    files = layer_files(Path(where), key)
    return tuple((str(file), file.stat().st_mtime_ns) for file in files if file.exists())


@st.cache_resource(max_entries=8, show_spinner="Reading the catalogue …")
def _page_payloads(
    where: str,
    key: str,
    marks: tuple[tuple[str, int], ...],  # noqa: ARG001  (a key of the cache)
) -> PagePayloads | None:
    return layer_payloads(Path(where), key)


def ask(query: Callable[Concatenate[str, P], T], *arguments: P.args, **named: P.kwargs) -> T:
    """The answer of a function whose first argument is the data folder.

    It is the last one at once, however old, while the record has moved on and a newer one is
    fetched behind the page.

    Args:
        query: a function of `topbill.reporting.queries`, or a report of the answer cache.
        arguments: those after the data folder.
        named: likewise.
    """
    where = str(folder().resolve())
    _forget_erased(where)
    # Streamlit hashes this instead of the function, which is another one when code is reloaded.
    key = (answer_cache.query_name(query), arguments, tuple(sorted(named.items())))
    return cast(T, _latest(where, key, query))


def ask_ahead(query: Callable[..., Any], *arguments: Any) -> None:
    """Have an answer kept before anybody asks; no page is there to show that it is worked out."""
    where = str(folder().resolve())
    _forget_erased(where)
    _of_version(where, (answer_cache.query_name(query), arguments, ()), _version(where), query)


def _forget_erased(where: str) -> None:
    """Keep no answer from before a viewer was erased: of older versions too, which nobody asks for
    any more and Streamlit would let go much later.
    """
    mark = tombstones_mark(Path(where))
    if _erased.setdefault(where, mark) != mark:
        _erased[where] = mark
        st.cache_data.clear()


_erased: dict[str, Mark | None] = {}
"""The tombstones of a data folder as they were last."""
Key = tuple[str, tuple[Any, ...], tuple[tuple[str, Any], ...]]
"""A question's name and its arguments; Streamlit keeps answers by it."""


@st.cache_data(
    ttl=EVERY, refresh_mode="background", max_entries=512, show_spinner="Reading the record …"
)
def _latest(where: str, key: Key, _query: Callable[..., Any]) -> Any:
    # Until then the old version is asked for again, which Streamlit answers from its cache.
    version, ask_again_at = _asked.get((where, key), ("", 0.0))
    if time.monotonic() >= ask_again_at:
        version = _version(where)
    return _of_version(where, key, version, _query)


def _version(where: str) -> str:
    """Names the state of the record."""
    # The worker replaces the file. Each question of a page asks, and to open it takes as long as
    # all else that a page does whose answers are kept.
    try:
        found = database_of(Path(where)).stat()
    except OSError:
        return database.version(where, EVERY)  # which says what is missing
    return _version_in(where, (found.st_ino, found.st_mtime_ns))


@st.cache_data(max_entries=64, show_spinner=False)
def _version_in(where: str, file: tuple[int, int]) -> str:  # noqa: ARG001  (a key of the cache)
    return database.version(where, EVERY)


@st.cache_data(max_entries=512, show_spinner=False)
def _of_version(where: str, key: Key, version: str, _query: Callable[..., Any]) -> Any:
    _, arguments, named = key
    # On a large record the worker has answered already, beside its publishing.
    started = time.monotonic()
    cached = answer_cache.find(where, _query, *arguments, **dict(named))
    answer = _query(where, *arguments, **dict(named)) if cached is None else cached.answer
    ended = time.monotonic()
    _asked[where, key] = version, ended + (ended - started) / _AT_MOST
    return answer


_asked: dict[tuple[str, Key], tuple[str, float]] = {}
"""Of which version the last answer was, and when a newer one may be asked for."""


def report(
    key: str, control: str | None = None, since: str | None = None, until: str | None = None
) -> reporting.Report:
    """The experiment's report, against its control or another variant, of all of the record or of
    the decisions from `since` up to but not including `until` (dates, ISO 8601, UTC).
    """
    # Without arguments where it is the usual question, which is answered in advance.
    if control is None and since is None and until is None:
        return ask(answer_cache.experiment_report, key)
    return ask(answer_cache.experiment_report, key, control, since, until)


def as_of(key: str) -> datetime | None:
    """Of when the experiment's numbers are, where they were worked out before the latest record."""
    where = str(folder().resolve())
    return _cached_moment(where, key, _version(where))


@st.cache_data(max_entries=512, show_spinner=False)
def _cached_moment(where: str, key: str, version: str) -> datetime | None:  # noqa: ARG001  (a key of the cache)
    cached = answer_cache.find(where, answer_cache.experiment_report, key)
    return None if cached is None else cached.published_at


def age() -> float:
    """Seconds since the worker last published; 0 where its clock is ahead of this one."""
    # The record's times are UTC without saying so.
    now = datetime.now(UTC).replace(tzinfo=None)
    return max(0.0, (now - ask(database.published_at)).total_seconds())


def experiments() -> list[database.ListedExperiment]:
    """All experiments, as a list shows them."""
    return ask(database.experiments)


def listed(key: str) -> database.ListedExperiment:
    """One line of that list."""
    return next(line for line in experiments() if line.key == key)


def experiment(key: str) -> Experiment:
    """The experiment as it was published."""
    return ask(database.load_experiment, key)


def policies(key: str) -> CompiledExperiment:
    """The experiment with its newest published policies, to preview with."""
    where = str(folder().resolve())
    return _policies(where, key, _version(where))


@st.cache_resource(max_entries=16, show_spinner="Loading policies …")
def _policies(where: str, key: str, version: str) -> CompiledExperiment:  # noqa: ARG001  (a key of the cache)
    return preview.load_policies(where, key)


@st.cache_resource(show_spinner=False)
def get_ready(where: str, key: str) -> None:
    """Load policies once behind the first page: compiled functions come with them, which Preview
    would wait for.
    """

    def load() -> None:
        with suppress(TopbillError):
            preview.load_policies(where, key)

    # A daemon: it must not keep the server from ending.
    Thread(target=load, daemon=True).start()


def assignment(key: str, unit: str, context: str) -> UnitAssignment:
    """Where a unit stands in an experiment, by the files as they are and the orders on them; raises
    as `unit_assignment` does, and SpecError where the files cannot be read.
    """
    # Asked anew each time: who was erased must not be remembered.
    beside = experiments_beside(experiments_folder(), key)
    return unit_assignment(beside, folder(), key, unit, context)

"""Answers worked out in advance: on a large lake a page shows the latest of them at once instead of
asking anew.

They lie beside the face, in `answers/`, a file per question: exactly what the question's function
answered on the publication that the file names. On a small lake nothing is kept, because asking is
quick there.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from hashlib import blake2b
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple, TypeAlias

import msgspec
import pandas as pd
import pyarrow as pa

from topbill.domain.errors import LogError, NotFound, TopbillError
from topbill.lake import quoted
from topbill.reporting import page
from topbill.reporting.experiment.build import load
from topbill.reporting.experiment.model import Report
from topbill.reporting.experiment.segments import segment_columns
from topbill.reporting.queries import (
    action_values,
    coverage,
    database,
    decisions,
    drift,
    exposure,
    series,
)

LARGE = 300_000
"""Decisions in the lake from which on answers are kept."""
OLDEST = timedelta(hours=1)
"""An answer that is older than the record by more than this is not shown any more."""
_PAUSE, _LONGEST_PAUSE = 30.0, 900.0
_logger = logging.getLogger("topbill")
Question: TypeAlias = tuple[str, ...]
"""A name of `ASK`, the key of an experiment or a page, and the function's other arguments."""


def _report(data: Path | str, key: str) -> Report:
    return load(key, data)


def _page(data: Path | str, key: str) -> page.PageReport:
    return page.load(key, Path(data))


ASK: dict[str, Callable[..., Any]] = {
    "report": _report,
    "listed": database.listed,
    "experiment": database.load_experiment,
    "revisions": database.revisions,
    "published": database.published_at,
    "problems": database.problems,
    "progress": series.progress,
    "traffic": series.traffic,
    "units": series.units_over_time,
    "shares": exposure.shares_over_time,
    "positions": exposure.positions,
    "by_segment": exposure.by_segment,
    "exploration": exposure.exploration,
    "explored": exposure.explored_by_position,
    "versions": exposure.policy_versions,
    "worth": action_values.worth,
    "groups": action_values.groups,
    "find": decisions.find,
    "of_unit": decisions.of_unit,
    "latest": decisions.latest,
    "delays": decisions.delays,
    "joins": decisions.joins,
    "drift": drift.drift,
    "pages": coverage.pages,
    "page": _page,
    "coverage": coverage.coverage,
}
"""Every question that a page asks, by its name; the first argument is the data folder."""
_OF_AN_EXPERIMENT = (
    "report",
    "progress",
    "units",
    "traffic",
    "delays",
    "joins",
    "drift",
    "versions",
    "explored",
)
_OF_A_VARIANT = ("shares", "exploration", "positions", "worth")
_OF_A_PAGE = ("page", "coverage")
_STRUCTS: dict[str, type] = {"report": Report, "page": page.PageReport}
"""What those questions answer with; all others that are kept answer with a frame."""


class Kept(NamedTuple):
    """An answer, and the publication that it speaks of (UTC)."""

    answer: Any
    at: datetime


class _State(NamedTuple):
    at: datetime
    revision: str


class _File(msgspec.Struct, frozen=True):
    """What a file holds: the answer (MessagePack, or an Arrow stream of a frame), to which
    question, of which state.
    """

    question: Question
    at: datetime
    revision: str
    answer: bytes


def find(data: Path | str, question: Question) -> Kept | None:
    """The kept answer, unless it is too old or the experiment has changed since. None also where a
    file is damaged.
    """
    path = _path(data, question)
    try:
        held = msgspec.msgpack.decode(path.read_bytes(), type=_File)
        answer = _unpacked(held)
    except (OSError, msgspec.DecodeError, pa.ArrowException):
        return None
    now = _state(data, question[1])
    if (
        now is None
        or held.question != question
        or held.revision != now.revision
        or now.at - held.at > OLDEST
    ):
        return None
    return Kept(answer, held.at)


def work_out(data: Path | str) -> float:
    """Keep the answers on the latest publication, if the lake is large; the seconds that this took.

    Raises NotFound when nothing was published yet, LogError when the lake cannot be read or a file
    not be written.
    """
    started = monotonic()
    lines = database.listed(data)
    if sum(line.decisions for line in lines) >= LARGE:
        for line in lines:
            if line.decisions:
                for question in questions(data, line.key):
                    _keep(data, question)
        for key in coverage.pages(data):
            for name in _OF_A_PAGE:
                _keep(data, (name, key))
    return monotonic() - started


def keep_up(data: Path, until: Callable[[float], bool]) -> None:
    """Work answers out again and again, with the least priority, in a sixth of the time. `until`
    waits so many seconds and says whether to end."""
    os.nice(19)
    took = 0.0
    while not until(min(max(_PAUSE, 5.0 * took), _LONGEST_PAUSE)):
        started = monotonic()
        try:
            took = work_out(data)
        except NotFound:
            took = 0.0
        except TopbillError as error:
            took = monotonic() - started
            _logger.warning("%s; the dashboards ask for themselves meanwhile", error)


def questions(data: Path | str, key: str) -> Iterator[Question]:
    """What the pages ask about an experiment as they open, and with every variant and group that
    they offer.
    """
    yield from ((name, key) for name in _OF_AN_EXPERIMENT)
    experiment = database.load_experiment(data, key)
    for variant in experiment.variants:
        yield from ((name, key, variant.name) for name in _OF_A_VARIANT)
        yield from (("by_segment", key, variant.name, by) for by in segment_columns(experiment))


def _keep(data: Path | str, question: Question) -> None:
    name, key, *arguments = question
    state = _state(data, key)
    if state is None:
        return
    path = _path(data, question)
    try:
        found = ASK[name](data, key, *arguments)
    except LogError:
        raise
    except TopbillError:  # a question that this experiment has no answer to: the page says why
        path.unlink(missing_ok=True)
        return
    at = (
        datetime.fromisoformat(found.published_at).replace(tzinfo=None)
        if isinstance(found, Report)
        else state.at
    )
    packed = msgspec.msgpack.encode(found) if name in _STRUCTS else _stream(found)
    held = msgspec.msgpack.encode(_File(question, at, state.revision, packed))
    fresh = path.with_suffix(f".{os.getpid()}")
    try:
        path.parent.mkdir(exist_ok=True)
        fresh.write_bytes(held)
        fresh.replace(path)
    except OSError as error:
        raise LogError(
            f"{path}: cannot be written: {error.strerror}; expected a folder to write to"
        ) from error


def _unpacked(held: _File) -> Any:
    kind = _STRUCTS.get(held.question[0])
    if kind is None:
        return pa.ipc.open_stream(held.answer).read_pandas()
    return msgspec.msgpack.decode(held.answer, type=kind)


def _stream(frame: pd.DataFrame) -> bytes:
    table, out = pa.Table.from_pandas(frame), pa.BufferOutputStream()
    with pa.ipc.new_stream(out, table.schema) as stream:
        stream.write_table(table)
    return bytes(out.getvalue())


def _state(data: Path | str, key: str) -> _State | None:
    """The publication's time and the experiment's revision in it: a page's is that of all
    experiments together. None where there is none."""
    own = f"(SELECT revision FROM experiments WHERE key = {quoted(key)})"  # noqa: S608
    every = "(SELECT string_agg(revision, '.' ORDER BY key) FROM experiments)"
    query = f"SELECT published_at AS at, coalesce({own}, {every}) AS revision FROM published"  # noqa: S608
    with database.opened(data) as connection:
        (found,) = database.rows(connection, query)
    return None if found["revision"] is None else _State(**found)


def _path(data: Path | str, question: Question) -> Path:
    return (
        Path(data)
        / "answers"
        / f"{blake2b(repr(question).encode(), digest_size=12).hexdigest()}.answer"
    )

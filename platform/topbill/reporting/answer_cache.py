"""Answers worked out in advance: on a large lake a page shows the latest of them at once instead of
asking anew.

They lie beside the analytics database, in `answers/`, a file for each question: exactly what its
function answered on the publication that the file names. On a small lake none are kept, because
asking is quick there.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import blake2b
from pathlib import Path
from time import monotonic
from typing import (
    Any,
    Concatenate,
    Generic,
    Literal,
    NamedTuple,
    ParamSpec,
    TypeVar,
    cast,
    get_type_hints,
)

import msgspec
import pandas as pd
import pyarrow as pa

from topbill import __version__
from topbill.domain.durable import sealed, unsealed
from topbill.domain.errors import LogError, NotFound, TopbillError
from topbill.reporting.experiment.build import load_experiment_report
from topbill.reporting.experiment.model import Report
from topbill.reporting.experiment.segments import groupings
from topbill.reporting.page import PageReport, load_page_report
from topbill.reporting.queries import (
    action_values,
    coverage,
    database,
    decisions,
    drift,
    exposure,
    series,
)

P = ParamSpec("P")
T = TypeVar("T")

LARGE = 300_000
"""Decisions in the lake from which on answers are worked out in advance."""
OLDEST = timedelta(hours=1)
"""An answer that is older than the record by more than this is not shown any more."""
_PAUSE, _LONGEST_PAUSE = 30.0, 900.0
_logger = logging.getLogger("topbill")


def experiment_report(
    data: Path | str,
    key: str,
    control: str | None = None,
    since: str | None = None,
    until: str | None = None,
) -> Report:
    """The experiment's report, asked like the other questions: data folder first."""
    return load_experiment_report(key, data, control=control, since=since, until=until)


def page_report(data: Path | str, key: str) -> PageReport:
    """The page's report, likewise."""
    return load_page_report(key, data)


class Query(NamedTuple):
    """A question that is answered in advance, and for what: once for each experiment, for each of
    its variants, for each variant and feature that makes groups, or for each page.
    """

    function: Callable[..., Any]
    scope: Literal["experiment", "variant", "segment", "page"]


def query_name(function: Callable[..., Any]) -> str:
    """The name of a question: its module's and its own, such as `exposure.positions`."""
    return f"{function.__module__.rpartition('.')[2]}.{function.__name__}"


QUERIES: dict[str, Query] = {
    query_name(query.function): query
    for query in (
        Query(experiment_report, "experiment"),
        Query(series.progress, "experiment"),
        Query(series.units_over_time, "experiment"),
        Query(series.traffic, "experiment"),
        Query(decisions.delays, "experiment"),
        Query(decisions.joins, "experiment"),
        Query(drift.drift, "experiment"),
        Query(exposure.policy_versions, "experiment"),
        Query(exposure.explored_by_position, "experiment"),
        Query(exposure.shares_over_time, "variant"),
        Query(exposure.exploration, "variant"),
        Query(exposure.positions, "variant"),
        Query(action_values.action_values, "variant"),
        Query(exposure.by_segment, "segment"),
        Query(page_report, "page"),
        Query(coverage.coverage, "page"),
    )
}
"""What pages ask and takes long on a large lake. Questions that are not here are asked anew each
time; to have one answered in advance, add it.
"""


class Question(NamedTuple):
    """A question with its arguments after the data folder, of which the first is the key of an
    experiment or a page.
    """

    query: str
    arguments: tuple[str, ...]

    @property
    def key(self) -> str:
        return self.arguments[0]


@dataclass(frozen=True)
class CachedAnswer(Generic[T]):
    """An answer, and the publication that it speaks of (UTC)."""

    answer: T
    published_at: datetime


class _RecordState(NamedTuple):
    """When the record was published, and the revision of what a question is about."""

    published_at: datetime
    revision: str


class _AnswerFile(msgspec.Struct, frozen=True):
    """What a file holds: the answer (MessagePack, or an Arrow stream of a frame), to which
    question, of which state, and which version of Topbill worked it out: others have other columns.
    """

    version: str
    question: Question
    published_at: datetime
    revision: str
    answer: bytes


def find(
    data: Path | str,
    query: Callable[Concatenate[str, P], T],
    *arguments: P.args,
    **named: P.kwargs,
) -> CachedAnswer[T] | None:
    """The answer worked out in advance.

    Args:
        data: the data folder.
        query: the function that would be asked.
        arguments: those after the data folder.
        named: likewise; there are no such answers.

    Returns:
        None where there is none, it is too old, the experiment has changed since, or the file is
        damaged.
    """
    name = query_name(query)
    if name not in QUERIES or not arguments or named:
        return None
    question = Question(name, tuple(str(argument) for argument in arguments))
    # A file may be missing, be written by another version, or be cut by a full disk: in each case
    # the question is asked anew.
    try:
        stored = unsealed(_path(data, question).read_bytes())
        file = msgspec.msgpack.decode(stored, type=_AnswerFile)
        if file.version != __version__:
            return None
        answer = _unpacked(file)
    except (OSError, ValueError, msgspec.DecodeError, pa.ArrowException):
        return None
    # The experiment may have been edited since, so that other metrics would be answered.
    state = _record_state(data, question.key)
    if state is None or file.question != question or file.revision != state.revision:
        return None
    if state.published_at - file.published_at > OLDEST:
        return None
    return CachedAnswer(cast(T, answer), file.published_at)


def refresh(data: Path | str) -> float:
    """Work out the answers on the latest publication, if the lake is large.

    Returns:
        The seconds that this took.

    Raises:
        NotFound: nothing was published yet.
        LogError: the lake cannot be read, or a file not be written.
    """
    started = monotonic()
    experiments = database.experiments(data)
    # Smaller records answer within a blink, and nothing on disk can then be stale.
    if sum(line.decisions for line in experiments) >= LARGE:
        for line in experiments:
            if line.decisions:
                for question in questions(data, line.key):
                    _work_out(data, question)
        for page in coverage.pages(data):
            for name in _names("page"):
                _work_out(data, Question(name, (page,)))
    return monotonic() - started


def run(
    data: Path, until: Callable[[float], bool], first: Callable[[], object] = lambda: None
) -> None:
    """Refresh the answers again and again, with the least priority, in a sixth of the time.

    Args:
        data: the data folder.
        until: waits so many seconds, and says whether to end.
        first: what else is to be done with each publication, before the answers.
    """
    # Answering must never be in the way of deciding, learning or publishing.
    os.nice(19)
    took = 0.0
    while not until(min(max(_PAUSE, 5.0 * took), _LONGEST_PAUSE)):
        started = monotonic()
        try:
            first()
            took = refresh(data)
        except NotFound:
            took = 0.0
        except TopbillError as error:
            took = monotonic() - started
            _logger.warning("%s; the dashboards ask for themselves meanwhile", error)


def _names(scope: str) -> list[str]:
    return [name for name, query in QUERIES.items() if query.scope == scope]


def questions(data: Path | str, key: str) -> Iterator[Question]:
    """What the pages ask about an experiment as they open, and with every variant and group that
    they offer.
    """
    # Positional arguments alone, exactly as the pages ask: another spelling would be another
    # question.
    for name in _names("experiment"):
        yield Question(name, (key,))
    experiment = database.load_experiment(data, key)
    features = groupings(experiment)
    for variant in experiment.variants:
        for name in _names("variant"):
            yield Question(name, (key, variant.name))
        for name in _names("segment"):
            for feature in features:
                yield Question(name, (key, variant.name, feature))


def _work_out(data: Path | str, question: Question) -> None:
    """Ask a question and keep its answer."""
    state = _record_state(data, question.key)
    if state is None:
        return
    path = _path(data, question)
    try:
        answer = QUERIES[question.query].function(data, *question.arguments)
    except LogError:
        raise
    except TopbillError:  # a question that this experiment has no answer to: the page says why
        path.unlink(missing_ok=True)
        return
    published_at = state.published_at
    if isinstance(answer, Report):
        # The worker may have published since the state was read: the report says of what it speaks.
        published_at = datetime.fromisoformat(answer.published_at).replace(tzinfo=None)
    file = _AnswerFile(__version__, question, published_at, state.revision, _packed(answer))
    # Renamed into place, so that a page reads the old answer or the new one, never half of it.
    temporary = path.with_suffix(f".{os.getpid()}")
    try:
        path.parent.mkdir(exist_ok=True)
        temporary.write_bytes(sealed(msgspec.msgpack.encode(file)))
        temporary.replace(path)
    except OSError as error:
        raise LogError(
            f"{path}: cannot be written: {error.strerror}; expected a folder to write to"
        ) from error


def _packed(answer: object) -> bytes:
    if not isinstance(answer, pd.DataFrame):
        return msgspec.msgpack.encode(answer)
    table, sink = pa.Table.from_pandas(answer), pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return bytes(sink.getvalue())


def _unpacked(file: _AnswerFile) -> object:
    """Raises DecodeError or an ArrowException where the file is damaged."""
    query = QUERIES.get(file.question.query)
    if query is None:
        raise msgspec.DecodeError(f"no such question: {file.question.query}")
    answered = get_type_hints(query.function)["return"]
    if answered is pd.DataFrame:
        return pa.ipc.open_stream(file.answer).read_pandas()
    return msgspec.msgpack.decode(file.answer, type=answered)


def _record_state(data: Path | str, key: str) -> _RecordState | None:
    """The publication's time and the experiment's revision in it: a page's is that of all
    experiments together. None where there is none.
    """
    with database.open_database(data) as connection:
        row = connection.row(
            """SELECT published_at, coalesce(
                (SELECT revision FROM experiments WHERE key = $key),
                (SELECT string_agg(revision, '.' ORDER BY key) FROM experiments)
            ) AS revision FROM published""",
            key=key,
        )
    return None if row["revision"] is None else _RecordState(**row)


def _path(data: Path | str, question: Question) -> Path:
    name = blake2b(msgspec.json.encode(question), digest_size=12).hexdigest()
    return Path(data) / "answers" / f"{name}.answer"

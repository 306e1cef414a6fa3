"""A lake's decisions into foreign files, a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from topbill import lake
from topbill.domain.decision import (
    DECISION_COLUMNS,
    REWARD_COLUMNS,
    decision_of,
    event_of,
    read_sql,
)
from topbill.domain.errors import BadRequest, NotFound
from topbill.domain.records import RewardEvent
from topbill.formats.obp_columns import ObpColumns, context_features, survey
from topbill.formats.registry import FORMATS, FormatName, find, target_format
from topbill.formats.rows import ActionFeatures, Progress, Row, quiet
from topbill.formats.writers import Export, Survey

BATCH = 10_000
"""Decisions held in memory at once."""
WINDOW = 50_000
"""Decisions asked of the lake at once: its files hold many thousands a row group, and are read anew
for each window.
"""
# What DuckDB may use.
_MEMORY = "512MB"

_SPEC = "SELECT spec FROM experiments WHERE key = $key"
_COUNT = "SELECT count(*) FROM decisions WHERE experiment = $key AND seq > $after"
_WEIGHTED = (
    "SELECT count(*) FROM decisions WHERE experiment = $key AND coalesce(row_weight, 1) <> 1"
)
_LAST = "SELECT max(seq) FROM decisions WHERE experiment = $key"
# The end of a window, and the times of its decisions: rewards lie by these.
_UPTO = """
SELECT max(seq), epoch_us(min(decided_at)), epoch_us(max(decided_at)) FROM (
    SELECT seq, decided_at FROM decisions
    WHERE experiment = $key AND seq > $after AND seq <= $end
    ORDER BY seq LIMIT $rows
)
"""
_DECISIONS = f"""
SELECT {read_sql(DECISION_COLUMNS)}
FROM decisions WHERE experiment = $key AND seq > $after AND seq <= $upto ORDER BY seq
"""  # noqa: S608  (our own text)
_REWARDS = f"""
SELECT {read_sql(REWARD_COLUMNS)}
FROM rewards
WHERE experiment = $key
    AND decided_at BETWEEN make_timestamp($first) AND make_timestamp($last)
    AND decision_id IN (
        SELECT decision_id FROM decisions
        WHERE experiment = $key AND seq > $after AND seq <= $upto
    )
ORDER BY seq
"""  # noqa: S608  (our own text)


def export_log(
    key: str,
    data: Path,
    target: Path,
    *,
    format: FormatName | None = None,  # noqa: A002 (what it is called on the command line)
    progress: Progress = quiet,
) -> int:
    """Write an experiment's decisions with their rewards for other tools.

    A file (dsjson, eppo, open-bandit, obp, obp-slate) is written whole: after an interruption it
    goes on. A folder of parts (parquet, arrow) and a Delta table take what is not in them yet, so
    that exporting again adds what is new.

    Args:
        key: The experiment.
        data: The data folder whose lake is read.
        target: The file or folder to write.
        format: One of FORMATS, where the target's name does not tell.
        progress: Called with how many decisions are written, and of how many.

    Returns:
        How many decisions were written.

    Raises:
        NotFound: There is no such experiment.
        BadRequest: The target is there already, its format is not known, or has no place for the
            weights of a sub-sampled log.
    """
    chosen = find(format or target_format(target))
    with ExitStack() as stack:
        connection = stack.enter_context(
            closing(lake.connect(lake.database_of(data), memory_limit=_MEMORY))
        )
        total = _count(connection, key, after=0)
        if not total:
            raise NotFound(
                f"experiment {key!r} has no decision in {data}; "
                "expected one that was published there"
            )
        if not chosen.weights:
            _check_row_weights(connection, key, chosen.name)
        features = _features(connection, key)
        export = Export(
            target,
            features,
            lambda: _survey(connection, key),
            lambda: _survey_names(connection, key),
        )
        writer = chosen.open_writer(export)
        stack.callback(writer.close)
        # What an earlier run has written counts as done, though it is not written now.
        before = total - _count(connection, key, after=writer.after)
        written = 0
        for batch in _batches(connection, key, writer.after, writer.upto):
            last_seq, _ = batch[-1]
            writer.write([row for _, row in batch], last_seq)
            written += len(batch)
            progress(before + written, total)
        writer.finish()
        return written


def _count(connection: lake.Connection, key: str, after: int) -> int:
    ((count,),) = connection.execute(_COUNT, {"key": key, "after": after}).fetchall()
    return int(count)


def _check_row_weights(connection: lake.Connection, key: str, format_name: str) -> None:
    """Raises BadRequest for decisions that stand for several, where a format would count each
    once.
    """
    ((weighted,),) = connection.execute(_WEIGHTED, {"key": key}).fetchall()
    if weighted:
        able = ", ".join(entry.name for entry in FORMATS.values() if entry.weights)
        raise BadRequest(
            "format",
            f"{key}: {weighted:,} decisions stand for several (row_weight), for which "
            f"{format_name} has no place; expected one of {able}",
        )


def _features(connection: lake.Connection, key: str) -> ActionFeatures:
    """The features of the experiment's own actions; none where no file of it was published."""
    rows = connection.execute(_SPEC, {"key": key}).fetchall()
    actions = msgspec.json.decode(rows[0][0])["actions"] if rows else []
    return {str(action["id"]): action.get("features") or {} for action in actions}


def _survey(connection: lake.Connection, key: str) -> Survey:
    """The columns of the whole log as it is now, in a pass of its own."""
    ((last_seq,),) = connection.execute(_LAST, {"key": key}).fetchall()
    upto = int(last_seq)
    return Survey(survey(_rows(connection, key, upto)), upto)


def _survey_names(connection: lake.Connection, key: str) -> Survey:
    """The names in the whole log as it is now, in a pass of its own."""
    ((last_seq,),) = connection.execute(_LAST, {"key": key}).fetchall()
    upto = int(last_seq)
    features: dict[str, None] = {}
    events: dict[str, None] = {}
    for decision, own in _rows(connection, key, upto):
        features.update(dict.fromkeys(context_features(decision)))
        events.update(dict.fromkeys(event.event for event in own))
    return Survey(ObpColumns(), upto, tuple(features), tuple(events))


def _rows(connection: lake.Connection, key: str, upto: int) -> Iterator[Row]:
    for batch in _batches(connection, key, 0, upto):
        for _, row in batch:
            yield row


def _batches(
    connection: lake.Connection, key: str, after: int, end: int
) -> Iterator[list[tuple[int, Row]]]:
    """The decisions after a `seq` through `end` with their events, in order, each with its own
    `seq`.
    """
    while True:
        window = {"key": key, "after": after}
        ((upto, first, last),) = connection.execute(
            _UPTO, {**window, "end": end, "rows": WINDOW}
        ).fetchall()
        if upto is None:
            return
        window["upto"] = upto
        # All events of the window first: the connection reads one result at a time.
        events = _events(connection, {**window, "first": first, "last": last})
        decisions = _named(connection.execute(_DECISIONS, window))
        while rows := list(islice(decisions, BATCH)):
            batch: list[tuple[int, Row]] = []
            for row in rows:
                decision = decision_of(row)
                batch.append((row["seq"], (decision, events.get(decision.decision_id, []))))
            yield batch
        after = upto


def _events(
    connection: lake.Connection, parameters: dict[str, Any]
) -> dict[str, list[RewardEvent]]:
    """Decision id → its events, in their order."""
    events: dict[str, list[RewardEvent]] = {}
    for row in _named(connection.execute(_REWARDS, parameters)):
        event = event_of(row)
        events.setdefault(event.decision_id, []).append(event)
    return events


def _named(cursor: lake.Connection) -> Iterator[dict[str, Any]]:
    """Each row of a result by the names of its columns."""
    names = [column[0] for column in cursor.description or ()]
    while rows := cursor.fetchmany(1_000):
        for row in rows:
            yield dict(zip(names, row, strict=True))

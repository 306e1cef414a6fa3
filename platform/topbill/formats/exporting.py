"""A lake's decisions into foreign files, a batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
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
from topbill.domain.errors import NotFound
from topbill.domain.records import RewardEvent
from topbill.formats import ccb, dsjson, eppo, obp, obp_slates, sources
from topbill.formats.destinations import Arrays, Delta, Lines, Note, Parts, Survey, Target
from topbill.formats.obp_columns import Layout, survey
from topbill.formats.registry import BATCH, Format, Progress, format_of, quiet
from topbill.formats.sources import Row

Features = Mapping[str, Mapping[str, Any]]
_WINDOW = 50_000
"""Decisions asked of the lake at once: its files hold many thousands a row group, and are read anew
for each window.
"""
_MEMORY = "512MB"
_UPTO = """
SELECT max(seq), epoch_us(min(decided_at)), epoch_us(max(decided_at))
FROM (SELECT seq, decided_at FROM decisions WHERE experiment = $key AND seq > $after AND seq <= $end ORDER BY seq LIMIT $rows)
"""
_DECISIONS = f"""
SELECT {read_sql(DECISION_COLUMNS)}
FROM decisions WHERE experiment = $key AND seq > $after AND seq <= $upto ORDER BY seq
"""  # noqa: S608  (our own text)
_REWARDS = f"""
SELECT {read_sql(REWARD_COLUMNS)}
FROM rewards
WHERE experiment = $key AND decided_at BETWEEN make_timestamp($first) AND make_timestamp($last)
    AND decision_id IN (
        SELECT decision_id FROM decisions WHERE experiment = $key AND seq > $after AND seq <= $upto)
ORDER BY seq
"""  # noqa: S608  (our own text)


def export_log(
    key: str,
    data: Path,
    target: Path,
    *,
    format: Format | None = None,  # noqa: A002
    progress: Progress = quiet,
) -> int:
    """Write an experiment's decisions with their rewards from the lake in `data` to `target`;
    returns how many.

    A file (dsjson, eppo, open-bandit, obp, obp-slate) is written whole: after an interruption it
    goes on. A folder of parts (parquet, arrow) and a Delta table take what is not in them yet, so
    that exporting again adds what is new. Raises NotFound where there is no such experiment,
    BadRequest where the target is there already.
    """
    chosen = format or format_of(target)
    with ExitStack() as opened:
        connection = opened.enter_context(
            closing(lake.connect(data / lake.DATABASE, memory_limit=_MEMORY))
        )
        spec = connection.execute("SELECT spec FROM experiments WHERE key = ?", [key]).fetchall()
        count = "SELECT count(*) FROM decisions WHERE experiment = ?"
        total = int(connection.execute(count, [key]).fetchall()[0][0])
        if not total:
            raise NotFound(
                f"experiment {key!r} has no decision in {data}; expected one that was published there"
            )
        actions = msgspec.json.decode(spec[0][0])["actions"] if spec else []
        features = {str(action["id"]): action.get("features") or {} for action in actions}
        out = _target(chosen, target, features, lambda: _survey(connection, key))
        opened.callback(out.close)
        left = "SELECT count(*) FROM decisions WHERE experiment = ? AND seq > ?"
        done = total - int(connection.execute(left, [key, out.after]).fetchall()[0][0])
        written = 0
        for rows in _batches(connection, key, out.after, out.upto):
            out.write([row for _, row in rows], rows[-1][0])
            written += len(rows)
            progress(done + written, total)
        out.finish()
        return written


def _survey(connection: lake.Connection, key: str) -> Survey:
    """The layout of the whole log as it is now, in a pass of its own."""
    last = "SELECT max(seq) FROM decisions WHERE experiment = ?"
    upto = int(connection.execute(last, [key]).fetchall()[0][0])
    rows = (row for batch in _batches(connection, key, 0, upto) for _, row in batch)
    return Survey(survey(rows), upto)


def _batches(
    connection: lake.Connection, key: str, after: int, end: int
) -> Iterator[list[tuple[int, Row]]]:
    """The decisions after a `seq` through `end` with their events, in order, each with its own
    `seq`.
    """
    while True:
        asked: dict[str, Any] = {"key": key, "after": after}
        ((upto, first, last),) = connection.execute(
            _UPTO, {**asked, "end": end, "rows": _WINDOW}
        ).fetchall()
        if upto is None:
            return
        events: dict[str, list[RewardEvent]] = {}
        window = {**asked, "upto": upto, "first": first, "last": last}
        for row in _named(connection.execute(_REWARDS, window)):
            event = event_of(row)
            events.setdefault(event.decision_id, []).append(event)
        decisions = _named(connection.execute(_DECISIONS, {**asked, "upto": upto}))
        while batch := list(islice(decisions, BATCH)):
            yield [
                (row["seq"], (decision_of(row), events.get(row["decision_id"], [])))
                for row in batch
            ]
        after = upto


def _named(cursor: lake.Connection) -> Iterator[dict[str, Any]]:
    names = [column[0] for column in cursor.description or ()]
    while rows := cursor.fetchmany(1_000):
        yield from (dict(zip(names, row, strict=True)) for row in rows)


def _target(chosen: Format, path: Path, features: Features, survey: Callable[[], Survey]) -> Target:
    if chosen == "dsjson":
        return Lines(path, Note(path), lambda row: _dsjson(row, features))
    if chosen == "eppo":
        return Lines(path, Note(path), lambda row: eppo.dump_line(*row, features) + b"\n")
    if chosen == "parquet":
        return Parts(path, ".parquet", sources.write_parquet)
    if chosen == "arrow":
        return Parts(path, ".arrow", sources.write_arrow)
    if chosen == "delta":
        return Delta(path)
    note = Note(path, survey)
    layout = note.held.survey.layout if note.held.survey else Layout()
    if chosen == "open-bandit":
        return Lines(path, note, lambda row: obp.csv_line(row, layout), obp.csv_line(None, layout))
    if chosen == "obp":
        count = {"n_actions": len(layout.actions)}
        return Arrays(
            path, note, lambda rows, _: obp.from_log(rows, layout=layout).to_dict(), count
        )
    count = {"n_unique_action": len(layout.actions)}
    return Arrays(
        path,
        note,
        lambda rows, first: obp_slates.to_slate_feedback(rows, layout=layout, first=first),
        count,
    )


def _dsjson(row: Row, features: Features) -> bytes:
    dump = dsjson.dump_line if len(row[0].slate) == 1 else ccb.dump_line
    return dump(*row, features) + b"\n"

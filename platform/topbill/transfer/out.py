"""A lake's decisions into foreign files, a batch at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from topbill import lake
from topbill.errors import BadRequest, NotFound
from topbill.lake.exchange import append_delta, delta_position
from topbill.log import ccb, columnar, dsjson, eppo
from topbill.records import NULL, Decision, Placement, RewardEvent
from topbill.transfer import reading
from topbill.transfer.formats import BATCH, Format, Progress, format_of, quiet
from topbill.transfer.reading import Row

_WINDOW = 50_000
"""Decisions asked of the lake at once: its files hold many thousands a row group, and are read anew for each window."""
_MEMORY = "512MB"
_UPTO = """
SELECT max(seq), epoch_us(min("at")), epoch_us(max("at"))
FROM (SELECT seq, "at" FROM decisions WHERE experiment = $key AND seq > $after ORDER BY seq LIMIT $rows)
"""
_DECISIONS = """
SELECT seq, epoch_us("at") AS "at", decision_id, experiment, revision, variant, unit, context, actions, eligible, slate,
    propensities, propensity, probabilities, policy, policy_version, reason, micros
FROM decisions WHERE experiment = $key AND seq > $after AND seq <= $upto ORDER BY seq
"""
_REWARDS = """
SELECT decision_id, event_id, event, value, action, position, epoch_us("at") AS "at",
    epoch_us(received_at) AS received_at
FROM rewards WHERE experiment = $key AND decided_at BETWEEN make_timestamp($first) AND make_timestamp($last)
    AND decision_id IN (SELECT decision_id FROM decisions WHERE experiment = $key AND seq > $after AND seq <= $upto)
ORDER BY seq
"""


def export_log(
    key: str,
    data: Path,
    target: Path,
    *,
    format: Format | None = None,  # noqa: A002
    progress: Progress = quiet,
) -> int:
    """Write an experiment's decisions with their rewards from the lake in `data` to `target`; returns how many.

    A file (dsjson, eppo) is written whole: after an interruption it goes on. A folder of parts (parquet, arrow) and a
    Delta table take what is not in them yet, so that exporting again adds what is new.
    Raises NotFound where there is no such experiment, BadRequest where the target is there already.
    """
    chosen = format or format_of(target)
    with ExitStack() as opened:
        connection = opened.enter_context(closing(lake.connect(data / lake.FACE, memory_limit=_MEMORY)))
        spec = connection.execute("SELECT spec FROM experiments WHERE key = ?", [key]).fetchall()
        count = "SELECT count(*) FROM decisions WHERE experiment = ?"
        total = int(connection.execute(count, [key]).fetchall()[0][0])
        if not total:
            raise NotFound(f"experiment {key!r} has no decision in {data}; expected one that was published there")
        actions = msgspec.json.decode(spec[0][0])["actions"] if spec else []
        features = {str(action["id"]): action.get("features") or {} for action in actions}
        out = _target(chosen, target, features)
        opened.callback(out.close)
        left = "SELECT count(*) FROM decisions WHERE experiment = ? AND seq > ?"
        done = total - int(connection.execute(left, [key, out.after]).fetchall()[0][0])
        written = 0
        for rows in _batches(connection, key, out.after):
            out.write([row for _, row in rows], rows[-1][0])
            written += len(rows)
            progress(done + written, total)
        out.finish()
        return written


def _batches(connection: lake.Connection, key: str, after: int) -> Iterator[list[tuple[int, Row]]]:
    """The decisions after a `seq` with their events, in order, each with its own `seq`."""
    while True:
        asked: dict[str, Any] = {"key": key, "after": after}
        ((upto, first, last),) = connection.execute(_UPTO, {**asked, "rows": _WINDOW}).fetchall()
        if upto is None:
            return
        events: dict[str, list[RewardEvent]] = {}
        for row in _named(connection.execute(_REWARDS, {**asked, "upto": upto, "first": first, "last": last})):
            happened, received = row.pop("at"), row.pop("received_at")
            event = RewardEvent(**row, occurred_at=None if happened == received else happened, at=received)
            events.setdefault(event.decision_id, []).append(event)
        decisions = _named(connection.execute(_DECISIONS, {**asked, "upto": upto}))
        while batch := list(islice(decisions, BATCH)):
            yield [(row.pop("seq"), (_decision(row), events.get(row["decision_id"], []))) for row in batch]
        after = upto


def _named(cursor: lake.Connection) -> Iterator[dict[str, Any]]:
    names = [column[0] for column in cursor.description or ()]
    while rows := cursor.fetchmany(1_000):
        yield from (dict(zip(names, row, strict=True)) for row in rows)


def _decision(row: dict[str, Any]) -> Decision:
    slate = zip(row["slate"], row.pop("propensities"), strict=True)
    actions, probabilities = row["actions"], row["probabilities"]
    row |= {
        "slate": tuple(Placement(k, action, p) for k, (action, p) in enumerate(slate)),
        "eligible": tuple(row["eligible"]),
        "probabilities": None if probabilities is None else tuple(map(tuple, probabilities)),
        "context": msgspec.Raw(row["context"].encode()),
        "actions": NULL if actions is None else msgspec.Raw(actions.encode()),
    }
    return Decision(**row)


class _Target:
    """Where an export goes, and the `seq` after which it goes on."""

    after: int = 0

    def write(self, rows: Sequence[Row], through: int) -> None:
        """Add rows, durably, and remember that they reach `through`."""
        raise NotImplementedError

    def finish(self) -> None:
        """All is written."""

    def close(self) -> None:
        """Let go of files, whether all is written or not."""


class _Lines(_Target):
    """A line a decision, and beside the file, until it is whole, how far it has come."""

    def __init__(self, path: Path, line: Callable[[Row], bytes]) -> None:
        self._path, self._line = path, line
        self._note = path.with_name(f"{path.name}.progress")
        size = 0
        if self._note.exists():
            self.after, size = msgspec.json.decode(self._note.read_bytes(), type=tuple[int, int])
        elif path.exists():
            raise BadRequest("target", f"{path} is there already; expected a new name")
        self._note.write_bytes(msgspec.json.encode((self.after, size)))
        self._file = path.open("ab")
        self._file.truncate(size)

    def write(self, rows: Sequence[Row], through: int) -> None:
        self._file.write(b"".join(self._line(row) + b"\n" for row in rows))
        self._file.flush()
        os.fsync(self._file.fileno())
        self.after = through
        fresh = self._note.with_name(f"{self._note.name}.tmp")
        fresh.write_bytes(msgspec.json.encode((through, self._path.stat().st_size)))
        fresh.replace(self._note)

    def finish(self) -> None:
        self._note.unlink()

    def close(self) -> None:
        self._file.close()


class _Parts(_Target):
    """A folder of files, each called by the `seq` that it reaches."""

    def __init__(self, path: Path, suffix: str, write: Callable[[pa.Table, Path], None]) -> None:
        self._path, self._suffix, self._write = path, suffix, write
        path.mkdir(parents=True, exist_ok=True)
        self.after = max((int(part.stem.removeprefix("part-")) for part in path.glob(f"part-*{suffix}")), default=0)

    def write(self, rows: Sequence[Row], through: int) -> None:
        fresh = self._path / "writing.tmp"
        self._write(columnar.to_table(rows), fresh)
        fresh.replace(self._path / f"part-{through:012d}{self._suffix}")
        self.after = through


class _Delta(_Target):
    """A Delta table, which itself knows how far it has come."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.after = delta_position(path)

    def write(self, rows: Sequence[Row], through: int) -> None:
        append_delta(self._path, columnar.to_table(rows), through)
        self.after = through


def _target(chosen: Format, path: Path, features: Mapping[str, Mapping[str, Any]]) -> _Target:
    if chosen == "dsjson":

        def line(row: Row) -> bytes:
            decision, events = row
            if len(decision.slate) == 1:
                return dsjson.dump_line(decision, events, features)
            return ccb.dump_line(decision, events, features)

        return _Lines(path, line)
    if chosen == "eppo":
        return _Lines(path, lambda row: eppo.dump_line(*row, features))
    if chosen == "parquet":
        return _Parts(path, ".parquet", reading.write_parquet)
    if chosen == "arrow":
        return _Parts(path, ".arrow", reading.write_arrow)
    if chosen == "delta":
        return _Delta(path)
    raise BadRequest(
        "format", f"got {chosen}; expected dsjson, eppo, parquet, arrow or delta (open-bandit: log/obp.py)"
    )

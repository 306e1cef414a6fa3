"""Foreign logs into a data folder's lake: each commit once, whatever dies in between."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from types import TracebackType

import msgspec
import pyarrow as pa

from topbill import lake
from topbill.domain.decision import Origin, decision_rows, reward_rows
from topbill.domain.errors import LogError, NotFound, TopbillError
from topbill.domain.records import Decision, RewardEvent
from topbill.formats import sources
from topbill.formats.registry import Format, Progress, format_of, quiet
from topbill.formats.sources import Row
from topbill.lake.tables import Table, schemas
from topbill.log import LOG_FILE, Revision, now_micros
from topbill.spec import Experiment

BATCH = 2_000
"""Decisions held in memory at once."""
BATCHES = 20
"""Batches of a commit. Each commit costs a file, and memory for its mention in the table, so there
are few of them.
"""
_EVENTS_EACH = 1 << 16


class Mark(msgspec.Struct, frozen=True):
    """What a data folder was imported from: it holds that and nothing else."""

    source: str
    size: int
    format: str
    key: str
    done: bool = False


def import_log(
    source: Path,
    data: Path,
    *,
    format: Format | None = None,  # noqa: A002 (what it is called on the command line)
    key: str = "imported",
    experiments: Sequence[Experiment] = (),
    progress: Progress = quiet,
) -> int:
    """Put the decisions and rewards of a file into the lake of the folder `data`; returns how many
    decisions it holds.

    `key` is the experiment of lines that name none; `experiments` give decisions their metrics, so
    that what was imported can be evaluated. Done again after an interruption it goes on, done again
    after the end it does nothing. Raises BadData naming the line or row that cannot be read,
    TopbillError where the folder holds other data.
    """
    chosen = format or format_of(source)
    if not source.exists():
        raise NotFound(f"{source}: no such file")
    into, mark = _folder(source, data, chosen, key)
    start = into.position("rewards")
    ahead = max(0, into.position("decisions") - start)
    revisions = {experiment.key: experiment.fingerprint for experiment in experiments}
    rows = sources.read(source, chosen, key, skip=start, progress=progress)
    done = start
    for part in (
        islice(rows, ahead),
        rows,
    ):  # decisions that are there already are not in a commit with new ones
        while number := _commit(into, done, part, revisions):
            done += number
    done = max(done, into.position("decisions"))
    spec = [
        Revision(e.key, e.fingerprint, 0, "import", msgspec.json.encode(e.raw).decode())
        for e in experiments
    ]
    into.write_database(experiments, now_micros(), spec)
    _write_mark(data, msgspec.structs.replace(mark, done=True))
    return done


def _folder(source: Path, data: Path, chosen: str, key: str) -> tuple[lake.Lake, Mark]:
    """The lake to import into, and the note of what it is imported from."""
    size = source.stat().st_size if source.is_file() else 0
    mark = Mark(str(source.resolve()), size, chosen, key)
    note = data / "imported.json"
    if note.exists():
        held = msgspec.json.decode(note.read_bytes(), type=Mark)
        if msgspec.structs.replace(held, done=False) != mark:
            raise TopbillError(
                f"{data}: holds what was imported from {held.source}; expected a folder of its own"
            )
    into = lake.Lake(data)
    if not note.exists():
        if (data / LOG_FILE).exists() or into.position("decisions"):
            raise TopbillError(
                f"{data}: is a service's data folder; expected another one, for imported data only"
            )
        _write_mark(data, mark)
    return into, mark


def _write_mark(data: Path, mark: Mark) -> None:
    fresh = data / "imported.json.tmp"
    fresh.write_bytes(msgspec.json.encode(mark))
    fresh.replace(data / "imported.json")


def _commit(into: lake.Lake, before: int, rows: Iterator[Row], revisions: Mapping[str, str]) -> int:
    """Append the next rows, and return how many they are. Until all are read they wait on disk, a
    batch in memory.

    Decisions first: whoever sees a reward in the lake finds its decision.
    """
    done = before
    with (
        _Waiting(into.folder, "decisions") as decisions,
        _Waiting(into.folder, "rewards") as rewards,
    ):
        for _ in range(BATCHES):
            batch = list(islice(rows, BATCH))
            decisions.add(decision_rows(_numbered(batch, done, revisions)))
            rewards.add(reward_rows(_events(batch, done)))
            done += len(batch)
        if done > before:
            into.append("decisions", decisions.read(), done)
            into.append("rewards", rewards.read(), done)
    return done - before


def _numbered(
    batch: Sequence[Row], before: int, revisions: Mapping[str, str]
) -> list[tuple[int, Decision]]:
    """A row's number is its `seq`."""
    return [
        (
            seq,
            d
            if d.revision
            else msgspec.structs.replace(d, revision=revisions.get(d.experiment, "")),
        )
        for seq, (d, _) in enumerate(batch, before + 1)
    ]


def _events(batch: Sequence[Row], before: int) -> list[tuple[int, RewardEvent, Origin]]:
    return [
        (seq * _EVENTS_EACH + k, event, Origin.of(decision))
        for seq, (decision, events) in enumerate(batch, before + 1)
        for k, event in enumerate(events)
    ]


class _Waiting:
    """Rows of a table that wait on disk for their commit, as an Arrow stream in the data folder."""

    def __init__(self, folder: Path, name: Table) -> None:
        self._path = folder / f"importing.{name}.arrow"
        try:
            options = pa.ipc.IpcWriteOptions(compression="lz4")
            self._writer = pa.ipc.new_stream(str(self._path), schemas()[name], options=options)
        except OSError as error:
            raise self._failed(error) from error

    def add(self, rows: pa.Table) -> None:
        """Raises LogError where they cannot be written."""
        try:
            self._writer.write_table(rows)
        except OSError as error:
            raise self._failed(error) from error

    def read(self) -> pa.RecordBatchReader:
        """All that was added, batch by batch."""
        try:
            self._writer.close()
            return pa.ipc.open_stream(pa.OSFile(str(self._path)))
        except OSError as error:
            raise self._failed(error) from error

    def _failed(self, error: OSError) -> LogError:
        return LogError(
            f"{self._path}: cannot be written: {error}; what was committed is kept, import again to go on"
        )

    def __enter__(self) -> _Waiting:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._path.unlink(missing_ok=True)

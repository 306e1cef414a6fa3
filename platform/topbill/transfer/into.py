"""Foreign logs into a data folder's lake: each batch once, whatever dies in between."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

import msgspec

from topbill import lake
from topbill.errors import NotFound, TopbillError
from topbill.lake.tables import Origin, decision_rows, reward_rows
from topbill.log.store import Revision, now_micros
from topbill.spec import Experiment
from topbill.transfer import reading
from topbill.transfer.formats import BATCH, Format, Progress, format_of, quiet
from topbill.transfer.reading import Row

_COMPACT_EVERY = 30
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
    """Put the decisions and rewards of a file into the lake of the folder `data`; returns how many decisions it holds.

    `key` is the experiment of lines that name none; `experiments` give decisions their metrics, so that what was
    imported can be evaluated. Done again after an interruption it goes on, done again after the end it does nothing.
    Raises BadData naming the line or row that cannot be read, TopbillError where the folder holds other data.
    """
    chosen = format or format_of(source)
    if not source.exists():
        raise NotFound(f"{source}: no such file")
    into, mark = _folder(source, data, chosen, key)
    start = min(into.position("decisions"), into.position("rewards"))
    revisions = {experiment.key: experiment.fingerprint for experiment in experiments}
    rows = reading.read(source, chosen, key, skip=start, progress=progress)
    done, batches = start, 0
    while batch := list(islice(rows, BATCH)):
        _append(into, done, batch, revisions)
        done += len(batch)
        batches += 1
        if batches % _COMPACT_EVERY == 0:
            into.compact()
    done = max(done, into.position("decisions"))
    spec = [Revision(e.key, e.fingerprint, 0, "import", msgspec.json.encode(e.raw).decode()) for e in experiments]
    into.face(experiments, now_micros(), spec)
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
            raise TopbillError(f"{data}: holds what was imported from {held.source}; expected a folder of its own")
    into = lake.Lake(data)
    if not note.exists():
        if (data / "log.sqlite").exists() or into.position("decisions"):
            raise TopbillError(f"{data}: is a service's data folder; expected another one, for imported data only")
        _write_mark(data, mark)
    return into, mark


def _write_mark(data: Path, mark: Mark) -> None:
    fresh = data / "imported.json.tmp"
    fresh.write_bytes(msgspec.json.encode(mark))
    fresh.replace(data / "imported.json")


def _append(into: lake.Lake, before: int, batch: Sequence[Row], revisions: Mapping[str, str]) -> None:
    """Decisions first: whoever sees a reward in the lake finds its decision. A row's number is its `seq`."""
    through = before + len(batch)
    decisions = [
        (seq, d if d.revision else msgspec.structs.replace(d, revision=revisions.get(d.experiment, "")))
        for seq, (d, _) in enumerate(batch, before + 1)
    ]
    into.append("decisions", decision_rows(decisions), through)
    rewards = [
        (seq * _EVENTS_EACH + k, event, Origin.of(decision))
        for seq, (decision, events) in enumerate(batch, before + 1)
        for k, event in enumerate(events)
    ]
    into.append("rewards", reward_rows(rewards), through)

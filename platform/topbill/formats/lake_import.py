"""Foreign logs into a data folder's lake: each commit once, whatever dies in between."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from types import TracebackType

import msgspec
import pyarrow as pa

from topbill import lake
from topbill.domain.decision import decision_rows, reward_rows
from topbill.domain.errors import LogError, NotFound, SpecError, TopbillError
from topbill.domain.origin import Origin
from topbill.domain.records import Decision, RewardEvent
from topbill.domain.rewards import clipped_metrics
from topbill.formats.assignment_fields import AssignmentFields
from topbill.formats.fitting_experiment import FittingExperiments, LogShape, yaml_of
from topbill.formats.registry import FormatName, find, format_of
from topbill.formats.repeats import Repeats
from topbill.formats.rows import Progress, ReadNotes, Row, quiet
from topbill.formats.validate_row import MOST_EVENTS
from topbill.lake.tables import Table, schemas
from topbill.log import LOG_FILE, Revision, now_micros
from topbill.log.unit_ids import UnitIds, unit_ids
from topbill.spec import Experiment, from_raw, load_all

BATCH = 2_000
"""Decisions held in memory at once."""
BATCHES = 20
"""Batches of a commit. Each commit costs a file, and memory for its mention in the table, so there
are few of them.
"""
MARK_FILE = "imported.json"
"""What an imported data folder holds beside its lake."""
FILES = "experiments"
"""The folder in it for the experiment files that an import writes."""
_COMMENT = """\
Written by `topbill import`: it fits what {source} holds, so that the log can be evaluated.
It decides nothing (status: stopped), and its policies are not those that wrote the log.
Change what you like (types, metrics, objective) and import again: the record then goes by it.
"""


class ImportMark(msgspec.Struct, frozen=True):
    """What a data folder was imported from: it holds that and nothing else."""

    source: str
    size: int
    format: str
    key: str
    done: bool = False
    left_out: dict[str, int] = {}
    """How many of its lines gave no decision, by reason."""
    variant: str | None = None
    unit: str | None = None
    """The fields that said them, where a caller named any."""


def import_log(
    source: Path,
    data: Path,
    *,
    format: FormatName | None = None,  # noqa: A002 (what it is called on the command line)
    key: str = "imported",
    variant: str | None = None,
    unit: str | None = None,
    experiments: Sequence[Experiment] = (),
    fitting_files: Path | None = None,
    progress: Progress = quiet,
    left_out: Counter[str] | None = None,
    remarks: list[str] | None = None,
    skip_bad: int = 0,
) -> int:
    """Put the decisions and rewards of a file into the lake of the folder `data`.

    Done again after an interruption it goes on, done again after the end it only publishes the
    experiments anew. Each decision is there once, whatever its log says twice; what gave no
    decision is counted in `imported.json`.

    An experiment of the log that has no file gets one, written to fit what was read (see
    `fitting_experiment`); a file that is there already is taken as it is, and never overwritten.

    Args:
        source: The file or folder to read.
        data: A data folder of its own.
        format: One of FORMATS, where the source's name does not tell.
        key: The experiment of lines that name none.
        variant: The field of a row, or of its context, that says its variant: of an A/B test that
            ran elsewhere. `action`: what was shown does.
        unit: The field that says whose row it is.
        experiments: Give decisions their metrics, so that what was imported can be evaluated.
        fitting_files: The folder for files that are written; by default `experiments` in `data`.
        progress: Called with how much is read, and of how much.
        left_out: Takes how many lines gave no decision, by reason.
        remarks: Takes sentences: the files that were written, and rewards beyond an objective's
            ends.
        skip_bad: How many lines that cannot be read, and rows without variant or unit, are left
            out, and counted; the next one ends the import.

    Returns:
        How many decisions the folder holds.

    Raises:
        BadData: Naming the line or row that cannot be read, or both of two different decisions of
            one id.
        TopbillError: The folder holds other data.
        SpecError: A file that an earlier import wrote, and somebody changed, is wrong.
    """
    chosen = find(format or format_of(source))
    if not source.exists():
        raise NotFound(f"{source}: no such file")
    size = source.stat().st_size if source.is_file() else 0
    mark = ImportMark(str(source.resolve()), size, chosen.name, key, variant=variant, unit=unit)
    ids = unit_ids(data)
    into, mark = _open_folder(data, mark)
    # A commit writes decisions, then rewards; dying between them leaves decisions ahead. Those
    # that are there already are not in a commit with new ones.
    start = into.position("rewards")
    ahead = max(0, into.position("decisions") - start)
    experiments = [*experiments, *_written_before(data / FILES, experiments)]
    revisions = {experiment.key: experiment.fingerprint for experiment in experiments}
    watch = _Watch(experiments)
    fields = AssignmentFields(variant, unit, experiments)
    done, notes = start, ReadNotes(skip_bad)
    if not mark.done or into.experiments() - revisions.keys():
        with Repeats(data, notes) as repeats:
            # From the beginning, as only the whole file tells what is in it twice.
            read = fields.read(chosen.read(source, key, 0, progress, notes), notes)
            rows = _with_stored_units(watch.rows(repeats.once(read)), ids)
            deque(islice(rows, start), maxlen=0)
            for part in (islice(rows, ahead), rows):
                while number := _commit(into, done, part, revisions):
                    done += number
        mark = msgspec.structs.replace(mark, left_out=dict(notes.left_out))
    if left_out is not None:
        left_out.update(mark.left_out)
    done = max(done, into.position("decisions"))
    sentences = [*watch.clipped_rewards(), *fields.remarks()]
    for table, repeated in into.repeated().items():
        sentences.append(
            f"{len(repeated):,} {table} have an id that was there before and are left out"
        )
    for experiment_key, shape in watch.fitting.logs.items():
        path = (fitting_files or data / FILES) / f"{experiment_key}.yaml"
        units = into.units(experiment_key)
        fitting, sentence = _write_fitting(path, experiment_key, shape, units, source)
        experiments += fitting
        sentences.append(sentence)
    if remarks is not None:
        remarks += sentences
    audit: list[Revision] = []
    for experiment in experiments:
        content = msgspec.json.encode(experiment.raw).decode()
        audit.append(Revision(experiment.key, experiment.fingerprint, 0, "import", content))
    into.write_database(experiments, now_micros(), audit)
    _write_mark(data, msgspec.structs.replace(mark, done=True))
    return done


def _with_stored_units(rows: Iterator[Row], ids: UnitIds) -> Iterator[Row]:
    for decision, events in rows:
        # Without a unit every decision is its own.
        if decision.unit != decision.decision_id:
            decision = msgspec.structs.replace(decision, unit=ids.stored(decision.unit))
        yield decision, events


def _written_before(folder: Path, declared: Sequence[Experiment]) -> list[Experiment]:
    """The experiments of files that an earlier import wrote, but those that are declared
    elsewhere. Raises SpecError.
    """
    keys = {experiment.key for experiment in declared}
    files = sorted(folder.glob("*.yaml"))
    return [experiment for experiment in load_all(files) if experiment.key not in keys]


class _Watch:
    """What is noticed of rows on their way: the shape of logs without a file, and rewards beyond
    the ends of an objective.
    """

    def __init__(self, experiments: Sequence[Experiment]) -> None:
        self._experiments = {experiment.key: experiment for experiment in experiments}
        self._clipped: dict[str, Counter[str]] = {key: Counter() for key in self._experiments}
        self._rewarded: Counter[str] = Counter()
        self.fitting = FittingExperiments(self._experiments)

    def rows(self, rows: Iterator[Row]) -> Iterator[Row]:
        """The rows themselves."""
        for decision, events in self.fitting.watch(rows):
            experiment = self._experiments.get(decision.experiment)
            if experiment is not None and events:
                self._rewarded[experiment.key] += 1
                sides = clipped_metrics(experiment, decision, events)
                self._clipped[experiment.key].update(sides)
            yield decision, events

    def clipped_rewards(self) -> list[str]:
        """A sentence for each end of an objective that some decisions were beyond."""
        sentences = []
        for key, sides in self._clipped.items():
            for side, count in sorted(sides.items()):
                sentences.append(
                    f"{key}: {count:,} of {self._rewarded[key]:,} rewarded decisions have {side} "
                    "and are clipped to that end: declare a floor or a higher cap in its file"
                )
        return sentences


def _write_fitting(
    path: Path, key: str, shape: LogShape, units: Mapping[str, int], source: Path
) -> tuple[list[Experiment], str]:
    """The experiment of what was read of a log without a file, written to `path`, and what is to
    be said of it; none where that cannot be. `units`: how many each variant has.
    """
    content = shape.content(key, source.name, units)
    try:
        experiment = from_raw(content, path.name)
    except SpecError as error:
        return [], f"{key}: no experiment file can be made of this log: {error}; write one"
    if path.exists():
        return [], f"{key}: {path} is of another experiment and is not overwritten; rename it"
    path.parent.mkdir(parents=True, exist_ok=True)
    text = yaml_of(content, _COMMENT.format(source=source.name))
    draft = path.with_name(f"{path.name}.tmp")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)
    sentence = f"{path}: written, to fit the log of {key}"
    if len(content["variants"]) > 1:
        sentence += (
            ". Its shares are those that were found, which no split can fail: write those that "
            "were meant, say which variant is the control, and import again"
        )
    return [experiment], sentence


def _open_folder(data: Path, mark: ImportMark) -> tuple[lake.Lake, ImportMark]:
    """The lake to import into, and the note of what it is imported from, to which `mark` must
    agree.
    """
    note = data / MARK_FILE
    if note.exists():
        # The same source may be imported again, to go on; another one may not be mixed with it.
        earlier = msgspec.json.decode(note.read_bytes(), type=ImportMark)
        if msgspec.structs.replace(earlier, done=False, left_out={}) != mark:
            changed = " before that changed" if _same_but_for_size(earlier, mark) else ""
            raise TopbillError(
                f"{data}: holds what was imported from {earlier.source}{_described(earlier)}"
                f"{changed}; expected a folder of its own; delete this one to begin anew"
            )
        mark = earlier
    into = lake.Lake(data)
    if not note.exists():
        # An import numbers its rows from 1: in a service's folder these are taken.
        if (data / LOG_FILE).exists() or into.position("decisions"):
            raise TopbillError(
                f"{data}: is a service's data folder; expected another one, for imported data only"
            )
        _write_mark(data, mark)
    return into, mark


def _same_but_for_size(earlier: ImportMark, mark: ImportMark) -> bool:
    now = msgspec.structs.replace(mark, done=earlier.done, left_out=earlier.left_out)
    return msgspec.structs.replace(now, size=earlier.size) == earlier


def _described(mark: ImportMark) -> str:
    """By which fields it was imported, as options."""
    named = {"--variant": mark.variant, "--unit": mark.unit}
    options = [f"{option} {name}" for option, name in named.items() if name is not None]
    return f" with {' '.join(options)}" if options else ""


def _write_mark(data: Path, mark: ImportMark) -> None:
    draft = data / f"{MARK_FILE}.tmp"
    draft.write_bytes(msgspec.json.encode(mark))
    draft.replace(data / MARK_FILE)


def _commit(into: lake.Lake, before: int, rows: Iterator[Row], revisions: Mapping[str, str]) -> int:
    """Append the next rows, and return how many they are. Until all are read they wait on disk, a
    batch in memory.
    """
    done = before
    with (
        _WaitingRows(into.folder, "decisions") as decisions,
        _WaitingRows(into.folder, "rewards") as rewards,
    ):
        for _ in range(BATCHES):
            batch = list(islice(rows, BATCH))
            decisions.add(decision_rows(_numbered(batch, done, revisions)))
            rewards.add(reward_rows(_events(batch, done)))
            done += len(batch)
        if done > before:
            # Decisions first: whoever sees a reward in the lake finds its decision.
            into.append("decisions", decisions.read(), done)
            into.append("rewards", rewards.read(), done)
    return done - before


def _numbered(
    batch: Sequence[Row], before: int, revisions: Mapping[str, str]
) -> list[tuple[int, Decision]]:
    """Each decision with its `seq`, which is its row's number in the file. One that says no
    revision of its experiment gets today's.
    """
    decisions: list[tuple[int, Decision]] = []
    for seq, (decision, _) in enumerate(batch, before + 1):
        if not decision.revision:
            revision = revisions.get(decision.experiment, "")
            decision = msgspec.structs.replace(decision, revision=revision)
        decisions.append((seq, decision))
    return decisions


def _events(batch: Sequence[Row], before: int) -> list[tuple[int, RewardEvent, Origin]]:
    """Each event with a `seq` from its row's number, the same whenever the row is read."""
    numbered: list[tuple[int, RewardEvent, Origin]] = []
    for seq, (decision, events) in enumerate(batch, before + 1):
        origin = Origin.of(decision)
        for k, event in enumerate(events):
            numbered.append((seq * MOST_EVENTS + k, event, origin))
    return numbered


class _WaitingRows:
    """Rows of a table that wait on disk for their commit, as an Arrow stream in the data folder."""

    def __init__(self, folder: Path, name: Table) -> None:
        self._path = folder / f"importing.{name}.arrow"
        try:
            # They may be gigabytes; this costs little and keeps them at a fraction.
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
            f"{self._path}: cannot be written: {error}; "
            "what was committed is kept, import again to go on"
        )

    def __enter__(self) -> _WaitingRows:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._path.unlink(missing_ok=True)

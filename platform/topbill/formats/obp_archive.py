"""obp's feedback in NumPy archives, a batch at a time: a row a decision, or a row a position of a
slate.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from topbill.domain.errors import BadData
from topbill.formats import obp, obp_slates
from topbill.formats.npz import Arrays, Npz
from topbill.formats.obp_columns import vector
from topbill.formats.rows import Progress, ReadNotes, Row
from topbill.formats.writers import ArchiveWriter, Export, ExportNote

# Rows read at once.
_AT_ONCE = 2_000

_MOST_ACTIONS = 10_000
# Floats hold every whole number below it.
_LARGEST_WHOLE = 1 << 53


def read_rows(
    source: Path,
    key: str,
    skip: int,
    progress: Progress,
    notes: ReadNotes,  # noqa: ARG001 (every row is one)
) -> Iterator[Row]:
    """The decisions after the first `skip`, of either kind: what is in the file tells which.

    Raises BadData naming the array and row that is wrong.
    """
    with Npz(source) as file:
        read = _read_slates if "slate_id" in file else _read_decisions
        yield from read(file, key, skip, progress)


def write_decisions(export: Export) -> ArchiveWriter:
    """A row for each decision of one action."""
    note = ExportNote(export.target, export.survey)
    columns = note.columns

    def arrays(rows: Any, first: int) -> dict[str, Any]:  # noqa: ARG001 (rows need no number)
        return obp.from_log(rows, columns=columns).to_dict()

    return ArchiveWriter(export.target, note, arrays, {"n_actions": len(columns.actions)})


def write_slates(export: Export) -> ArchiveWriter:
    """A row for each position of each slate."""
    note = ExportNote(export.target, export.survey)
    columns = note.columns

    def arrays(rows: Any, first: int) -> dict[str, Any]:
        return obp_slates.to_slate_feedback(rows, columns=columns, first=first)

    return ArchiveWriter(export.target, note, arrays, {"n_unique_action": len(columns.actions)})


def _read_decisions(file: Npz, key: str, skip: int, progress: Progress) -> Iterator[Row]:
    total = file.length("action")
    n_actions = _number_of_actions(file, "n_actions")
    names = _present(file, "action", "reward", "pscore", "context", "position", "at")
    done = 0
    for batch in map(_vectors, file.batches(names, _AT_ONCE)):
        size = len(batch["action"])
        if done + size > skip:
            at = batch.pop("at").astype(np.int64) if "at" in batch else None
            feedback = obp.BanditFeedback.from_dict(
                {"n_actions": n_actions, **_checked(batch, done)}, first=done, at=at
            )
            yield from islice(obp.to_log(feedback, key), max(0, skip - done), None)
        done += size
        progress(done, total)


def _read_slates(file: Npz, key: str, skip: int, progress: Progress) -> Iterator[Row]:
    """Slates. Batches are of rows, and a slate may begin in one and end in the next: its beginning
    waits for its end.
    """
    total = file.length("slate_id")
    n_actions = _number_of_actions(file, "n_unique_action")
    names = _present(file, "slate_id", "action", "position", "reward", "pscore_cascade")
    # obp has a context for each slate, or one for each row: as long as the other arrays or not.
    contexts: Iterator[Any] | None = None
    if "context" in file:
        if file.length("context") == total:
            names.append("context")
        else:
            contexts = _one_by_one(file, "context")
    waiting: Arrays = {}
    done = 0
    for batch in map(_vectors, file.batches(names, _AT_ONCE)):
        done += len(batch["slate_id"])
        if waiting:
            batch = {name: np.concatenate([waiting[name], batch[name]]) for name in batch}
        whole, waiting = _cut(batch, more=done < total)
        if len(whole["slate_id"]):
            if contexts is not None:
                whole["context"] = _context_of_each_row(whole["slate_id"], contexts)
            rows = obp_slates.from_slate_feedback(
                {"n_unique_action": n_actions, **_checked(whole, 0)}, key
            )
            yield from islice(rows, min(skip, len(whole["slate_id"])), None)
            # An id changes between two slates, so there is one more of them than changes.
            slates = len(np.flatnonzero(np.diff(whole["slate_id"]))) + 1
            skip = max(0, skip - slates)
        progress(done, total)


def _present(file: Npz, *names: str) -> list[str]:
    """Those that the file has; what is missing is noted by whoever needs it."""
    return [name for name in names if name in file]


def _one_by_one(file: Npz, name: str) -> Iterator[Any]:
    for batch in file.batches([name], _AT_ONCE):
        yield from batch[name]


def _number_of_actions(file: Npz, name: str) -> int:
    """How many actions there are: as the file says, or one more than the largest number."""
    number = file.number(name)
    if number is None:
        largest = -1
        for batch in map(_vectors, file.batches(["action"], _AT_ONCE)):
            largest = max(largest, int(_checked(batch, 0)["action"].max()))
        number = largest + 1
    if not 0 <= number <= _MOST_ACTIONS:
        raise BadData(
            name,
            f"got {number} actions; expected at most {_MOST_ACTIONS:,}: "
            "each decision names them all",
        )
    return number


def _vectors(batch: Arrays) -> Arrays:
    """The batch, all but its context in one dimension."""
    vectors: Arrays = {}
    for name, array in batch.items():
        vectors[name] = array if name == "context" else vector(name, array)
    return vectors


def _cut(rows: Arrays, more: bool) -> tuple[Arrays, Arrays]:
    """What belongs to whole slates, and the beginning of one that may go on where there is
    `more`.
    """
    ids = rows["slate_id"]
    end = len(ids)
    if more:
        edges = np.flatnonzero(np.diff(ids)) + 1
        end = int(edges[-1]) if edges.size else 0
    whole = {name: array[:end] for name, array in rows.items()}
    waiting = {name: array[end:] for name, array in rows.items()}
    return whole, waiting


def _context_of_each_row(ids: Any, contexts: Iterator[Any]) -> Any:
    """A context a slate, repeated for each of its rows."""
    edges = np.flatnonzero(np.diff(ids)) + 1
    rows_each = np.diff([0, *edges, len(ids)])
    own = list(islice(contexts, len(rows_each)))
    if len(own) < len(rows_each):
        raise BadData(
            "context",
            "got fewer rows than slates; expected a row for each slate, or each row of one",
        )
    return np.repeat(np.array(own, dtype=np.float64), rows_each, axis=0)


def _checked(batch: Arrays, first: int) -> Arrays:
    """The batch, whole numbers where they are meant, contexts of finite numbers in two dimensions.

    Raises BadData naming the row, counted from `first`.
    """
    for name in ("action", "position", "slate_id"):
        array = batch.get(name)
        if array is None or array.dtype.kind != "f":
            continue
        # Comparisons are false of NaN, so each is said in the positive.
        good = (array == np.floor(array)) & (np.abs(array) < _LARGEST_WHOLE)
        bad = np.flatnonzero(~good)
        if bad.size:
            row = bad[0]
            raise BadData(name, f"row {first + row}: got {array[row]:g}; expected a whole number")
    context = batch.get("context")
    if context is None:
        return batch
    context = context.reshape(len(context), -1)
    bad = np.flatnonzero(~np.isfinite(context).all(axis=1))
    if bad.size:
        raise BadData("context", f"row {first + bad[0]}: got what is not finite; expected numbers")
    return {**batch, "context": context}

"""obp's feedback in NumPy archives, read a batch at a time: a row a decision, or a row a position
of a slate.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from topbill.domain.errors import BadData
from topbill.formats.npz import Arrays, Npz
from topbill.formats.obp import BanditFeedback, to_log
from topbill.formats.obp_columns import Row
from topbill.formats.obp_slates import from_slate_feedback
from topbill.formats.registry import Progress

_AT_ONCE = 2_000
_MOST_ACTIONS = 10_000


def read(source: Path, key: str, skip: int, progress: Progress) -> Iterator[Row]:
    """The decisions after the first `skip`. Raises BadData naming the array and row that is
    wrong.
    """
    with Npz(source) as file:
        rows = (
            _slates(file, key, skip, progress)
            if "slate_id" in file
            else _single(file, key, skip, progress)
        )
        yield from rows


def _single(file: Npz, key: str, skip: int, progress: Progress) -> Iterator[Row]:
    total = file.length("action")
    n_actions = _most(file, "n_actions")
    names = [n for n in ("action", "reward", "pscore", "context", "position", "at") if n in file]
    done = 0
    for part in file.batches(names, _AT_ONCE):
        if done + len(part["action"]) > skip:
            at = part.pop("at").astype(np.int64) if "at" in part else None
            feedback = BanditFeedback.from_dict(
                {"n_actions": n_actions, **_checked(part, done)}, first=done, at=at
            )
            yield from islice(to_log(feedback, key), max(0, skip - done), None)
        done += len(part["action"])
        progress(done, total)


def _slates(file: Npz, key: str, skip: int, progress: Progress) -> Iterator[Row]:
    total = file.length("slate_id")
    n_actions = _most(file, "n_unique_action")
    names = [
        "slate_id",
        *(n for n in ("action", "position", "reward", "pscore_cascade") if n in file),
    ]
    each = "context" in file and file.length("context") == total
    contexts = None
    if each:
        names.append("context")
    elif "context" in file:
        contexts = (row for part in file.batches(["context"], _AT_ONCE) for row in part["context"])
    left: Arrays = {}
    done = 0
    for part in file.batches(names, _AT_ONCE):
        done += len(part["slate_id"])
        whole, left = _cut(
            {n: np.concatenate([left[n], p]) if left else p for n, p in part.items()}, done < total
        )
        if len(whole["slate_id"]):
            if contexts is not None:
                whole["context"] = _spread(whole["slate_id"], contexts)
            rows = from_slate_feedback({"n_unique_action": n_actions, **_checked(whole, 0)}, key)
            yield from islice(rows, min(skip, len(whole["slate_id"])), None)
            skip = max(0, skip - len(np.flatnonzero(np.diff(whole["slate_id"]))) - 1)
        progress(done, total)


def _most(file: Npz, name: str) -> int:
    """How many actions there are: as the file says, or one more than the largest number."""
    most = file.number(name)
    if most is None:
        most = 1 + max(
            (int(_checked(part, 0)["action"].max()) for part in file.batches(["action"], _AT_ONCE)),
            default=-1,
        )
    if not 0 <= most <= _MOST_ACTIONS:
        raise BadData(
            name,
            f"got {most} actions; expected at most {_MOST_ACTIONS:,}: each decision names them all",
        )
    return most


def _cut(rows: Arrays, more: bool) -> tuple[Arrays, Arrays]:
    """What belongs to whole slates, and the beginning of one that may go on."""
    ids = rows["slate_id"]
    edges = np.flatnonzero(np.diff(ids)) + 1
    cut = len(ids) if not more else int(edges[-1]) if edges.size else 0
    return {n: p[:cut] for n, p in rows.items()}, {n: p[cut:] for n, p in rows.items()}


def _spread(ids: Any, contexts: Iterator[Any]) -> Any:
    """A context a slate, repeated for each of its rows."""
    edges = np.flatnonzero(np.diff(ids)) + 1
    counts = np.diff([0, *edges, len(ids)])
    found = list(islice(contexts, len(counts)))
    if len(found) < len(counts):
        raise BadData(
            "context",
            "got fewer rows than slates; expected a row for each slate, or each row of one",
        )
    return np.repeat(np.array(found, dtype=np.float64), counts, axis=0)


def _checked(part: Arrays, first: int) -> Arrays:
    """Whole numbers where they are meant, contexts of finite numbers in two dimensions."""
    for name in ("action", "position", "slate_id"):
        if name in part and part[name].dtype.kind == "f":
            bad = np.flatnonzero(
                ~(part[name] == np.floor(part[name])) | ~(np.abs(part[name]) < 1 << 53)
            )
            if bad.size:
                raise BadData(
                    name,
                    f"row {first + bad[0]}: got {part[name][bad[0]]:g}; expected a whole number",
                )
    context = part.get("context")
    if context is not None:
        part = {**part, "context": context.reshape(len(context), -1)}
        bad = np.flatnonzero(~np.isfinite(part["context"]).all(axis=1))
        if bad.size:
            raise BadData(
                "context", f"row {first + bad[0]}: got what is not finite; expected numbers"
            )
    return part

"""A log walked through in several passes, each over the units of one bucket, and what they scored
put together.

An evaluation over B buckets is B walks: each has a reward model and targets of its own, which learn
from its units alone. So numbers depend on B, which is of the lake, and not on who walks: one
process through all of them side by side, or a cluster with a machine for each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from copyreg import pickle
from dataclasses import fields
from importlib import import_module
from types import ModuleType
from typing import Any

import msgspec
import numpy as np

from topbill.domain.errors import BadData
from topbill.domain.records import Indices
from topbill.ope.replay.logged_data import LoggedData, logged_of
from topbill.ope.replay.progressive import (
    LogColumns,
    LogFacts,
    Progress,
    ProgressivePass,
    Scalars,
    TargetColumns,
)
from topbill.ope.replay.reward_model import Link
from topbill.ope.replay.selection import Selection
from topbill.ope.replay.targets import TargetPolicy

# Policies hold compiled modules, which a copy of them has by name.
pickle(ModuleType, lambda module: (import_module, (module.__name__,)))
_COUNTED = ("left_out", "clipped", "looks", "explored", "displayed")
_LISTED = ("units", "ids", "seqs")


def walked(
    data: LoggedData,
    targets: Sequence[TargetPolicy],
    variants: Sequence[str],
    link: Link,
    selection: Selection,
    progress: Progress | None,
) -> ProgressivePass:
    """The passes through a log, as many as it has buckets of units, as one.

    Raises:
        BadData: naming the decisions that a target cannot decide about.
    """
    scored = ProgressivePass(data, targets, variants, link, selection)
    if data.buckets == 1 and data.is_embedded:
        scored.run(progress)
        return scored
    facts = LogFacts.of(data)

    def walk() -> _Walk:
        # What learns does so alone, and what was looked for is told by each.
        own = deepcopy(selection)
        return _Walk(ProgressivePass(facts, deepcopy(targets), variants, link, own), own)

    _join(scored, selection, [msgspec.msgpack.decode(one) for one in data.by_bucket(walk)])
    if progress:
        progress(data.decisions, data.decisions)
    return scored


class _Walk:
    """A pass over the rows of one bucket."""

    def __init__(self, scored: ProgressivePass, selection: Selection) -> None:
        self._scored, self._selection = scored, selection
        self._failure: tuple[str, str] | None = None

    def take(self, row: Mapping[str, Any]) -> None:
        """See `lake.engine.BucketWalk`."""
        if self._failure is None:
            self._try(lambda: self._scored.take(logged_of(row)))

    def finish(self) -> bytes:
        """See `lake.engine.BucketWalk`: plain types, as they go from machine to machine."""
        if self._failure is None:
            self._try(self._scored.finish)
        if self._failure is not None:
            return msgspec.msgpack.encode({"failure": self._failure})
        scored = self._scored
        kept = {name: getattr(scored, name) for name in (*_COUNTED, *_LISTED)}
        kept |= {
            "log": _columns(scored.log),
            "targets": [_columns(columns) for columns in scored.of_target],
            "weights": scored.weights.values.tobytes(),
            "versions": sorted(scored.versions),
            "first_misfit": scored.first_misfit,
            "times": [scored.first_at, scored.last_at],
            "ranking": scored.ranking,
            "selection": self._selection.seen(),
        }
        return msgspec.msgpack.encode(kept)

    def _try(self, step: Callable[[], None]) -> None:
        # A cluster's own error would say where in its code it was, and not what to do.
        try:
            step()
        except BadData as error:
            self._failure = (error.path, error.message)


def _columns(columns: LogColumns | TargetColumns) -> dict[str, bytes]:
    return {one.name: getattr(columns, one.name).values.tobytes() for one in fields(columns)}


def _join(scored: ProgressivePass, selection: Selection, walks: Sequence[dict[str, Any]]) -> None:
    """Fill a pass with what several scored, in the order of the log."""
    for walk in walks:
        if "failure" in walk:
            raise BadData(*walk["failure"])
    for name in _LISTED:
        setattr(scored, name, [value for walk in walks for value in walk[name]])
    for walk in walks:
        for name in _COUNTED:
            getattr(scored, name).update(walk[name])
        scored.versions |= set(walk["versions"])
        scored.first_misfit = scored.first_misfit or walk["first_misfit"]
        scored.ranking = scored.ranking or walk["ranking"]
        selection.add(walk["selection"])
    times = [walk["times"] for walk in walks if walk["times"][0]]
    scored.first_at = min((first for first, _ in times), default=0)
    scored.last_at = max((last for _, last in times), default=0)
    order = np.argsort(np.array(scored.seqs, dtype=np.int64))
    for name in _LISTED:
        own = getattr(scored, name)
        setattr(scored, name, [own[i] for i in order])
    scored.weights = _ordered(b"".join(walk["weights"] for walk in walks), order)
    _join_columns(scored, walks, order)


def _join_columns(scored: ProgressivePass, walks: Sequence[dict[str, Any]], order: Indices) -> None:
    """The columns of placements, decisions in a new order."""
    slates, of_walk, before = [], [], 0
    for number, walk in enumerate(walks):
        own = np.frombuffer(walk["log"]["slate"])
        slates.append(own + before)
        of_walk.append(np.full(own.size, float(number)))
        before += len(walk["units"])
    place = np.empty(before)
    place[order] = np.arange(before, dtype=np.float64)
    slate = place[np.concatenate(slates).astype(np.intp)] if slates else place
    # Stable, so that a decision's placements stay in their order.
    rows = np.argsort(slate, kind="stable")
    made = {"slate": slate, "walk": np.concatenate(of_walk) if of_walk else slate}
    tables: list[tuple[LogColumns | TargetColumns, list[dict[str, bytes]]]] = [
        (scored.log, [walk["log"] for walk in walks])
    ]
    for i, target in enumerate(scored.of_target):
        tables.append((target, [walk["targets"][i] for walk in walks]))
    for columns, parts in tables:
        for one in fields(columns):
            numbers = b"".join(part[one.name] for part in parts)
            if one.name in made:
                numbers = made[one.name].tobytes()
            # A column that some decisions lack is read by nobody.
            is_whole = len(numbers) == 8 * rows.size
            column = _ordered(numbers, rows) if is_whole else Scalars.of(numbers)
            object.__setattr__(columns, one.name, column)


def _ordered(numbers: bytes, order: Indices) -> Scalars:
    return Scalars.of(np.frombuffer(numbers)[order].tobytes())

"""Reads logs of the Open Bandit Dataset (Saito et al. 2021) and checks that they can be
replayed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from scipy import stats

from topbill.domain.errors import BadData
from topbill.domain.features import Feature
from topbill.domain.records import Action
from topbill.domain.slate import LARGEST_MATRIX

_COLUMNS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "item_id": (pa.types.is_integer, "integers"),
    "position": (pa.types.is_integer, "integers"),
    "click": (pa.types.is_integer, "integers 0 or 1"),
    "propensity_score": (pa.types.is_floating, "numbers in (0, 1]"),
}
_USER = tuple(f"user_feature_{i}" for i in range(4))


@dataclass(frozen=True)
class ObdLog:
    """A uniform-random log: each row's item (index into `actions`), whether it was clicked, and the
    context as JSON (its position and what user features the file has), with these features'
    schema."""

    name: str
    actions: tuple[Action, ...]
    item: list[int]
    clicked: list[bool]
    context: list[bytes]
    features: tuple[Feature, ...]

    def __len__(self) -> int:
        return len(self.item)


def read_obd(path: Path) -> ObdLog:
    """The log in a Parquet or CSV file, its rows by time where it has a timestamp.

    Raises BadData, naming file and column, for a file that cannot be read, lacks a column or has
    another type in it, or whose items were not drawn uniformly: then a replay would be biased.
    """
    table = _table(path)
    for name, (fits, expected) in _COLUMNS.items():
        _check_column(path.name, table, name, fits, expected)
    if "timestamp" in table.column_names:
        # A policy learns as it goes: what it has seen must be what was there to see by then.
        table = table.sort_by("timestamp")
    if not table.num_rows:
        raise BadData(path.name, "got no rows; expected at least one")
    click = table["click"].to_numpy()
    odd = np.flatnonzero((click != 0) & (click != 1)).tolist()
    if odd:
        raise BadData(f"{path.name}.click", f"got {click[odd[0]]} in row {odd[0]}; expected 0 or 1")
    item_id = table["item_id"].to_numpy()
    ids = _uniform_items(path.name, item_id, table["propensity_score"].to_numpy())

    # Position and user features are hashed or coded in the file: categories, whatever they look
    # like.
    features: dict[str, list[str]] = {}
    for name in ("position", *_USER):
        if name in table.column_names:
            features[name] = [str(value) for value in table[name].to_pylist()]
    rows = zip(*features.values(), strict=True)
    context = [msgspec.json.encode(dict(zip(features, row, strict=True))) for row in rows]
    return ObdLog(
        name=path.name,
        actions=tuple(Action(str(item)) for item in ids),
        item=np.searchsorted(ids, item_id).tolist(),
        clicked=(click == 1).tolist(),
        context=context,
        features=tuple(
            Feature(name, "category", values=tuple(sorted(set(values))))
            for name, values in features.items()
        ),
    )


def _check_column(
    file: str, table: pa.Table, name: str, fits: Callable[[Any], bool], expected: str
) -> None:
    """Raises BadData unless the column is there, of that type, without nulls."""
    if name not in table.column_names:
        raise BadData(
            f"{file}.{name}",
            f"no such column; expected {', '.join(_COLUMNS)}, each of {expected}",
        )
    column = table[name]
    if not fits(column.type) or column.null_count:
        nulls = f" with {column.null_count} nulls" if column.null_count else ""
        raise BadData(f"{file}.{name}", f"got {column.type}{nulls}; expected {expected}")


def _table(path: Path) -> pa.Table:
    try:
        return (
            pyarrow.csv.read_csv(path)
            if path.suffix == ".csv"
            else pyarrow.parquet.read_table(path)
        )
    except (OSError, pa.ArrowException) as error:
        raise BadData(
            str(path),
            f"cannot be read ({error}); expected a Parquet file, or a CSV file named *.csv",
        ) from None


def _uniform_items(name: str, item_id: np.ndarray, propensity: np.ndarray) -> np.ndarray:
    """The ids of all items, sorted. Raises BadData unless every item had the same chance in every
    row.
    """
    path = f"{name}.propensity_score"
    low, high = float(propensity.min()), float(propensity.max())
    if not (0.0 < low <= high <= 1.0):
        raise BadData(
            path, f"got values from {low:g} to {high:g}; expected probabilities in (0, 1]"
        )
    # The number of items follows from the propensity, not from the items seen: in a small log some
    # may never have been drawn, and a policy that chooses one of them must still find it.
    count = round(1.0 / low)
    if high - low > 1e-6 * low or abs(count * low - 1.0) > 1e-3:
        raise BadData(
            path,
            f"got values from {low:g} to {high:g}; "
            "expected the same 1 / (number of items) in every row: "
            "rejection replay needs a log drawn uniformly, use one logged by the random policy",
        )
    if not 2 <= count <= LARGEST_MATRIX:
        raise BadData(path, f"got {low:g}, that is {count} items; expected 2 to {LARGEST_MATRIX}")
    ids = np.unique(item_id)
    if ids.size < count and ids[0] >= 0 and ids[-1] < count:
        ids = np.arange(count)
    if ids.size != count:
        raise BadData(
            f"{name}.item_id",
            f"got {ids.size} different items; expected {count}, as the propensities say",
        )
    # A column of equal propensities is easily written over a log that was drawn otherwise.
    draws = np.bincount(np.searchsorted(ids, item_id), minlength=count)
    p = float(stats.chisquare(draws).pvalue)
    if p < 1e-6:
        raise BadData(
            f"{name}.item_id",
            f"got items shown {draws.min()} to {draws.max()} times, "
            f"which has probability {p:.1g} if drawn uniformly; expected a log drawn uniformly",
        )
    return ids

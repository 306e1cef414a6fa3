"""Columns of a log, checked once at the edge: errors name the column, the rows, what was got and
what was expected.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from topbill.domain.chance import ROUNDING
from topbill.domain.errors import BadData
from topbill.domain.records import Floats, Indices

Check = Callable[[Floats], NDArray[np.bool_]]

PROPENSITY: tuple[Check, str] = (
    lambda x: (x > 0) & (x <= 1 + ROUNDING),
    "a probability in (0, 1], as the action was drawn with",
)
PROBABILITY: tuple[Check, str] = (
    lambda x: (x >= 0) & (x <= 1 + ROUNDING),
    "a probability in [0, 1]",
)
FINITE: tuple[Check, str] = (np.isfinite, "a finite number")
POSITIVE: tuple[Check, str] = (lambda x: (x > 0) & np.isfinite(x), "a positive number")


def column(name: str, data: Any, rule: tuple[Check, str], rows: int | None = None) -> Floats:
    """`data` as float64 (n,); None, NA and what is no number count as missing. Raises BadData
    naming the rows.
    """
    values = _floats(name, data)
    if rows is not None and values.size != rows:
        raise BadData(
            name,
            f"got {values.size} rows; expected {rows}, as many as rewards; give one number per "
            "decision",
        )
    good, expected = rule
    bad = np.flatnonzero(~good(values))
    if bad.size:
        raise BadData(
            name,
            f"{rows_text(bad)}: got {values_text(values[bad])}; expected {expected}; correct or "
            "drop them",
        )
    return values


def probabilities(name: str, data: Any, rule: tuple[Check, str], rows: int | None = None) -> Floats:
    """A `column` of probabilities: what rounding took past 1 is 1."""
    return np.minimum(column(name, data, rule, rows), 1.0)


def row_weights(data: Any, rows: int) -> Floats:
    """(n,) how many decisions each row stands for, scaled to mean 1: only ratios matter."""
    weights = column("weights", data, POSITIVE, rows)
    return np.asarray(weights / weights.mean(), dtype=np.float64)


def refuse_misaligned(**columns: Any) -> None:
    """Raises BadData where two pandas objects of as many rows have different indexes.

    Rows are taken by their place: a column that was sorted, or joined from another frame, would be
    read against the rewards of other decisions, and no weight would show it.
    """
    first: tuple[str, Any] | None = None
    for name, data in columns.items():
        if not (hasattr(data, "iloc") and hasattr(data, "index")):
            continue
        if first is None:
            first = name, data.index
        elif len(data) == len(first[1]) and not data.index.equals(first[1]):
            rows = np.flatnonzero(np.asarray(data.index != first[1]))
            if not rows.size:
                continue  # the same moments, in another zone
            raise BadData(
                name,
                f"{rows_text(rows)}: got another index than that of {first[0]}; expected the same, "
                f"in the same order; use .reindex({first[0]}.index), or .to_numpy() on all where "
                "rows belong together by their place",
            )


def rewards_column(data: Any) -> Floats:
    """Rewards (n,): at least one, all finite. An empty or wholly missing column is a log with no
    rewards.
    """
    values = _floats("rewards", data)
    if values.size == 0:
        raise BadData(
            "rewards",
            "got no rows; expected at least one decision with its reward; is the filter too "
            "narrow?",
        )
    if np.isnan(values).all():
        raise BadData(
            "rewards",
            f"rows 0 to {values.size - 1}: got no reward at all; expected a number for each "
            "decision; join rewards",
        )
    return column("rewards", values, FINITE)


def unit_codes(units: Any, rows: int) -> Indices | None:
    """Integer codes 0…m−1 of `units` in order of first appearance, None when every row is its own
    unit.
    """
    if units is None:
        return None
    codes, _ = grouped("units", units)
    if codes.size != rows:
        raise BadData(
            "units",
            f"got {codes.size} rows; expected {rows}, as many as rewards; give one unit per "
            "decision",
        )
    # pandas gives −1 to what is missing: as one unit they would be taken for one viewer.
    missing = np.flatnonzero(codes < 0)
    if missing.size:
        raise BadData(
            "units",
            f"{rows_text(missing)}: got no unit; expected one per decision; use the decision's id",
        )
    return codes


def grouped(name: str, labels: Any) -> tuple[Indices, int]:
    """(n,) codes of the labels in order of first appearance, −1 where one is missing, and how many
    there are. Raises BadData for what is no list of labels.
    """
    # Here, as importing it takes more memory than a pass over a file, which does without.
    import pandas as pd

    try:
        codes, distinct = pd.factorize(vector(name, np.asarray(labels)))
    except (TypeError, ValueError) as error:
        raise BadData(
            name, f"got labels that cannot be compared ({error}); expected a text or number per row"
        ) from error
    return codes, len(distinct)


def vector(name: str, array: NDArray[Any]) -> NDArray[Any]:
    """(n,) the array, which may be a column of shape (n, 1). Raises BadData for any other shape."""
    if array.ndim == 2 and array.shape[1] == 1:
        return array[:, 0]
    if array.ndim != 1:
        raise BadData(
            name, f"got an array of shape {array.shape}; expected one dimension, a value per row"
        )
    return array


def rows_text(rows: NDArray[np.intp]) -> str:
    """`row 3`, or `rows 3, 7, 9, 12, 20 and 95 more`."""
    text = ", ".join(str(row) for row in rows[:5])
    if rows.size > 5:
        text += f" and {rows.size - 5} more"
    return f"row {text}" if rows.size == 1 else f"rows {text}"


def values_text(values: Floats) -> str:
    """The first five values, as an error shows them."""
    text = ", ".join("missing" if np.isnan(v) else f"{v:.9g}" for v in values[:5])
    return text + ", …" if values.size > 5 else text


def _floats(name: str, data: Any) -> Floats:
    if isinstance(data, np.ma.MaskedArray):
        data = np.ma.filled(data, np.nan)
    # As floats they would lose a part of what they are.
    if getattr(getattr(data, "dtype", None), "kind", "") in ("c", "M", "m"):
        raise BadData(name, f"got values of {data.dtype}; expected one number per row")
    try:
        values = np.asarray(data, dtype=np.float64)  # None becomes NaN
    except (TypeError, ValueError) as error:
        nullable = _nullable(data)
        if nullable is None:
            raise BadData(
                name, f"got values that are no numbers ({error}); expected one number per row"
            ) from error
        values = nullable
    return np.asarray(vector(name, values), dtype=np.float64)


def _nullable(data: Any) -> Floats | None:
    """A pandas or Arrow column with its own NA; None for what holds no numbers."""
    import pandas as pd

    try:
        numbers = pd.to_numeric(pd.Series(data)).to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError):
        return None
    return np.asarray(numbers, dtype=np.float64)

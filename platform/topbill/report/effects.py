"""The A/B analysis of an experiment in the lake: its rows of decisions, handed to `ab.analyse`."""

# ruff: noqa: S608  (names and values enter the SQL only through `quoted` and `identifier`)

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from topbill import ab
from topbill.ab.effect import Method
from topbill.lake import Connection, identifier, quoted

Row = Mapping[str, Any]

_UNIT, _VARIANT, _DAY = "@unit", "@variant", "@day"
"""Column names that no metric and no feature can have."""


def analysis(
    connection: Connection,
    key: str,
    *,
    variants: Sequence[Row],
    metrics: Sequence[Row],
    segments: Sequence[str],
    at: int,
    method: Method,
) -> ab.Analysis:
    """The analysis of experiment `key` as of `at` µs. `variants` and `metrics` are rows of the face's tables.

    A metric of a decision whose window is not over is unknown, not zero. `segments` are names of context features.
    """
    control = next(str(v["variant"]) for v in variants if v["control"])
    design = ab.Design(
        key=key,
        control=control,
        shares={v["variant"]: v["share"] for v in variants},
        metrics=tuple(
            ab.MetricDesign(
                name=m["metric"],
                binary=m["kind"] == "binary",
                better=m["better"],
                weight=m["weight"] or 0.0,
                cap=m["cap"],
            )
            for m in metrics
        ),
        guardrails={m["metric"]: m["worse_by_at_most"] for m in metrics if m["worse_by_at_most"] is not None},
    )
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE ab_rows AS {_rows(key, design, metrics, segments, at)}"
    ).fetchall()
    rows = connection.sql("FROM ab_rows")
    return ab.analyse(rows, design, unit=_UNIT, variant=_VARIANT, day=_DAY, segments=segments, method=method)


def category_features(spec: str, taken: Iterable[str]) -> list[str]:
    """The context features of an experiment file (JSON text) whose values are few and named, for segments.

    Left out are those named like a metric (`taken`)."""
    context = msgspec.json.decode(spec).get("context") or {}
    avoid = {*taken, "objective"}
    return [n for n, f in context.items() if isinstance(f, dict) and f.get("type") == "category" and n not in avoid]


def _rows(key: str, design: ab.Design, metrics: Sequence[Row], segments: Sequence[str], at: int) -> str:
    """SQL of a row per decision in the experiment. Units are hashed to 64 bits: a quarter of the memory."""
    windows = {m["metric"]: round(m["window_seconds"] * 1e6) for m in metrics}
    weighted = [m.name for m in design.metrics if m.weight]
    columns = [
        f"hash(d.unit) AS {identifier(_UNIT)}",
        f"d.variant AS {identifier(_VARIANT)}",
        f'd."at"::DATE AS {identifier(_DAY)}',
        *(f"d.context->>{quoted('$.' + _path(s))} AS {identifier(s)}" for s in segments),
        *(_known(f"e.{identifier(m)}", window, at, m) for m, window in windows.items()),
    ]
    if len(weighted) > 1:
        columns.append(_known("e.objective_", max(windows[m] for m in weighted), at, "objective"))
    return (
        f"SELECT {', '.join(columns)} FROM decisions d LEFT JOIN earned.{identifier(key)} e "
        f"ON d.decision_id = e.decision_id_ WHERE d.experiment = {quoted(key)} AND d.variant IS NOT NULL"
    )


def _known(column: str, window: int, at: int, shown: str) -> str:
    return f'CASE WHEN epoch_us(d."at") + {window} < {at} THEN coalesce({column}, 0.0) END AS {identifier(shown)}'


def _path(name: str) -> str:
    """The name as one step of a JSON path."""
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'

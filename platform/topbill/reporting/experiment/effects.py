"""The A/B analysis of an experiment in the lake: its rows of decisions, handed to `ab.analyse`."""

# ruff: noqa: S608  (constants only)

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from topbill import ab
from topbill.ab import Method
from topbill.domain.metric import METRIC_KINDS
from topbill.lake import Connection
from topbill.reporting.experiment.analysis_rows import DAY, OBJECTIVE, ROWS, UNIT, VARIANT, Row


def analysis(
    connection: Connection,
    key: str,
    *,
    variants: Sequence[Row],
    metrics: Sequence[Row],
    segments: Sequence[str],
    method: Method,
    looks: Sequence[float],
    covariates: Mapping[str, str],
) -> ab.Analysis:
    """The analysis of experiment `key` from `report_rows`. `variants` and `metrics` are rows of the
    face's tables, `covariates` what `rows.gather` answered."""
    return ab.analyse(
        prepared(connection),
        design(key, variants, metrics),
        unit=UNIT,
        variant=VARIANT,
        day=DAY,
        segments=segments,
        covariates=covariates,
        method=method,
        looks=looks,
    )


def prepared(connection: Connection) -> Any:
    """The rows of `report_rows` as an analysis reads them."""
    return connection.sql(f'SELECT *, "{OBJECTIVE}" AS objective FROM {ROWS}')


def design(key: str, variants: Sequence[Row], metrics: Sequence[Row]) -> ab.Design:
    """The design that rows of the face's tables `variants` and `metrics` describe."""
    return ab.Design(
        key=key,
        control=next(str(v["variant"]) for v in variants if v["control"]),
        shares={v["variant"]: v["share"] for v in variants},
        metrics=tuple(
            ab.MetricDesign(
                name=m["metric"],
                binary=METRIC_KINDS[m["kind"]].is_proportion,
                better=m["better"],
                weight=m["weight"] or 0.0,
                cap=m["cap"],
            )
            for m in metrics
        ),
        guardrails={m["metric"]: m["margin"] for m in metrics if m["margin"] is not None},
    )


def category_features(spec: str, taken: Iterable[str]) -> list[str]:
    """The context features of an experiment file (JSON text) whose values are few and named, for
    segments.

    Left out are those named like a metric (`taken`).
    """
    context = msgspec.json.decode(spec).get("context") or {}
    avoid = {*taken, "objective"}
    return [
        n
        for n, f in context.items()
        if isinstance(f, dict) and f.get("type") == "category" and n not in avoid
    ]

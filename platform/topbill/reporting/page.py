"""A page's report: what each layer's variants do to the whole page, on every objective, from the
layers' own randomisation. So it tells whether it was the row, the title or the picture, and which
variants trade one goal for another."""

# ruff: noqa: S608  (names and values enter the SQL only through `quoted`, `identifier` and numbers)

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from rich.console import Console, Group
from rich.table import Table

from topbill.candidates import Recall, Signals, signals_path
from topbill.domain.errors import BadData, BadRequest, LogError, NotFound
from topbill.domain.metric import Metric, longest_window, metric_column, values_sql, window_over
from topbill.domain.objective import Objective, WeightedMetric, WeightedSum
from topbill.domain.records import Floats
from topbill.domain.sql import identifier, number, quoted
from topbill.lake import DATABASE, Connection, Error, connect, metric_of
from topbill.reporting.pareto import dominated
from topbill.stats.intervals import normal
from topbill.stats.moments import Moments, ratio

OBJECTIVE = "objective"
LEAST_UNITS = 30
"""Viewers a variant needs before its numbers are compared."""


@dataclass(frozen=True)
class Measured:
    """A mean per page with its 95% interval over viewers."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Arm:
    """One variant of one layer: `metrics` of the whole pages on which it decided that layer.
    `beaten_by`: variants of the layer that are no worse on any weighted metric and surely better on
    one; `behind`: those that are so by their means only; `reason` says why there is no
    comparison."""

    layer: str
    experiment: str
    variant: str
    control: bool
    pages: int
    units: int
    metrics: dict[str, Measured]
    against_control: dict[str, Measured]
    beaten_by: tuple[str, ...] = ()
    behind: tuple[str, ...] = ()
    reason: str | None = None

    @property
    def standing(self) -> str:
        """Where it stands on the Pareto front of the weighted metrics, in words."""
        if self.reason or self.beaten_by:
            return self.reason or f"beaten by {', '.join(self.beaten_by)}"
        return "behind, not surely" if self.behind else "on the front"


@dataclass(frozen=True)
class PageReport:
    """What was served and what came of it. Pages whose longest window is not over count in `pages`
    only. `recall`: what the candidates find of held-out plays, as the worker last measured it; None
    while there are too few."""

    page: str
    pages: int
    mature: int
    units: int
    again: int
    fallbacks: dict[str, int]
    weights: dict[str, float]
    arms: tuple[Arm, ...]
    recall: Recall | None = None


def load(page: str, data: Path, *, weights: Mapping[str, float] | None = None) -> PageReport:
    """The report of a page from the data folder. `weights` re-weights the objective over all of
    history; without them, those of the titles' experiment hold.

    Raises NotFound when there is no lake yet or no such page in it, BadRequest for a weight of an
    unknown metric.
    """
    face = data / DATABASE
    connection = connect(face)
    try:
        return replace(_report(connection, page, weights), recall=_recall(data, page))
    except Error as error:
        raise LogError(
            f"{face}: {error}; try again: the files may have been compacted meanwhile"
        ) from error
    finally:
        connection.close()


def _recall(data: Path, page: str) -> Recall | None:
    path = signals_path(data, page)
    try:
        return Signals.load(path).recall if path.exists() else None
    except BadData:
        return None  # the worker writes the file anew, and says what is wrong with it


def _report(connection: Connection, page: str, weights: Mapping[str, float] | None) -> PageReport:
    rows = _rows(
        connection,
        f"""SELECT unit, epoch_us(decided_at) AS decided_at, decision_id, actions->>'$.layers' AS layers,
            actions->>'$.fallbacks' AS fallbacks FROM decisions WHERE experiment = {quoted(page)} ORDER BY seq""",
    )
    if not rows:
        raise NotFound(f"no page {page!r} in the lake; expected one that was served and published")
    layers = [
        {str(one["layer"]): one for one in msgspec.json.decode(row["layers"])} for row in rows
    ]
    keys = {name: str(one["experiment"]) for name, one in layers[-1].items()}
    metrics = _metrics(connection, keys)
    used = _weights(connection, metrics, keys, weights)
    (published,) = _rows(connection, "SELECT epoch_us(published_at) AS published_at FROM published")
    # All metrics are compared over the same pages, those on which none can change any more.
    window = longest_window(metrics.values())
    mature = np.array(
        [window_over(row["decided_at"], window, published["published_at"]) for row in rows],
        dtype=bool,
    )
    values = _values(connection, page, list(metrics.values()), used)
    again = f"SELECT count(*) AS n FROM rewards WHERE experiment = {quoted(page)} AND event = 'page_again'"
    fallbacks: dict[str, int] = {}
    for row in rows:
        for stage in msgspec.json.decode(row["fallbacks"]):
            fallbacks[stage] = fallbacks.get(stage, 0) + 1
    _, units = np.unique(np.array([row["unit"] for row in rows]), return_inverse=True)
    arms: list[Arm] = []
    for layer, key in keys.items():
        served = np.array([one[layer]["variant"] or "" if layer in one else "" for one in layers])
        arms += _layer(connection, layer, key, served, mature, units, values, used)
    return PageReport(
        page=page,
        pages=len(rows),
        mature=int(mature.sum()),
        units=int(units.max()) + 1,
        again=int(_rows(connection, again)[0]["n"]),
        fallbacks=fallbacks,
        weights=used,
        arms=tuple(arms),
    )


def _layer(
    connection: Connection,
    layer: str,
    key: str,
    served: np.ndarray,
    mature: np.ndarray,
    units: np.ndarray,
    values: Mapping[str, Floats],
    weights: Mapping[str, float],
) -> list[Arm]:
    declared = _rows(
        connection, f"SELECT variant, control FROM variants WHERE experiment = {quoted(key)}"
    )
    found = {
        row["variant"]: np.flatnonzero((served == row["variant"]) & mature) for row in declared
    }
    control = next((row["variant"] for row in declared if row["control"]), None)
    sums = {
        name: {metric: _moments(units[at], value[at]) for metric, value in values.items()}
        for name, at in found.items()
    }
    enough = {name: int(np.unique(units[at]).size) >= LEAST_UNITS for name, at in found.items()}
    means = {
        name: {m: _mean(moments) for m, moments in by_metric.items()}
        for name, by_metric in sums.items()
        if len(found[name])
    }
    goals = {metric: weight for metric, weight in weights.items() if weight}
    ahead = dominated({name: by_metric for name, by_metric in sums.items() if enough[name]}, goals)
    arms = []
    for row in declared:
        name = row["variant"]
        compared = control is not None and name != control and enough[name] and enough[control]
        arms.append(
            Arm(
                layer=layer,
                experiment=key,
                variant=name,
                control=bool(row["control"]),
                pages=len(found[name]),
                units=int(np.unique(units[found[name]]).size),
                metrics=means.get(name, {}),
                against_control={m: _difference(sums[name][m], sums[control][m]) for m in values}
                if compared
                else {},
                beaten_by=tuple(other for other, sure in ahead.get(name, {}).items() if sure),
                behind=tuple(other for other, sure in ahead.get(name, {}).items() if not sure),
                reason=None if enough[name] else "too_few_units",
            )
        )
    return arms


def _declared(connection: Connection, key: str) -> list[dict[str, Any]]:
    return _rows(connection, f"SELECT * FROM metrics WHERE experiment = {quoted(key)}")


def _metrics(connection: Connection, keys: Mapping[str, str]) -> dict[str, Metric]:
    """The layers' metrics by name; where two layers mean different things by a name, the titles'
    counts.
    """
    order = [keys[name] for name in ("artwork", "rows", "titles") if name in keys]
    metrics: dict[str, Metric] = {}
    for key in order:
        for row in _declared(connection, key):
            metrics[row["metric"]] = metric_of(row)
    if not metrics:
        raise NotFound(
            f"experiments {', '.join(order)} are not in the lake; expected the page's layers"
        )
    return metrics


def _weights(
    connection: Connection,
    metrics: Collection[str],
    keys: Mapping[str, str],
    weights: Mapping[str, float] | None,
) -> dict[str, float]:
    """What each metric weighs: as the caller has it, or as the titles' experiment does."""
    if weights is None:
        titles = _declared(connection, keys["titles"]) if "titles" in keys else []
        return {row["metric"]: row["weight"] for row in titles if row["weight"]}
    for name in weights:
        if name not in metrics:
            raise BadRequest(
                f"weights.{name}", f"no such metric; expected some of {', '.join(metrics)}"
            )
    if not any(weight > 0 for weight in weights.values()):
        raise BadRequest("weights", "no weight above 0; expected at least one metric to raise")
    return dict(weights)


def _values(
    connection: Connection, page: str, metrics: Sequence[Metric], weights: Mapping[str, float]
) -> dict[str, Floats]:
    """(pages,) each metric of each page, scaled to [0, 1] by its cap, and the objective of these
    weights, the pages in the order of the log."""
    columns = {OBJECTIVE: Objective.of(metrics, weights).sql(_page_column)}
    for metric in metrics:
        alone = WeightedSum.of([WeightedMetric(metric.name, 1.0, metric.cap)])
        columns[metric.name] = alone.sql(_page_column)
    shares = ", ".join(f"{sql} AS s{i}" for i, sql in enumerate(columns.values()))
    defaults = ", ".join(
        f"coalesce(e.{metric_column(m.name)}, {number(m.default)}) AS {_page_column(m.name)}"
        for m in metrics
    )
    of_page = values_sql(metrics, f"r.experiment = {quoted(page)}")
    table = connection.sql(
        f"SELECT {shares} FROM (SELECT d.seq AS page_seq, {defaults} FROM decisions d "
        f"LEFT JOIN ({of_page}) e ON d.decision_id = e.decision_id "
        f"WHERE d.experiment = {quoted(page)}) ORDER BY page_seq"
    ).fetchnumpy()
    return {name: np.asarray(table[f"s{i}"], dtype=np.float64) for i, name in enumerate(columns)}


def _page_column(metric: str) -> str:
    # A name that no column of the lake has, whatever the metrics are called.
    return identifier(f"m:{metric}")


def _moments(units: np.ndarray, values: Floats) -> Moments:
    """Sums by viewer: their value and their pages."""
    if not len(units):
        return Moments.of(("value", "pages"), np.zeros((0, 2)))
    _, who = np.unique(units, return_inverse=True)
    return Moments.of(
        ("value", "pages"),
        np.stack([np.bincount(who, weights=values), np.bincount(who).astype(float)], axis=1),
    )


def _mean(moments: Moments) -> Measured:
    found = ratio("value", "pages")(moments)
    return Measured(found.value, *normal(found.value, found.variance(moments) ** 0.5, 0.05))


def _difference(new: Moments, old: Moments) -> Measured:
    a, b = ratio("value", "pages")(new), ratio("value", "pages")(old)
    gap = a.value - b.value
    return Measured(gap, *normal(gap, (a.variance(new) + b.variance(old)) ** 0.5, 0.05))


def _rows(connection: Connection, query: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = connection.sql(query).to_arrow_table().to_pylist()
    return rows


def render(report: PageReport, out: Console) -> None:
    """The report on a terminal."""
    again = f", {report.again:,} served again to their session" if report.again else ""
    flagged = ", ".join(f"{count:,} without {stage}" for stage, count in report.fallbacks.items())
    head = f"Page {report.page}: {report.pages:,} pages of {report.units:,} viewers{again}" + (
        f"; fallbacks: {flagged}" if flagged else ""
    )
    weighed = ", ".join(f"{name} {weight:g}" for name, weight in report.weights.items())
    names = list(dict.fromkeys(name for arm in report.arms for name in arm.metrics))
    table = Table(title=f"Per page, with 95% intervals over viewers; objective: {weighed}")
    for column in ("layer", "variant", "pages", *names, "objective against the control", "Pareto"):
        table.add_column(column)
    for arm in report.arms:
        gap = arm.against_control.get(OBJECTIVE)
        told = (
            "control"
            if arm.control
            else "–"
            if gap is None
            else f"{gap.mean:+.4f} ({gap.low:+.4f} to {gap.high:+.4f})"
        )
        cells = [
            f"{m.mean:.4f} ± {m.high - m.mean:.4f}"
            for m in (arm.metrics.get(name) for name in names)
            if m
        ]
        table.add_row(
            arm.layer,
            arm.variant,
            f"{arm.pages:,}",
            *(cells or ["–"] * len(names)),
            told,
            arm.standing,
        )
    out.print(Group(head, _told(report.recall), table))


def _told(recall: Recall | None) -> str:
    if recall is None:
        return "Candidates: too few viewers with two plays, or none yet learned from, to tell what they find."
    return (
        f"Candidates: the first {recall.most} hold {recall.found / recall.asked:.1%} of {recall.asked:,} plays that "
        f"were held out, the {recall.most} most popular titles {recall.popular / recall.asked:.1%}."
    )

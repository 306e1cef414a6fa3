"""A page's report: what each layer's variants do to the whole page, on every objective, from the
layers' own randomisation. So it tells whether it was the row, the title or the picture, and which
variants trade one goal for another.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pandas as pd
from rich.console import Console, Group
from rich.table import Table

from topbill.candidates import Recall, Signals, signals_path
from topbill.domain import formatting
from topbill.domain.errors import BadData, BadRequest, NotFound
from topbill.domain.metric import Metric, longest_window, metric_column, values_sql, window_over
from topbill.domain.objective import Objective, WeightedMetric, WeightedSum
from topbill.domain.records import Floats
from topbill.domain.rewards import IMPRESSIONS, SEEN, examined_sql, looked_at_sql
from topbill.domain.sql import identifier, number
from topbill.lake import metric_of
from topbill.reporting.experiment import html
from topbill.reporting.pareto import dominated
from topbill.reporting.queries.database import (
    AnalyticsDatabase,
    open_database,
    published_experiment,
    published_us,
)
from topbill.stats.frames import frame_of
from topbill.stats.intervals import normal
from topbill.stats.moments import Moments, ratio

if TYPE_CHECKING:
    from topbill.charts import Chart

OBJECTIVE = "objective"
_PLACES = """
WITH looked AS ({looked_at}),
row_places AS (
    -- A row's titles are decided under the page's id, a colon and the row.
    SELECT regexp_replace(decision_id, ':rows$', ':') || action AS decision_id,
        position AS row_place
    FROM placements WHERE experiment = $rows
),
rewarded AS (
    SELECT DISTINCT r.decision_id, r.position
    FROM rewards r
        JOIN (SELECT unnest($events) AS event, unnest($windows) AS seconds) w USING (event)
    WHERE r.experiment = $key AND r.position IS NOT NULL AND r.value > 0
        AND epoch_us(r.occurred_at) - epoch_us(r.decided_at) <= seconds * 1e6
)
SELECT row_place + 1 AS "row", position + 1 AS position, count(*) AS placed,
    count(*) FILTER ({examined}) AS examples,
    count(*) FILTER (({examined}) AND hit) AS rewarded
FROM (
    SELECT p.decision_id, p.position, r.row_place, w.position IS NOT NULL AS hit
    FROM placements p JOIN row_places r ON r.decision_id = p.decision_id
        LEFT JOIN rewarded w ON w.decision_id = p.decision_id AND w.position = p.position
    WHERE p.experiment = $key AND epoch_us(p.decided_at) < $before
) LEFT JOIN looked USING (decision_id)
GROUP BY ALL ORDER BY ALL
"""
LEAST_UNITS = 30
"""Viewers a variant needs before its numbers are compared."""
_ALPHA = 0.05


@dataclass(frozen=True)
class PageMean:
    """A mean per page, or a difference of two, with its 95% interval over viewers."""

    mean: float
    low: float
    high: float

    @property
    def reading(self) -> str:
        """What a difference says: better, worse or inconclusive."""
        if self.low > 0:
            return "better"
        return "worse" if self.high < 0 else "inconclusive"


@dataclass(frozen=True)
class LayerVariant:
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
    metrics: dict[str, PageMean]
    against_control: dict[str, PageMean]
    beaten_by: tuple[str, ...] = ()
    behind: tuple[str, ...] = ()
    reason: str | None = None

    @property
    def standing(self) -> str:
        """Where it stands on the Pareto front of the weighted metrics, in words."""
        if self.reason:
            return self.reason
        if self.beaten_by:
            return f"dominated by {', '.join(self.beaten_by)}"
        return "dominated (not significant)" if self.behind else "Pareto-optimal"


@dataclass(frozen=True)
class PlaceRate:
    """One place of a page, its row and the place in that row from 1 on: how many titles stood there
    (`placed`), how many of them count as looked at (`examples`), and of how many of these an event
    of the objective came (`rewarded`).
    """

    row: int
    position: int
    placed: int
    examples: int
    rewarded: int


@dataclass(frozen=True)
class Impressions:
    """At what of pages viewers looked, as far as clients say it: of how many pages they do
    (`sent`), the titles' `click_model`, and what came of each place of mature pages, from the top.
    """

    sent: int
    click_model: str
    places: tuple[PlaceRate, ...]

    @property
    def placed(self) -> int:
        """All titles that stood on mature pages."""
        return sum(place.placed for place in self.places)

    @property
    def examples(self) -> int:
        """Those of them that count as looked at."""
        return sum(place.examples for place in self.places)

    def to_frame(self) -> pd.DataFrame:
        """A row for each place: row and position (from 1), placed, examples, rewarded, and rate,
        the share of examples that was rewarded; `pandas.NA` where there is no example.
        """
        rows = []
        for place in self.places:
            rate = place.rewarded / place.examples if place.examples else None
            rows.append({**asdict(place), "rate": rate})
        return frame_of(rows)


@dataclass(frozen=True)
class PageReport:
    """What was served and what came of it. Pages whose longest window is not over count in `pages`
    only. `recall`: what the candidates find of held-out plays, as the worker last measured it; None
    while there are too few.

    In a notebook it shows itself as tables; `chart` draws what each variant adds to a page,
    `to_frame` gives its numbers.
    """

    page: str
    pages: int
    mature: int
    units: int
    again: int
    fallbacks: dict[str, int]
    weights: dict[str, float]
    arms: tuple[LayerVariant, ...]
    impressions: Impressions
    recall: Recall | None = None

    def to_frame(self) -> pd.DataFrame:
        """The numbers as a table, a row for each layer, variant and metric (the objective too).

        Returns:
            Columns layer, experiment, variant, control (bool), pages, units, metric; mean with low
            and high per page; difference with difference_low and difference_high from the layer's
            control, `pandas.NA` where they are not compared; standing.
        """
        rows = []
        for arm in self.arms:
            for metric, mean in arm.metrics.items():
                gap = arm.against_control.get(metric)
                rows.append(
                    {
                        "layer": arm.layer,
                        "experiment": arm.experiment,
                        "variant": arm.variant,
                        "control": arm.control,
                        "pages": arm.pages,
                        "units": arm.units,
                        "metric": metric,
                        "mean": mean.mean,
                        "low": mean.low,
                        "high": mean.high,
                        "difference": gap.mean if gap else None,
                        "difference_low": gap.low if gap else None,
                        "difference_high": gap.high if gap else None,
                        "standing": arm.standing,
                    }
                )
        return frame_of(rows, text=("layer", "experiment", "variant", "metric", "standing"))

    def gaps(self) -> list[tuple[str, str, PageMean]]:
        """What each variant adds to the page's objective beyond its layer's control, with its
        layer and name; of those that are compared.
        """
        compared = []
        for arm in self.arms:
            gap = arm.against_control.get(OBJECTIVE)
            if gap is not None:
                compared.append((arm.layer, arm.variant, gap))
        return compared

    def chart(self) -> Chart:
        """What each variant adds to the page's objective beyond its layer's control, with its
        interval, as an Altair chart.
        """
        from topbill import charts

        rows = [
            (f"{layer}: {variant}", layer, gap.mean, gap.low, gap.high, gap.reading)
            for layer, variant, gap in self.gaps()
        ]
        return charts.gaps(charts.gap_frame(rows)).properties(width=charts.WIDTH)

    def _repr_html_(self) -> str:
        return html.part(_body(self))


def load_page_report(
    page: str, data: Path | str, *, weights: Mapping[str, float] | None = None
) -> PageReport:
    """The report of a page.

    Args:
        page: the page's key.
        data: the data folder.
        weights: re-weigh the objective over all of history; without them, those of the titles'
            experiment hold.

    Raises:
        NotFound: there is no lake yet, or no such page in it.
        BadRequest: a weight of an unknown metric.
        LogError: the lake cannot be read.
    """
    # What candidates find is measured by the worker and lies beside the lake.
    with open_database(data) as database:
        report = _report(database, page, weights)
    return replace(report, recall=_recall(Path(data), page))


def _recall(data: Path, page: str) -> Recall | None:
    path = signals_path(data, page)
    try:
        return Signals.load(path).recall if path.exists() else None
    except BadData:
        return None  # the worker writes the file anew, and says what is wrong with it


@dataclass(frozen=True)
class _Pages:
    """The pages that were served, an element for each, in the order of the log."""

    variants: dict[str, np.ndarray]
    """By layer: the variant that decided it, "" where none did."""
    experiments: dict[str, str]
    """By layer: its experiment's key, as the latest page has it."""
    units: np.ndarray
    """The viewer's number, from 0."""
    decided_at: np.ndarray
    """µs since the epoch."""
    fallbacks: dict[str, int]
    """How many pages something else stepped in on, by stage."""


def _report(
    database: AnalyticsDatabase, page: str, weights: Mapping[str, float] | None
) -> PageReport:
    pages = _pages(database, page)
    metrics = _metrics(database, pages.experiments)
    goals = _weights(database, metrics, pages.experiments, weights)
    # All metrics are compared over the same pages, those on which none can change any more.
    window, now = longest_window(metrics.values()), published_us(database)
    mature = np.array([window_over(at, window, now) for at in pages.decided_at], dtype=bool)
    values = page_values(database, page, list(metrics.values()), goals)
    # Each layer is randomised by itself, so that each is compared as if the others were chance.
    arms: list[LayerVariant] = []
    for layer, key in pages.experiments.items():
        layer_variants = _ServedLayer(
            layer, key, pages.variants[layer], mature, pages.units, values
        )
        arms += layer_variants.compared(database, goals)
    again = database.row(
        """SELECT count(*) AS n FROM rewards
        WHERE experiment = $page AND event = 'page_again'""",
        page=page,
    )
    return PageReport(
        page=page,
        pages=len(mature),
        mature=int(mature.sum()),
        units=int(pages.units.max()) + 1,
        again=int(again["n"]),
        fallbacks=pages.fallbacks,
        weights=goals,
        arms=tuple(arms),
        impressions=_impressions(database, page, pages.experiments, now - round(window * 1e6)),
    )


def _impressions(
    database: AnalyticsDatabase, page: str, experiments: Mapping[str, str], before: int
) -> Impressions:
    """What was looked at of the pages' titles, and of each place of those made before (µs)."""
    sent = database.row(
        """SELECT count(DISTINCT decision_id) AS n FROM rewards
        WHERE experiment = $page AND list_contains($impressions, event)""",
        page=page,
        impressions=sorted(IMPRESSIONS),
    )
    titles = published_experiment(database, experiments["titles"])
    goal = [metric for metric in titles.metrics if titles.objective.get(metric.name)]
    rows = database.rows(
        _PLACES.format(looked_at=looked_at_sql(), examined=examined_sql(titles)),
        key=titles.key,
        rows=experiments["rows"],
        before=before,
        events=[metric.event for metric in goal],
        windows=[metric.window for metric in goal],
    )
    return Impressions(
        sent=int(sent["n"]),
        click_model=titles.click_model,
        places=tuple(PlaceRate(**row) for row in rows),
    )


def _pages(database: AnalyticsDatabase, page: str) -> _Pages:
    rows = database.rows(
        """SELECT unit, epoch_us(decided_at) AS decided_at, actions->>'$.layers' AS layers,
            actions->>'$.fallbacks' AS fallbacks
        FROM decisions WHERE experiment = $page ORDER BY seq""",
        page=page,
    )
    if not rows:
        raise NotFound(f"no page {page!r} in the lake; expected one that was served and published")
    fallbacks: dict[str, int] = {}
    variants: list[dict[str, str]] = []
    experiments: dict[str, str] = {}
    for row in rows:
        for stage in msgspec.json.decode(row["fallbacks"]):
            fallbacks[stage] = fallbacks.get(stage, 0) + 1
        # The latest page says which layers there are now, and of which experiments.
        experiments = {}
        variant_by_layer = {}
        for layer in msgspec.json.decode(row["layers"]):
            name = str(layer["layer"])
            experiments[name] = str(layer["experiment"])
            variant_by_layer[name] = layer["variant"] or ""
        variants.append(variant_by_layer)
    pages = pd.DataFrame(rows)
    # A layer that came later has decided nothing on the pages before.
    by_layer = pd.DataFrame(variants).fillna("")
    units, _ = pd.factorize(pages["unit"], use_na_sentinel=False)
    return _Pages(
        variants={name: by_layer[name].to_numpy() for name in experiments},
        experiments=experiments,
        units=units,
        decided_at=pages["decided_at"].to_numpy(),
        fallbacks=fallbacks,
    )


@dataclass(frozen=True)
class _ServedLayer:
    """A layer's variants on the pages that were served, an element of each array for a page."""

    name: str
    experiment: str
    variants: np.ndarray
    mature: np.ndarray
    units: np.ndarray
    values: Mapping[str, Floats]

    def compared(
        self, database: AnalyticsDatabase, goals: Mapping[str, float]
    ) -> list[LayerVariant]:
        """Each declared variant with its means, and beside the layer's control."""
        rows = database.rows(
            "SELECT variant, control FROM variants WHERE experiment = $key", key=self.experiment
        )
        measured: dict[str, LayerVariant] = {}
        sums: dict[str, dict[str, Moments]] = {}
        for row in rows:
            name = row["variant"]
            sums[name] = self._sums(name)
            measured[name] = self._measured(name, row["control"], sums[name])
        # Only variants with enough viewers are compared with anything.
        sums_of_enough = {n: sums[n] for n, arm in measured.items() if arm.reason is None}
        weighted = {metric: weight for metric, weight in goals.items() if weight}
        ahead = dominated(sums_of_enough, weighted)
        control = next((name for name in sums_of_enough if measured[name].control), None)
        arms = []
        for name, arm in measured.items():
            gaps: dict[str, PageMean] = {}
            if control is not None and name in sums_of_enough and name != control:
                gaps = _differences(sums[name], sums[control])
            arms.append(_placed(arm, gaps, ahead.get(name, {})))
        return arms

    def _pages_of(self, variant: str) -> np.ndarray:
        """Which pages are mature and had the layer decided by that variant."""
        return np.flatnonzero((self.variants == variant) & self.mature)

    def _sums(self, variant: str) -> dict[str, Moments]:
        """Of each metric, sums by viewer over the variant's pages."""
        pages = self._pages_of(variant)
        units = self.units[pages]
        return {metric: _moments(units, value[pages]) for metric, value in self.values.items()}

    def _measured(self, variant: str, control: bool, sums: dict[str, Moments]) -> LayerVariant:
        pages = self._pages_of(variant)
        units = int(np.unique(self.units[pages]).size)
        means: dict[str, PageMean] = {}
        if len(pages):
            means = {metric: _mean(moments) for metric, moments in sums.items()}
        return LayerVariant(
            layer=self.name,
            experiment=self.experiment,
            variant=variant,
            control=bool(control),
            pages=len(pages),
            units=units,
            metrics=means,
            against_control={},
            reason=None if units >= LEAST_UNITS else "too_few_units",
        )


def _placed(
    arm: LayerVariant, gaps: dict[str, PageMean], better: Mapping[str, bool]
) -> LayerVariant:
    """The variant beside the control, and among those that are better; `better` says how surely."""
    surely, perhaps = [], []
    for other, is_sure in better.items():
        if is_sure:
            surely.append(other)
        else:
            perhaps.append(other)
    return replace(arm, against_control=gaps, beaten_by=tuple(surely), behind=tuple(perhaps))


def _metrics(database: AnalyticsDatabase, experiments: Mapping[str, str]) -> dict[str, Metric]:
    """The layers' metrics by name; where two layers mean different things by a name, the titles'
    counts.
    """
    keys = [experiments[layer] for layer in ("artwork", "rows", "titles") if layer in experiments]
    # Titles last, so that theirs replace what other layers mean by the name.
    metrics: dict[str, Metric] = {}
    for key in keys:
        for row in database.rows("SELECT * FROM metrics WHERE experiment = $key", key=key):
            metric = metric_of(row)
            # A page's report is of decisions, as policies learn from them.
            if metric.is_of_decisions and metric.scope != "unit":
                metrics[row["metric"]] = metric
    if not metrics:
        raise NotFound(
            f"experiments {', '.join(keys)} are not in the lake; expected the page's layers"
        )
    return metrics


def _weights(
    database: AnalyticsDatabase,
    metrics: Iterable[str],
    experiments: Mapping[str, str],
    weights: Mapping[str, float] | None,
) -> dict[str, float]:
    """What each metric weighs: as the caller has it, or as the titles' experiment does."""
    if weights is None:
        rows = database.rows(
            "SELECT metric, weight FROM metrics WHERE experiment = $key AND weight <> 0",
            key=experiments.get("titles", ""),
        )
        return {row["metric"]: row["weight"] for row in rows}
    # A typing error would otherwise weigh nothing, silently.
    names = list(metrics)
    for name in weights:
        if name not in names:
            raise BadRequest(
                f"weights.{name}", f"no such metric; expected some of {', '.join(names)}"
            )
    if not any(weight > 0 for weight in weights.values()):
        raise BadRequest("weights", "no weight above 0; expected at least one metric to raise")
    return dict(weights)


def page_values(
    database: AnalyticsDatabase, page: str, metrics: list[Metric], weights: Mapping[str, float]
) -> dict[str, Floats]:
    """(pages,) each metric of each page, scaled from [floor, cap] to [0, 1], and the objective of
    these weights, the pages in the order of the log.
    """
    # Every kind, cap and default is the domain's SQL: the page is measured as the learner is.
    shares = {OBJECTIVE: Objective.of(metrics, weights).sql(_page_column)}
    for metric in metrics:
        alone = WeightedSum.of([WeightedMetric(metric.name, 1.0, metric.cap, metric.floor)])
        shares[metric.name] = alone.sql(_page_column)
    columns = ", ".join(f"{sql} AS s{i}" for i, sql in enumerate(shares.values()))
    earned = []
    for metric in metrics:
        value = f"coalesce(e.{metric_column(metric.name)}, {number(metric.default)})"
        earned.append(f"{value} AS {_page_column(metric.name)}")
    table = database.connection.sql(
        f"""SELECT {columns}
        FROM (
            SELECT d.seq AS page_seq, {", ".join(earned)}
            FROM decisions d
                LEFT JOIN ({values_sql(metrics, "r.experiment = $page")}) e
                    ON d.decision_id = e.decision_id
            WHERE d.experiment = $page
        ) ORDER BY page_seq""",  # noqa: S608  (SQL of domain.metric and domain.objective)
        params={"page": page},
    ).fetchnumpy()
    return {name: np.asarray(table[f"s{i}"], dtype=np.float64) for i, name in enumerate(shares)}


def _page_column(metric: str) -> str:
    # A name that no column of the lake has, whatever the metrics are called.
    return identifier(f"m:{metric}")


def _moments(units: np.ndarray, values: Floats) -> Moments:
    """Sums by viewer: their value and their pages."""
    # `bincount` of nothing has no length that the moments could take.
    if not len(units):
        return Moments.of(("value", "pages"), np.zeros((0, 2)))
    _, viewer = np.unique(units, return_inverse=True)
    sums, pages = np.bincount(viewer, weights=values), np.bincount(viewer).astype(float)
    return Moments.of(("value", "pages"), np.stack([sums, pages], axis=1))


def _mean(moments: Moments) -> PageMean:
    mean = ratio("value", "pages")(moments)
    return PageMean(mean.value, *normal(mean.value, mean.variance(moments) ** 0.5, _ALPHA))


def _differences(
    treated: Mapping[str, Moments], control: Mapping[str, Moments]
) -> dict[str, PageMean]:
    return {metric: _difference(treated[metric], control[metric]) for metric in treated}


def _difference(treated: Moments, control: Moments) -> PageMean:
    one, other = ratio("value", "pages")(treated), ratio("value", "pages")(control)
    gap = one.value - other.value
    # The arms are independent: a viewer is in one variant of a layer.
    sd = (one.variance(treated) + other.variance(control)) ** 0.5
    return PageMean(gap, *normal(gap, sd, _ALPHA))


def render_page_report(report: PageReport, console: Console) -> None:
    """Print the report: what was served, what candidates find, and each layer's variants."""
    headings, rows = _variant_cells(report)
    table = Table(title=_caption(report))
    for heading in headings:
        table.add_column(heading)
    for row in rows:
        table.add_row(*row)
    console.print(
        Group(
            _head(report),
            _recall_sentence(report.recall),
            _looks_sentence(report),
            table,
            _places_table(report.impressions),
        )
    )


def page_html(report: PageReport) -> str:
    """The report as a page of HTML, with neither script nor image from elsewhere."""
    title = f"Page {report.page}"
    return html.page(title, f"<h1>{escape(title)}</h1>{_body(report)}")


def _body(report: PageReport) -> str:
    headings, rows = _variant_cells(report)
    return (
        f"<p>{escape(_head(report))}</p>"
        f"<p class=dim>{escape(_recall_sentence(report.recall))}</p>"
        f"<p class=dim>{escape(_looks_sentence(report))}</p>"
        f"{html.table(headings, rows, 2, _caption(report))}"
        f"{html.table(_PLACE_HEADINGS, _place_cells(report.impressions), 1, _PLACES_CAPTION)}"
    )


def _head(report: PageReport) -> str:
    sentence = f"Page {report.page}: {report.pages:,} pages of {report.units:,} viewers"
    if report.again:
        sentence += f", {report.again:,} session cache hits"
    if report.fallbacks:
        stages = [f"{pages:,} without {stage}" for stage, pages in report.fallbacks.items()]
        sentence += f"; fallbacks: {', '.join(stages)}"
    return sentence


def _caption(report: PageReport) -> str:
    weights = ", ".join(f"{name} {weight:g}" for name, weight in report.weights.items())
    return f"Per page, with 95% intervals over viewers; objective: {weights}"


def _variant_cells(report: PageReport) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Headings, and a row of cells for each layer's variant."""
    metrics = list(dict.fromkeys(name for arm in report.arms for name in arm.metrics))
    rows = []
    for arm in report.arms:
        means = [_mean_cell(arm.metrics.get(name)) for name in metrics]
        gap = "control" if arm.control else _gap_cell(arm.against_control.get(OBJECTIVE))
        rows.append((arm.layer, arm.variant, f"{arm.pages:,}", *means, gap, arm.standing))
    headings = ("layer", "variant", "pages", *metrics, "objective against the control", "Pareto")
    return headings, rows


def _mean_cell(mean: PageMean | None) -> str:
    return formatting.MISSING if mean is None else f"{mean.mean:.4f} ± {mean.high - mean.mean:.4f}"


def _gap_cell(gap: PageMean | None) -> str:
    if gap is None:
        return formatting.MISSING
    return formatting.with_minus(f"{gap.mean:+.4f} ({gap.low:+.4f} to {gap.high:+.4f})")


def _recall_sentence(recall: Recall | None) -> str:
    if recall is None:
        return (
            "Candidates: too few viewers with two plays, or none yet learned from, to tell what "
            "they find."
        )
    hits, popular = recall.hits / recall.held_out, recall.popular / recall.held_out
    return (
        f"Candidates: the first {recall.most} hold {hits:.1%} of {recall.held_out:,} plays that "
        f"were held out, the {recall.most} most popular titles {popular:.1%}."
    )


def _looks_sentence(report: PageReport) -> str:
    """What counts as looked at."""
    looks = report.impressions
    without = report.pages - looks.sent
    if not looks.sent:
        return (
            f"No client sent impressions (event {SEEN}): whatever stood on a page counts as looked "
            "at, and only its position tells how likely that was."
        )
    if looks.click_model != "examined":
        return (
            f"Impressions came of {looks.sent:,} pages, but nothing goes by them: say click_model: "
            "examined in the page file."
        )
    unseen = looks.placed - looks.examples
    sentence = (
        f"Impressions came of {looks.sent:,} pages: {unseen:,} of {looks.placed:,} titles that "
        "stood on mature pages were not looked at and are no examples."
    )
    if without:
        sentence += f" {without:,} pages came without, all of whose titles count as looked at."
    return sentence


_PLACES_CAPTION = "By row of the page: titles that count as looked at, and what came of them"
_PLACE_HEADINGS = ("row", "titles", "looked at", "with an event of the objective", "rate")


def _place_cells(looks: Impressions) -> list[tuple[str, ...]]:
    """A row of cells for each row of the page."""
    by_row: dict[int, list[PlaceRate]] = {}
    for place in looks.places:
        by_row.setdefault(place.row, []).append(place)
    cells: list[tuple[str, ...]] = []
    for row, places in by_row.items():
        placed = sum(place.placed for place in places)
        examples = sum(place.examples for place in places)
        rewarded = sum(place.rewarded for place in places)
        rate = f"{rewarded / examples:.2%}" if examples else formatting.MISSING
        cells.append((f"{row}", f"{placed:,}", f"{examples:,}", f"{rewarded:,}", rate))
    return cells


def _places_table(looks: Impressions) -> Table:
    table = Table(title=_PLACES_CAPTION)
    for heading in _PLACE_HEADINGS:
        table.add_column(heading)
    for row in _place_cells(looks):
        table.add_row(*row)
    return table

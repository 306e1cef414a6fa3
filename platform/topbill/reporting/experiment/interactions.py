"""Two experiments on the units that are in both: does the effect of the one depend on the variant
of the other?
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from topbill import ab
from topbill.ab import OBJECTIVE, Interaction, Method
from topbill.domain import formatting
from topbill.domain.errors import BadRequest
from topbill.domain.sql import identifier
from topbill.domain.suggestion import nearest
from topbill.reporting.experiment import wording
from topbill.reporting.experiment.analysis_rows import AnalysisRows, ExperimentTables
from topbill.reporting.experiment.covariates import UNIT
from topbill.reporting.experiment.day_sums import MOMENT, VARIANT
from topbill.reporting.queries.database import open_database

_OTHER, _ROWS = "@other", "interaction_rows"


def interaction(
    key: str,
    other: str,
    data: Path | str,
    *,
    metric: str | None = None,
    method: Method = "sequential",
    looks: Sequence[float] = (1.0,),
) -> Interaction:
    """The effect of an experiment's variants by the variant of another, for units that are in both.

    What a unit did in the one counts from its first decision in the other on: before that the other
    could change nothing.

    Args:
        key: the experiment whose effect it is.
        other: the other.
        data: the data folder.
        metric: one of the first one's metrics; None is what its verdict is about.
        method, looks: how intervals are made (see `ab.compare`).

    Raises:
        NotFound: there is no lake yet, or no such experiment in it.
        BadRequest: the two never share a unit, or the metric is none of single decisions.
        LogError: the lake cannot be read.
    """
    with open_database(data) as database:
        tables = ExperimentTables.read(database, key)
        against = ExperimentTables.read(database, other)
        _check_together(tables, against)
        design, other_design = tables.design(), against.design()
        value = _metric(tables, metric)
        AnalysisRows(database, tables)
        database.execute(
            f"""CREATE OR REPLACE TEMP TABLE {_ROWS} AS
            SELECT r.*, o.variant AS {identifier(_OTHER)}
            FROM report_rows r JOIN (
                SELECT hash(unit) AS u, min(variant) AS variant, min(decided_at) AS first
                FROM decisions WHERE experiment = $other AND variant IS NOT NULL
                GROUP BY unit HAVING min(variant) = max(variant)
            ) o ON o.u = r.{identifier(UNIT)} AND r.{identifier(MOMENT)} >= o.first""",  # noqa: S608  (names of columns, through `identifier`)
            other=other,
        )
        found = ab.interaction(
            database.connection.table(_ROWS),
            unit=UNIT,
            variant=VARIANT,
            other=_OTHER,
            control=design.control,
            other_control=other_design.control,
            value=value,
            shares=design.shares,
            other_shares=other_design.shares,
            method=method,
            looks=looks,
        )
    shares = [m.name for m in design.metrics if m.binary]
    found = msgspec.structs.replace(found, is_proportion=value in shares)
    return msgspec.structs.replace(found, sentence=interaction_sentence(found, key, other))


def _check_together(tables: ExperimentTables, other: ExperimentTables) -> None:
    """Raises BadRequest where no unit can be in both."""
    if tables.key == other.key:
        raise BadRequest("with", f"got {other.key!r} itself; expected another experiment")
    layers, units = [], []
    for one in (tables, other):
        content: dict[str, Any] = msgspec.json.decode(one.experiment["spec"])
        layers.append(content.get("layer", one.key))
        units.append(one.experiment["unit"])
    if layers[0] == layers[1]:
        raise BadRequest(
            "with",
            f"{tables.key} and {other.key} are in one layer, {layers[0]}: they never share a unit, "
            "so that neither can change the other's effect",
        )
    if units[0] != units[1] or units[0] is None:
        kinds = " and ".join(unit or "single decisions" for unit in units)
        raise BadRequest(
            "with",
            f"{tables.key} and {other.key} randomise {kinds}; expected two experiments on the "
            "same kind of unit",
        )


def _metric(tables: ExperimentTables, metric: str | None) -> str:
    """The column of the metric: by default that of the verdict."""
    weighted = [m["metric"] for m in tables.metrics if m["weight"]]
    names = [str(m["metric"]) for m in tables.metrics]
    if metric is None:
        return str(weighted[0]) if len(weighted) == 1 else OBJECTIVE
    if metric != OBJECTIVE and metric not in names:
        hint = nearest(metric, names)
        raise BadRequest(
            "metric",
            f"got {metric!r}; expected one of {', '.join(names)}" + f"; {hint}" * bool(hint),
        )
    return metric


def interaction_sentence(found: Interaction, key: str, other: str) -> str:
    """What the two do to each other, made only from the numbers."""
    total = sum(sum(by_other.values()) for by_other in found.units.values())
    if not total:
        return f"No unit is in both {key} and {other}."
    if found.srm_p is not None and found.srm_p <= 0.001:
        return (
            f"Units of both are not split as intended (p = {found.srm_p:.3g}): one experiment "
            "changes who comes to the other. Read no interaction before that is explained."
        )
    tested = [t for t in found.terms if t.p_adjusted is not None]
    if not tested:
        return "No interaction can be tested yet: too few units are in both."
    worst = min(tested, key=lambda t: t.p_adjusted or 0.0)
    p = worst.p_adjusted or 0.0
    if p > found.alpha:
        return (
            f"No sign that the effect of {key} depends on the variant of {other} "
            f"(p = {p:.3g}, {formatting.several(total, 'unit')} in both)."
        )
    return (
        f"The effect of {worst.variant} on {formatting.label(found.metric)} depends on the variant "
        f"of {other}: with {worst.within} it is "
        f"{formatting.metric_difference(worst.difference, found.is_proportion)} from what it is "
        f"with {found.other_control} (p = {p:.3g})."
    )


def render_interaction(found: Interaction, key: str, other: str, console: Console) -> None:
    """Print the sentence, the effects within each variant of the other, and their differences."""
    console.print(f"[bold]{escape(key)}[/] by the variant of [bold]{escape(other)}[/]")
    console.print(escape(found.sentence), highlight=False)
    table = Table(box=SIMPLE, header_style="dim")
    for heading in ("variant", f"with {other}'s", "units", *wording.EFFECT_HEADINGS):
        table.add_column(heading)
    for e in found.effects:
        cells = wording.effect_cells(e, found.is_proportion)
        table.add_row(escape(e.variant), escape(e.within), f"{e.n:,}", *cells)
    console.print(table)
    for term in found.terms:
        if term.low is None or term.high is None or term.difference is None:
            continue
        numbers = (term.difference, term.low, term.high)
        shown = [formatting.metric_difference(x, found.is_proportion) for x in numbers]
        console.print(
            f"{escape(term.variant)} × {escape(term.within)}: difference of differences "
            f"{shown[0]}, between {shown[1]} and {shown[2]}",
            highlight=False,
        )

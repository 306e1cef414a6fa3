"""What the metrics of a unit's decisions add up to: of a day, and of all days together. Where they
say all that a report needs, it reads one row for each unit instead of all its decisions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from topbill import ab
from topbill.ab import OBJECTIVE
from topbill.ab.core.units import LAST, PLACE, SUMMED, count_column, high_column, low_column
from topbill.ab.judged import judged_columns
from topbill.domain.metric import Metric
from topbill.domain.sql import identifier, number
from topbill.domain.zones import local_sql
from topbill.reporting.experiment.covariates import UNIT
from topbill.reporting.queries.database import DayPart

VARIANT, MOMENT = "@variant", "@moment"
OCCURRENCE, DAY, FIRST_SEQ, ODD = "@occurrence", "@day", "@seq", "@odd"
"""Column names that no metric and no feature can have."""


def are_sums(metrics: Sequence[Metric]) -> bool:
    """Whether what a report says of these metrics follows from sums over a unit's decisions."""
    for metric in metrics:
        if metric.of is not None or metric.winsorise is not None:
            return False
        if metric.scope == "unit" or metric.is_pooled or metric.covariate is not None:
            return False
    return True


def units_part(
    rows: Callable[[int], str],
    designs: Sequence[ab.MetricDesign],
    segments: Sequence[str],
    zone: str,
) -> DayPart:
    """A row for each unit, variant, occurrence and day of the zone: the sums of what metrics are
    judged by (see `ab.core.units.SUMMED`) over its decisions, of which `rows` is SQL; the time of
    the first and the last, and the segments of the first. `@odd` is how many have a number that is
    none or infinite, so that there is no sum.
    """
    columns = judged_columns(designs)
    values = value_columns(designs)
    picked = [identifier(UNIT), identifier(VARIANT), identifier(OCCURRENCE)]
    picked.append(f"CAST({local_sql(identifier(MOMENT), zone)} AS DATE) AS {identifier(DAY)}")
    place = f"{{'time': {identifier(MOMENT)}, 'place': {identifier(FIRST_SEQ)}}}"
    for segment in segments:
        picked.append(f"arg_min_null({identifier(segment)}, {place}) AS {identifier(segment)}")
    picked += [
        f"min({identifier(MOMENT)}) AS {identifier(MOMENT)}",
        f"max({identifier(MOMENT)}) AS {identifier(LAST)}",
        f"arg_min({identifier(FIRST_SEQ)}, {place}) AS {identifier(FIRST_SEQ)}",
        f"count(*) AS {identifier(SUMMED)}",
    ]
    odd = " OR ".join(f"NOT isfinite({identifier(name)})" for name in values)
    picked.append(f"count(*) FILTER ({odd}) AS {identifier(ODD)}")
    for name in values:
        picked.append(f"sum({identifier(name)}) AS {identifier(name)}")
        picked.append(f"count({identifier(name)}) AS {identifier(count_column(name))}")
        picked.append(f"min({identifier(name)}) AS {identifier(low_column(name))}")
        picked.append(f"max({identifier(name)}) AS {identifier(high_column(name))}")
    for name, condition in columns.outside.items():
        picked.append(f"count(*) FILTER ({condition}) AS {identifier(name)}")
    derived = "".join(f", {sql} AS {identifier(name)}" for name, sql in columns.values.items())

    def sql(now: int) -> str:
        return (
            f"SELECT {', '.join(picked)} FROM (SELECT *{derived} FROM ({rows(now)})) "  # noqa: S608  (identifiers are quoted)
            f"GROUP BY {identifier(UNIT)}, {identifier(VARIANT)}, {identifier(OCCURRENCE)}, "
            f"{identifier(DAY)}"
        )

    return DayPart("report_units", sql)


def value_columns(designs: Sequence[ab.MetricDesign]) -> list[str]:
    """The columns of a decision that are added up."""
    own = [design.name for design in designs if design.numerator is None]
    return [OBJECTIVE, *own, *judged_columns(designs).values]


def ends_sql(units: str, designs: Sequence[ab.MetricDesign]) -> str:
    """SQL of one row: the ends of each of `value_columns` in `units` (the answer of `units_part`)
    under the names that sums have them by, and how many decisions are `odd`. Files answer it from
    their statistics.
    """
    picked = [f"coalesce(sum({identifier(ODD)}), 0) AS odd"]
    for name in value_columns(designs):
        low, high = identifier(low_column(name)), identifier(high_column(name))
        picked += [f"min({low}) AS {low}", f"max({high}) AS {high}"]
    return f"SELECT {', '.join(picked)} FROM {units}"  # noqa: S608  (identifiers are quoted)


def folded(
    units: str,
    phase: tuple[str, str] | None,
    designs: Sequence[ab.MetricDesign],
    segments: Sequence[str],
    ends: Mapping[str, float | None],
) -> str:
    """SQL of the sums of `units` (the answer of `units_part`) over all days: a row for each unit,
    variant and phase, in the order in which they came. `phase` is its column and its SQL; `ends`
    are the columns of `ends_sql`."""
    columns = judged_columns(designs)
    values = value_columns(designs)
    moment, first = identifier(MOMENT), identifier(FIRST_SEQ)
    keys = [identifier(UNIT), identifier(VARIANT)]
    picked = list(keys)
    if phase is not None:
        keys.append(identifier(phase[0]))
        picked.append(f"{phase[1]} AS {identifier(phase[0])}")
    for segment in segments:
        picked.append(f"arg_min_null({identifier(segment)}, {moment}) AS {identifier(segment)}")
    picked.append(f"min({moment}) AS {moment}")
    picked.append(f"min({first}) AS {identifier(PLACE)}")
    picked.append(f"max({identifier(LAST)}) AS {identifier(LAST)}")
    for name in (SUMMED, *map(count_column, values), *columns.outside):
        picked.append(f"sum({identifier(name)})::BIGINT AS {identifier(name)}")
    picked += [f"sum({identifier(name)}) AS {identifier(name)}" for name in values]
    for name, value in ends.items():
        literal = "NULL::DOUBLE" if value is None else number(value)
        picked.append(f"{literal} AS {identifier(name)}")
    return (
        f"SELECT {', '.join(picked)} FROM {units} GROUP BY {', '.join(keys)} "  # noqa: S608  (identifiers are quoted)
        f"ORDER BY min({moment}), min({first})"
    )

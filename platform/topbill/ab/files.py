"""`compare_file`: a plain A/B table in a file, a row a unit or a row an event, to verdict, metrics
and split."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from topbill.ab.analysis import Design, analyse
from topbill.ab.core.effect import Adjustment
from topbill.ab.core.units import PLACE, Covariates, columns_of, covariates_of, resolve
from topbill.ab.judged import Direction, MetricDesign
from topbill.ab.metrics import Metric, Proportion
from topbill.ab.results import Analysis
from topbill.domain.errors import BadData, BadRequest
from topbill.domain.formatting import listing, several
from topbill.domain.margin import Margin
from topbill.domain.reading import Method
from topbill.domain.sql import identifier
from topbill.domain.suggestion import nearest
from topbill.lake.engine import sent
from topbill.lake.plain_files import Kind, PlainTable, read_table

MOST_VARIANTS = 100
"""A column with more values than this is taken for another than the variant's."""


class FileComparison(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a file: how its rows were taken, and the analysis of them.

    `rows` counts all that the file has, `excluded` those that were left out, by reason.
    `row_is_unit` says whether no unit has two rows; where some have, each row is an event of its
    unit. `missing` counts, by column, the rows of variants that have no number there.
    """

    file: str
    rows: int
    units: int
    row_is_unit: bool
    excluded: dict[str, int]
    ab: Analysis
    missing: dict[str, int] = {}
    notes: list[str] = []

    @property
    def sentence(self) -> str:
        """How rows were taken."""
        used = self.rows - sum(self.excluded.values())
        if self.row_is_unit:
            taken = f"{several(used, 'row')}, each a unit of its own"
        else:
            each = used / max(self.units, 1)
            taken = (
                f"{several(used, 'row')} of {several(self.units, 'unit')}, {each:,.3g} each: "
                "a row is an event"
            )
        if not self.excluded:
            return taken
        reasons = [f"{count:,} with {reason}" for reason, count in self.excluded.items()]
        return f"{taken}; left out: {listing(reasons, len(reasons))}"


def compare_file(
    path: Path | str,
    *,
    unit: str,
    variant: str,
    control: str,
    metrics: Mapping[str, Metric],
    covariates: Covariates | None = None,
    segments: Sequence[str] = (),
    time: str | None = None,
    shares: Mapping[str, float] | None = None,
    guardrails: Mapping[str, float | Margin] | None = None,
    better: Mapping[str, Direction] | None = None,
    method: Method = "sequential",
    alpha: float = 0.05,
    adjust: Adjustment = "cuped",
    looks: Sequence[float] = (1.0,),
) -> FileComparison:
    """A whole A/B analysis of a plain table in a file.

    Args:
        path: CSV, TSV (with comma, semicolon, tab or bar, decimal point or comma), Parquet or
            Arrow, compressed (.gz) or not.
        unit: the column of what was randomised. Whether each row is a unit, or an event of one, is
            found out.
        variant: the column that names the variant.
        control: the variant to compare with, by value: `0`, `false` and `old` as they are written.
        metrics: `Mean`, `Proportion`, `Sum`, `Ratio` or `Quantile` of columns, by the name to show.
            The verdict is about the first.
        covariates: a column from before the experiment, or several, by metric.
        segments: columns to look into for effects that differ.
        time: the column of a row's moment or day, by which a unit's first row is known and the
            split is watched day by day.
        shares: the intended shares by variant, in any unit; None: all alike. Variants that it does
            not name are left out, and counted.
        guardrails: by metric, by how much it may be worse: a fraction of the control's value, or a
            `Margin`.
        better: by metric, `lower` where less is better. A guardrail other than the first metric
            must be here.
        method, alpha, adjust, looks: those of `compare`.

    Raises:
        NotFound: there is no such file.
        BadRequest: for wrong arguments.
        BadData: for files and columns that cannot be used, by name. Weak data never raises.
    """
    _check_names(metrics, guardrails or {}, better or {})
    table = read_table(
        path,
        _columns(unit, variant, metrics, covariates or {}, segments, time),
        required=(unit, variant),
    )
    with sent(table.relation, PLACE) as rows:
        where = f"{path}: {variant}"
        variants = _variants(rows, variant, where)
        own = resolve(control, [each.value for each in variants])
        names = {each.value: each.name for each in variants}
        if own not in names:
            raise BadData(where, _no_control(control, [*names.values()]))
        by_name = _shares(names, shares, where)
        excluded = dict(table.excluded)
        for each in variants:
            if each.name not in by_name:
                excluded[f"variant {each.name}, which has no share"] = each.rows
        if len(by_name) < 2:
            raise BadData(
                where, f"got one variant, {names[own]}; expected another to compare it with"
            )
        design = _design(
            key=Path(path).name,
            control=names[own],
            shares=by_name,
            metrics=_designs(metrics, better or {}),
            guardrails=dict(guardrails or {}),
        )
        try:
            result = analyse(
                _with_names(rows, variant),
                design,
                unit=unit,
                variant=variant,
                day=time,
                segments=segments,
                covariates=covariates,
                method=method,
                alpha=alpha,
                adjust=adjust,
                looks=looks,
            )
        except BadData as error:
            # The same words, but of the file's columns.
            raise BadData(f"{path}: {error.path.removeprefix('data.')}", error.message) from error
        numbers = [name for each in metrics.values() for name in columns_of(each)]
        return _of(path, table, excluded, result, _missing(rows, variant, numbers))


def _design(**fields: Any) -> Design:
    try:
        return Design(**fields)
    except BadRequest as error:
        # The same words, but of what the caller gave.
        name = error.path.removeprefix("design.metrics.").removesuffix(".better")
        raise BadRequest(f"better: {name}", error.message) from error


def _of(
    path: Path | str,
    table: PlainTable,
    excluded: dict[str, int],
    result: Analysis,
    missing: dict[str, int],
) -> FileComparison:
    units = sum(result.units.values()) + result.sample_ratio.mixed
    return FileComparison(
        file=str(path),
        rows=table.rows,
        units=units,
        row_is_unit=units == table.rows - sum(excluded.values()),
        excluded=excluded,
        ab=result,
        missing=missing,
        notes=[
            *table.notes,
            *(f"{name} has no value in {several(n, 'row')}" for name, n in missing.items()),
        ],
    )


def _missing(relation: Any, variant: str, numbers: Iterable[str]) -> dict[str, int]:
    """How many rows with a variant have no number in each of the columns that lack some."""
    names = list(dict.fromkeys(numbers))
    values = [f"CAST({identifier(name)} AS DOUBLE)" for name in names]
    picked = ", ".join(f"count(*) FILTER (WHERE coalesce(isnan({x}), true))" for x in values)
    (counts,) = relation.query(
        "t",
        f"SELECT {picked} FROM t WHERE {identifier(variant)} IS NOT NULL",  # noqa: S608  (identifiers are quoted)
    ).fetchall()
    return {name: int(n) for name, n in zip(names, counts, strict=True) if n}


def _columns(
    unit: str,
    variant: str,
    metrics: Mapping[str, Metric],
    covariates: Covariates,
    segments: Iterable[str],
    time: str | None,
) -> dict[str, Kind]:
    """What is to be read of the file, and as what."""
    columns: dict[str, Kind] = {unit: "label", variant: "label"}
    columns |= dict.fromkeys(segments, "label")
    if time is not None:
        columns[time] = "time"
    numbers = [name for each in metrics.values() for name in columns_of(each)]
    for metric in covariates:
        numbers += covariates_of(covariates, metric)
    for name in numbers:
        if name in (unit, variant):
            raise BadRequest(
                f"metrics.{name}", "got the column of units or variants; expected one of numbers"
            )
        columns[name] = "number"
    return columns


class _Variant(NamedTuple):
    """A value of the variant's column, what it is called, and how many rows have it."""

    value: object
    name: str
    rows: int


def _variants(relation: Any, variant: str, where: str) -> list[_Variant]:
    column = identifier(variant)
    counts = relation.query(
        "t",
        f'SELECT "@value", CAST("@value" AS VARCHAR) AS "@name", n '  # noqa: S608  (identifiers are quoted)
        f'FROM (SELECT {column} AS "@value", count(*) AS n FROM t GROUP BY ALL) '
        f'ORDER BY "@value" LIMIT {MOST_VARIANTS + 1}',
    ).fetchall()
    if len(counts) > MOST_VARIANTS:
        raise BadData(
            where,
            f"got more than {MOST_VARIANTS} variants, such as "
            f"{listing([name for _, name, _ in counts][:3])}; expected the column that names a "
            "unit's variant",
        )
    return [_Variant(value, name, int(rows)) for value, name, rows in counts]


def _with_names(relation: Any, variant: str) -> Any:
    """The relation with variants as they are called."""
    column = identifier(variant)
    as_text = f"CAST({column} AS VARCHAR) AS {column}"
    return relation.query("t", f"SELECT * REPLACE ({as_text}) FROM t")  # noqa: S608  (identifiers are quoted)


def _no_control(control: str, names: Sequence[str]) -> str:
    hint = nearest(control, names)
    variants = listing(list(names), 10) or "none"
    return (
        f"got no row of the control {control}; the variants are {variants}"
        f"{f'; {hint}' if hint else ''}"
    )


def _shares(
    names: Mapping[object, str], shares: Mapping[str, float] | None, where: str
) -> dict[str, float]:
    """The intended shares by what variants are called in the file. Raises BadData for a variant
    that is not there while another one has no share: it is misspelt."""
    if shares is None:
        return {name: 1.0 / len(names) for name in names.values()}
    by_name: dict[str, float] = {}
    for label, share in shares.items():
        value = resolve(label, names)
        by_name[names.get(value, str(label))] = share
    strangers = [name for name in by_name if name not in names.values()]
    others = [name for name in names.values() if name not in by_name]
    if strangers and others:
        hint = nearest(strangers[0], others)
        raise BadData(
            where,
            f"got a share of {strangers[0]}, and none of {listing(others)}; expected the shares of "
            f"variants that are there{f'; {hint}' if hint else ''}",
        )
    return by_name


def _check_names(
    metrics: Mapping[str, Metric], guardrails: Mapping[str, Any], better: Mapping[str, str]
) -> None:
    """Raises BadRequest where there is no metric, or one that nobody named is spoken of."""
    if not metrics:
        raise BadRequest("metrics", "got none; expected at least one")
    for option, names in (("guardrails", guardrails), ("better", better)):
        for name in names:
            if name not in metrics:
                raise BadRequest(
                    f"{option}.{name}", f"no such metric; the metrics are {', '.join(metrics)}"
                )


def _designs(
    metrics: Mapping[str, Metric], better: Mapping[str, Direction]
) -> tuple[MetricDesign, ...]:
    designs: list[MetricDesign] = []
    for name, metric in metrics.items():
        designs.append(
            MetricDesign(
                name=name,
                metric=metric,
                binary=isinstance(metric, Proportion),
                better=better.get(name),
                # The first is what the verdict is about.
                weight=0.0 if designs else 1.0,
            )
        )
    return tuple(designs)

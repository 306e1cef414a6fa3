"""The rows that variants are compared on: those of the phases in which units could get either, each
unit in the variant that it was given first, gathered by stratum of equal shares.

A unit that changed variant because the shares did was given its first variant at random, and the
rest follows from that: so it counts for the first with all that it did since (intention to treat).
That may make a difference smaller, never larger, and it cannot make one of nothing. To leave such
units out would: those who come often change more often, and more of them leave the variant whose
share shrinks. Where a unit changed variant within one phase, nothing says that chance did it, and
it stays as it is, to be counted and left out, unless the caller asks for first exposures always.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace

from topbill.ab.checks.srm import Intended, counts_by_phase
from topbill.ab.core.effect import (
    Adjustment,
    Pair,
    by_stratum,
    estimate_pair,
    pooled_pair,
    without_thin,
)
from topbill.ab.core.quantile import quantile_pairs
from topbill.ab.core.units import (
    PLACE,
    Covariates,
    MetricTerms,
    MomentsByArm,
    UnitRows,
    gather,
    placed,
)
from topbill.ab.metrics import Metric, Quantile
from topbill.ab.phases import Phase, Reading, with_changes
from topbill.ab.results import Split
from topbill.domain.errors import BadData, BadRequest
from topbill.domain.sql import identifier
from topbill.lake.frames import worked_out

_PLACE = identifier(PLACE)
_FIRST, _FIRST_PHASE, _UNIT = '"@first"', '"@first phase"', '"@of"'
"""Columns that nobody's data has."""


@dataclass(frozen=True, slots=True)
class Exposures:
    """Rows with each unit in its first variant; `moved` units were seen in another one later."""

    relation: Any
    moved: int


def first_exposures(
    relation: Any,
    *,
    unit: str | None,
    variant: str,
    phase: str | None,
    time: str | None,
    always: bool = False,
) -> Exposures:
    """The rows, with the variant (and the phase) of each unit's first row in place of those of
    later ones, for units that changed variant from one phase to another; `always` for all.

    Rows are one after the other by `time`, and where that is equal or None, as they stand.
    """
    if unit is None or (phase is None and not always):
        return Exposures(relation, 0)
    moved = _moved(placed(relation), identifier(unit), identifier(variant), phase, time, always)
    ((count,),) = relation.query("unit_rows", f"SELECT count(*) FROM ({moved})").fetchall()  # noqa: S608  (our own query)
    if not count:
        return Exposures(relation, 0)
    replaced = [f"coalesce({_FIRST}, {identifier(variant)}) AS {identifier(variant)}"]
    if phase is not None:
        replaced.append(f"coalesce({_FIRST_PHASE}, {identifier(phase)}) AS {identifier(phase)}")
    # With their places, by which of two rows of one time the first is told.
    query = f"""
        WITH rows AS ({placed(relation)})
        SELECT rows.* REPLACE ({", ".join(replaced)})
        FROM rows LEFT JOIN ({moved}) ON {identifier(unit)} = {_UNIT}"""  # noqa: S608  (identifiers are quoted)
    return Exposures(worked_out(relation.query("unit_rows", query)), int(count))


def within_phases(relation: Any, phase: str, numbers: Collection[int]) -> Any:
    """The rows of those phases."""
    listing = ", ".join(str(int(i)) for i in sorted(numbers)) or "NULL"
    query = f"SELECT * FROM unit_rows WHERE {identifier(phase)} IN ({listing})"  # noqa: S608  (whole numbers)
    return relation.query("unit_rows", query)


def _moved(
    rows: str, unit: str, variant: str, phase: str | None, time: str | None, always: bool
) -> str:
    """SQL of the units that changed variant and count for the first, with that and its phase."""
    # Without phases all rows are of one, in which nothing explains a change.
    part = "0" if phase is None else identifier(phase)
    moment = "0" if time is None else identifier(time)
    spans = f"""
        SELECT {unit} AS {_UNIT}, {variant} AS v, {part} AS p,
            min({{'time': {moment}, 'place': {_PLACE}}}) AS began
        FROM ({rows}) WHERE {variant} IS NOT NULL GROUP BY ALL"""  # noqa: S608  (identifiers are quoted)
    first_phase = "" if phase is None else f", arg_min(p, began) AS {_FIRST_PHASE}"
    explained = "" if always else " AND count(*) = count(DISTINCT p)"
    return f"""
        SELECT {_UNIT}, arg_min(v, began) AS {_FIRST}{first_phase}
        FROM ({spans}) GROUP BY {_UNIT} HAVING min(v) <> max(v){explained}"""  # noqa: S608  (our own query)


# --- Parts

ReadExposures = Callable[[Any], UnitRows]
"""How rows are checked and described."""


@dataclass(frozen=True, slots=True)
class Columns:
    """What the columns of the rows are called, and whether units always count for their first
    variant."""

    unit: str | None
    variant: str
    time: str | None
    phase: str | None = None
    first_exposure: bool = False

    @property
    def named(self) -> list[str]:
        """Those that there are."""
        return [c for c in (self.unit, self.variant, self.time, self.phase) if c is not None]

    def exposures(self, relation: Any) -> Exposures:
        """The rows with units in their first variants."""
        return first_exposures(
            relation,
            unit=self.unit,
            variant=self.variant,
            phase=self.phase,
            time=self.time,
            always=self.first_exposure,
        )


@dataclass(frozen=True, slots=True)
class Part:
    """Variants that are compared with the control on the same rows. `strata` by phase number where
    shares differ between the rows' phases, which `phase` tells; None where they do not."""

    variants: tuple[Any, ...]
    rows: UnitRows
    phase: str | None = None
    strata: Mapping[int, int] | None = None

    def gather(
        self,
        metrics: Mapping[str, Metric],
        covariates: Covariates | None,
        *,
        segments: Sequence[str] = (),
        products: bool = False,
    ) -> MomentsByArm:
        """Moments by variant, values of segments, and phase where there are strata."""
        by = [*segments, self.phase] if self.strata is not None and self.phase else segments
        return gather(self.rows, metrics, covariates, segments=list(by), products=products)

    def gathered(
        self,
        metrics: Mapping[str, Metric],
        covariates: Covariates | None,
        control: str,
        adjust: Adjustment,
    ) -> tuple[MomentsByArm, dict[str, dict[str, Pair]]]:
        """The moments of some metrics (of quantiles there are none), and each variant beside the
        control on them."""
        quantiles = {n: m for n, m in metrics.items() if isinstance(m, Quantile)}
        plain = {n: m for n, m in metrics.items() if n not in quantiles}
        covariates = {n: column for n, column in (covariates or {}).items() if n in plain}
        moments = self.gather(plain, covariates, products=adjust == "lin")
        pairs: dict[str, dict[str, Pair]] = {}
        for name in metrics:
            if name in quantiles:
                pairs[name] = self._quantile_pairs(quantiles[name], moments, control)
                continue
            terms = moments.terms[name]
            pairs[name] = {
                v: self.pair(moments, terms, name, v, control, adjust) for v in self.variants
            }
        return moments, pairs

    def pair(
        self,
        moments: MomentsByArm,
        terms: MetricTerms,
        metric: str,
        variant: object,
        control: object,
        adjust: Adjustment = "cuped",
    ) -> Pair:
        """A variant beside the control on one metric, read off its moments by `terms`."""
        t, c = moments.of_variant(metric, variant), moments.of_variant(metric, control)
        if self.strata is None:
            return estimate_pair(terms, t, c, adjust)
        t, c = by_stratum(t, self.strata), by_stratum(c, self.strata)
        return estimate_pair(terms, t, c, adjust, phases=True)

    def _quantile_pairs(
        self, metric: Quantile, moments: MomentsByArm, control: str
    ) -> dict[str, Pair]:
        """Quantiles have no moments to add up: where there are strata, each is looked at by
        itself."""
        if self.strata is None or self.phase is None:
            return quantile_pairs(self.rows, metric, moments, control, self.variants)
        by_variant: dict[str, list[Pair]] = {variant: [] for variant in self.variants}
        for stratum in dict.fromkeys(self.strata.values()):
            numbers = [number for number, own in self.strata.items() if own == stratum]
            units = {key: n for key, n in moments.units.items() if key[-1] in numbers}
            pairs = quantile_pairs(
                self.rows.first_in(self.phase, numbers),
                metric,
                dataclasses.replace(moments, units=units),
                control,
                self.variants,
            )
            for variant, pair in pairs.items():
                by_variant[variant].append(pair)
        return {variant: pooled_pair(pairs) for variant, pairs in by_variant.items()}

    def thin_units(self, moments: MomentsByArm, metric: str, control: str) -> int:
        """How many units with a value stand in strata that no comparison uses."""
        if self.strata is None or metric not in moments.terms:
            return 0
        reference = by_stratum(moments.of_variant(metric, control), self.strata)
        unused = dict(reference)
        count = 0
        for variant in self.variants:
            own = by_stratum(moments.of_variant(metric, variant), self.strata)
            thick, _ = without_thin(own, reference)
            for key, arm in own.items():
                count += 0 if key in thick else arm.n
            for key in thick:
                unused.pop(key, None)
        for arm in unused.values():
            count += arm.n
        return count


def checked_phases(relation: Any, columns: Columns, phases: Sequence[Phase]) -> None:
    """Raises BadRequest where there are no phases to number, BadData for rows with a number that
    is none's."""
    if columns.phase is None:
        return
    if not phases:
        raise BadRequest(
            "phase",
            f"got the column {columns.phase!r} and a design without phases; expected "
            "Design(phases=…), which the column numbers from 0",
        )
    phase, variant = identifier(columns.phase), identifier(columns.variant)
    kind = str(relation.types[relation.columns.index(columns.phase)])
    if "INT" not in kind:
        raise BadData(f"data.{columns.phase}", f"got a column of {kind}; expected whole numbers")
    ((wrong,),) = relation.query(
        "unit_rows",
        f"SELECT count(*) FROM unit_rows WHERE {variant} IS NOT NULL "  # noqa: S608  (identifiers are quoted)
        f"AND coalesce({phase} NOT BETWEEN 0 AND {len(phases) - 1}, true)",
    ).fetchall()
    if wrong:
        raise BadData(
            f"data.{columns.phase}",
            f"{wrong:,} rows have a number that no phase has; expected 0 to {len(phases) - 1}",
        )


def parts_of(
    relation: Any,
    columns: Columns,
    reading: Reading,
    whole: UnitRows,
    variants: Sequence[str],
    read: ReadExposures,
) -> tuple[Part, ...]:
    """The variants after the first, which is the control, by the phases that they share with it:
    one that joined later is compared on what came since, with each unit in the variant that it was
    given first since."""
    control, treatments = variants[0], variants[1:]
    together: dict[tuple[int, ...], list[str]] = {}
    for name in treatments:
        together.setdefault(reading.with_both(name, control), []).append(name)
    parts = []
    for numbers, names in together.items():
        rows = whole
        if numbers != reading.numbers:
            own = within_phases(relation, str(columns.phase), numbers)
            rows = read(columns.exposures(own).relation)
        strata = reading.strata(numbers)
        several = strata if len(set(strata.values())) > 1 else None
        parts.append(Part(tuple(names), rows, columns.phase, several))
    return tuple(parts)


def intended_of(columns: Columns, reading: Reading) -> Intended:
    """What units were to be split by in the phases that are read."""
    splits = reading.splits()
    shares = reading.shares()
    by_split = {splits[number]: shares[number] for number in reading.numbers}
    column = columns.phase if len(reading.phases) > 1 else None
    return Intended(reading.names, by_split, column, splits)


def with_units(
    relation: Any, columns: Columns, reading: Reading, rows: UnitRows, intended: Intended
) -> tuple[list[Phase], list[Split]]:
    """All phases with their units, and the splits of those that are read."""
    came = counts_by_phase(rows, intended)
    if intended.column is None:
        came = {number: row for number in reading.numbers for row in came.values()}
    only = _units_by_phase(relation, columns)
    phases, splits = [], []
    for number, phase in enumerate(with_changes(reading.phases)):
        if number not in reading.numbers:
            phases.append(replace(phase, units=only.get(number, {})))
            continue
        row = came.get(number, [0] * len(intended.names))
        pairs = zip(intended.names, row, strict=True)
        units = {name: n for name, n in pairs if n or name in phase.shares}
        p_value = intended.p_value({number: row}) if phase.shares else None
        phases.append(replace(phase, units=units, srm_p=p_value))
        if p_value is not None:
            splits.append(
                Split(
                    by="phase",
                    value=phase.since or f"phase {number + 1}",
                    counts=units,
                    shares=phase.shares,
                    p_value=p_value,
                    p_adjusted=p_value,
                )
            )
    return phases, splits


def _units_by_phase(relation: Any, columns: Columns) -> dict[int, dict[str, int]]:
    """Units that a phase saw, by variant."""
    phase, variant = identifier(str(columns.phase)), identifier(columns.variant)
    units = "*" if columns.unit is None else f"DISTINCT {identifier(columns.unit)}"
    answer = relation.query(
        "unit_rows",
        f"SELECT {phase}, {variant}, count({units}) FROM unit_rows "  # noqa: S608  (identifiers are quoted)
        f"WHERE {variant} IS NOT NULL GROUP BY ALL ORDER BY ALL",
    ).fetchall()
    by_phase: dict[int, dict[str, int]] = {}
    for number, name, n in answer:
        by_phase.setdefault(int(number), {})[str(name)] = int(n)
    return by_phase


def units_of_one_variant(relation: Any, columns: Columns, reading: Reading) -> int:
    """How many units were seen only while there was one variant."""
    if len(reading.numbers) == len(reading.phases):
        return 0
    phase, variant = identifier(str(columns.phase)), identifier(columns.variant)
    numbers = ", ".join(map(str, reading.numbers)) or "NULL"
    inside = f"coalesce({phase} IN ({numbers}), false)"
    if columns.unit is None:
        query = f"SELECT count(*) FROM unit_rows WHERE {variant} IS NOT NULL AND NOT {inside}"  # noqa: S608  (whole numbers)
    else:
        by_unit = (
            f"SELECT bool_or({inside}) AS inside FROM unit_rows "  # noqa: S608  (identifiers are quoted)
            f"WHERE {variant} IS NOT NULL GROUP BY {identifier(columns.unit)}"
        )
        query = f"SELECT count(*) FROM ({by_unit}) WHERE NOT inside"  # noqa: S608  (our own query)
    return int(relation.query("unit_rows", query).fetchall()[0][0])

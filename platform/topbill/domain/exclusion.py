"""Whose decisions an experiment does not count: bots, staff, test devices (one rule, for the moment
of deciding in Python and for the record in SQL), and whoever is not of its audience.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeAlias

from topbill.domain.sql import number, quoted

Scalar: TypeAlias = bool | float | str
"""A value of a context as a condition names it."""
ExcludedReason: TypeAlias = Literal["excluded_unit", "excluded_context"]


@dataclass(frozen=True)
class Exclusion:
    """Units by their id, and conditions on the context: one that holds is enough.

    Attributes:
        units: Ids of units.
        context: Feature and the values that exclude, sorted by feature.
    """

    units: tuple[str, ...] = ()
    context: tuple[tuple[str, tuple[Scalar, ...]], ...] = ()

    @classmethod
    def of(cls, section: Mapping[str, Any]) -> Exclusion:
        """From what a file says: `units`, a list, and `context`, feature to a value or several."""
        return cls(tuple(section.get("units", ())), _listed(section.get("context", {})))

    @cached_property
    def _unit_set(self) -> frozenset[str]:
        # Asked at every decision, of up to 10,000 units.
        return frozenset(self.units)

    def __bool__(self) -> bool:
        return bool(self.units or self.context)

    def reason(self, unit: str, context: Any) -> ExcludedReason | None:
        """Why a unit with this context is left out; None where it counts."""
        if unit in self._unit_set:
            return "excluded_unit"
        if not isinstance(context, Mapping):
            return None
        for name, values in self.context:
            if name in context and any(_same(context[name], value) for value in values):
                return "excluded_context"
        return None

    def reason_sql(self, unit: str, context: str) -> str:
        """SQL for `reason`; NULL where the unit counts. `unit` and `context` are the SQL of two
        VARCHARs, the latter JSON text."""
        cases = []
        if self.units:
            units = ", ".join(map(quoted, self.units))
            cases.append(f"WHEN {unit} IN ({units}) THEN 'excluded_unit'")
        conditions = []
        for name, values in self.context:
            conditions += _conditions(context, name, values)
        if conditions:
            cases.append(f"WHEN {' OR '.join(conditions)} THEN 'excluded_context'")
        return f"CASE {' '.join(cases)} END" if cases else "NULL::VARCHAR"


NOBODY = Exclusion()
"""Leaves nobody out."""


@dataclass(frozen=True)
class TargetAudience:
    """Whom an experiment is for: every condition on the context has to hold, by one of its values.
    A context that does not say is not of the audience."""

    context: tuple[tuple[str, tuple[Scalar, ...]], ...] = ()

    @classmethod
    def of(cls, section: Mapping[str, Any]) -> TargetAudience:
        """From what a file says: feature to a value or several."""
        return cls(_listed(section))

    def __bool__(self) -> bool:
        return bool(self.context)

    def reason(self, context: Any) -> Literal["not_in_audience"] | None:
        """Why a unit with this context takes no part; None where it does."""
        sent = context if isinstance(context, Mapping) else {}
        for name, values in self.context:
            if name not in sent or not any(_same(sent[name], value) for value in values):
                return "not_in_audience"
        return None


EVERYBODY = TargetAudience()
"""Is for whoever comes."""


def _listed(conditions: Mapping[str, Any]) -> tuple[tuple[str, tuple[Scalar, ...]], ...]:
    """Features and their values, sorted by feature."""
    listed = []
    for name, values in sorted(conditions.items()):
        several = values if isinstance(values, list | tuple) else [values]
        listed.append((name, tuple(several)))
    return tuple(listed)


def _same(got: Any, value: Scalar) -> bool:
    # To Python true is 1, to JSON it is not.
    if isinstance(got, bool) or isinstance(value, bool):
        return got is value
    if isinstance(got, str) or isinstance(value, str):
        return isinstance(got, str) and got == value
    return isinstance(got, int | float) and float(got) == float(value)


def _conditions(context: str, name: str, values: Sequence[Scalar]) -> list[str]:
    """SQL for each value that the feature may have."""
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    path = quoted(f'$."{escaped}"')
    conditions = []
    for value in values:
        text = f"({context})->>{path}"
        kind = f"json_type({context}, {path})"
        if isinstance(value, bool):
            conditions.append(f"({kind} = 'BOOLEAN' AND {text} = '{str(value).lower()}')")
        elif isinstance(value, str):
            conditions.append(f"({kind} = 'VARCHAR' AND {text} = {quoted(value)})")
        else:
            is_number = f"{kind} IN ('BIGINT', 'UBIGINT', 'HUGEINT', 'DOUBLE')"
            as_number = f"TRY_CAST({text} AS DOUBLE) = {number(float(value))}"
            conditions.append(f"({is_number} AND {as_number})")
    return conditions

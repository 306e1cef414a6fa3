"""What a metric of `scope: unit` may say: it is of what a unit did, of whatever decision."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from topbill.spec.fields import Location, Verbatim


def check_unit_scope(
    name: str, parts: Mapping[str, Any], content: Mapping[str, Any], at: Location
) -> None:
    """Note what a metric of scope unit says that it cannot mean.

    Args:
        name: The metric's.
        parts: What could be read of the metric.
        content: What could be read of the file.
        at: The file's place.
    """
    where = at.key("metrics").key(name)
    if "unit" not in content and not at.has_problem("unit"):
        where.key("scope").wrong(
            "unit",
            "a unit: in this file, by whose name events say whose they are",
            "for example unit: profile_id",
        )
    if parts.get("per") == "decision":
        where.key("per").wrong("decision", "unit or nothing, since scope: unit", "")
    if name in content.get("objective", {}):
        # A decision's policy would be taught by what all decisions of the unit brought about.
        at.key("objective").key(name).wrong(
            Verbatim("a metric of scope: unit"),
            "metrics of decisions, since policies learn from decisions",
            "leave it out here: the report compares it, and a guardrail may watch it",
        )

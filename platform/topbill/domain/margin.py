"""By how much a guardrail's metric may get worse: of the control's value, in percentage points, or
in the metric's own unit.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Literal

import msgspec

from topbill.domain import formatting
from topbill.domain.errors import BadRequest

MarginUnit = Literal["relative", "points", "absolute"]
MARGIN_UNITS: tuple[MarginUnit, ...] = ("relative", "points", "absolute")
# Four decimals, as percentages have them everywhere in files.
_TEXT = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,4})?)(%|pp)")
EXPECTED = (
    "a margin of the control's value (10%), in percentage points of a rate (2pp), or a number in "
    "the metric's own unit (0.5)"
)


class Margin(msgspec.Struct, frozen=True):
    """How much worse is still acceptable. `value` is ≥ 0: a fraction of the control's value
    ("relative", 0.1 is 10%), of a rate itself ("points", 0.02 is 2 percentage points), or in the
    metric's own unit ("absolute").
    """

    value: float
    unit: MarginUnit = "relative"

    @classmethod
    def parse(cls, text: object) -> Margin:
        """`10%`, `2pp`, or a number.

        Raises:
            BadRequest: for anything else.
        """
        if isinstance(text, int | float) and not isinstance(text, bool) and 0.0 <= text <= 1e12:
            return cls(float(text), "absolute")
        match = _TEXT.fullmatch(text.strip()) if isinstance(text, str) else None
        if match is None:
            raise BadRequest("margin", f"got {text!r}; expected {EXPECTED}")
        number, sign = match.groups()
        # By decimals, so that it is the float nearest to what was written: 2% is 0.02.
        return cls(float(Decimal(number) / 100), "relative" if sign == "%" else "points")

    @property
    def is_relative(self) -> bool:
        """Whether it is a part of the control's value."""
        return self.unit == "relative"

    def __str__(self) -> str:
        """As a file says it: 10%, 2pp, 0.5."""
        if self.unit == "absolute":
            return f"{self.value:.15g}"
        number = round(100.0 * self.value, 4)
        return f"{number:.15g}{'%' if self.unit == 'relative' else 'pp'}"


def amount(x: float, unit: MarginUnit) -> str:
    """A change in a margin's unit as people read it: 2.0%, 0.31%, 1.50 pp, 0.312."""
    if unit == "relative":
        return formatting.change(x, signed=False)
    if unit == "points":
        return formatting.points(x, signed=False)
    return formatting.value(x)

"""How an experiment ended, `conclusion`: who won, whom everybody gets from then on, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from topbill.domain.suggestion import nearest
from topbill.spec.fields import Key, Location, Name, Section, Text, listed

Content = Mapping[str, Any]


@dataclass(frozen=True)
class Conclusion:
    """What was decided of an experiment.

    Attributes:
        winner: The variant that everybody gets from then on; None where nobody won, and everybody
            gets the control's order.
        because: Why, for those who read it in a year.
        by: Who decided, where the file says so.
    """

    winner: str | None = None
    because: str = ""
    by: str = ""

    @property
    def raw(self) -> dict[str, str]:
        """As a file says it."""
        optional = {"winner": self.winner, "by": self.by}
        given = {name: text for name, text in optional.items() if text}
        return {**given, "because": self.because}


CONCLUSION = Section(
    {
        "winner": Key(
            Name,
            "The variant that everybody gets from now on, but for those held out. Left out: nobody "
            "won, and everybody gets the control's order.",
        ),
        "because": Key(Text(2000), "Why, for those who read it in a year.", True),
        "by": Key(Text(), "Who decided."),
    }
)


def read_conclusion(content: Content, at: Location) -> Conclusion | None:
    """The conclusion, whose winner has to be a variant; None where the file has none."""
    parts = content.get("conclusion")
    if parts is None:
        return None
    winner, variants = parts.get("winner"), content.get("variants", {})
    if winner is not None and variants and winner not in variants:
        expected = f"one of the variants {listed(variants)}"
        at.key("conclusion").key("winner").wrong(winner, expected, nearest(winner, variants))
    return Conclusion(winner, parts.get("because", ""), parts.get("by", ""))

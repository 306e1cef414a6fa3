"""How an experiment ended, and its report as it stood then: what came later is not of the
comparison, since everybody gets the winner."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from topbill.reporting.experiment.model import ConclusionReading, Report
from topbill.reporting.queries.database import (
    AnalyticsDatabase,
    concluded_keys,
    experiment_row,
)

_AUDIT = """SELECT revision, revised_at, who, spec,
    (spec -> '$.conclusion') IS NOT NULL AS is_concluded
FROM revisions WHERE experiment = $key ORDER BY revised_at DESC"""
_FROZEN = """SELECT made, concluded_at, who, report FROM conclusions
WHERE experiment = $key ORDER BY concluded_at DESC"""


class StandingConclusion(NamedTuple):
    """How an experiment ended that was not taken up again.

    Attributes:
        until: What was decided from then on (UTC) is not of the comparison.
        report: The report as it stood then; None where nobody has kept it yet.
    """

    reading: ConclusionReading
    until: datetime
    report: Report | None

    @property
    def frozen(self) -> Report | None:
        """The report as it stood, saying how it ended."""
        if self.report is None:
            return None
        reading = msgspec.structs.replace(self.reading, is_frozen=True)
        return msgspec.structs.replace(self.report, status="concluded", conclusion=reading)


def standing_conclusion(database: AnalyticsDatabase, key: str) -> StandingConclusion | None:
    """How an experiment ended; None for one that did not, or was taken up again.

    Raises NotFound where there is no such experiment.
    """
    audit = database.rows(_AUDIT, key=key)
    row = _last(database, key, audit)
    said = msgspec.json.decode(row["spec"]).get("conclusion")
    if said is None:
        return None
    made, since, who = {row["revision"]}, None, ""
    for line in audit:
        if not line["is_concluded"]:
            break
        made.add(line["revision"])
        since, who = line["revised_at"], line["who"]
    frozen = [line for line in database.rows(_FROZEN, key=key) if line["made"] in made]
    # The first of them has the numbers, whoever was said to have won since.
    first: dict[str, Any] = frozen[-1] if frozen else {"report": None, "who": who}
    until = since or first.get("concluded_at") or row["revised_at"]
    if until is None:
        until = database.row("SELECT published_at FROM published")["published_at"]
    at = first.get("concluded_at") or until
    reading = ConclusionReading(
        concluded_at=f"{at.isoformat(timespec='seconds')}Z",
        who=said.get("by") or first["who"],
        winner=said.get("winner"),
        because=said.get("because", ""),
    )
    return StandingConclusion(reading, until, thawed(first["report"]))


def _last(database: AnalyticsDatabase, key: str, audit: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What is in force of an experiment, or was last, also where nothing is left of its decisions.

    Raises NotFound where there is no such experiment.
    """
    if audit and key in concluded_keys(database):
        rows = database.rows("SELECT * FROM experiments WHERE key = $key", key=key)
        return rows[0] if rows else audit[0]
    return experiment_row(database, key)


def frozen(report: Report) -> bytes:
    """A report as the record keeps it: JSON, compressed by zlib."""
    return zlib.compress(msgspec.json.encode(report))


def thawed(content: bytes | None) -> Report | None:
    """The report of `frozen`; None where there is none, or one that this version cannot read."""
    if content is None:
        return None
    try:
        return msgspec.json.decode(zlib.decompress(content), type=Report)
    except (zlib.error, msgspec.DecodeError):
        return None


def conclusion_sentence(reading: ConclusionReading) -> str:
    """How it ended, for a reader of the report."""
    at = reading.concluded_at.replace("T", " ").removesuffix("Z")[:16]
    who = f" by {reading.who}" if reading.who else ""
    won = "nobody won, everybody gets the control's order"
    if reading.winner is not None:
        won = f"{reading.winner} won, and everybody gets it"
    because = f", because: {reading.because}" if reading.because else ""
    kept = "These numbers are as they stood then"
    if not reading.is_frozen:
        kept = "These numbers were worked out anew from what was decided before"
    ended = f"Concluded {at} UTC{who}: {won}{because}"
    return f"{ended.rstrip('.')}. {kept}; what came later is not of the comparison."

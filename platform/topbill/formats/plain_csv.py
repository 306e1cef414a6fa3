"""A plain CSV for spreadsheets and data frames: a row for each item that was shown, with what was
known and what it got. It is written only.
"""

from __future__ import annotations

import csv
import io
import math
from typing import Any

from topbill.domain.records import Decision, Placement
from topbill.formats.obp_columns import context_features
from topbill.formats.rows import Row, timestamp
from topbill.formats.writers import Export, ExportNote, LinesWriter

_OWN = ("decision_id", "decided_at", "experiment", "variant", "unit", "policy", "reason")
_ITEM = ("position", "action", "propensity", "row_weight")


def open_writer(export: Export) -> LinesWriter:
    """A CSV file, its header first."""
    note = ExportNote(export.target, export.survey_names)
    features, events = note.names
    head = [
        *(*_OWN, *_ITEM),
        *(f"context.{name}" for name in features),
        *(f"event.{name}" for name in events),
    ]

    def dump(row: Row) -> bytes:
        return _text(_lines(row, features, events))

    return LinesWriter(export.target, note, dump, _text([head]))


def _lines(row: Row, features: tuple[str, ...], events: tuple[str, ...]) -> list[list[Any]]:
    """The lines of a decision: one for each item, or one for a decision that showed nothing."""
    decision, logged_events = row
    context = context_features(decision)
    about = [getattr(decision, name) for name in _OWN]
    about[_OWN.index("decided_at")] = timestamp(decision.decided_at)
    lines = []
    for placed in decision.slate or (None,):
        earned: dict[str, list[float]] = {}
        for event in logged_events:
            # An event of no position counts at every one, as policies see it.
            if placed is None or event.position in (None, placed.position):
                earned.setdefault(event.event, []).append(event.value)
        context_cells = [_cell(context.get(name)) for name in features]
        rewards = [math.fsum(earned[name]) if name in earned else "" for name in events]
        lines.append([*about, *_item(decision, placed), *context_cells, *rewards])
    return lines


def _item(decision: Decision, placed: Placement | None) -> list[Any]:
    weight = 1.0 if decision.row_weight is None else decision.row_weight
    if placed is None:
        return ["", "", "", weight]
    return [placed.position, placed.action, placed.propensity, weight]


def _cell(value: Any) -> Any:
    """A value as a spreadsheet has it; true and false as words, nothing as an empty cell."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else value


def _text(lines: list[list[Any]]) -> bytes:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(lines)
    return out.getvalue().encode()

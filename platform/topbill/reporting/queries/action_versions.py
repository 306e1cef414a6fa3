"""Actions whose payload or features changed under the same id: each content is an action of its own
to the statistics, since nobody saw the one while the other was served.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from itertools import pairwise
from typing import Any, NamedTuple

import msgspec

from topbill.domain.formatting import minute
from topbill.reporting.queries.database import AnalyticsDatabase

LABELS = "action_labels"
"""Temporary table: what an action of a revision is called where it is not the action of today."""
_PARTS = ("features", "payload")


class ActionChange(NamedTuple):
    """When an action's content became what it is, and which parts of it changed."""

    action: str
    at: datetime
    parts: list[str]

    @property
    def sentence(self) -> str:
        """What changed, for a reader of numbers."""
        verb = "changed" if len(self.parts) == 1 else "both changed"
        return (
            f"{self.action} is another action since {minute(self.at)}: its "
            f"{' and '.join(self.parts)} {verb}. What was shown before has a line of its own, and "
            "off-policy numbers of this id mix the two."
        )


class _Content(NamedTuple):
    """What an id stood for in one revision."""

    revision: str
    at: datetime
    until: datetime | None
    parts: Mapping[str, Any]


def make_action_labels(database: AnalyticsDatabase, key: str) -> list[ActionChange]:
    """Make temporary table `action_labels` (revision, action, label): `chase (until 2026-03-02
    12:30)` for what `chase` was before. Returns the last change of each action that has one.
    """
    contents = _contents(database, key)
    revisions, actions, labels, changes = [], [], [], []
    for action, versions in contents.items():
        present = versions[-1]
        ends: dict[bytes, datetime | None] = {}
        for version in versions:
            # Of a content that came back, the last time that it ended.
            ends[_bytes(version)] = version.until
        changed = _last_change(action, versions)
        if changed is not None:
            changes.append(changed)
        for version in versions:
            if _bytes(version) == _bytes(present):
                continue
            end = ends[_bytes(version)]
            revisions.append(version.revision)
            actions.append(action)
            labels.append(f"{action} (until {end:%Y-%m-%d %H:%M})" if end else action)
    database.execute(
        f"""CREATE OR REPLACE TEMP TABLE {LABELS} AS
        SELECT DISTINCT ON (revision, action) revision, action, label FROM (
            SELECT unnest($revisions::VARCHAR[]) AS revision, unnest($actions::VARCHAR[]) AS action,
                unnest($labels::VARCHAR[]) AS label)""",  # noqa: S608  (our own name)
        revisions=revisions,
        actions=actions,
        labels=labels,
    )
    return changes


def revisions_of(database: AnalyticsDatabase, key: str) -> list[dict[str, Any]]:
    """An experiment's lines of the audit (`revision`, `revised_at`, `who`, `spec`), oldest first;
    of one moment those that were written first."""
    # Not by rowid: where a folder was moved or copied, the audit is read through a view.
    return database.rows(
        """SELECT revision, revised_at, who, spec
        FROM (SELECT *, row_number() OVER () AS place FROM revisions)
        WHERE experiment = $key ORDER BY revised_at, place""",
        key=key,
    )


def _contents(database: AnalyticsDatabase, key: str) -> dict[str, list[_Content]]:
    """What each id stood for, in the order of time; of revisions that served it alone."""
    rows = revisions_of(database, key)
    contents: dict[str, list[_Content]] = {}
    for number, row in enumerate(rows):
        until = rows[number + 1]["revised_at"] if number + 1 < len(rows) else None
        for action in _actions(str(row["spec"])):
            parts = {part: action.get(part) or None for part in _PARTS}
            content = _Content(row["revision"], row["revised_at"], until, parts)
            contents.setdefault(str(action["id"]), []).append(content)
    return contents


def _actions(spec: str) -> list[Mapping[str, Any]]:
    """The actions that a revision's file lists; none where it lists none, or cannot be read."""
    content = msgspec.json.decode(spec)
    actions = content.get("actions") if isinstance(content, dict) else None
    listed = actions if isinstance(actions, list) else []
    return [action for action in listed if isinstance(action, dict) and "id" in action]


def _bytes(content: _Content) -> bytes:
    """The content, whatever order its keys stand in."""
    return msgspec.json.encode(content.parts, order="sorted")


def _last_change(action: str, versions: list[_Content]) -> ActionChange | None:
    for before, after in reversed(list(pairwise(versions))):
        parts = [part for part in _PARTS if before.parts[part] != after.parts[part]]
        if parts:
            return ActionChange(action, after.at, parts)
    return None

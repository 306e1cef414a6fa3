"""What changed when: the audit of an experiment, revision by revision, as sentences and as a diff
of its file."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from difflib import unified_diff
from pathlib import Path
from typing import Any

import msgspec
import yaml

from topbill.domain.errors import SpecError
from topbill.reporting.experiment.differences import spec_differences
from topbill.reporting.experiment.revising import RevisionChange, revision_change
from topbill.reporting.queries.action_versions import revisions_of
from topbill.reporting.queries.database import open_database
from topbill.reporting.queries.orders import RecordedOrder, recorded_orders
from topbill.spec import audited, from_audit

_CONTEXT = 2
"""Lines of the file that are shown around a change."""


class RevisionLine(msgspec.Struct, frozen=True, kw_only=True):
    """One revision of an experiment.

    Attributes:
        revision: Its fingerprint.
        since: When it came in force, UTC.
        who: The author of the file's last commit, or whoever ran the service that took it over, or
            gave the order.
        change: What differs from the revision before it, empty in the first.
        order: The order that made it, where one did, in a sentence.
        diff: The same as a unified diff of the file; empty in the first.
        file: The file as YAML.
    """

    revision: str
    since: datetime
    who: str
    change: RevisionChange
    order: str
    diff: str
    file: str

    @property
    def sentences(self) -> list[str]:
        """What changed, and what followed."""
        if self.order:
            # Which keys of the file that is alike tells nobody anything.
            return [self.order, *msgspec.structs.replace(self.change, clauses=[]).sentences()]
        return self.change.sentences() or ["Its first revision."]


def revision_lines(data: Path | str, key: str) -> list[RevisionLine]:
    """Every revision of an experiment, newest first; none where the record has no audit of it.

    Raises:
        NotFound: Nothing was published yet.
    """
    with open_database(data) as database:
        rows = revisions_of(database, key)
        orders = recorded_orders(database, key)
    lines = []
    before: dict[str, Any] | None = None
    for row in rows:
        made = [o for o in orders if _made(o, row)]
        lines.append(_line(row, before, key, made[-1].sentence if made else ""))
        before = row
    return lines[::-1]


def _made(order: RecordedOrder, row: Mapping[str, Any]) -> bool:
    """Whether the revision came in force by this order, and not by the file that it is like."""
    return (
        order.changes_what_runs and order.made == row["revision"] and order.at <= row["revised_at"]
    )


def _line(
    row: Mapping[str, Any], before: Mapping[str, Any] | None, key: str, order: str
) -> RevisionLine:
    file = _as_yaml(row["spec"], key)
    change, diff = RevisionChange(), ""
    if before is not None:
        change = _change(before, row, key)
        was = _as_yaml(before["spec"], key)
        parts = unified_diff(was.splitlines(), file.splitlines(), n=_CONTEXT, lineterm="")
        # The first two lines name files.
        diff = "\n".join(list(parts)[2:])
    return RevisionLine(
        revision=row["revision"],
        since=row["revised_at"],
        who=row["who"],
        change=change,
        order=order,
        diff=diff,
        file=file,
    )


def _change(before: Mapping[str, Any], row: Mapping[str, Any], key: str) -> RevisionChange:
    """What differs; what only a file that this version can read tells is left out of others."""
    try:
        one = from_audit(before["spec"], key, before["revision"])
        return revision_change(one, from_audit(row["spec"], key, row["revision"]))
    except SpecError:
        one_file, other = _content(before["spec"], key), _content(row["spec"], key)
        return RevisionChange(clauses=spec_differences(one_file, other))


def _content(spec: str, key: str) -> dict[str, Any]:
    try:
        return audited(spec, key)
    except SpecError:
        return {}


def _as_yaml(spec: str, key: str) -> str:
    """As people write it; the record holds JSON."""
    return yaml.safe_dump(_content(spec, key), sort_keys=False, allow_unicode=True, width=120)

"""A date or a time as a caller writes it, made one instant."""

from __future__ import annotations

from datetime import UTC, date, datetime

from topbill.domain.errors import BadRequest


def instant(name: str, moment: str | date) -> datetime:
    """The instant, with its zone. What names no zone is UTC, and a date is its first moment.

    Raises:
        BadRequest: for text that is no date or time of ISO 8601; `name` is where it stands.
    """
    if isinstance(moment, str):
        try:
            moment = datetime.fromisoformat(moment.strip())
        except ValueError:
            raise BadRequest(
                name,
                f"got {moment!r}; expected a date or time such as 2026-03-02 or 2026-03-02T10:00Z",
            ) from None
    elif not isinstance(moment, datetime):
        moment = datetime(moment.year, moment.month, moment.day)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment

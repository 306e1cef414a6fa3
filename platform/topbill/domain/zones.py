"""Time zones: whose days a report counts. Times are UTC everywhere; a zone only says where one day
ends and the next begins, daylight saving time included.
"""

from __future__ import annotations

from difflib import get_close_matches
from zoneinfo import ZoneInfo, available_timezones

from topbill.domain.errors import BadRequest
from topbill.domain.sql import identifier, quoted

UTC = "UTC"


def is_zone(name: str) -> bool:
    """Whether the machine knows a time zone of that name."""
    if name == UTC:
        return True
    # `localtime` is another zone on each machine.
    if name == "localtime":
        return False
    try:
        ZoneInfo(name)
    except (LookupError, OSError, ValueError):
        return False
    return True


def nearest_zone(name: str) -> str:
    """A hint that names the nearest time zone; empty where none is near."""
    names = available_timezones() - {"localtime"}
    # By the last part too, as people know their city before its continent.
    city = name.rpartition("/")[2].strip().replace(" ", "_").lower()
    by_city = {zone.rpartition("/")[2].lower(): zone for zone in sorted(names)}
    by_name = {zone.lower(): zone for zone in names}
    for table, wanted in ((by_name, name.lower()), (by_city, city)):
        matches = get_close_matches(wanted, table, n=1, cutoff=0.7)
        if matches:
            return f"did you mean {table[matches[0]]}?"
    return ""


def checked_zone(name: str) -> str:
    """The name, if it is a time zone's.

    Raises:
        BadRequest: it is none; the message names the nearest.
    """
    if not is_zone(name):
        hint = nearest_zone(name)
        raise BadRequest(
            "time_zone",
            f"got {name!r}; expected a time zone such as Europe/Oslo{hint and f'; {hint}'}",
        )
    return name


def local_sql(moment: str, zone: str) -> str:
    """SQL for what a clock on the wall of the zone shows at a moment, which is SQL of a TIMESTAMP
    in UTC or of one with a zone.
    """
    utc = f"make_timestamp(epoch_us({moment}))"
    return utc if zone == UTC else f"timezone({quoted(zone)}, timezone('UTC', {utc}))"


def utc_sql(local: str, zone: str) -> str:
    """SQL for the moment, a TIMESTAMP in UTC, at which the zone's clocks show `local`."""
    return local if zone == UTC else f"timezone('UTC', timezone({quoted(zone)}, {local}))"


def day_sql(column: str, kind: str, zone: str) -> str:
    """SQL for the day of a column, whose type is `kind`: of moments the date in the zone; dates and
    numbers of days are days already.
    """
    name = identifier(column)
    return f"CAST({local_sql(name, zone)} AS DATE)" if kind.startswith("TIMESTAMP") else name

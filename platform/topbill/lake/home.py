"""A lake at a URL belongs to one log: the rows of a second one, numbered as the first one's are,
would be taken for published. And all machines over it store ids of units alike.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from uuid import uuid4

from topbill.domain.errors import LogError
from topbill.lake.files import objects_below
from topbill.lake.places import lake_place
from topbill.log import home, is_shared, open_log_of
from topbill.log.unit_ids import SALT, unit_ids

UNITS = "units"
"""The object that says how ids of units are stored."""


def check_home(data: Path) -> None:
    """Have the lake belong to this log, from the first process over both on; without a URL, a
    shared log to this data folder.

    Raises LogError where one of them belongs to another, where this machine stores ids of units
    otherwise than the first one, and where the store that the URL names cannot be used.
    """
    place = lake_place(data)
    if not place.is_store:
        home.check_home(data)
        return
    objects = objects_below(place)
    rule = unit_ids(data).rule
    if not objects.make(UNITS, rule.encode()) and (first := objects.read(UNITS).decode()) != rule:
        raise LogError(
            f"{data}: ids of units are stored {rule} here, and {first} in {place.root}; expected "
            f"the settings.yaml and {SALT} of the machine that was first"
        )
    with closing(open_log_of(data)) as log:
        own = log.belong_to(uuid4().hex if is_shared(data) else home.home_of(data))
        if objects.make(home.HOME, own.encode()):
            return
        noted = objects.read(home.HOME).decode()
        if noted != own:
            raise LogError(
                f"{place.root}: belongs to another log than {log.name}; expected a prefix of its "
                "own for each log"
            )

"""What a profile may see, as its team has set it: it holds for each of its pages, whatever a
request says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, NamedTuple

import msgspec

PROFILE_TYPE = "profile_id"
"""What a page's units are where none of its experiments says it."""
MaturityLimit = Annotated[int, msgspec.Meta(ge=0, le=21)]
"""Years of age."""
Region = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]


class ProfileLimits(msgspec.Struct, frozen=True):
    """What a profile may see: `kids`, whether it is a kid's; `maturity`, its age limit in years;
    `region`, where it is unless a request says so. None where it has no such limit.
    """

    kids: bool = False
    maturity: int | None = None
    region: str | None = None

    def stricter(self, other: ProfileLimits) -> ProfileLimits:
        """The limits of both: the lowest age, and the own region where there is one."""
        ages = [age for age in (self.maturity, other.maturity) if age is not None]
        return ProfileLimits(
            self.kids or other.kids, min(ages, default=None), self.region or other.region
        )


class Merge(NamedTuple):
    """What `merged` did, and goes on to do, is of profile `unit` as well; `place` is where it
    stands in the log, from 1 on, `unit_type` what experiments call such a unit.
    """

    place: int
    unit: str
    unit_type: str
    merged: str


class MergedProfile(NamedTuple):
    """A profile after a merge: what it may see, None where nothing is set, and whether the merge
    is new.
    """

    limits: ProfileLimits | None
    is_new: bool


def viewers_of(merges: Iterable[Merge]) -> dict[str, str]:
    """Unit → the profile into which it was merged, the last one where there are several, and of
    that one likewise. Units that were merged into each other are the first one of theirs.
    """
    into = {merge.merged: merge.unit for merge in merges}
    viewers = {}
    for unit in into:
        way = [unit]
        while way[-1] in into and into[way[-1]] not in way:
            way.append(into[way[-1]])
        is_ring = way[-1] in into
        viewers[unit] = min(way[way.index(into[way[-1]]) :]) if is_ring else way[-1]
    return viewers


def guests_of(unit: str, merged: Mapping[str, Sequence[str]], most: int | None = None) -> list[str]:
    """The units that were merged into this one, or into one of those, the latest first, at most so
    many. `merged` has by unit those that were merged into it itself, the latest last.
    """
    found: dict[str, None] = {}
    waiting = [unit]
    for into in waiting:
        for guest in reversed(merged.get(into, ())):
            if guest != unit and guest not in found and len(found) != most:
                found[guest] = None
                waiting.append(guest)
    return list(found)


class ProfileChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Limits of a profile. What is left out stays as it was: only `false` and `null` lift one."""

    kids: bool | msgspec.UnsetType = msgspec.UNSET
    maturity: MaturityLimit | msgspec.UnsetType | None = msgspec.UNSET
    region: Region | msgspec.UnsetType | None = msgspec.UNSET

    @property
    def is_whole(self) -> bool:
        """Whether it says all of them."""
        return msgspec.UNSET not in (self.kids, self.maturity, self.region)

    def applied_to(self, limits: ProfileLimits) -> ProfileLimits:
        """The limits as they are after the change."""
        said = {}
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if value is not msgspec.UNSET:
                said[name] = value
        return msgspec.structs.replace(limits, **said)

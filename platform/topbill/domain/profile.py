"""What a profile may see, as its team has set it: it holds for each of its pages, whatever a
request says.
"""

from __future__ import annotations

from typing import Annotated

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

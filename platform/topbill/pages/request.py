"""What is asked of a page: the struct that travels over HTTP."""

from __future__ import annotations

from typing import Annotated

import msgspec

from topbill.domain.profile import MaturityLimit, ProfileLimits
from topbill.engine import Id

_PageId = Annotated[
    str,
    msgspec.Meta(pattern=r"^[^:]{1,48}$", description="1 to 48 characters, none of them a colon"),
]


class PageRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whose page, where and when. Without `profile` the viewer is a guest; `session` makes the page
    sticky.

    `kids` and `maturity`, an age limit, hold beside what is set of the profile; `watched` is its
    recent plays, newest last (left out: what the service knows).
    """

    page: Id
    profile: Id | None = None
    account: Id | None = None
    session: Id | None = None
    kids: bool = False
    maturity: MaturityLimit | None = None
    region: Annotated[str, msgspec.Meta(max_length=64)] | None = None
    watched: Annotated[list[Id], msgspec.Meta(max_length=100)] | None = None
    context: msgspec.Raw = msgspec.field(default_factory=lambda: msgspec.Raw(b"{}"))
    page_id: _PageId | None = None

    def within(self, limits: ProfileLimits) -> PageRequest:
        """The request with what holds of its profile whatever it says: the strictest of the limits,
        and the profile's region where it names none.
        """
        ages = [age for age in (self.maturity, limits.maturity) if age is not None]
        return msgspec.structs.replace(
            self,
            kids=self.kids or limits.kids,
            maturity=min(ages, default=None),
            region=self.region or limits.region,
        )

    @property
    def unit(self) -> str | None:
        """Who is randomised: the profile (profiles of an account apart), else the session, else
        nobody.
        """
        if self.profile is not None:
            return self.profile if self.account is None else f"{self.account}/{self.profile}"
        return None if self.session is None else f"guest/{self.session}"

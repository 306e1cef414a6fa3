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


MOST_CANDIDATES = 500
"""Candidates of a row that one request may bring."""
MOST_SCORES = 5_000
LARGEST_SCORE = 1e9
_Score = Annotated[
    float,
    msgspec.Meta(
        ge=-LARGEST_SCORE,
        le=LARGEST_SCORE,
        description="The higher, the better; of any scale, below 0 too",
    ),
]

_After = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^[^:]{1,64}$",
        description="The page_id of the page above, as it was answered",
    ),
]


class ScoredTitle(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """A candidate of a row of source external; without a `score` it comes after those that have
    one, in the order of the list.
    """

    title: Id
    score: _Score | None = None


class PageRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whose page, where and when. Without `profile` the viewer is a guest; `session` makes the page
    sticky.

    `kids` and `maturity`, an age limit, hold beside what is set of the profile; `watched` is its
    recent plays, newest last (left out: what the service knows). `candidates` are those of rows of
    source external, by row; `scores`, by title, are the feature `score` and the order of rows.
    recent plays, newest last (left out: what the service knows). Without `explore`, for crawlers
    and previews, each place has what its policy holds to be the best, and teaches nothing. `after`
    names the viewer's page that this one goes on below.
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
    after: _After | None = None
    candidates: (
        Annotated[
            dict[Id, Annotated[list[ScoredTitle], msgspec.Meta(max_length=MOST_CANDIDATES)]],
            msgspec.Meta(max_length=100),
        ]
        | None
    ) = None
    scores: Annotated[dict[Id, _Score], msgspec.Meta(max_length=MOST_SCORES)] | None = None
    explore: bool = True

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

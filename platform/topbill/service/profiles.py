"""`PUT`, `GET` and `DELETE /v1/profiles/{id}`: what a profile may see, set once by whoever manages
profiles, so that no page call can forget it; and `POST /v1/profiles/{id}/merge`: a guest who signs
in brings along what is known of them.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from topbill.domain.errors import BadRequest, NotFound
from topbill.domain.json_text import at_path, check_json
from topbill.domain.profile import PROFILE_TYPE, ProfileChange, ProfileLimits
from topbill.service.backend import Backend
from topbill.service.page import PageService

_LONGEST_ID = 128
"""Characters of a profile's id, and of its account's, as in a page call."""
_changes = msgspec.json.Decoder(ProfileChange)


class MergeRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who the profile was before it signed in: `from`, named as pages randomise it, a `PROFILE`, an
    `ACCOUNT/PROFILE`, or `guest/SESSION` of a guest who had a session alone.
    """

    guest: Annotated[str, msgspec.Meta(min_length=1, max_length=2 * _LONGEST_ID + 1)] = (
        msgspec.field(name="from")
    )


_merges = msgspec.json.Decoder(MergeRequest)


class MergeAnswer(msgspec.Struct, frozen=True):
    """What the profile may see after the merge, and whether it is `merged` now or was before
    (`known`)."""

    status: Literal["merged", "known"]
    profile: str
    merged: str = msgspec.field(name="from")
    kids: bool
    maturity: int | None
    region: str | None


class ProfileAnswer(msgspec.Struct, frozen=True):
    """What is set of a profile: whether it is a kid's, its age limit in years, its region."""

    profile: str
    kids: bool
    maturity: int | None
    region: str | None


class Profiles:
    """What profiles may see, over a backend. They are called as pages name their units: by their
    id, or by that of their account, a slash, and their own.

    Another thread reads and writes: a commit may take as long as the disk does.
    """

    def __init__(self, backend: Backend, pages: PageService) -> None:
        self._backend = backend
        self._pages = pages

    async def change(self, profile: str, body: bytes) -> ProfileAnswer:
        """Set limits, durably: the page that is asked for next goes by them, in every process.

        Raises Malformed or BadRequest for a body of another form, BadRequest for an id that no page
        call could have, LogError where nothing was stored.
        """
        unit = self._unit(profile)
        check_json(body)
        try:
            change = _changes.decode(body)
        except msgspec.ValidationError as error:
            raise at_path(error) from error
        unit_type = self._unit_type
        limits = await self._backend.read(lambda log: log.change_profile(unit, unit_type, change))
        return _answer(profile, limits)

    async def show(self, profile: str) -> ProfileAnswer:
        """What is set. Raises NotFound where nothing is."""
        unit = self._unit(profile)
        limits = await self._backend.read(lambda log: log.profile(unit))
        if limits is None:
            raise _nothing_set(profile)
        return _answer(profile, limits)

    async def remove(self, profile: str) -> None:
        """Remove all that was set: page calls alone say then what holds. Raises NotFound where
        nothing was.
        """
        unit = self._unit(profile)
        if not await self._backend.read(lambda log: log.remove_profile(unit)):
            raise _nothing_set(profile)

    async def merge(self, profile: str, body: bytes) -> MergeAnswer:
        """Have the profile know what a guest did, watched and disliked, durably: within a second or
        so in every process. The strictest of both's limits holds for the profile at once.

        Raises Malformed or BadRequest for a body of another form, for ids that no page call could
        have, and for a profile that would be merged into itself; LogError where nothing was stored.
        """
        unit = self._unit(profile)
        check_json(body)
        try:
            request = _merges.decode(body)
        except msgspec.ValidationError as error:
            raise at_path(error) from error
        guest = self._unit(request.guest, "$.from")
        if guest == unit:
            raise BadRequest("$.from", f"got {profile!r}, the profile itself; expected another")
        # What is set of PROFILE holds for ACCOUNT/PROFILE as well.
        names = dict.fromkeys((request.guest, request.guest.rpartition("/")[2]))
        limited_by = [self._backend.unit_ids.stored(name) for name in names]
        unit_type = self._unit_type
        result = await self._backend.read(
            lambda log: log.merge_profile(unit, unit_type, guest, limited_by)
        )
        limits = result.limits or ProfileLimits()
        return MergeAnswer(
            "merged" if result.is_new else "known",
            profile,
            request.guest,
            limits.kids,
            limits.maturity,
            limits.region,
        )

    @property
    def _unit_type(self) -> str:
        types = self._pages.unit_types
        return next(iter(types)) if len(types) == 1 else PROFILE_TYPE

    def _unit(self, profile: str, path: str = "profile") -> str:
        account, _, own = profile.rpartition("/")
        if not own or len(own) > _LONGEST_ID or len(account) > _LONGEST_ID:
            raise BadRequest(
                path,
                f"got {len(own)} characters of a profile and {len(account)} of an account; "
                f"expected PROFILE or ACCOUNT/PROFILE, of 1 to {_LONGEST_ID} each",
            )
        return self._backend.unit_ids.stored(profile)


def _answer(profile: str, limits: ProfileLimits) -> ProfileAnswer:
    return ProfileAnswer(profile, limits.kids, limits.maturity, limits.region)


def _nothing_set(profile: str) -> NotFound:
    return NotFound(f"profile {profile!r} has no limits; set them with PUT")

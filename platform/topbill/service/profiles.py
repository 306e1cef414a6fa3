"""`PUT`, `GET` and `DELETE /v1/profiles/{id}`: what a profile may see, set once by whoever manages
profiles, so that no page call can forget it.
"""

from __future__ import annotations

import msgspec

from topbill.domain.errors import BadRequest, NotFound
from topbill.domain.json_text import at_path, check_json
from topbill.domain.profile import PROFILE_TYPE, ProfileChange, ProfileLimits
from topbill.service.backend import Backend
from topbill.service.page import PageService

_LONGEST_ID = 128
"""Characters of a profile's id, and of its account's, as in a page call."""
_changes = msgspec.json.Decoder(ProfileChange)


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
        types = self._pages.unit_types
        unit_type = next(iter(types)) if len(types) == 1 else PROFILE_TYPE
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

    def _unit(self, profile: str) -> str:
        account, _, own = profile.rpartition("/")
        if not own or len(own) > _LONGEST_ID or len(account) > _LONGEST_ID:
            raise BadRequest(
                "profile",
                f"got {len(own)} characters of a profile and {len(account)} of an account; "
                f"expected PROFILE or ACCOUNT/PROFILE, of 1 to {_LONGEST_ID} each",
            )
        return self._backend.unit_ids.stored(profile)


def _answer(profile: str, limits: ProfileLimits) -> ProfileAnswer:
    return ProfileAnswer(profile, limits.kids, limits.maturity, limits.region)


def _nothing_set(profile: str) -> NotFound:
    return NotFound(f"profile {profile!r} has no limits; set them with PUT")

"""What is asked of a page and what is answered: the structs that travel over HTTP."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from topbill.engine import Id

_PageId = Annotated[
    str,
    msgspec.Meta(pattern=r"^[^:]{1,48}$", description="1 to 48 characters, none of them a colon"),
]


class PageRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whose page, where and when. Without `profile` the viewer is a guest; `session` makes the page
    sticky.

    `maturity` is the profile's age limit, `watched` its recent plays, newest last (left out: what
    the service knows).
    """

    page: Id
    profile: Id | None = None
    account: Id | None = None
    session: Id | None = None
    kids: bool = False
    maturity: Annotated[int, msgspec.Meta(ge=0, le=21)] | None = None
    region: Annotated[str, msgspec.Meta(max_length=64)] | None = None
    watched: Annotated[list[Id], msgspec.Meta(max_length=100)] | None = None
    context: msgspec.Raw = msgspec.field(default_factory=lambda: msgspec.Raw(b"{}"))
    page_id: _PageId | None = None

    @property
    def unit(self) -> str | None:
        """Who is randomised: the profile (profiles of an account apart), else the session, else
        nobody.
        """
        if self.profile is not None:
            return self.profile if self.account is None else f"{self.account}/{self.profile}"
        return None if self.session is None else f"guest/{self.session}"


class Tile(msgspec.Struct, frozen=True, gc=False):
    """A title on the page, its picture, and the propensities with which the two were drawn."""

    title: str
    payload: msgspec.Raw
    propensity: float
    picture: str | None
    picture_payload: msgspec.Raw
    picture_propensity: float


class RowAnswer(msgspec.Struct, frozen=True, gc=False):
    """A row. `missing`: how many titles fewer than asked for the rules left; `removed`: how many
    each rule took.
    """

    row: str
    payload: msgspec.Raw
    propensity: float
    titles: tuple[Tile, ...]
    missing: int
    removed: dict[str, int]


class LayerAnswer(msgspec.Struct, frozen=True, gc=False):
    """One layer: its experiment and variant, and the logarithm of the joint propensity of all that
    it chose.
    """

    layer: Literal["rows", "titles", "artwork"]
    experiment: str
    variant: str | None
    log_propensity: float


class PageAnswer(msgspec.Struct, frozen=True, gc=False):
    """A page. Its joint propensity is exp(Σ log_propensity); `fallbacks` names the stages that were
    not as planned (`empty`: nothing may be shown to this viewer), `made_up` the columns of the
    catalogue that are invented for a demonstration, `again` says that a session got the page that
    it had already."""

    page_id: str
    page: str
    layers: tuple[LayerAnswer, ...]
    rows: tuple[RowAnswer, ...]
    fallbacks: tuple[str, ...]
    again: bool = False
    made_up: tuple[str, ...] = ()

"""What a caller gets for a whole page: the service's page, or the caller's own default rows,
flagged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from topbill_client.choice import new_id


class Tile(msgspec.Struct, frozen=True, gc=False):
    """A title and its picture, and the propensities with which the two were drawn."""

    title: str
    payload: Any = None
    propensity: float = 1.0
    picture: str | None = None
    picture_payload: Any = None
    picture_propensity: float = 1.0


class Row(msgspec.Struct, frozen=True, gc=False):
    """A row and its titles, in order. `missing`: how many titles fewer than asked for the rules
    left; `removed`: how many each rule took."""

    row: str
    payload: Any = None
    propensity: float = 1.0
    titles: tuple[Tile, ...] = ()
    missing: int = 0
    removed: dict[str, int] = {}


class Layer(msgspec.Struct, frozen=True, gc=False):
    """One layer of the page (rows, titles or artwork): its experiment, its variant, and the
    logarithm of the joint propensity of all that it chose; `length_propensity` is the part of it
    that is due to how many it chose, where the page decides that."""

    layer: str
    experiment: str
    variant: str | None
    log_propensity: float
    length_propensity: float = 1.0


class Merged(msgspec.Struct, frozen=True):
    """A profile after a guest was merged into it: what it may see, and whether it is `merged` now
    or was before (`known`).
    """

    status: Literal["merged", "known"]
    profile: str
    guest: str = msgspec.field(name="from")
    kids: bool = False
    maturity: int | None = None
    region: str | None = None


class Page(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A page, first row first. `fallbacks` names the stages of the service that were not as
    planned, `made_up` the columns of the catalogue that a demonstration invents; `again` says that
    the session got the page that it had; `notes` say which rows have nothing to show, and why,
    and what of the request was set aside. With `fallback` the service did not make it at all: the
    rows are the caller's default, nothing was logged, and `problem` says why."""

    page_id: str
    page: str
    layers: tuple[Layer, ...] = ()
    rows: tuple[Row, ...] = ()
    fallbacks: tuple[str, ...] = ()
    again: bool = False
    made_up: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    fallback: bool = False
    problem: str | None = None

    @property
    def decision_id(self) -> str:
        """What a reward on the page names."""
        return self.page_id


def default_page(
    page: str, page_id: str | None, rows: Mapping[str, Sequence[str]], problem: str
) -> Page:
    """The caller's default rows as a page."""
    shown = tuple(Row(row, titles=tuple(map(Tile, titles))) for row, titles in rows.items())
    return Page(page_id=page_id or new_id(), page=page, rows=shown, fallback=True, problem=problem)

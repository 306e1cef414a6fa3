"""What is answered of a page: the structs that travel over HTTP, and that the page's own decision
keeps in its `actions`.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from topbill.domain.records import Placement


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


class LayerAnswer(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One layer: its experiment and variant, and the logarithm of the joint propensity of all that
    it chose; `length_propensity` is the part of it that is due to how many it chose, and is there
    where that is drawn.
    """

    layer: Literal["rows", "titles", "artwork"]
    experiment: str
    variant: str | None
    log_propensity: float
    length_propensity: float = 1.0


class PageAnswer(msgspec.Struct, frozen=True, gc=False):
    """A page. Its joint propensity is exp(Σ log_propensity); `fallbacks` names the stages that were
    not as planned (`empty`: nothing may be shown to this viewer), `made_up` the columns of the
    catalogue that are invented for a demonstration, `again` says that a session got the page that
    it had already; `notes` say which rows have nothing to show, and why, and what
    of the request was set aside."""

    page_id: str
    page: str
    layers: tuple[LayerAnswer, ...]
    rows: tuple[RowAnswer, ...]
    fallbacks: tuple[str, ...]
    again: bool = False
    made_up: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def cells_of(page: PageAnswer) -> tuple[Placement, ...]:
    """The slate of a page's own decision: a cell for each of its titles. Its propensity is that of
    title and picture; a row's own counts once, in the row's first cell, and those of the lengths
    in the page's first one, so that the product over all cells is the joint propensity of the page
    (but for rows without titles).
    """
    cells: list[Placement] = []
    above = 1.0
    for layer in page.layers:
        above *= layer.length_propensity
    for row in page.rows:
        row_propensity = row.propensity
        for tile in row.titles:
            propensity = row_propensity * tile.propensity * tile.picture_propensity * above
            cells.append(Placement(len(cells), tile.title, propensity))
            # From the second title on it would be counted again.
            row_propensity = above = 1.0
    return tuple(cells)

"""Who gets the credit for what happened on a page: the row, the title and the picture, each by its
own decision.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from topbill.domain.records import RewardEvent
from topbill.pages.answers import PageAnswer


class Cell(msgspec.Struct, frozen=True, gc=False):
    """Where a title stands: the row's place on the page, the title's in the row, its picture and
    that one's place.
    """

    row: str
    row_position: int
    position: int
    picture: str | None
    picture_position: int


def cells_of(answer: PageAnswer) -> dict[str, Cell]:
    """Title → where it stands. No title stands on a page twice."""
    found = {}
    for place, row in enumerate(answer.rows):
        pictured = 0
        for position, tile in enumerate(row.titles):
            found[tile.title] = Cell(row.row, place, position, tile.picture, pictured)
            pictured += tile.picture is not None
    return found


def spread(event: RewardEvent, answer: PageAnswer, cells: Mapping[str, Cell]) -> list[RewardEvent]:
    """The events that one event on a page is: itself, and one for each layer's decision that it
    speaks of.

    An event with a title goes to its row, to the title, and to its picture; one without goes to all
    of the page.
    """
    page_id, artwork = event.decision_id, any(layer.layer == "artwork" for layer in answer.layers)
    if event.action is None:
        ids = [f"{page_id}:rows"]
        for row in answer.rows:
            if row.titles:
                ids.append(f"{page_id}:{row.row}")
            if artwork and any(tile.picture for tile in row.titles):
                ids.append(f"{page_id}:{row.row}:artwork")
        return [event, *(msgspec.structs.replace(event, decision_id=i) for i in ids)]
    cell = cells[event.action]
    own = f"{page_id}:{cell.row}"
    found = [
        event,
        _moved(event, f"{page_id}:rows", cell.row, cell.row_position),
        _moved(event, own, event.action, cell.position),
    ]
    if cell.picture is not None and artwork:
        found.append(_moved(event, f"{own}:artwork", cell.picture, cell.picture_position))
    return found


def _moved(event: RewardEvent, decision_id: str, action: str, position: int) -> RewardEvent:
    return msgspec.structs.replace(event, decision_id=decision_id, action=action, position=position)

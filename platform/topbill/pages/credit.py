"""Who gets the credit for what happened on a page: the row, the title and the picture, each by its
own decision.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from topbill.domain.page_answer import PageAnswer
from topbill.domain.records import RewardEvent
from topbill.domain.rewards import IMPRESSIONS_SENT, SEEN


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
    cells: dict[str, Cell] = {}
    for row_position, row in enumerate(answer.rows):
        # The artwork decision of a row has a position for each title that has a picture: so
        # pictures are counted apart.
        picture_position = 0
        for position, tile in enumerate(row.titles):
            cells[tile.title] = Cell(
                row.row, row_position, position, tile.picture, picture_position
            )
            picture_position += tile.picture is not None
    return cells


def spread(event: RewardEvent, answer: PageAnswer, cells: Mapping[str, Cell]) -> list[RewardEvent]:
    """The events that one event on a page is: itself, and one for each layer's decision that it
    speaks of.

    An event with a title goes to its row, to the title, and to its picture; one without goes to all
    of the page.
    """
    with_artwork = _has_artwork(answer)
    # An event of no title speaks of the page as a whole: somebody came back, or gave up.
    if event.action is None:
        return _spread_over_page(event, answer, with_artwork)
    page_id, cell = event.decision_id, cells[event.action]
    titles_id = f"{page_id}:{cell.row}"
    events = [
        event,
        _moved(event, f"{page_id}:rows", cell.row, cell.row_position),
        _moved(event, titles_id, event.action, cell.position),
    ]
    if cell.picture is not None and with_artwork:
        events.append(_moved(event, f"{titles_id}:artwork", cell.picture, cell.picture_position))
    return events


def impressions_sent(event: RewardEvent, answer: PageAnswer) -> list[RewardEvent]:
    """What says of each of the page's decisions that its impressions are sent, once an event is the
    first of them: then a row of which nobody saw a title was not looked at. None for other events.

    Each has an id that follows from nothing but the decision, so that it is stored once.
    """
    if event.event != SEEN or event.action is None:
        return []
    whole = msgspec.structs.replace(
        event,
        event_id=IMPRESSIONS_SENT,
        event=IMPRESSIONS_SENT,
        value=1.0,
        action=None,
        position=None,
    )
    return _spread_over_page(whole, answer, _has_artwork(answer))


def _has_artwork(answer: PageAnswer) -> bool:
    return any(layer.layer == "artwork" for layer in answer.layers)


def _spread_over_page(
    event: RewardEvent, answer: PageAnswer, with_artwork: bool
) -> list[RewardEvent]:
    """An event of the whole page, once for each decision that there is: a row without titles has
    none of its own, one without pictures none about artwork.
    """
    page_id = event.decision_id
    ids = [f"{page_id}:rows"]
    for row in answer.rows:
        if row.titles:
            ids.append(f"{page_id}:{row.row}")
        if with_artwork and any(tile.picture for tile in row.titles):
            ids.append(f"{page_id}:{row.row}:artwork")
    return [event, *(msgspec.structs.replace(event, decision_id=i) for i in ids)]


def _moved(event: RewardEvent, decision_id: str, action: str, position: int) -> RewardEvent:
    return msgspec.structs.replace(event, decision_id=decision_id, action=action, position=position)

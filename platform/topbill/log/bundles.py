"""Decisions that are stored as one: those of a page, say, which offer hundreds of titles and name
the same ones again and again.

    packed( 1 | length | what they say, as JSON | offered actions, one after the other )

What was eligible is left out where the offered actions say it, and what was placed stands there as
its place among what was eligible. Offered actions are the larger part, and stand outside of the
JSON, so that who reads it need not read all of them; and side by side, since they are much alike.
The answer of a page has its tiles in columns, most of which then are lists that stand there
already.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import msgspec
from msgspec.structs import force_setattr

from topbill.domain.packed import pack, unpack
from topbill.domain.page_answer import PageAnswer, RowAnswer, Tile, cells_of
from topbill.domain.records import NULL, Decision, Mask, Offer, Placement

LEAST = 4_096
"""Bytes of offered actions from which on decisions are bundled. A smaller decision is not made much
smaller by it, and all that reads it would have more to do.
"""

MOST = 1 << 16
"""Decisions of one bundle."""
_Name: TypeAlias = int | str
"""A text, or its place among what was eligible in the decision."""
_encode = msgspec.json.Encoder().encode


class _Lists(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The lists of one decision. `eligible` is None where it is what the decision offers."""

    eligible: tuple[str, ...] | None
    placed: list[_Name]
    propensities: list[float]
    masks: tuple[Mask, ...]


class _Tiles(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The tiles of one row of a page, field by field."""

    titles: list[str]
    propensities: list[float]
    pictures: list[str | None]
    picture_propensities: list[float]
    payloads: list[msgspec.Raw]
    picture_payloads: list[msgspec.Raw]


class _Header(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What decisions say: each without its lists and offers; the lists; how many bytes each one's
    offered actions have. Where a page's answer is among these, `answered` is its index, and `tiles`
    are those that it lacks there; its slate follows from it.
    """

    decisions: list[msgspec.Raw]
    lists: list[_Lists]
    lengths: list[int]
    answered: int | None
    tiles: msgspec.Raw


_START = struct.Struct("<BI")
"""The form, and the header's length in bytes."""
_FORM = 1
_decode_header = msgspec.json.Decoder(_Header).decode
_decode_decision = msgspec.json.Decoder(Decision).decode
_decode_tiles = msgspec.json.Decoder(list[_Tiles]).decode
_decode_answer = msgspec.json.Decoder(PageAnswer).decode
_decode_offers = msgspec.json.Decoder(list[Offer]).decode


class _OfferedId(msgspec.Struct, gc=False):
    """Of an offer, its id alone: who needs no more reads it in half of the time."""

    id: str


_decode_ids = msgspec.json.Decoder(list[_OfferedId]).decode


def is_bundled(decisions: Sequence[Decision]) -> bool:
    """Whether decisions that are stored together are stored as a bundle: where they are one unit's
    and offer much.
    """
    if sum([len(decision.actions) for decision in decisions]) < LEAST or len(decisions) > MOST:
        return False
    unit = decisions[0].unit
    return all(decision.unit == unit and _is_in_order(decision) for decision in decisions)


def _is_in_order(decision: Decision) -> bool:
    return all(i == placement.position for i, placement in enumerate(decision.slate))


def bundle_of(decisions: Sequence[Decision], page: PageAnswer | None = None) -> bytes:
    """The bundle of these decisions. `page` is the answer of the page that they make together,
    where they do: then nothing of it has to be read from them.
    """
    plain: list[msgspec.Raw] = []
    lists: list[_Lists] = []
    for decision in decisions:
        plain.append(_raw(msgspec.structs.replace(decision, **_NO_LISTS)))
        lists.append(_lists_of(decision, is_offered=_is_of_all(decision, page)))
    actions = [decision.actions for decision in decisions]
    answered, tiles = None, []
    for index, decision in enumerate(decisions):
        if decision.layer != "page":
            continue
        answer = _answer_of(decision) if page is None else page
        if answer is not None:
            answered, tiles = index, [_tiles_of(row) for row in answer.rows]
            actions[index] = _raw(_with_rows(answer, [()] * len(answer.rows)))
            lists[index] = msgspec.structs.replace(lists[index], placed=[], propensities=[])
            break
    lengths = [len(each) for each in actions]
    header = _encode(_Header(plain, lists, lengths, answered, _raw(tiles)))
    return pack(b"".join([_START.pack(_FORM, len(header)), header, *actions]))


_NO_LISTS: dict[str, Any] = {"eligible": (), "slate": (), "masks": (), "actions": NULL}


def _answer_of(decision: Decision) -> PageAnswer | None:
    """The answer that a page's own decision has in place of offers; None where text and slate
    would not be the same again.
    """
    try:
        answer = _decode_answer(decision.actions)
    except msgspec.DecodeError:
        return None
    is_same = _encode(answer) == bytes(decision.actions) and cells_of(answer) == decision.slate
    return answer if is_same else None


def _tiles_of(row: RowAnswer) -> _Tiles:
    tiles = row.titles
    return _Tiles(
        [tile.title for tile in tiles],
        [tile.propensity for tile in tiles],
        [tile.picture for tile in tiles],
        [tile.picture_propensity for tile in tiles],
        [tile.payload for tile in tiles],
        [tile.picture_payload for tile in tiles],
    )


def _with_rows(answer: PageAnswer, tiles: Iterable[Sequence[Tile]]) -> PageAnswer:
    """The answer with these tiles in its rows."""
    rows = []
    for row, titles in zip(answer.rows, tiles, strict=True):
        rows.append(msgspec.structs.replace(row, titles=tuple(titles)))
    return msgspec.structs.replace(answer, rows=tuple(rows))


def _raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(_encode(value))


def _is_of_all(decision: Decision, page: PageAnswer | None) -> bool:
    """Whether what is eligible is all that is offered, in its order."""
    # Pages offer titles and pictures that their rules let through, and no others.
    is_of_page = page is not None and decision.layer in ("titles", "artwork")
    return is_of_page or decision.eligible == _offered(decision.actions)


def _lists_of(decision: Decision, *, is_offered: bool) -> _Lists:
    eligible = decision.eligible
    place_of = dict(zip(eligible, range(len(eligible)), strict=True))
    placed = [placement.action for placement in decision.slate]
    return _Lists(
        None if is_offered else eligible,
        # A page places hundreds: `map` keeps them in C.
        list(map(place_of.get, placed, placed)),
        [placement.propensity for placement in decision.slate],
        decision.masks,
    )


def _offered(actions: msgspec.Raw) -> tuple[str, ...] | None:
    """The ids of offered actions; None for a text that offers none."""
    offers = _offers(actions)
    return None if offers is None else _ids(offers)


def _offers(actions: msgspec.Raw) -> list[Offer] | None:
    """Offered actions; None for a text that offers none."""
    try:
        return _decode_offers(actions)
    except msgspec.DecodeError:
        return None


def _ids(offers: Sequence[Offer | _OfferedId]) -> tuple[str, ...]:
    return tuple([offer.id for offer in offers])


class OpenBundle:
    """A bundle of `len` decisions, each of which is put together when it is asked for: who reads
    those of one experiment pays for no others.

    Raises ValueError or msgspec.DecodeError for what is none.
    """

    def __init__(self, bundle: bytes) -> None:
        self._header, self._actions = _opened(unpack(bundle))
        header = self._header
        if not len(header.decisions) == len(header.lists) == len(self._actions):
            raise ValueError("damaged: has not a list and an offer for each decision")
        self._offers: dict[int, list[Offer] | None] = {}

    def __len__(self) -> int:
        return len(self._actions)

    def offers(self, index: int) -> list[Offer] | None:
        """What one of its decisions offered; None where it brought nothing along."""
        if index not in self._offers:
            self._offers[index] = _offers(self._actions[index])
        return self._offers[index]

    def _offered(self, index: int) -> tuple[str, ...]:
        """The ids of what one of its decisions offered."""
        offers = self._offers.get(index)
        if offers is not None:
            return _ids(offers)
        try:
            return _ids(_decode_ids(self._actions[index]))
        except msgspec.DecodeError:
            return ()

    def decision(self, index: int, decided_at: int = 0) -> Decision:
        """One of its decisions, with that stamp. Raises as the bundle itself."""
        header = self._header
        lists, actions = header.lists[index], self._actions[index]
        eligible = lists.eligible
        if eligible is None:
            eligible = self._offered(index)
        slate = _slate(lists, eligible)
        if index == header.answered:
            answer = _decode_answer(actions)
            answer = _with_rows(answer, map(_tiles, _decode_tiles(header.tiles)))
            actions, slate = _raw(answer), cells_of(answer)
        decision = _decode_decision(header.decisions[index])
        # Nobody else has it yet: it need not be copied.
        force_setattr(decision, "decided_at", decided_at)
        force_setattr(decision, "eligible", eligible)
        force_setattr(decision, "slate", slate)
        force_setattr(decision, "masks", lists.masks)
        # The very object, by which encoders know that there is nothing to say.
        force_setattr(decision, "actions", NULL if actions == NULL else actions)
        return decision


def _slate(lists: _Lists, eligible: Sequence[str]) -> tuple[Placement, ...]:
    placed: Sequence[Any] = lists.placed
    try:
        # Nearly always all of them are places.
        placed = list(map(eligible.__getitem__, placed))
    except TypeError:
        placed = [name if isinstance(name, str) else eligible[name] for name in placed]
    except IndexError:
        raise ValueError(f"damaged: has placed what is not among {len(eligible)}") from None
    return tuple(map(Placement, range(len(placed)), placed, lists.propensities))


def _tiles(columns: _Tiles) -> list[Tile]:
    return list(
        map(
            Tile,
            columns.titles,
            columns.payloads,
            columns.propensities,
            columns.pictures,
            columns.picture_payloads,
            columns.picture_propensities,
        )
    )


def _opened(content: bytes) -> tuple[_Header, list[msgspec.Raw]]:
    """What decisions say, and what each offered."""
    if content[:1] == b"[":
        return _opened_former(content)
    if len(content) < _START.size or content[0] != _FORM:
        raise ValueError(f"damaged: is of form {content[:1].hex()}; expected {_FORM:02x}")
    view = memoryview(content)
    start = _START.size + _START.unpack_from(content)[1]
    header = _decode_header(view[_START.size : start])
    actions = []
    for length in header.lengths:
        actions.append(msgspec.Raw(view[start : start + length]))
        start += length
    if start != len(content):
        raise ValueError(f"damaged: has {len(content):,} bytes, and says that it has {start:,}")
    return header, actions


# ------------------------------------------------------------------ the form before


_FormerName: TypeAlias = int | str
"""A text, or its place among all that was eligible in the bundle."""


class _FormerLists(msgspec.Struct, frozen=True, array_like=True, gc=False):
    eligible: tuple[str, ...] | None
    placed: list[_FormerName]
    propensities: list[float]
    masks: list[tuple[_FormerName, int, int, tuple[int, ...], bool]]


class _FormerTiles(msgspec.Struct, frozen=True, array_like=True, gc=False):
    titles: list[_FormerName]
    propensities: list[float]
    pictures: list[_FormerName | None]
    picture_propensities: list[float]
    payloads: list[msgspec.Raw]
    picture_payloads: list[msgspec.Raw]


class _FormerBundle(msgspec.Struct, frozen=True, array_like=True, gc=False):
    decisions: list[msgspec.Raw]
    lists: list[_FormerLists]
    actions: list[msgspec.Raw]
    answered: int | None
    tiles: list[_FormerTiles]


_decode_former = msgspec.json.Decoder(_FormerBundle).decode


def _opened_former(content: bytes) -> tuple[_Header, list[msgspec.Raw]]:
    """The same of a bundle that is JSON as a whole, with what was offered in it."""
    former = _decode_former(content)
    distinct: dict[str, None] = {}
    for lists, actions in zip(former.lists, former.actions, strict=True):
        eligible = lists.eligible
        distinct |= dict.fromkeys(_offered(actions) or () if eligible is None else eligible)
    names = list(distinct)

    def text(name: _FormerName) -> str:
        return name if isinstance(name, str) else names[name]

    new_lists, new_tiles = [], []
    for lists in former.lists:
        placed: list[_Name] = [text(name) for name in lists.placed]
        masks = []
        for rule, start, stop, rows, only in lists.masks:
            masks.append(Mask(text(rule), start, stop, rows, only))
        new_lists.append(_Lists(lists.eligible, placed, lists.propensities, tuple(masks)))
    for tiles in former.tiles:
        titles = [text(name) for name in tiles.titles]
        pictures = [None if name is None else text(name) for name in tiles.pictures]
        new_tiles.append(
            _Tiles(
                titles,
                tiles.propensities,
                pictures,
                tiles.picture_propensities,
                tiles.payloads,
                tiles.picture_payloads,
            )
        )
    lengths = [len(each) for each in former.actions]
    header = _Header(former.decisions, new_lists, lengths, former.answered, _raw(new_tiles))
    return header, former.actions


def decisions_of(bundle: bytes) -> list[Decision]:
    """The decisions of a bundle. Raises ValueError or msgspec.DecodeError for what is none."""
    opened = OpenBundle(bundle)
    return [opened.decision(index) for index in range(len(opened))]

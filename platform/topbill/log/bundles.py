"""Decisions that are stored as one: those of a page, say, which offer hundreds of titles and name
the same ones again and again.

A bundle is what they say, packed. What was placed, and what a rule spoke of, stands there as a
number: its place among all that was eligible in the bundle. What was eligible is left out where the
offered actions say it. These stand side by side, since they are much alike. The answer of a page
has its tiles in columns, most of which then are lists that stand there already.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import TypeAlias

import msgspec

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
"""A text, or its place among those of the bundle."""
_encode = msgspec.json.Encoder().encode


class _Lists(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The lists of one decision. `eligible` is None where it is what `actions` offer; `masks` are
    those of the decision with a name for their rule.
    """

    eligible: tuple[str, ...] | None
    placed: list[_Name]
    propensities: list[float]
    masks: list[tuple[_Name, int, int, tuple[int, ...], bool]]


class _Tiles(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The tiles of one row of a page, field by field."""

    titles: list[_Name]
    propensities: list[float]
    pictures: list[_Name | None]
    picture_propensities: list[float]
    payloads: list[msgspec.Raw]
    picture_payloads: list[msgspec.Raw]


class _Bundle(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Decisions without their lists and offers, and these. Where a page's answer is among the
    offers, `answered` is its index, and `tiles` are those that it lacks there; its slate follows
    from it.
    """

    decisions: list[Decision]
    lists: list[_Lists]
    actions: list[msgspec.Raw]
    answered: int | None
    tiles: list[_Tiles]


class _Parts(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A bundle whose largest parts are still text."""

    decisions: list[msgspec.Raw]
    lists: list[_Lists]
    actions: list[msgspec.Raw]
    answered: int | None
    tiles: msgspec.Raw


_decode_parts = msgspec.json.Decoder(_Parts).decode
_decode_decision = msgspec.json.Decoder(Decision).decode
_decode_tiles = msgspec.json.Decoder(list[_Tiles]).decode
_decode_answer = msgspec.json.Decoder(PageAnswer).decode
_decode_offers = msgspec.json.Decoder(list[Offer]).decode


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
    names = _names(decision.eligible for decision in decisions)
    plain: list[Decision] = []
    lists: list[_Lists] = []
    for decision in decisions:
        plain.append(
            msgspec.structs.replace(decision, eligible=(), slate=(), masks=(), actions=NULL)
        )
        is_offered = _is_of_all(decision, page)
        lists.append(_lists_of(decision, names, is_offered=is_offered))
    actions = [decision.actions for decision in decisions]
    answered, tiles = None, []
    for index, decision in enumerate(decisions):
        if decision.layer != "page":
            continue
        answer = _answer_of(decision) if page is None else page
        if answer is not None:
            answered, tiles = index, [_tiles_of(row, names) for row in answer.rows]
            actions[index] = _raw(_with_rows(answer, [()] * len(answer.rows)))
            lists[index] = msgspec.structs.replace(lists[index], placed=[], propensities=[])
            break
    return pack(_encode(_Bundle(plain, lists, actions, answered, tiles)))


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


def _tiles_of(row: RowAnswer, names: Mapping[str, int]) -> _Tiles:
    tiles = row.titles
    pictures = [tile.picture for tile in tiles]
    return _Tiles(
        _numbers([tile.title for tile in tiles], names),
        [tile.propensity for tile in tiles],
        [None if picture is None else names.get(picture, picture) for picture in pictures],
        [tile.picture_propensity for tile in tiles],
        [tile.payload for tile in tiles],
        [tile.picture_payload for tile in tiles],
    )


def _with_rows(answer: PageAnswer, tiles: Sequence[Sequence[Tile]]) -> PageAnswer:
    """The answer with these tiles in its rows."""
    rows = []
    for row, titles in zip(answer.rows, tiles, strict=True):
        rows.append(msgspec.structs.replace(row, titles=tuple(titles)))
    return msgspec.structs.replace(answer, rows=tuple(rows))


def _raw(answer: PageAnswer) -> msgspec.Raw:
    return msgspec.Raw(_encode(answer))


def _names(eligible: Iterable[Sequence[str]]) -> dict[str, int]:
    """Every text of these lists, with its place among them."""
    distinct = dict.fromkeys(chain.from_iterable(eligible))
    return dict(zip(distinct, range(len(distinct)), strict=True))


def _is_of_all(decision: Decision, page: PageAnswer | None) -> bool:
    """Whether what is eligible is all that is offered, in its order."""
    # Pages offer titles and pictures that their rules let through, and no others.
    is_of_page = page is not None and decision.layer in ("titles", "artwork")
    return is_of_page or decision.eligible == _offered(decision.actions)


def _lists_of(decision: Decision, names: Mapping[str, int], *, is_offered: bool) -> _Lists:
    masks = []
    for mask in decision.masks:
        rule = names.get(mask.rule, mask.rule)
        masks.append((rule, mask.start, mask.stop, mask.rows, mask.only))
    return _Lists(
        None if is_offered else decision.eligible,
        _numbers([placement.action for placement in decision.slate], names),
        [placement.propensity for placement in decision.slate],
        masks,
    )


def _numbers(texts: Sequence[str], names: Mapping[str, int]) -> list[_Name]:
    """The place of each text; the text itself where it has none. A page has hundreds: `map` keeps
    them in C.
    """
    return list(map(names.get, texts, texts))


def _offered(actions: msgspec.Raw) -> tuple[str, ...] | None:
    """The ids of offered actions; None for a text that offers none."""
    offers = _offers(actions)
    return None if offers is None else tuple([offer.id for offer in offers])


def _offers(actions: msgspec.Raw) -> list[Offer] | None:
    """Offered actions; None for a text that offers none."""
    try:
        return _decode_offers(actions)
    except msgspec.DecodeError:
        return None


class OpenBundle:
    """A bundle of `len` decisions, each of which is put together when it is asked for: who reads
    those of one experiment pays for no others.

    Raises ValueError or msgspec.DecodeError for what is none.
    """

    def __init__(self, bundle: bytes) -> None:
        self._parts = parts = _decode_parts(unpack(bundle))
        if not len(parts.decisions) == len(parts.lists) == len(parts.actions):
            raise ValueError("damaged: has not a list and an offer for each decision")
        # Of the first decisions, as far as it was needed: what they offered, and what was eligible;
        # every text of the latter, in order, and those of it that were asked for.
        self._offers: list[list[Offer] | None] = []
        self._eligible: list[tuple[str, ...]] = []
        self._distinct: dict[str, None] = {}
        self._names: list[str] = []

    def __len__(self) -> int:
        return len(self._parts.decisions)

    def offers(self, index: int) -> list[Offer] | None:
        """What one of its decisions offered; None where it brought nothing along."""
        while len(self._offers) <= index:
            self._offers.append(_offers(self._parts.actions[len(self._offers)]))
        return self._offers[index]

    def decision(self, index: int, decided_at: int = 0) -> Decision:
        """One of its decisions, with that stamp. Raises as the bundle itself."""
        parts = self._parts
        lists = parts.lists[index]
        decision, actions = _decode_decision(parts.decisions[index]), parts.actions[index]
        while len(self._eligible) <= index:
            self._count_next()
        slate = self._slate(lists)
        if index == parts.answered:
            answer = _decode_answer(actions)
            tiles = [self._tiles(columns) for columns in _decode_tiles(parts.tiles)]
            answer = _with_rows(answer, tiles)
            actions, slate = _raw(answer), cells_of(answer)
        return msgspec.structs.replace(
            decision,
            decided_at=decided_at,
            eligible=self._eligible[index],
            slate=slate,
            masks=self._masks(lists),
            # The very object, by which encoders know that there is nothing to say.
            actions=NULL if actions == NULL else actions,
        )

    def _slate(self, lists: _Lists) -> tuple[Placement, ...]:
        texts = self._texts(lists.placed)
        return tuple(map(Placement, range(len(texts)), texts, lists.propensities))

    def _masks(self, lists: _Lists) -> tuple[Mask, ...]:
        if not lists.masks:
            return ()
        rules = self._texts([mask[0] for mask in lists.masks])
        masks = []
        for rule, (_, start, stop, rows, only) in zip(rules, lists.masks, strict=True):
            masks.append(Mask(rule, start, stop, rows, only))
        return tuple(masks)

    def _tiles(self, columns: _Tiles) -> list[Tile]:
        pictures = iter(self._texts([name for name in columns.pictures if name is not None]))
        return list(
            map(
                Tile,
                self._texts(columns.titles),
                columns.payloads,
                columns.propensities,
                [None if name is None else next(pictures) for name in columns.pictures],
                columns.picture_payloads,
                columns.picture_propensities,
            )
        )

    def _texts(self, numbers: Sequence[_Name]) -> list[str]:
        """What some names stand for."""
        while True:
            names = self._names
            try:
                # Nearly always all of them are numbers, and a page has hundreds: `map` keeps them
                # in C.
                return list(map(names.__getitem__, numbers))  # type: ignore[arg-type]
            except TypeError:
                last = max((name for name in numbers if isinstance(name, int)), default=-1)
                if last < len(names):
                    return [n if isinstance(n, str) else names[n] for n in numbers]
            except IndexError:
                pass
            if len(names) < len(self._distinct):
                self._names = list(self._distinct)
            elif len(self._eligible) < len(self):
                self._count_next()
            else:
                raise ValueError(f"damaged: names a text behind the last of {len(names)}")

    def _count_next(self) -> None:
        """Know what is eligible in one decision more."""
        place = len(self._eligible)
        eligible = self._parts.lists[place].eligible
        if eligible is None:
            eligible = tuple([offer.id for offer in self.offers(place) or ()])
        self._eligible.append(eligible)
        self._distinct.update(dict.fromkeys(eligible))


def decisions_of(bundle: bytes) -> list[Decision]:
    """The decisions of a bundle. Raises ValueError or msgspec.DecodeError for what is none."""
    opened = OpenBundle(bundle)
    return [opened.decision(index) for index in range(len(opened))]

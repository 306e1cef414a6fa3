"""Bundles in a log's database. A decision of one has, in place of its own, a body that names
the bundle, its checksum and the decision's place in it.
"""

from __future__ import annotations

import struct
import zlib
from collections import OrderedDict
from collections.abc import Collection, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import msgspec

from topbill.domain.errors import LogError
from topbill.domain.records import Decision, Offer
from topbill.log.bundles import OpenBundle, decisions_of
from topbill.log.database import LogDatabase
from topbill.log.sql_database import checksum

_REFERENCE = struct.Struct("<BIHI")
"""A zero byte, with which no JSON begins; the bundle, the place in it, the bundle's CRC-32."""
_KEPT = 4
"""Bundles that are kept at hand: the decisions of one are read together."""
_TOGETHER = 64
"""Bundles, each of some 200 kB, whose decisions are read at once by whoever learns: so several
experiments that learn from the same pages, one after the other, find them at hand.
"""
_NEXT = "SELECT place, content FROM bundles WHERE place > ? ORDER BY place LIMIT 1"
_IS_REFERENCE = "substr(body, 1, 1) = x'00'"
"""As the index `decisions_bundled` has it."""
_decode = msgspec.json.Decoder(Decision).decode
_encode = msgspec.json.Encoder().encode
Row = tuple[str, str, bytes]
"""A decision as the table of decisions has it: its id, its experiment and its body."""


class BundleTable:
    """The table `bundles` of a database, and the bodies of its decisions."""

    def __init__(self, database: LogDatabase) -> None:
        self._database = database
        self._at_hand: OrderedDict[int, OpenBundle] = OrderedDict()
        self._kept = _KEPT

    def add(self, bundle: bytes, ids: Collection[tuple[str, str]]) -> list[Row]:
        """Store a bundle, inside of a transaction; returns a row for each of its decisions, whose
        ids and experiments are `ids`.
        """
        cursor = self._database.execute("INSERT INTO bundles (content) VALUES (?)", (bundle,))
        place = cursor.lastrowid or 0
        crc = zlib.crc32(bundle)
        rows = []
        for index, (decision_id, experiment) in enumerate(ids):
            rows.append((decision_id, experiment, _REFERENCE.pack(0, place, index, crc)))
        return rows

    def together(self, rows: list[Any]) -> list[Any]:
        """The first of some rows of the feed, as many as name bundles that are read at once. These
        stay at hand until others are read.
        """
        places: set[bytes] = set()
        for count, row in enumerate(rows):
            body = row[2]
            if is_reference(body):
                places.add(body[1:5])
                if len(places) > _TOGETHER:
                    rows = rows[:count]
                    break
        self._kept = max(_KEPT, len(places))
        return rows

    def decision(self, body: bytes, decided_at: int) -> Decision:
        """The decision that a body is or names, with that stamp. Raises ValueError or
        msgspec.DecodeError where it cannot be read.
        """
        if not is_reference(body):
            decision = _decode(body)
            # Nobody else has it yet, and a copy takes as long as half of the decoding.
            msgspec.structs.force_setattr(decision, "decided_at", decided_at)
            return decision
        bundle, index = self._bundle(body)
        return bundle.decision(index, decided_at)

    def offers(self, body: bytes) -> list[Offer] | None:
        """What the decision that a body names offered; None where the body is one itself, or its
        decision brought nothing along. Raises as `decision`.
        """
        if not is_reference(body):
            return None
        bundle, index = self._bundle(body)
        return bundle.offers(index)

    def _bundle(self, body: bytes) -> tuple[OpenBundle, int]:
        """The bundle that a body names, and the place in it."""
        place, index, crc = _unpacked(body)
        bundle = self._at_hand.get(place)
        if bundle is None:
            bundle = self._at_hand[place] = OpenBundle(self._content(place, crc))
            while len(self._at_hand) > self._kept:
                self._at_hand.popitem(last=False)
        if index >= len(bundle):
            raise ValueError(f"bundle {place} has no decision {index}")
        return bundle, index

    def _content(self, place: int, crc: int) -> bytes:
        rows = self._database.rows("SELECT content FROM bundles WHERE place = ?", (place,))
        if not rows or zlib.crc32(rows[0][0]) != crc:
            raise ValueError(f"bundle {place} is missing or damaged")
        content: bytes = rows[0][0]
        return content

    def damaged(self) -> Iterator[int]:
        """The decisions, by `seq`, whose bundle is missing or damaged; once for each bundle."""
        query = (
            f"SELECT min(seq), body FROM decisions WHERE {_IS_REFERENCE} "  # noqa: S608 (own text)
            "GROUP BY substr(body, 2, 4)"
        )
        for seq, body in self._database.rows(query):
            try:
                place, _, crc = _unpacked(body)
                decisions_of(self._content(place, crc))
            except (ValueError, msgspec.DecodeError):
                yield seq

    def read_all(self) -> Iterator[tuple[int, list[Decision]]]:
        """Every bundle that can be read, by its place, one after the other."""
        place = 0
        while rows := self._database.rows(_NEXT, (place,)):
            place, content = rows[0]
            with suppress(ValueError, msgspec.DecodeError):
                yield place, decisions_of(content)

    def undo(self, places: Collection[int]) -> None:
        """Give the decisions that are still there of some bundles bodies of their own, and delete
        the bundles; inside of a transaction. Raises as `decision`.
        """
        by_id = {}
        for place in places:
            (content,) = self._database.execute(
                "SELECT content FROM bundles WHERE place = ?", (place,)
            ).fetchone()
            by_id.update({each.decision_id: each for each in decisions_of(content)})
        for decision_id, decision in by_id.items():
            rows = self._database.execute(
                "SELECT seq, experiment, at, body FROM decisions WHERE decision_id = ?",
                (decision_id,),
            ).fetchall()
            for seq, experiment, at, body in rows:
                if is_reference(body) and _unpacked(body)[0] in places:
                    own = _encode(decision)
                    self._database.execute(
                        "UPDATE decisions SET body = ?, checksum = ? WHERE seq = ?",
                        (own, checksum((decision_id, experiment, own, at)), seq),
                    )
        self._database.execute_many(
            "DELETE FROM bundles WHERE place = ?", [(place,) for place in places]
        )

    def forget(self) -> None:
        """Delete the bundles before the first that a decision names, inside of a transaction."""
        references = self._database.execute(
            f"SELECT body FROM decisions WHERE {_IS_REFERENCE} ORDER BY seq"  # noqa: S608
        )
        first = None
        for (body,) in references:
            # Places grow along `seq`, since a bundle comes in with its decisions. But a reference
            # that is damaged may name any, and must not have others deleted.
            with suppress(ValueError):
                first, _, crc = _unpacked(body)
                self._content(first, crc)
                self._database.execute("DELETE FROM bundles WHERE place < ?", (first,))
                return
        if first is None:
            self._database.execute("DELETE FROM bundles")


def is_reference(body: bytes) -> bool:
    """Whether a body names a bundle."""
    return body[:1] == b"\0"


def undo_bundles(path: Path) -> None:
    """Give every decision of the log at `path` a body of its own, as earlier versions read it.
    Raises LogError where one cannot be read; then nothing is changed.
    """
    with closing(LogDatabase(path)) as database, database.transaction():
        places = database.execute("SELECT place FROM bundles").fetchall()
        for (place,) in places:
            try:
                BundleTable(database).undo([place])
            except (ValueError, msgspec.DecodeError) as error:
                raise LogError(
                    f"{path}: bundle {place} of decisions cannot be read: {error}; expected it as "
                    "it was stored: put the file back from a backup"
                ) from error


def _unpacked(body: bytes) -> tuple[int, int, int]:
    try:
        _, place, index, crc = _REFERENCE.unpack(body)
    except struct.error as error:
        raise ValueError(f"names no bundle: {error}") from error
    return place, index, crc

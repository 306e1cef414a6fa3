"""Pages that were answered a moment ago, for the rewards that will come: bounded in bytes."""

from __future__ import annotations

from collections import OrderedDict

from topbill.domain.packed import pack, unpack

PREFIX = "page-"
"""What the ids of pages begin with: so a reward on anything else costs no look-up."""
MOST_BYTES = 64_000_000
"""For all pages of a process. What is no longer there is read from the log."""
_OVERHEAD = 256
"""Bytes that a page takes beside its answer, about."""


class PageMemory:
    """The answers of the last pages, as packed JSON: as objects they take ten times as much."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most = most_bytes
        self._answers: OrderedDict[str, bytes] = OrderedDict()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._answers)

    def __contains__(self, page_id: str) -> bool:
        return page_id in self._answers

    def add(self, page_id: str, answer: bytes) -> None:
        """Remember a page; the oldest ones are let go where they take too much."""
        self._let_go(self._answers.pop(page_id, None))
        # The fastest level: it makes a fifth of a page in a hundredth of the time that it took.
        packed = pack(answer, 1)
        self._answers[page_id] = packed
        self.bytes += len(packed) + _OVERHEAD
        while self.bytes > self._most:
            self._let_go(self._answers.popitem(last=False)[1])

    def get(self, page_id: str) -> bytes | None:
        """The page's answer as JSON; None where it is not remembered."""
        packed = self._answers.get(page_id)
        return None if packed is None else unpack(packed)

    def _let_go(self, packed: bytes | None) -> None:
        if packed is not None:
            self.bytes -= len(packed) + _OVERHEAD

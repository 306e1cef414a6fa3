"""The journal's frames: rows that were made durable together, with what proves that they are whole.

    frame         length | checksum | generation | stamp | payload

The checksum is of the payload at that very place in that very generation: what an older generation
left there, or another file, does not pass.
"""

from __future__ import annotations

import mmap
import os
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from topbill.domain.errors import LogError
from topbill.log.entries import Rows

_HEAD = struct.Struct("<IIQQ")
"""Payload's length, checksum, generation, stamp (µs)."""
_GENERATION_AT = 8
"""Where in a head the generation begins."""
_CHECKED = struct.Struct("<QQQ")
"""What the checksum covers beside the payload: generation, start, stamp."""
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Rows).decode


class Frame(NamedTuple):
    """A frame whose checksum is right: where in the file it ends, its generation, its stamp (µs),
    and its rows as they are written.
    """

    end: int
    generation: int
    at: int
    payload: bytes

    @property
    def rows(self) -> Rows:
        """The rows, decoded anew. Raises LogError where they are none that this version knows."""
        try:
            return _decode(self.payload)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise LogError(
                f"log.journal: a group of rows is whole and cannot be read: {error}; if a newer "
                "Topbill wrote it, install that one"
            ) from error


def payload_of(rows: Rows) -> bytes:
    """Rows as a frame holds them: without the last fields where these are empty, so that an earlier
    version, which knows neither events of units nor bundles, reads what a later one wrote as long
    as none came.
    """
    if rows.bundles:
        return _encode(rows)
    return _encode(rows[:3] if rows.unit_events else rows[:2])


def pack(generation: int, start: int, at: int, payload: bytes) -> bytes:
    """The bytes of a frame that begins at byte `start`."""
    checksum = _checksum(generation, start, at, payload)
    return _HEAD.pack(len(payload), checksum, generation, at) + payload


def frame_at(file: int, start: int, end: int) -> Frame | None:
    """The frame of a file descriptor that starts at a byte and ends by `end`; None where there is
    none.
    """
    if start + _HEAD.size > end:
        return None
    length, checksum, generation, at = _HEAD.unpack(os.pread(file, _HEAD.size, start))
    frame_end = start + _HEAD.size + length
    # The length is not proven yet: torn bytes may say anything, and must not make us read
    # gigabytes.
    if frame_end > end:
        return None
    payload = os.pread(file, length, start + _HEAD.size)
    if _checksum(generation, start, at, payload) != checksum:
        return None
    return Frame(frame_end, generation, at, payload)


def frames(file: int, generation: int, start: int, end: int) -> Iterator[Frame]:
    """Frame after frame of a generation, up to the first that is none."""
    while (frame := frame_at(file, start, end)) and frame.generation == generation:
        yield frame
        start = frame.end


def frames_behind(file: int, generation: int, start: int) -> Iterator[Frame]:
    """The frames of a generation that lie anywhere behind a byte, in their order."""
    size = os.fstat(file).st_size
    if start + _HEAD.size > size:
        return
    sought = generation.to_bytes(8, "little")
    with mmap.mmap(file, size, prot=mmap.PROT_READ) as content:
        while (found := content.find(sought, start + _GENERATION_AT)) >= 0:
            start = found - _GENERATION_AT
            frame = frame_at(file, start, size)
            if frame is None:
                start += 1
            else:
                yield frame
                start = frame.end


def _checksum(generation: int, start: int, at: int, payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(_CHECKED.pack(generation, start, at)))

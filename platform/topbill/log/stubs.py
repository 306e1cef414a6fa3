"""What the shared log keeps of a decision for as long as its id is remembered: what a late reward
needs, behind its CRC-32. Of 10 slots it takes some 250 bytes.
"""

from __future__ import annotations

import struct
import zlib

import msgspec

from topbill.domain.origin import Origin
from topbill.domain.records import Decision

LET_GO = "FROM stubs WHERE seq <= (SELECT through FROM forgotten)"
"""The decisions that were let go and are remembered."""
_CRC = struct.Struct("<I")
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Origin).decode


def packed_origin(decision: Decision) -> bytes:
    """The bytes of a decision's origin. Its stamp is not among them: the row's `seq` has it."""
    body = _encode(Origin.of(decision)._replace(decided_at=0))
    return _CRC.pack(zlib.crc32(body)) + body


def unpacked_origin(packed: bytes | None) -> Origin | None:
    """The origin, without its stamp; None where none was kept, or other bytes are there now."""
    if packed is None or packed[: _CRC.size] != _CRC.pack(zlib.crc32(packed[_CRC.size :])):
        return None
    return _decode(packed[_CRC.size :])

"""`domain.chance` of a decision's id, compiled: BLAKE2b (RFC 7693) of a few bytes, without a Python
object for each hash.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from topbill.policies.linear.compiled import Text, Vector, part

Words: TypeAlias = NDArray[np.uint64]
Message: TypeAlias = NDArray[np.uint8]
_BLOCK = 128
"""Bytes that are mixed in at a time."""
_START = np.array(
    [
        0x6A09E667F3BCC908, 0xBB67AE8584CAA73B, 0x3C6EF372FE94F82B, 0xA54FF53A5F1D36F1,
        0x510E527FADE682D1, 0x9B05688C2B3E6C1F, 0x1F83D9ABFB41BD6B, 0x5BE0CD19137E2179,
    ],
    dtype=np.uint64,
)  # fmt: skip
_DIGEST_OF_8_BYTES = np.uint64(0x01010008)
_ORDER = np.array(
    [
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
        [14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3],
        [11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4],
        [7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8],
        [9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13],
        [2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9],
        [12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11],
        [13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10],
        [6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5],
        [10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0],
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
        [14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3],
    ],
    dtype=np.intp,
)
"""Which words of the block each round mixes in."""
_DRAW = np.frombuffer(b"draw\x1f", dtype=np.uint8)
_SEPARATOR, _ZERO = np.uint8(0x1F), np.uint8(0x30)


@part
def turned(word: np.uint64, by: int) -> np.uint64:
    """The word's bits, turned to the right by so many places."""
    return (word >> np.uint64(by)) | (word << np.uint64(64 - by))


@part
def mixed(
    a: np.uint64, b: np.uint64, c: np.uint64, d: np.uint64, x: np.uint64, y: np.uint64
) -> tuple[np.uint64, np.uint64, np.uint64, np.uint64]:
    """Four words of the state, with two of the block mixed in (section 3.1)."""
    a = a + b + x
    d = turned(d ^ a, 32)
    c = c + d
    b = turned(b ^ c, 24)
    a = a + b + y
    d = turned(d ^ a, 16)
    c = c + d
    b = turned(b ^ c, 63)
    return a, b, c, d


@part
def compress(h: Words, m: Words, count: np.uint64, is_last: bool) -> None:
    """Mix a block of 16 words into the 8 of `h` (section 3.2); `count` bytes are then read."""
    v0, v1, v2, v3, v4, v5, v6, v7 = h[0], h[1], h[2], h[3], h[4], h[5], h[6], h[7]
    v8, v9, v10, v11 = _START[0], _START[1], _START[2], _START[3]
    v12, v13, v14, v15 = _START[4] ^ count, _START[5], _START[6], _START[7]
    if is_last:
        v14 = ~v14
    for s in _ORDER:
        v0, v4, v8, v12 = mixed(v0, v4, v8, v12, m[s[0]], m[s[1]])
        v1, v5, v9, v13 = mixed(v1, v5, v9, v13, m[s[2]], m[s[3]])
        v2, v6, v10, v14 = mixed(v2, v6, v10, v14, m[s[4]], m[s[5]])
        v3, v7, v11, v15 = mixed(v3, v7, v11, v15, m[s[6]], m[s[7]])
        v0, v5, v10, v15 = mixed(v0, v5, v10, v15, m[s[8]], m[s[9]])
        v1, v6, v11, v12 = mixed(v1, v6, v11, v12, m[s[10]], m[s[11]])
        v2, v7, v8, v13 = mixed(v2, v7, v8, v13, m[s[12]], m[s[13]])
        v3, v4, v9, v14 = mixed(v3, v4, v9, v14, m[s[14]], m[s[15]])
    h[0], h[1], h[2], h[3] = h[0] ^ v0 ^ v8, h[1] ^ v1 ^ v9, h[2] ^ v2 ^ v10, h[3] ^ v3 ^ v11
    h[4], h[5], h[6], h[7] = h[4] ^ v4 ^ v12, h[5] ^ v5 ^ v13, h[6] ^ v6 ^ v14, h[7] ^ v7 ^ v15


@part
def hash64(message: Message, size: int) -> np.uint64:
    """The hash of the first `size` bytes of `message`, of which the last block is filled with
    zeros.
    """
    h, m = _START.copy(), np.empty(16, np.uint64)
    h[0] ^= _DIGEST_OF_8_BYTES
    for first in range(0, max(size, 1), _BLOCK):
        for i in range(16):
            word = np.uint64(0)
            for j in range(8):
                word |= np.uint64(message[first + 8 * i + j]) << np.uint64(8 * j)
            m[i] = word
        count = min(first + _BLOCK, size)
        compress(h, m, np.uint64(count), count == size)
    return np.uint64(h[0])


@part
def padded(size: int) -> Message:
    """Zeros for a message of so many bytes, in whole blocks."""
    return np.zeros(max(1, (size + _BLOCK - 1) // _BLOCK) * _BLOCK, np.uint8)


@part
def piece_of(text: Text, start: int, stop: int) -> Message:
    """The bytes of a text from `start` to before `stop`."""
    piece = np.empty(stop - start, np.uint8)
    for i in range(piece.size):
        piece[i] = text[start + i]
    return piece


@part
def choice_of(decision_id: Text, count: int) -> int:
    """Which of `count` the decision's `seed_of` chooses: its remainder."""
    size = len(decision_id)
    message = padded(size)
    for i in range(size):
        message[i] = decision_id[i]
    return int(hash64(message, size) % np.uint64(count))


@part
def uniforms_of(decision_id: Text, start: int, stop: int) -> Vector:
    """(stop - start,) the decision's `draws_of` for the positions from `start` to before `stop`."""
    head = _DRAW.size + len(decision_id) + 1
    message = padded(head + 20)
    message[: _DRAW.size] = _DRAW
    for i in range(len(decision_id)):
        message[_DRAW.size + i] = decision_id[i]
    message[head - 1] = _SEPARATOR
    return numbered(message, head, start, stop)


@part
def uniforms_behind(text: Text, count: int) -> Vector:
    """(count,) `domain.chance.uniforms` of parts, from 0 on; `text` is these, each with a separator
    behind it.
    """
    message = padded(len(text) + 20)
    for i in range(len(text)):
        message[i] = text[i]
    return numbered(message, len(text), 0, count)


@part
def numbered(message: Message, head: int, start: int, stop: int) -> Vector:
    """(stop - start,) the uniforms of the first `head` bytes of a message and each of the numbers
    from `start` to before `stop`, for which it has room.
    """
    out = np.empty(stop - start)
    for position in range(start, stop):
        digits, rest = 1, position // 10
        while rest:
            digits, rest = digits + 1, rest // 10
        rest = position
        for i in range(head + digits - 1, head - 1, -1):
            message[i] = _ZERO + np.uint8(rest % 10)
            rest //= 10
        # Positions only grow, so that no longer number stands behind.
        out[position - start] = (hash64(message, head + digits) >> np.uint64(11)) * 2.0**-53
    return out

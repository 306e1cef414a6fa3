"""The write-ahead log of the embedded log's SQLite file: whether what was committed into it can be
read.

SQLite ends at the first frame whose checksum is wrong, as if nothing had come behind it, and what
was moved into the file already may then be read as it was before. A frame that a kill or a power
cut tore is the end; one behind which a commit lies whole is damage, and so is one that the index
beside it (`-shm`) says is committed. One where the index ends is what SQLite writes next: behind it
may lie, commit and all, what a writer left who was killed before he could tell the index, and of
which another has overwritten the beginning.

    log.sqlite-wal   header (32 bytes) | frame | frame | …
    frame            page number | pages of the file at a commit, else 0 | salts | checksum | page

A frame's checksum goes on from that of the one before, as it stands there: so each can be judged
though others are damaged. (The format is fixed: https://sqlite.org/walformat.html)
"""

from __future__ import annotations

import struct
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_HEADER = struct.Struct(">IIIIIIII")
_MAGIC = 0x377F0682
_FRAME_HEADER = 24
Words = NDArray[np.uint32]


def wal_damage(path: Path) -> str:
    """What is wrong with the write-ahead log at `path`; empty where nothing is, or there is none.

    Others may write to it meanwhile.
    """
    found = _damage(path)
    # What looks damaged may be a frame that was half written when it was read: it is whole now.
    return found if found == _damage(path) else ""


def _damage(path: Path) -> str:
    try:
        committed = _committed(path.with_name(f"{path.name.removesuffix('-wal')}-shm"))
        content = path.read_bytes()
    except OSError:
        # None is there, or SQLite says better why the log can't be opened.
        return ""
    # A power cut may leave a file that has its length and nothing else.
    if len(content) <= _HEADER.size or not any(content[: _HEADER.size]):
        return ""
    magic, _, page, _, *salts_and_checksum = _HEADER.unpack_from(content)
    order = {_MAGIC: "<u4", _MAGIC + 1: ">u4"}.get(magic)
    if order is None or page < 512 or page > 65_536 or page & (page - 1):
        return (
            f"{path}: damaged: its header is not what was written; put the log back from a backup"
        )
    words = np.frombuffer(content, order, _HEADER.size // 4).astype(np.uint32)
    first = _checksums(words[np.newaxis, :6], np.zeros((1, 2), np.uint32))[0]
    if list(map(int, first)) != salts_and_checksum[2:]:
        return (
            f"{path}: damaged: its header is not what was written; put the log back from a backup"
        )
    known = committed.frames if committed.salts == content[16:24] else 0
    return _damaged_frame(path, content, page, order, salts_and_checksum, known)


class _Committed(NamedTuple):
    """What the index beside the log says: which log it is of, and how many frames of it are
    committed.
    """

    salts: bytes = b""
    frames: int = 0


def _committed(path: Path) -> _Committed:
    """What can be believed of the index, which nothing syncs; read before the log, which may grow
    meanwhile.
    """
    try:
        with path.open("rb") as file:
            one, other = file.read(48), file.read(48)
    except OSError:
        return _Committed()
    if one != other or len(one) < 48:
        return _Committed()
    return _Committed(one[32:40], int.from_bytes(one[16:20], sys.byteorder))


def _damaged_frame(
    path: Path,
    content: bytes,
    page: int,
    order: str,
    salts_and_checksum: list[int],
    known: int,
) -> str:
    size = _FRAME_HEADER + page
    count = (len(content) - _HEADER.size) // size
    frames = np.frombuffer(content, np.uint8, count * size, _HEADER.size).reshape(count, size)
    heads = frames[:, :_FRAME_HEADER].copy().view(">u4").astype(np.uint32)
    is_own = (heads[:, 2:4] == salts_and_checksum[:2]).all(axis=1)
    before = np.vstack([np.array([salts_and_checksum[2:]], np.uint32), heads[:-1, 4:6]])
    checked = np.hstack([frames[:, :8], frames[:, _FRAME_HEADER:]]).copy()
    words = checked.view(order).astype(np.uint32)
    is_right = is_own & (_checksums(words, before) == heads[:, 4:6]).all(axis=1)
    is_commit = is_right & (heads[:, 1] > 0)
    wrong = np.flatnonzero(~is_right)
    commits = np.flatnonzero(is_commit)
    last = max(known, int(commits[-1]) + 1 if len(commits) else 0)
    if not len(wrong) or wrong[0] >= last or wrong[0] == known > 0:
        return ""
    return f"{path}: damaged at frame {wrong[0] + 1:,} of {last:,}; put the log back from a backup"


def _checksums(words: Words, start: Words) -> Words:
    """SQLite's checksum of each row of words (an even number of them), from where it starts."""
    first, second = start[:, 0].copy(), start[:, 1].copy()
    # Sums wrap around, as they do in 32 bits.
    for at in range(0, words.shape[1], 2):
        first += words[:, at] + second
        second += words[:, at + 1] + first
    return np.stack([first, second], axis=1)

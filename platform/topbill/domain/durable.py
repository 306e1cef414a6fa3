"""Files that are on the disk, what they hold in one number, and content that carries its own."""

from __future__ import annotations

import hashlib
import os
import re
import zlib
from pathlib import Path


def sync(path: Path) -> None:
    """Have a file's content, or a folder's names, on the disk. Raises OSError."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_whole(path: Path, content: bytes) -> None:
    """Put content into a file, on the disk, whole or not at all. Raises OSError."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_bytes(content)
        sync(draft)
        draft.replace(path)
        sync(path.parent)
    finally:
        draft.unlink(missing_ok=True)


def size_and_hash(path: Path) -> tuple[int, str]:
    """A file's bytes, and their SHA-256 in hexadecimal digits. Raises OSError."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
        return file.tell(), digest.hexdigest()


_CHECKSUM = re.compile(rb',"checksum":"([0-9a-f]{8})"}$')
_DIGITS = 8


def with_checksum(record: bytes) -> bytes:
    """A JSON object with the CRC-32 of its text as one more member, the last."""
    return record[:-1] + b',"checksum":"%08x"}' % zlib.crc32(record)


def without_checksum(text: bytes) -> bytes:
    """What `with_checksum` was given; a text without a checksum as it is. Raises ValueError where
    it is not what was written.
    """
    found = _CHECKSUM.search(text)
    if found is None:
        return text
    record = text[: found.start()] + b"}"
    if zlib.crc32(record) != int(found[1], 16):
        raise ValueError("it is not what was written")
    return record


def sealed(content: bytes) -> bytes:
    """Any content behind its own CRC-32, in hexadecimal digits."""
    return b"%08x" % zlib.crc32(content) + content


def unsealed(stored: bytes) -> bytes:
    """What `sealed` was given. Raises ValueError where it is not what was written."""
    content = stored[_DIGITS:]
    if stored[:_DIGITS] != b"%08x" % zlib.crc32(content):
        raise ValueError("it is not what was written")
    return content

"""Files of text that may be compressed, as logs are that were joined and put away, or in UTF-16, as
some shells write them.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, cast

COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
"""Endings of names of such files."""
TORN = (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError, OSError, UnicodeDecodeError)
"""What reading a damaged one raises."""
_AT_ONCE = 1 << 20


def _open_zstd(source: Path) -> Any:
    # Only these files need Arrow here: the command line should not wait for it at every start.
    import pyarrow as pa

    stream = pa.CompressedInputStream(pa.OSFile(str(source)), "zstd")
    return io.BufferedReader(cast(Any, stream), _AT_ONCE)


# What a file begins with → how it is opened, whatever its name. All read files of several members.
_OPENERS: dict[bytes, Callable[[Path], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
    b"\x28\xb5\x2f\xfd": _open_zstd,
}


def is_compressed(source: Path) -> bool:
    """Whether the file begins as an archive does, whatever its name."""
    return _opener(source) is not None


def open_bytes(source: Path) -> IO[bytes]:
    """The file's content, decompressed and in UTF-8 where it has to be."""
    opener = _opener(source)
    if opener is None:
        file: IO[bytes] = source.open("rb", buffering=_AT_ONCE)
    else:
        file = opener(source)
    start = file.read(2)
    file.close()
    file = source.open("rb", buffering=_AT_ONCE) if opener is None else opener(source)
    if start in (BOM_UTF16_LE, BOM_UTF16_BE):
        return cast(IO[bytes], io.BufferedReader(_Utf8(file), _AT_ONCE))
    return file


def _opener(source: Path) -> Callable[[Path], Any] | None:
    with source.open("rb") as file:
        start = file.read(8)
    for magic, opener in _OPENERS.items():
        if start.startswith(magic):
            return opener
    return None


class _Utf8(io.RawIOBase):
    """A file of UTF-16 as UTF-8, without its mark."""

    def __init__(self, file: IO[bytes]) -> None:
        # Line ends stay as they are.
        self._text = io.TextIOWrapper(file, encoding="utf-16", newline="")
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._rest:
            self._rest = self._text.read(_AT_ONCE).encode()
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size

    def close(self) -> None:
        self._text.close()
        super().close()

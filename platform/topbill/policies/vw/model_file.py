"""Models that Vowpal Wabbit itself wrote: what they are, told by their first bytes, and how its
text format names features.

VW ends the process on some damaged models. So a file is read here first, and tried in a process of
its own.
"""

from __future__ import annotations

import re
import struct
import subprocess
import sys
import tempfile
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

from topbill.domain.errors import PolicyError

_LONGEST_HEAD = 65_536
DIGEST_SIZE = 16
_TRIAL_SECONDS = 60.0
_TRIAL = """
import sys
from pathlib import Path
from topbill.policies.vw.engine import engine
engine().open(["--quiet"], Path(sys.argv[1]).read_bytes())
"""
_DRAWS = ("--bag", "--cover", "--rnd")
"""Explorations that draw random numbers while they learn."""
_MASK = 0xFFFFFFFF


class VwModelFile(NamedTuple):
    """The head of a model: the version of VW that wrote it, how many bits of a hash it uses, and
    its options.
    """

    version: str
    bits: int
    options: str

    @property
    def words(self) -> list[str]:
        """The options, word by word."""
        return self.options.split()

    @property
    def reproducible(self) -> bool:
        """Whether it learns the same again from the same."""
        return not set(self.words) & set(_DRAWS)


def digest(model: bytes) -> bytes:
    """`DIGEST_SIZE` bytes that tell whether a model was damaged."""
    return blake2b(model, digest_size=DIGEST_SIZE).digest()


def is_model(content: bytes) -> bool:
    """Whether a file is a model of VW, as far as its first bytes tell: a length, and that long a
    version."""
    return re.match(rb"..\0\0\d+\.\d+\.\d+[ -~]*\0", content[:64], re.DOTALL) is not None


def read_head(content: bytes, name: str) -> VwModelFile:
    """What a model is. Raises PolicyError for one that no `vw` variant can go on with."""
    head = content[:_LONGEST_HEAD]
    try:
        version, at = _text(head, 0)
        # A name that its maker may have given it, the letter m, and the least and largest label.
        _, at = _text(head, at)
        (bits,) = struct.unpack_from("<I", head, at + 9)
        options = re.search(rb" --[ -~]+\0", head[at:])
    except (struct.error, ValueError) as error:
        raise PolicyError(f"{name}: is a damaged model of Vowpal Wabbit") from error
    if not re.match(r"[89]\.", version):
        raise PolicyError(f"{name}: was written by VW {version}; expected 8 or 9")
    if not 0 < bits <= 32:
        raise PolicyError(f"{name}: is a damaged model of VW {version}")
    said = b"" if options is None else options[0].rstrip(b"\0")
    found = VwModelFile(version, bits, said.decode().strip())
    if "--cb_explore_adf" not in found.words:
        raise PolicyError(
            f"{name}: is a model of VW {version} with "
            f"{found.options[:200] or 'no options'}; expected one of "
            "--cb_explore_adf, which says how probable each action is"
        )
    return found


def try_out(content: bytes, name: str) -> None:
    """Have another process load the model. Raises PolicyError where that fails, however it does."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        path.write_bytes(content)
        command = [sys.executable, "-c", _TRIAL, str(path)]
        try:
            tried = subprocess.run(command, capture_output=True, timeout=_TRIAL_SECONDS)  # noqa: S603 (our own text)
        except subprocess.TimeoutExpired as error:
            raise PolicyError(f"{name}: VW did not load it in {_TRIAL_SECONDS:.0f} s") from error
    if tried.returncode != 0:
        last = tried.stderr.decode("utf-8", "replace").strip().splitlines()
        raise PolicyError(f"{name}: VW cannot load it ({(last or ['it crashed'])[-1][:200]})")


def _text(head: bytes, at: int) -> tuple[str, int]:
    """A text with its length before it, and where it ends."""
    (length,) = struct.unpack_from("<I", head, at)
    if not 0 < length <= 4096 or at + 4 + length > len(head):
        raise ValueError("no text")
    return head[at + 4 : at + 4 + length].rstrip(b"\0").decode(), at + 4 + length


def feature_hash(namespace: str, name: str, model: VwModelFile) -> int:
    """Where a model finds a feature that its text format calls `|namespace name`: VW's own hash,
    of so many bits as the model uses.
    """
    everything = "--hash all" in model.options
    seed = _hash(namespace, 0, everything)
    return _hash(name, seed, everything) & ((1 << model.bits) - 1)


def text_name(column: str) -> str:
    """What VW's text format calls a column of an encoder: a colon would begin its value."""
    return column.replace(":", "=").replace("|", "_").replace(" ", "_")


def _hash(text: str, seed: int, everything: bool) -> int:
    # VW takes a number for where it is to be found, unless it is told to hash everything.
    if not everything and text.isascii() and text.isdigit():
        return (int(text) + seed) & _MASK
    return murmur3(text.encode(), seed)


def murmur3(data: bytes, seed: int) -> int:
    """MurmurHash3_x86_32 (Appleby 2011), which VW hashes names with.

    >>> murmur3(b"", 1), murmur3(b"test", 0)
    (1364076727, 3127628307)
    """
    whole = len(data) - len(data) % 4
    h = seed & _MASK
    for at in range(0, whole, 4):
        h ^= _mixed(int.from_bytes(data[at : at + 4], "little"))
        h = (_rotated(h, 13) * 5 + 0xE6546B64) & _MASK
    if whole < len(data):
        h ^= _mixed(int.from_bytes(data[whole:], "little"))
    h ^= len(data)
    h = ((h ^ (h >> 16)) * 0x85EBCA6B) & _MASK
    h = ((h ^ (h >> 13)) * 0xC2B2AE35) & _MASK
    return h ^ (h >> 16)


def _mixed(k: int) -> int:
    return (_rotated((k * 0xCC9E2D51) & _MASK, 15) * 0x1B873593) & _MASK


def _rotated(x: int, by: int) -> int:
    return ((x << by) | (x >> (32 - by))) & _MASK

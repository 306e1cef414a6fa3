"""Model files, each read once for all policies that score by it, and known by what it holds."""

from __future__ import annotations

import threading
from collections import OrderedDict
from hashlib import sha256
from pathlib import Path

from topbill.domain.errors import PolicyError
from topbill.policies.onnx.parts import parts
from topbill.policies.onnx.runtime import OnnxSession

MOST_BYTES = 100_000_000
"""The largest file: it is held in memory, and read again whenever it changes."""
_STANDARD = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")
"""Domains of the operators that ONNX Runtime brings."""
_KEPT = 16
"""Models that stay in memory: the newest, as one that a policy uses is held by it anyway."""
_models: OrderedDict[str, OnnxSession] = OrderedDict()
_lock = threading.Lock()


def read(path: Path, folder: Path) -> str:
    """The SHA-256 of a model file, once it was found to be one that can be used: of a size that
    memory has room for, whole in itself, of standard operators alone, and taken by ONNX Runtime.

    Args:
        path: The file.
        folder: Where it must lie, links followed.

    Raises:
        PolicyError: It can't be used; the message says why.
    """
    data = _bytes(path, folder)
    digest = sha256(data).hexdigest()
    with _lock:
        if digest in _models:
            _models.move_to_end(digest)
            return digest
        _check(data)
        _models[digest] = OnnxSession(data)
        while len(_models) > _KEPT:
            _models.popitem(last=False)
    return digest


def known(digest: str) -> OnnxSession:
    """The model of a SHA-256 that `read` gave. Raises PolicyError where this process has read no
    such file.
    """
    with _lock:
        session = _models.get(digest)
    if session is None:
        raise PolicyError(
            f"no model of SHA-256 {digest[:12]}… was read here; load the experiment from its file, "
            "with that model beside it"
        )
    return session


def _bytes(path: Path, folder: Path) -> bytes:
    try:
        real = path.resolve(strict=True)
        if not real.is_relative_to(folder.resolve()):
            raise PolicyError("a file outside the experiments' folder; expected one in it")
        if not real.is_file():
            raise PolicyError("no file; expected an ONNX model")
        with real.open("rb") as file:
            # One byte more tells whether it is too large, however it grows meanwhile.
            data = file.read(MOST_BYTES + 1)
    except (OSError, ValueError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise PolicyError(f"a file that cannot be read ({reason})") from error
    if len(data) > MOST_BYTES:
        raise PolicyError(f"more than {MOST_BYTES:,} bytes; expected a smaller model")
    return data


def _check(data: bytes) -> None:
    try:
        found = parts(data)
    except ValueError as error:
        raise PolicyError(f"no ONNX model ({error})") from error
    if found.external:
        raise PolicyError(
            "tensors in other files (external data); expected a model whole in one file"
        )
    odd = sorted(found.domains.difference(_STANDARD))
    if odd:
        raise PolicyError(
            f"operators of domain {', '.join(odd)[:80]}; expected standard ones, as no library of "
            "others is loaded"
        )

"""A trained policy as a file: what it is, what it learned on, how sure it is to be better, and what
it has learned.

The first line is JSON, for whoever wants to read it (`head -1 FILE`); behind it are the bytes of
the policy's state, as its kind dumps and loads them.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from hashlib import sha256
from pathlib import Path
from threading import Lock
from typing import Any

import msgspec

from topbill.domain.durable import write_whole
from topbill.domain.errors import NotFound, PolicyError
from topbill.domain.features import Feature
from topbill.policies.vw.model_file import is_model, read_head, try_out

FORMAT = "topbill-policy-1"
"""What the first line of such a file says that it is."""
VW_FORMAT = "vowpal-wabbit"
"""What a model that Vowpal Wabbit wrote is said to be, which has no such line."""
LARGEST_FILE = 2**32
"""Bytes that are read of one: 4 GiB, twice what a policy may hold."""
_NAME = "[A-Za-z0-9][A-Za-z0-9_.-]*"
SNAPSHOT_NAME = rf"{_NAME}(/{_NAME})?"
"""How the file of a trained policy may be called where an experiment names it: beside the
experiment's, or in a folder beside it."""
_KEPT = 32
"""So many that were read last are kept in memory."""
_known: OrderedDict[str, TrainedPolicy] = OrderedDict()
_lock = Lock()
_TRAIN = "make one: topbill train KEY --policy KIND --out FILE"


def is_snapshot_name(name: str) -> bool:
    """Whether an experiment may name such a file."""
    return len(name) <= 200 and re.fullmatch(SNAPSHOT_NAME, name) is not None


class TrainedPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A policy that was trained from a log.

    Attributes:
        format: FORMAT; VW_FORMAT for a model of Vowpal Wabbit, whose file is the state.
        kind: The policy's, as variants name it.
        params: Its parameters, as a variant says them.
        context, action_features: The features whose numbers it learned on, in their order.
        engine: The foreign library that learned, with its version; empty where none did.
        log: The experiment whose log it learned from.
        decisions: How many of it taught something.
        through: The last `seq` of it that it learned.
        until: When the first decision was made that it did not learn from (µs since the epoch).
        certificate: What it was found to earn on later decisions, as JSON.
        digest: The SHA-256 of the state.
        state: What it has learned, as `Policy.dump` gives it; not of the first line.
    """

    format: str = FORMAT
    kind: str
    params: dict[str, Any]
    context: tuple[Feature, ...]
    action_features: tuple[Feature, ...]
    engine: str = ""
    log: str = ""
    decisions: int = 0
    through: int = 0
    until: int = 0
    certificate: dict[str, Any] = {}
    digest: str = ""
    state: bytes = b""

    def __repr__(self) -> str:
        """Without what was learned, which would be pages of bytes."""
        said = ", ".join(
            f"{name}={getattr(self, name)!r}" for name in self.__struct_fields__ if name != "state"
        )
        return f"TrainedPolicy({said})"

    def write(self, path: Path) -> None:
        """Put it into a file, whole or not at all."""
        head = msgspec.to_builtins(self)
        del head["state"]
        head["digest"] = sha256(self.state).hexdigest()
        line = msgspec.json.encode(head, order="deterministic")
        write_whole(path, line + b"\n" + self.state)


def read_trained(path: Path) -> TrainedPolicy:
    """The trained policy in a file.

    Raises:
        NotFound: There is no such file.
        PolicyError: It is none, or damaged.
    """
    return parse_trained(_content(path), str(path))


def _content(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise PolicyError(f"{path}: is no file; {_TRAIN}")
        if size > LARGEST_FILE:
            raise PolicyError(f"{path}: {size:,} bytes; expected at most {LARGEST_FILE:,}")
        return path.read_bytes()
    except FileNotFoundError:
        raise NotFound(f"{path}: no such file; {_TRAIN}") from None
    except OSError as error:
        raise PolicyError(f"{path}: cannot be read ({error.strerror})") from error


def parse_trained(content: bytes, name: str) -> TrainedPolicy:
    """The trained policy in the bytes of a file called `name`. Raises PolicyError as `read_trained`
    does.
    """
    if is_model(content):
        engine = f"VW {read_head(content, name).version}"
        digest = sha256(content).hexdigest()
        return TrainedPolicy(
            format=VW_FORMAT,
            kind="vw",
            params={},
            context=(),
            action_features=(),
            engine=engine,
            digest=digest,
            state=content,
        )
    line, _, state = content.partition(b"\n")
    try:
        head = msgspec.json.decode(line, type=TrainedPolicy)
    # ValueError: text that is not UTF-8.
    except (msgspec.DecodeError, ValueError) as error:
        raise PolicyError(f"{name}: is no trained policy ({error}); {_TRAIN}") from error
    if head.format != FORMAT:
        raise PolicyError(f"{name}: has format {head.format[:40]!r}; expected {FORMAT}; {_TRAIN}")
    if sha256(state).hexdigest() != head.digest:
        raise PolicyError(
            f"{name}: is damaged: its state has another SHA-256 than its first line says; {_TRAIN}"
        )
    return msgspec.structs.replace(head, state=state)


def remember(path: Path, folder: Path) -> str:
    """Read the trained policy in a file, and keep it for `known`. Returns the SHA-256 of the file.

    Args:
        path: The file.
        folder: Where it must lie, links followed.

    Raises:
        NotFound: There is no such file.
        PolicyError: It can't be used; the message says why.
    """
    real = path.resolve()
    if not real.is_relative_to(folder.resolve()):
        raise PolicyError(
            f"{path.name}: a file outside the experiments' folder; expected one in it"
        )
    content = _content(real)
    digest = sha256(content).hexdigest()
    trained = parse_trained(content, path.name)
    with _lock:
        is_new = digest not in _known
    if is_new and trained.format == VW_FORMAT:
        try_out(content, path.name)
    with _lock:
        _known[digest] = trained
        _known.move_to_end(digest)
        while len(_known) > _KEPT:
            _known.popitem(last=False)
    return digest


def known(digest: str) -> TrainedPolicy:
    """The trained policy of which `remember` gave that SHA-256. Raises PolicyError where this
    process has read no such file.
    """
    with _lock:
        trained = _known.get(digest)
    if trained is None:
        raise PolicyError(
            f"no trained policy of SHA-256 {digest[:12]}… was read here; load the experiment from "
            "its file, with that policy beside it"
        )
    return trained

"""One version of a table in memory: ids, and the features of each as they go into a decision's
record."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pa_parquet

from topbill.domain.errors import PolicyError
from topbill.domain.features import Encoder, Feature
from topbill.domain.records import Floats, Indices

_PART = 50_000
"""Ids that are Python's own at once."""
_decode = msgspec.json.Decoder(dict[str, Any]).decode


class MissingVersion(PolicyError):
    """A version of a table that a decision names and the data folder has no more."""


class EntityTable:
    """N rows, by id. Immutable but for what was encoded of it.

    Attributes:
        version: 16 hex digits of its content; empty for the table that there is not.
        texts: (N) each row's features as a JSON object, without those that are unknown.
    """

    def __init__(self, ids: pa.Array, texts: pa.Array, version: str) -> None:
        self.version, self.texts = version, texts
        # 64 random bits of each id and not the ids: a dictionary of two million would take 260 MB.
        # That an unknown id has the bits of one that is there happens once in 10^13 questions.
        hashes = np.empty(len(ids), dtype=np.int64)
        for start in range(0, len(ids), _PART):
            part = ids.slice(start, _PART).to_pylist()
            hashes[start : start + len(part)] = list(map(hash, part))
        self._order: Indices = np.argsort(hashes).astype(np.int32)
        self._hashes = hashes[self._order]
        self._encoded: dict[tuple[Feature, ...], Floats] = {}

    def __len__(self) -> int:
        return len(self._hashes)

    def rows(self, ids: Iterable[str]) -> Indices:
        """(K,) the row of each id, -1 for those that are unknown."""
        wanted = np.fromiter(map(hash, ids), dtype=np.int64)
        if not len(self):
            return np.full(len(wanted), -1, dtype=np.intp)
        places = np.minimum(np.searchsorted(self._hashes, wanted), len(self) - 1)
        found = self._hashes[places] == wanted
        return np.where(found, self._order[places], -1).astype(np.intp)

    def values(self, row: int) -> dict[str, Any]:
        """What a row says, by feature."""
        return _decode(self.texts[row].as_py())

    def encoded(self, features: tuple[Feature, ...]) -> Floats:
        """(N + 1 × columns, float32) the rows as numbers. The last one is of unknown ids, all 0:
        row -1.

        Of features that this version had otherwise, values that do not fit are unknown.
        """
        # As a rule one declaration reads a version; two may, that scale a number otherwise.
        if features not in self._encoded:
            self._encoded[features] = self._encode(features)
        return self._encoded[features]

    def _encode(self, features: tuple[Feature, ...]) -> Floats:
        encoder = Encoder(features)
        names = {feature.name for feature in features}
        matrix = np.zeros((len(self) + 1, encoder.size), dtype=np.float32)
        for row, text in enumerate(self.texts.to_pylist()):
            values = {name: value for name, value in _decode(text).items() if name in names}
            for problem in encoder.problems(values):
                values.pop(problem.path.split(".")[1].partition("[")[0], None)
            matrix[row] = encoder.encode(values)
        return matrix  # type: ignore[return-value]


def version_of(ids: Sequence[str], texts: Sequence[bytes]) -> str:
    """The version of a content whose rows are sorted by id."""
    digest = blake2b(msgspec.json.encode(ids), digest_size=8)
    # JSON holds no line break.
    digest.update(b"\n".join(texts))
    return digest.hexdigest()


def to_bytes(ids: Sequence[str], texts: Sequence[bytes]) -> bytes:
    """The rows as a Parquet file."""
    columns = {"id": pa.array(ids, pa.string()), "features": pa.array(texts, pa.binary())}
    content = pa.BufferOutputStream()
    pa_parquet.write_table(pa.table(columns), content, compression="zstd")
    return bytes(content.getvalue().to_pybytes())


def rows_of(content: bytes) -> tuple[list[str], list[bytes]]:
    """What `to_bytes` was given. Raises ArrowException or KeyError for what is none."""
    table = pa_parquet.read_table(pa.BufferReader(content))
    return table["id"].to_pylist(), table["features"].to_pylist()


def table_of(ids: Sequence[str], texts: Sequence[bytes], version: str) -> EntityTable:
    """The table of these rows."""
    return EntityTable(pa.array(ids, pa.string()), pa.array(texts, pa.binary()), version)


def kept_table(content: bytes, version: str) -> EntityTable:
    """The table of what `to_bytes` gave, its texts never being Python's own. Raises as `rows_of`
    does.
    """
    table = pa_parquet.read_table(pa.BufferReader(content))
    return EntityTable(table["id"].combine_chunks(), table["features"].combine_chunks(), version)


# Not of Python's lists, with which Arrow would wait for pandas: services import this.
EMPTY = EntityTable(pa.nulls(0, pa.string()), pa.nulls(0, pa.binary()), "")
"""In the place of a table that could not be read yet: every id is unknown."""

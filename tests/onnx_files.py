"""ONNX models of a few bytes, written field by field (onnx.proto3): tests need no package to make
them.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

FLOAT, INT64, STRING = 1, 7, 8
_INT, _BYTES = 0, 2


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def field(number: int, value: int | bytes | str) -> bytes:
    if isinstance(value, int):
        return varint(number << 3 | _INT) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | _BYTES) + varint(len(data)) + data


def tensor(name: str, rows: Sequence[Sequence[float]], *, file: str = "") -> bytes:
    """A float tensor; where a `file` is named, its numbers lie there."""
    dims = field(1, len(rows)) + field(1, len(rows[0])) + field(2, FLOAT)
    if file:
        entry = field(1, "location") + field(2, file)
        return dims + field(8, name) + field(13, entry) + field(14, 1)
    numbers = [number for row in rows for number in row]
    return dims + field(8, name) + field(9, struct.pack(f"<{len(numbers)}f", *numbers))


def value(name: str, shape: Sequence[int | str], kind: int = FLOAT) -> bytes:
    """An input or output; a dimension that is a name is of any size."""
    dims = b""
    for size in shape:
        dims += field(1, field(1, size) if isinstance(size, int) else field(2, size))
    of_tensor = field(1, kind) + (field(2, dims) if shape else b"")
    return field(1, name) + field(2, field(1, of_tensor))


def node(
    operator: str, inputs: Sequence[str], outputs: Sequence[str], *, domain: str = ""
) -> bytes:
    named = b"".join(field(1, name) for name in inputs)
    named += b"".join(field(2, name) for name in outputs)
    return named + field(4, operator) + (field(7, domain) if domain else b"")


def model(
    nodes: Sequence[bytes],
    inputs: Sequence[bytes],
    outputs: Sequence[bytes],
    tensors: Sequence[bytes] = (),
) -> bytes:
    graph = b"".join(field(1, each) for each in nodes) + field(2, "scores")
    graph += b"".join(field(5, each) for each in tensors)
    graph += b"".join(field(11, each) for each in inputs)
    graph += b"".join(field(12, each) for each in outputs)
    opset = field(1, "") + field(2, 17)
    return field(1, 8) + field(7, graph) + field(8, opset)


def linear(weights: Sequence[float]) -> bytes:
    """Scores features · weights, of one input (any number of rows × weights)."""
    return model(
        [node("MatMul", ["features", "w"], ["score"])],
        [value("features", ["n", len(weights)])],
        [value("score", ["n", 1])],
        [tensor("w", [[weight] for weight in weights])],
    )


def two_towers() -> bytes:
    """Scores context · actions, of a context of one row and any number of actions, two numbers
    each.
    """
    return model(
        [
            node("Transpose", ["viewer"], ["turned"]),
            node("MatMul", ["title", "turned"], ["score"]),
        ],
        [value("viewer", [1, 2]), value("title", ["n", 2])],
        [value("score", ["n", 1])],
    )

"""What an ONNX file asks for beyond itself, read from its bytes before any library sees them:
tensors in other files, and operators that nobody here has.

The file is a protocol buffer (onnx.proto3). Only the few fields that lead to operators and tensors
are followed; all others are skipped.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

_DEEPEST = 32
"""Levels of graphs inside graphs."""
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MODEL = {7: "graph", 25: "function"}
_INSIDE: dict[str, dict[int, str]] = {
    "model": _MODEL,
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
"""Kind of message → the fields that are followed, and what they hold."""
_DOMAIN, _EXTERNAL_DATA, _DATA_LOCATION = 7, 13, 14


@dataclass
class OnnxParts:
    """What was found: the domains of operators (the standard one is ""), and whether some tensor
    lies in another file.
    """

    domains: set[str] = field(default_factory=set)
    external: bool = False
    has_graph: bool = False


def parts(data: bytes) -> OnnxParts:
    """What a model file asks for. Raises ValueError for bytes that are no such file."""
    found = OnnxParts()
    _look(memoryview(data), "model", found, 0)
    if not found.has_graph:
        raise ValueError("no graph in it")
    return found


def _look(data: memoryview, kind: str, found: OnnxParts, depth: int) -> None:
    if depth > _DEEPEST:
        raise ValueError(f"graphs inside graphs, more than {_DEEPEST} deep")
    inside = _INSIDE[kind]
    for number, value in _fields(data):
        if kind == "model" and number == 7:
            found.has_graph = True
        if kind == "node" and number == _DOMAIN and isinstance(value, memoryview):
            found.domains.add(bytes(value).decode("utf-8", "replace"))
        if kind == "tensor" and number in (_EXTERNAL_DATA, _DATA_LOCATION):
            found.external = found.external or value != 0
        if number in inside:
            if not isinstance(value, memoryview):
                raise ValueError(f"field {number} of a {kind} holds no message")
            _look(value, inside[number], found, depth + 1)


def _fields(data: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """Number and value of each field of a message; numbers of fixed width are 0."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        value: memoryview | int = 0
        if wire == _VARINT:
            value, at = _varint(data, at)
        elif wire == _BYTES:
            size, at = _varint(data, at)
            value = data[at : at + size]
            at += size
        elif wire in (_FIXED64, _FIXED32):
            at += 8 if wire == _FIXED64 else 4
        else:
            raise ValueError(f"a field of type {wire}")
        if at > len(data) or number == 0:
            raise ValueError("a field that ends beyond the file")
        yield number, value


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """A number of 7 bits a byte, lowest first, and where it ends."""
    number = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            break
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
    raise ValueError("a number that does not end")

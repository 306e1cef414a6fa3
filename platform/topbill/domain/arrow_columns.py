"""Records' fields as Arrow arrays, for those that Arrow itself would copy several times: thousands
of records are published every two seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from operator import attrgetter
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa


def list_array(lengths: Sequence[int], items: Sequence[Any], type_: pa.DataType) -> pa.Array:
    """Lists of those lengths, of which `items` are the items, one list's behind the other's: Arrow
    takes twice as long for lists of Python's.
    """
    values = pa.array(items, type_.value_type)
    return pa.ListArray.from_arrays(_offsets(lengths, len(lengths)), values, type=type_)


def struct_lists(lists: Sequence[Sequence[Any]], type_: pa.DataType) -> pa.Array:
    """Lists of records, which have the fields of the struct of `type_` as attributes."""
    records = list(chain.from_iterable(lists))
    fields = list(type_.value_type)
    columns = []
    for field in fields:
        columns.append(pa.array(list(map(attrgetter(field.name), records)), field.type))
    structs = pa.StructArray.from_arrays(columns, fields=fields)
    return pa.ListArray.from_arrays(_offsets(map(len, lists), len(lists)), structs, type=type_)


def text_array(texts: Sequence[msgspec.Raw | None]) -> pa.Array:
    """JSON texts as an array of strings, None being null. They are copied once, into the array.

    Raises OverflowError where they have 2 GiB or more together, and pyarrow.ArrowInvalid where one
    is no UTF-8.
    """
    validity = None
    if None in texts:
        validity = pa.array([text is not None for text in texts]).buffers()[1]
    present = [text or b"" for text in texts]
    offsets = _offsets(map(len, present), len(present))
    buffers = [validity, offsets.buffers()[1], pa.py_buffer(b"".join(present))]
    array = pa.Array.from_buffers(pa.string(), len(texts), buffers)
    array.validate(full=True)
    return array


def _offsets(lengths: Iterable[int], count: int) -> pa.Array:
    """Where each of some lists begins in the row of all their items, and where the last ends."""
    ends = np.zeros(count + 1, dtype=np.int64)
    np.cumsum(np.fromiter(lengths, dtype=np.int64, count=count), out=ends[1:])
    if ends[-1] > np.iinfo(np.int32).max:
        raise OverflowError(f"got {ends[-1]:,} items in one array; expected fewer than 2 ** 31")
    return pa.array(ends, pa.int32())

"""A catalogue's table and, where pictures lie in one of their own, that one joined to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from topbill.catalog.columns import CatalogColumns, read
from topbill.domain.cells import values_of
from topbill.domain.errors import BadData

_TITLE = "title"
_LOST = b"topbill.pictures_lost"
"""Where a joined table says which titles its pictures name that it has not."""
_TOLD = 3
# A database's decimals are numbers, and stay ones.
_encode = msgspec.json.Encoder(enc_hook=str, decimal_format="number").encode


def read_joined(
    path: Path, table: str | None, pictures: Path | None, pictures_table: str | None
) -> pa.Table:
    """A catalogue's rows, with a column `pictures` of what a table of pictures has for each.

    Args:
        path: The catalogue's file; `table` names the table where that is a database.
        pictures: The file of pictures, of which each row names its `title` by id; None where there
            is none. `pictures_table` names the table where that is a database.

    Raises:
        NotFound: One of the files is not there.
        BadData: One of them can't be read as such a table.
    """
    titles = read(path, table, set_aside=True)
    if pictures is None and pictures_table is None:
        return titles
    source = pictures or path
    return _joined(titles, path.name, read(source, pictures_table), source.name)


def lost_pictures(table: pa.Table) -> str:
    """A sentence on pictures of titles that the catalogue doesn't have; "" where there are none."""
    return str((table.schema.metadata or {}).get(_LOST, b"").decode())


def _joined(titles: pa.Table, name: str, pictures: pa.Table, pictures_name: str) -> pa.Table:
    if "pictures" in titles.column_names:
        raise BadData(
            name, "column pictures, and a table of pictures beside it; expected one of them"
        )
    for column in (_TITLE, "url"):
        if column not in pictures.column_names:
            raise BadData(
                pictures_name,
                f"no column {column}; expected title (the title's id), url, and features",
            )
    columns = [values_of(column) for column in pictures.columns]
    of_title: dict[str, list[dict[str, Any]]] = {}
    for values in zip(*columns, strict=True):
        row = dict(zip(pictures.column_names, values, strict=True))
        of_title.setdefault(str(row.pop(_TITLE)), []).append(_with_lists(row))
    ids = CatalogColumns(titles, name).ids
    cells = []
    for title in ids:
        own = of_title.pop(title, None)
        cells.append(None if own is None else _encode(own).decode())
    joined = titles.append_column("pictures", pa.array(cells, pa.string()))
    if of_title:
        some = ", ".join(repr(title[:40]) for title in list(of_title)[:_TOLD])
        lost = f"{pictures_name} has pictures of {len(of_title):,} titles that are not in the"
        text = f"{lost} catalogue: {some}{', …' if len(of_title) > _TOLD else ''}"
        known = joined.schema.metadata or {}
        joined = joined.replace_schema_metadata({**known, _LOST: text.encode()})
    return joined


def _with_lists(row: dict[str, Any]) -> dict[str, Any]:
    """A row of a table of pictures without its empty cells. Text may hold a list or a mapping as
    JSON.
    """
    own = {}
    for name, value in row.items():
        if value is None or value == "":
            continue
        # JSON would have them as a text of its own making, which could be taken for an address.
        own[name] = {"binary": repr(value[:20])} if isinstance(value, bytes) else value
        if isinstance(value, str) and value[:1] in ("[", "{"):
            try:
                own[name] = msgspec.json.decode(value)
            except (msgspec.DecodeError, RecursionError):
                continue  # it is text then, which is told where it can't be
    return own

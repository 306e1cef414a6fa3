"""The record asked in SQL: `topbill sql`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE
from rich.measure import Measurement
from rich.table import Table

from topbill.cli.output import TEXT, Output, print_columns
from topbill.cli.shell import DATA, Data, EngineUrl, LakeUrl, app, out, say, use_engine, use_lake
from topbill.domain.errors import BadRequest

if TYPE_CHECKING:
    import pyarrow as pa

_MOST_ROWS = 200
"""A terminal shows so many; whoever wants all of them wants JSON or CSV."""
_PLAIN = (bool, int, float, str)


@app.command
def sql(
    query: str,
    *,
    data: Data = DATA,
    lake_url: LakeUrl = "",
    engine: EngineUrl = "",
    output: Output = TEXT,
) -> None:
    """One reading statement on the record: views decisions, rewards, placements, feedback, units.

    Rows too wide for the terminal are shown one below the other, a column a line.

    Args:
        query: SQL in DuckDB's dialect.
    """
    use_lake(lake_url)
    use_engine(engine)
    from topbill import lake

    rows = lake.answer(lake.database_of(data), query)
    shown = rows.slice(0, _MOST_ROWS) if output.is_text else rows
    try:
        columns = [column.to_pylist() for column in shown.columns]
    except (OverflowError, ValueError) as error:
        raise BadRequest(
            "sql", f"got a date or time that cannot be printed: {error}; cast it to VARCHAR"
        ) from error
    names = shown.column_names
    # Without columns there are no rows either.
    lines = list(zip(*columns, strict=True))
    if output.csv:
        # By place, not by name: SQL may give two columns one name.
        print_columns(names, lines)
        return
    plain = [dict(zip(names, map(_plain, line), strict=True)) for line in lines]
    output.show(plain, lambda: _say(rows, names, lines))


def _plain(value: Any) -> Any:
    """A value as JSON has it: what JSON has no word for is text, as SQL shows it."""
    if value is None or isinstance(value, _PLAIN):
        return value
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return str(value)


def _say(rows: pa.Table, names: Sequence[str], lines: Sequence[Sequence[Any]]) -> None:
    table = Table(box=SIMPLE, show_edge=False)
    for name, kind in zip(names, rows.schema.types, strict=True):
        table.add_column(name, justify="right" if _is_number(kind) else "left")
    cells = [[_cell(value) for value in line] for line in lines]
    for line in cells:
        table.add_row(*line)
    # Squeezed, a table breaks numbers and ids over several lines.
    unbounded = out.options.update(max_width=1_000_000)
    if Measurement.get(out, unbounded, table).maximum <= out.width or len(names) == 1:
        out.print(table, markup=False, highlight=False)
    else:
        _say_one_by_one(names, cells)
    if rows.num_rows > len(lines):
        say(f"{len(lines)} of {rows.num_rows:,} rows; add a LIMIT, or --json or --csv for all")
    elif not lines:
        say("No rows.")


def _say_one_by_one(names: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    """A column a line."""
    width = max(len(name) for name in names)
    for number, line in enumerate(lines, 1):
        out.rule(f"row {number}", style="dim", align="left")
        grid = Table.grid(padding=(0, 2))
        grid.add_column(min_width=min(width, out.width // 3), overflow="fold")
        grid.add_column(overflow="fold")
        for name, cell in zip(names, line, strict=True):
            grid.add_row(name, cell)
        out.print(grid, markup=False, highlight=False)


def _is_number(kind: Any) -> bool:
    import pyarrow.types as types

    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind))


def _cell(value: Any) -> str:
    """A value for people: six digits of a number that has more, and no word for what there is
    not.
    """
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping | list | tuple | bool):
        return json.dumps(_plain(value), ensure_ascii=False)
    return str(value)

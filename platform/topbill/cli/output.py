"""In which form a command prints its result: text for people, JSON for programs, CSV for
spreadsheets.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from cyclopts import Parameter

from topbill.domain.errors import BadRequest

if TYPE_CHECKING:
    import pandas as pd

    Rows = pd.DataFrame | Iterable[Mapping[str, Any]]


@Parameter(name="*", group="Output")
@dataclass(frozen=True, kw_only=True)
class Output:
    """The form that was asked for."""

    json: Annotated[bool, Parameter(negative="", help="Print JSON.")] = False
    csv: Annotated[bool, Parameter(negative="", help="Print CSV, as for a spreadsheet.")] = False

    def __post_init__(self) -> None:
        if self.json and self.csv:
            raise BadRequest("--csv", "got --json as well; expected one of the two")

    @property
    def is_text(self) -> bool:
        """Whether people read it."""
        return not (self.json or self.csv)

    def show(
        self,
        value: Any,
        text: Callable[[], object],
        rows: Callable[[], Rows] | None = None,
    ) -> None:
        """Print a result.

        Args:
            value: All of it, as JSON has it.
            text: Prints it for people.
            rows: The table in it, a row a line; left out, `value` is the row, or a list of rows.
        """
        if self.json:
            print_json(value)
        elif self.csv:
            print_csv(_rows(value) if rows is None else rows())
        else:
            text()


TEXT = Output()


def print_json(value: object) -> None:
    """Print a struct, or a list of them, as JSON on standard output."""
    print(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def print_csv(rows: Rows) -> None:
    """Print rows with a header; nothing where there are none. What is inside of a row gets columns
    of its own (`worker.alive`); a list stays one, as JSON.
    """
    if not isinstance(rows, Iterable) or hasattr(rows, "to_csv"):
        print(rows.to_csv(index=False, lineterminator="\n"), end="")
        return
    flat = [_flat(row) for row in rows]
    if not flat:
        return
    # Rows may have different columns: all of them, in the order in which they first come.
    names = list(dict.fromkeys(name for row in flat for name in row))
    print_columns(names, ([row.get(name) for name in names] for row in flat))


def print_columns(names: Sequence[str], lines: Iterable[Sequence[Any]]) -> None:
    """Print lines of values below their names."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    for line in lines:
        writer.writerow([_cell(value) for value in line])
    print(text.getvalue(), end="")


def _rows(value: Any) -> Iterable[Mapping[str, Any]]:
    plain = msgspec.to_builtins(value)
    return plain if isinstance(plain, list) else [plain]


def _flat(row: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in msgspec.to_builtins(row).items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _cell(value: Any) -> str:
    """A value as a spreadsheet takes it; nothing for what there is not."""
    if value is None:
        return ""
    if isinstance(value, bool | list | tuple | dict):
        return json.dumps(msgspec.to_builtins(value), ensure_ascii=False, default=str)
    return str(value)

"""An experiment's way from its file to its end."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from topbill.cli.shell import (
    DATA,
    EXPERIMENTS,
    Data,
    Experiments,
    Json,
    app,
    out,
    own_or_examples,
    print_json,
)
from topbill.domain.errors import BadRequest

if TYPE_CHECKING:
    from topbill.launch import UnitAssignment


@app.command
def assign(
    key: str,
    *,
    unit: str,
    context: str = "{}",
    experiments: Experiments = EXPERIMENTS,
    data: Data = DATA,
    as_json: Json = False,
) -> None:
    """Say which variant of an experiment a unit is in, since when and why.

    Args:
        key: The experiment's key.
        unit: The unit's id, as services send it.
        context: What services send with it, as JSON: for an audience, or for who is left out.
    """
    import msgspec

    from topbill import pages, spec
    from topbill.launch import unit_assignment

    try:
        sent = msgspec.json.decode(context)
    except msgspec.DecodeError as error:
        raise BadRequest("--context", f"is no JSON: {error}") from error
    if not isinstance(sent, dict):
        raise BadRequest("--context", f"got {context}; expected an object of features")
    folder = own_or_examples(experiments)
    found = unit_assignment(
        spec.load_all(pages.experiment_folders(folder)), data, key, unit, context
    )
    if as_json:
        print_json(found)
        return
    for line in _lines(found):
        out.print(line, highlight=False, soft_wrap=True, markup=False)


def _lines(found: UnitAssignment) -> list[str]:
    where = "in no variant" if found.variant is None else f"in {found.variant}"
    since = "not seen there yet" if found.since is None else f"since {_time(found.since)}"
    lines = [f"{found.unit} is {where} of {found.experiment}, {since}: {found.why}."]
    for part in found.seen:
        decisions = "1 decision" if part.decisions == 1 else f"{part.decisions:,} decisions"
        span = f"{_time(part.first_at)} to {_time(part.last_at)}"
        lines.append(f"  {span}  {decisions} of {part.variant or 'no variant'} ({part.reason})")
    return lines


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M UTC")

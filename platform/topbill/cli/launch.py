"""An experiment's way from its file to its end."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
from cyclopts import Parameter

from topbill.cli.output import TEXT, Output
from topbill.cli.shell import (
    DATA,
    EXPERIMENTS,
    Data,
    Experiments,
    LakeUrl,
    LogUrl,
    app,
    own_or_examples,
    say,
    say_all,
    use_lake,
    use_log,
)
from topbill.domain.errors import BadRequest
from topbill.domain.formatting import label, minute, several

if TYPE_CHECKING:
    from topbill.launch import UnitAssignment
    from topbill.spec import Status


@app.command
def assign(
    key: str,
    *,
    unit: str,
    context: str = "{}",
    experiments: Experiments = EXPERIMENTS,
    data: Data = DATA,
    url: LogUrl = "",
    lake_url: LakeUrl = "",
    output: Output = TEXT,
) -> None:
    """Say which variant of an experiment a unit is in, since when and why.

    Args:
        key: The experiment's key.
        unit: The unit's id, as services send it.
        context: What services send with it, as JSON: for an audience, or for who is left out.
    """
    from topbill.launch import experiments_beside, unit_assignment

    use_log(url)
    use_lake(lake_url)
    beside = experiments_beside(own_or_examples(experiments), key)
    found = unit_assignment(beside, data, key, unit, context)
    output.show(
        found,
        lambda: say_all(_lines(found)),
        lambda: [{"experiment": key, "unit": unit, **msgspec.to_builtins(s)} for s in found.seen],
    )


Now = Annotated[bool, Parameter(negative="", help="Yes, at once: services obey within seconds.")]
Because = Annotated[str, Parameter(help="Why, for the audit.")]


@app.command
def stop(
    key: str,
    *,
    now: Now = False,
    because: Because = "",
    data: Data = DATA,
    url: LogUrl = "",
    output: Output = TEXT,
) -> None:
    """Stop an experiment without touching its file: it decides nothing any more.

    The order outranks the file until that changes; `topbill resume KEY` takes it back.

    Args:
        key: The experiment's key.
    """
    use_log(url)
    _order(key, "stopped", "stop", now, because, data, output)


@app.command
def pause(
    key: str,
    *,
    now: Now = False,
    because: Because = "",
    data: Data = DATA,
    url: LogUrl = "",
    output: Output = TEXT,
) -> None:
    """Pause an experiment without touching its file: it keeps its place in the layer.

    The order outranks the file until that changes; `topbill resume KEY` takes it back.

    Args:
        key: The experiment's key.
    """
    use_log(url)
    _order(key, "paused", "pause", now, because, data, output)


@app.command
def resume(
    key: str,
    *,
    now: Now = False,
    because: Because = "",
    data: Data = DATA,
    url: LogUrl = "",
    output: Output = TEXT,
) -> None:
    """Give an experiment that was stopped or paused by an order back to its file.

    Args:
        key: The experiment's key.
    """
    use_log(url)
    _order(key, None, "resume", now, because, data, output)


@app.command
def approve(
    key: str,
    *,
    because: Because = "",
    data: Data = DATA,
    url: LogUrl = "",
    lake_url: LakeUrl = "",
    output: Output = TEXT,
) -> None:
    """Approve what an experiment's launch waits for: its next step, harm that it was paused for, or
    a gate that did not let it pass.

    Args:
        key: The experiment's key.
    """
    from topbill.launch.stepping import approve as give_approval
    from topbill.log import open_log_of

    use_log(url)
    use_lake(lake_url)
    with open_log_of(data, create=False) as log:
        order = give_approval(log, key, getpass.getuser(), because)
    sentence = f"{key}: {order.because} (step {order.step}). The launch goes on within seconds."
    output.show(order._asdict(), lambda: say(sentence))


def _order(
    key: str, status: Status | None, verb: str, now: bool, because: str, data: Path, output: Output
) -> None:
    from topbill.log import open_log_of
    from topbill.log.orders import give_order

    if not now:
        raise BadRequest("--now", f"is missing; expected topbill {verb} {key} --now")
    with open_log_of(data, create=False) as log:
        order = give_order(log, key, status, getpass.getuser(), because)
    becomes = "is as its file says" if status is None else f"is {status}"
    sentence = (
        f"{key} {becomes} (revision {order.made}). Services obey within seconds; "
        "a change of the file outranks this."
    )
    output.show(order._asdict(), lambda: say(sentence))


def _lines(found: UnitAssignment) -> list[str]:
    lines = [found.sentence]
    for part in found.seen:
        decisions = several(part.decisions, "decision")
        span = f"{minute(part.first_at)} to {minute(part.last_at)}"
        variant = part.variant or "no variant"
        lines.append(f"  {span}  {decisions} of {variant} ({label(part.reason)})")
    return lines

"""How an experiment ends."""

from __future__ import annotations

import getpass
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from topbill.cli.output import TEXT, Output
from topbill.cli.shell import (
    DATA,
    Data,
    LakeUrl,
    LogUrl,
    app,
    say,
    use_lake,
    use_log,
)
from topbill.domain.errors import BadRequest

if TYPE_CHECKING:
    from topbill.log.protocol import ConclusionLine
    from topbill.reporting import Report

Again = Annotated[bool, Parameter(negative="", help="Name another winner than before.")]
NoWinner = Annotated[
    bool, Parameter(name="--no-winner", negative="", help="Everybody gets the control's order.")
]


@app.command
def conclude(
    key: str,
    *,
    because: str,
    winner: str | None = None,
    no_winner: NoWinner = False,
    again: Again = False,
    data: Data = DATA,
    url: LogUrl = "",
    lake_url: LakeUrl = "",
    output: Output = TEXT,
) -> None:
    """End an experiment: keep its report as it stands, and give everybody the winner.

    Who is held out stays so. The order outranks the file until that changes; `topbill resume KEY
    --now` takes it back.

    Args:
        key: The experiment's key.
        because: Why, for those who read it in a year.
        winner: The variant that everybody gets from now on, the control's name included.
    """
    from topbill import launch
    from topbill.reporting.experiment.conclusion import thawed

    use_log(url)
    use_lake(lake_url)
    if (winner is None) != no_winner:
        raise BadRequest(
            "--winner",
            f"expected either --winner VARIANT or --no-winner, for topbill conclude {key}",
        )
    line = launch.conclude(data, key, winner, who=getpass.getuser(), because=because, again=again)
    report = thawed(line.report)
    output.show(
        {**line._asdict(), "report": report},
        lambda: _say(line, report),
        lambda: [{k: v for k, v in line._asdict().items() if k != "report"}],
    )


def _say(line: ConclusionLine, report: Report | None) -> None:
    from topbill.ab import without_outlook

    key, winner = line.experiment, line.winner
    everybody = f"everybody gets {winner}" if winner else "everybody gets the control's order"
    say(f"{key} is concluded (revision {line.made}): {everybody}, but for those held out.")
    if report is not None and report.ab is not None:
        say(without_outlook(report.ab.verdict.sentence))
    say(
        f"Its report is kept as it stands: topbill report {key}. Services obey within seconds; a "
        "change of the file outranks this."
    )

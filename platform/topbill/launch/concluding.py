"""Ending an experiment: its report is kept as it stands, and everybody gets the winner."""

from __future__ import annotations

from pathlib import Path

import msgspec

from topbill.domain.errors import BadRequest, Conflict
from topbill.domain.suggestion import nearest
from topbill.log import ConclusionLine, Log, open_log_of
from topbill.log.orders import as_its_file, order_of, orders_of, traffic_of, under
from topbill.log.protocol import Order
from topbill.reporting import load_experiment_report
from topbill.reporting.experiment.conclusion import frozen, standing_conclusion
from topbill.reporting.queries.database import experiments, open_database
from topbill.spec import Conclusion, Experiment, Status


def conclude(
    data: Path, key: str, winner: str | None, *, who: str, because: str, again: bool = False
) -> ConclusionLine:
    """End an experiment: keep its report as it was last published, and order that everybody gets
    the winner. Needs no file; what is concluded so already stays as it is.

    Args:
        data: The data folder.
        key: The experiment's.
        winner: The variant that won; None for nobody.
        who: Who decides.
        because: Why.
        again: Whether another winner may be named than before. The numbers stay those of then.

    Raises:
        NotFound: Nothing was published, or the log knows no such experiment.
        BadRequest: `winner` is no variant, or nothing was decided that could be concluded.
        Conflict: It was concluded with another winner.
    """
    with open_log_of(data, create=False) as log:
        file = as_its_file(log, key)
        orders = orders_of(log, file)
        running = under(file, orders[-1]) if orders else file
        _check_winner(running, winner)
        kept = _kept(log, running)
        if running.conclusion is not None and kept is not None:
            if running.conclusion.winner == winner:
                return kept
            if not again:
                raise Conflict(
                    f"{key} was concluded already: {_won(running.conclusion.winner)}; expected the "
                    "same, or --again to name another, or `topbill resume` to take it up again"
                )
        report = _report(data, key) if kept is None else kept.report
        conclusion = Conclusion(winner, because, who)
        # Whoever wins is to be seen, also where the test had been paused.
        status: Status | None = None
        if winner is not None and file.status != "running":
            status = "running"
        order = Order(key, "", "", 0, who, status, because, conclusion, traffic=traffic_of(orders))
        given = order_of(file, order)
        compared = running.fingerprint if kept is None else kept.revision
        line = ConclusionLine(key, compared, given.made, 0, who, winner, because, report)
        log.conclude(line, given)
        return log.conclusions(key)[-1]


def keep_reports(data: Path) -> list[ConclusionLine]:
    """Keep the reports of experiments that their files say to be over; those that were kept now.

    Raises NotFound where nothing was published yet, LogError where log or lake fail.
    """
    kept = []
    for listed in experiments(data):
        with open_database(data, on_engine=False) as database:
            standing = standing_conclusion(database, listed.key)
        if standing is None or standing.report is not None or not listed.decisions:
            continue
        reading = standing.reading
        report = frozen(load_experiment_report(listed.key, data))
        parts = (reading.who, reading.winner, reading.because)
        line = ConclusionLine(listed.key, listed.revision, listed.revision, 0, *parts, report)
        with open_log_of(data) as log:
            log.conclude(line)
        kept.append(line)
    return kept


def _check_winner(experiment: Experiment, winner: str | None) -> None:
    names = [variant.name for variant in experiment.variants]
    if winner is not None and winner not in names:
        hint = nearest(winner, names)
        raise BadRequest(
            "--winner",
            f"got {winner!r}; expected a variant of {experiment.key}: {', '.join(names)}"
            f"{hint and f'; {hint}'}",
        )


def _kept(log: Log, running: Experiment) -> ConclusionLine | None:
    """How it ended, where it did and was not taken up again."""
    if running.conclusion is None:
        return None
    made = {running.fingerprint}
    for revision in reversed(log.revisions(running.key)):
        if "conclusion" not in msgspec.json.decode(revision.spec):
            break
        made.add(revision.revision)
    lines = [line for line in log.conclusions(running.key) if line.made in made]
    return lines[-1] if lines else None


def _report(data: Path, key: str) -> bytes:
    report = load_experiment_report(key, data)
    if not report.decisions:
        raise BadRequest(
            key, "was never decided in a variant; expected an experiment with something to conclude"
        )
    return frozen(report)


def _won(winner: str | None) -> str:
    return "nobody won" if winner is None else f"{winner} won"

"""Library: what past experiments found, and what their lifts are to be believed at."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from urllib.parse import quote

import pandas as pd
import streamlit as st

from board import answers, charts, choose, data, frame, pieces, readout, words
from board.terms import TERMS
from topbill.reporting import past
from topbill.reporting.experiment.wording import Standing, standing
from topbill.reporting.past import ExperimentLibrary, PastExperiment

OUTCOMES = ("a variant won", "the control won", "nobody won")


def summary(library: ExperimentLibrary) -> Standing:
    """What all of it comes down to."""
    if not library.experiments:
        return Standing(
            word="Empty",
            tone="neutral",
            sentence="No experiment was concluded yet.",
            next="End one that has run its time: topbill conclude KEY --winner VARIANT "
            "--because WHY",
        )
    return Standing(
        word="Library",
        tone="neutral",
        sentence=f"{past.year_sentence(library, datetime.now(UTC).year)} {past.sentence(library)}",
        next="Before a new experiment, look for one that asked the same, and plan for a lift such "
        "as those that are to be believed here.",
    )


def outcome(experiment: PastExperiment) -> str:
    """One of OUTCOMES."""
    if experiment.winner is None:
        return OUTCOMES[2]
    return OUTCOMES[1] if experiment.winner == experiment.control else OUTCOMES[0]


def search(experiments: Sequence[PastExperiment]) -> list[PastExperiment]:
    """Those that match what is typed and chosen; all where nothing is."""
    there = {outcome(experiment) for experiment in experiments}
    needle, wanted = choose.search(
        "past",
        "title, hypothesis, winner, why, who",
        "Outcome",
        [name for name in OUTCOMES if name in there],
    )
    matches = []
    for experiment in experiments:
        if needle in past.searchable(experiment) and (not wanted or outcome(experiment) in wanted):
            matches.append(experiment)
    return matches


def lifts(experiments: Sequence[PastExperiment]) -> None:
    """Each experiment's lift as it is to be believed, with what was measured beside it."""
    lines = []
    for experiment in experiments:
        lift = experiment.lift
        if lift is None or lift.shrunken is None:
            continue
        lines.append(
            {
                "name": experiment.title or experiment.key,
                "relative": lift.shrunken,
                "low": lift.shrunken_low,
                "high": lift.shrunken_high,
                "measured": lift.relative,
                "text": past.believed(lift),
            }
        )
    if lines:
        pieces.section("Lifts, shrunken for the winner's curse", TERMS["shrunken_lift"])
        numbers = pd.DataFrame(lines)
        st.caption(
            "Filled: shrunken towards all others, with its 95% interval. Hollow: as measured."
        )
        pieces.chart(charts.past(numbers), numbers, "library-lifts", 46 * len(numbers) + 46)


def table(experiments: Sequence[PastExperiment]) -> None:
    pieces.section("Concluded experiments", TERMS["concluded"])
    listed = {experiment.key for experiment in data.experiments()}
    lines: list[dict[str, str]] = []
    links = []
    for experiment in experiments:
        lift = experiment.lift
        lines.append(
            {
                "experiment": experiment.title or experiment.key,
                "concluded": f"{datetime.fromisoformat(experiment.concluded_at):%d %b %Y}",
                "outcome": past.result(experiment),
                "measured lift": words.MISSING if lift is None else past.measured(lift),
                "shrunken lift": words.MISSING if lift is None else past.believed(lift),
                "over the holdout": past.worth(experiment),
                "because": experiment.because,
                "concluded by": experiment.who,
            }
        )
        # Of those that were archived long ago nothing is left but the report that was kept.
        page = "experiment?experiment" if experiment.key in listed else "library?kept"
        links.append(f"{page}={quote(experiment.key)}")
    phone = ("experiment", "outcome", "shrunken lift")
    pieces.table(pd.DataFrame(lines), "library", links=links, phone=phone)


def kept(experiment: PastExperiment) -> None:
    """The report of one of which nothing else is left."""
    report = data.report(experiment.key)
    st.page_link("views/library.py", label="All past experiments", icon=":material/arrow_back:")
    st.subheader(words.plain(report.title or report.experiment), anchor=False)
    st.caption(f"{words.code(report.experiment)} · revision {report.revision}")
    if report.hypothesis:
        st.markdown(f"*{words.plain(report.hypothesis)}*")
    readout.conclusion(report)
    st.caption("Its file and its decisions are gone: this is its report as it was kept.")
    frame.answer(answers.without_file(standing(report)))
    readout.notes(report)
    readout.headline(report)
    if report.ab is not None and len(report.ab.units) > 1:
        readout.lifts(report.ab, report.ab.control)
        readout.details(report, report.ab, report.ab.control)
    else:
        readout.uncompared(report)
    readout.holdout(report)
    readout.phases(report)
    readout.revisions(report.experiment)


def body() -> None:
    frame.header("Library")
    library = data.ask(past.experiment_library)
    one = library.of(st.query_params.get("kept", ""))
    if one is not None:
        kept(one)
        return
    frame.answer(summary(library), TERMS["shrunken_lift"])
    if not library.experiments:
        return
    matches = search(library.experiments)
    if not matches:
        choose.say_nothing_matches()
        return
    lifts(matches)
    table(matches)


frame.show("Library", body)

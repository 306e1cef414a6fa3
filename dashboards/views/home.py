"""Home: what the morning asks for, and every experiment as a card with its verdict in one
sentence.
"""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from board import answers, choose, data, frame, pieces, ramps, words
from board.sparkline import sparkline
from topbill.ab import Analysis
from topbill.reporting import Report, past
from topbill.reporting.experiment.wording import Standing, relative_interval
from topbill.reporting.queries import series
from topbill.reporting.queries.database import ListedExperiment


def card(experiment: ListedExperiment, report: Report, where: Standing) -> None:
    """One experiment: where it stands, since when, on how many, and how the lift went."""
    launch = ramps.by_experiment().get(experiment.key)
    with st.container(border=True, key=f"card-{experiment.key}"):
        top = st.container(
            horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"
        )
        with top:
            st.markdown(f"**{words.plain(experiment.title or experiment.key)}**")
            frame.badge(where)
        st.caption(summary(experiment, report))
        st.markdown(words.plain(where.sentence))
        if launch is not None and launch.stage != "over":
            ramps.on_card(launch)
        # No lift is to be read where units were not split as intended.
        if report.ab is not None and experiment.decisions and not report.ab.sample_ratio.alarm:
            spark(experiment.key, report.ab)
        for alarm in answers.unsaid_alarms(report):
            st.markdown(f":orange[:material/warning: **{words.plain(alarm.sentence)}**]")
        st.page_link(
            "views/verdict.py",
            label="Open",
            icon=":material/arrow_forward:",
            query_params={"experiment": experiment.key},
        )


def summary(experiment: ListedExperiment, report: Report) -> str:
    parts = [experiment.surface, experiment.status]
    # What never began has no news to be missed.
    if experiment.decisions and answers.is_still(data.age()):
        parts.append(f"no news for {words.duration(data.age())}")
    parts += [
        words.span(experiment.first_at, experiment.last_at),
        f"{words.count(report.units)} {words.units(experiment.unit)}",
    ]
    # Without a unit each decision is one, and was counted just now.
    if experiment.unit:
        parts.append(f"{words.count(experiment.decisions)} decisions")
    return " · ".join(parts)


def named_first(analysis: Analysis) -> str | None:
    """The variant that the verdict names first."""
    sentence = analysis.verdict.sentence
    others = [name for name in analysis.units if name != analysis.control and name in sentence]
    return min(others, key=sentence.index, default=None)


def spark(key: str, analysis: Analysis) -> None:
    """The lift of the variant that the verdict names, or of the leading one, as its interval
    narrowed.
    """
    progress = data.ask(series.progress, key).dropna(subset=["relative", "relative_low"])
    if progress.empty:
        return
    # Without a variant that the verdict names, the one that leads is worth looking at.
    last = progress.groupby("variant").tail(1).sort_values("relative")
    name = named_first(analysis) or str(last["variant"].iloc[-1])
    own = progress[progress["variant"] == name]
    # A single point is no line.
    if len(own) < 2:
        return
    # As the verdict says it: the last point of the line may be of a moment before.
    now = next((c for c in analysis.comparisons_of(analysis.primary) if c.variant == name), None)
    interval = "" if now is None else relative_interval(now.relative_low, now.relative_high)
    said = f", now {interval}" if interval else ""
    st.caption(f"Lift of **{words.plain(name)}** over time{said}")
    st.html(sparkline(own, pieces.marked(key), f"Chart: lift of {name} over time{said}."))


def search(experiments: Sequence[ListedExperiment]) -> list[ListedExperiment]:
    """Those that match what is typed and chosen; all where nothing is."""
    statuses = sorted({experiment.status for experiment in experiments})
    # Anywhere in the three, as nobody remembers how a title begins.
    needle, wanted = choose.search("search", "title, key or owner", "Status", statuses)
    matches = []
    for experiment in experiments:
        haystack = f"{experiment.key} {experiment.title} {experiment.owner}".lower()
        if needle in haystack and (not wanted or experiment.status in wanted):
            matches.append(experiment)
    return matches


def say_that_there_is_none() -> None:
    """No experiment runs: where past ones are, or what to do to have one."""
    library = data.ask(past.experiment_library)
    if not library.experiments:
        frame.chosen()  # says what to do
    where = Standing(
        word="Empty",
        tone="neutral",
        sentence=f"No experiment runs. {past.sentence(library)}",
        next="Look at past ones in the Library, or add a file to the experiments folder.",
    )
    frame.answer(where)


def body() -> None:
    experiments = data.experiments()
    frame.header("Experiments")
    frame.alarms_that_stand()
    frame.problems()
    if not experiments:
        say_that_there_is_none()
        return
    reports = {experiment.key: data.report(experiment.key) for experiment in experiments}
    titled = [(e.title or e.key, reports[e.key]) for e in experiments]
    where = answers.all_experiments(titled, data.age(), ramps.by_experiment())
    frame.answer(answers.while_still(where, data.age()))
    matches = search(experiments)
    if not matches:
        choose.say_nothing_matches()
    # In one container that a wide window makes two columns of: below each other on a phone they
    # stand in the same order.
    launches = ramps.by_experiment()
    standings = {
        e.key: answers.with_launch(reports[e.key], launches.get(e.key)) for e in experiments
    }
    matches.sort(key=lambda e: answers.urgency(standings[e.key], reports[e.key]))
    with st.container(key="cards"):
        for experiment in matches:
            card(experiment, reports[experiment.key], standings[experiment.key])


frame.show("Experiments", body)

"""The frame around a page: which experiment, what the page comes down to, what went wrong, and how
often to look again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from board import answers, data, ramps, words
from board.terms import STATES, TERMS
from board.words import plain
from topbill.domain.alarm import TITLES
from topbill.domain.errors import BadRequest, LogError, NotFound, TopbillError
from topbill.reporting import Report
from topbill.reporting.experiment.wording import Standing, Tone
from topbill.reporting.queries import database

Colour = Literal["green", "blue", "gray", "orange", "red"]
TONES: dict[Tone, tuple[Colour, str]] = {
    "good": ("green", ":material/check_circle:"),
    "promising": ("blue", ":material/trending_up:"),
    "neutral": ("gray", ":material/hourglass_top:"),
    "warning": ("orange", ":material/warning:"),
    "bad": ("red", ":material/cancel:"),
}
"""How a tone looks: a colour and a sign, never the colour alone."""
PROBLEMS = {
    "file": (
        "The last edit of {place} was refused; what was there before is in force.",
        ":material/edit_off:",
    ),
    "learning": ("{place} learns nothing for now.", ":material/sync_problem:"),
    "snapshot": ("What {place} learned last can't be read.", ":material/broken_image:"),
    "quarantine": ("Rows were set aside: {place}.", ":material/inventory_2:"),
    "metrics": ("The metrics of {place} can't be computed.", ":material/calculate:"),
    "page": ("The page of {place} is not all real or not all there.", ":material/theaters:"),
    "retention": ("What is older than is kept stays for now.", ":material/auto_delete:"),
    "alerts": ("Alarms of {place} do not get through.", ":material/notifications_off:"),
    "clock": ("The machine's clock was set by more than minutes.", ":material/schedule:"),
}
"""What each kind of problem is called, and its sign."""
_TITLED = "titled"
"""In the session: whether the page that is being drawn has its title."""
REFRESH = {"Off": None, "10 s": 10, "1 min": 60}
"""Seconds after which a page is drawn anew, by the sidebar's choice."""


def show(title: str, body: Callable[[], None], *, refresh: bool = True) -> None:
    """Draw a page: again from time to time as chosen in the sidebar, and what went wrong in words.
    Its `title` stands above what went wrong before the body had one of its own.
    """
    every = REFRESH[str(st.session_state.get("refresh", "10 s"))] if refresh else None

    # A fragment is drawn anew without the sidebar, so that nothing flickers and no choice is lost.
    @st.fragment(run_every=every)
    def page() -> None:
        st.session_state[_TITLED] = False
        try:
            body()
        except TopbillError as error:
            if not st.session_state[_TITLED]:
                headline(title)
            refusal(error)

    page()


def refusal(error: TopbillError) -> None:
    """What went wrong, and what to do."""
    if isinstance(error, NotFound):
        empty(error)
    elif isinstance(error, LogError):
        st.warning(
            "The record could not be read just now. It is tried again by itself.\n\n"
            + words.code(str(error)),
            icon="⏳",
        )
    elif isinstance(error, BadRequest):
        st.warning(plain(str(error)), icon=":material/edit:")
    else:
        st.error(plain(str(error)), icon=":material/error:")


_NO_RECORD = Standing(
    word="Empty",
    tone="neutral",
    sentence="The worker has published no record in this data folder yet.",
    next="topbill up starts service, worker and dashboard; topbill demo lets simulated viewers "
    "fill them within a minute.",
)
_NO_EXPERIMENT = Standing(
    word="Empty",
    tone="neutral",
    sentence="The record knows no experiment yet.",
    next="Put a file into the experiments folder; topbill examples copies some to begin with.",
)


def empty(error: NotFound) -> None:
    """Nothing there yet: what to do."""
    try:
        data.ask(database.published_at)
    except TopbillError:
        answer(_NO_RECORD)
        # Which file is not there.
        st.caption(plain(str(error)))
    else:
        answer(_NO_EXPERIMENT)


def no_decisions(key: str) -> None:
    """An experiment in which nothing was decided: what it waits for."""
    report = data.report(key)
    answer(answers.with_launch(report, ramps.by_experiment().get(key)))
    # A draft, or what is paused or over, answers the control's order whoever asks.
    if report.status == "running":
        request = f'{{"experiment": "{key}", "unit": "viewer-1"}}'
        st.caption(f"A request: POST /v1/decide with {words.code(request)}.")


def chosen() -> str:
    """The key of the experiment that the sidebar chooses.

    Raises:
        NotFound: the record knows no experiment.
    """
    keys = [experiment.key for experiment in data.experiments()]
    if not keys:
        raise NotFound(
            "the record knows no experiment; expected at least one file in the experiments folder"
        )
    key = str(st.session_state.get("experiment") or keys[0])
    # The session may remember one that was removed since.
    return key if key in keys else keys[0]


def headline(title: str) -> None:
    """The one title of the page, as markdown."""
    st.session_state[_TITLED] = True
    st.title(title, anchor=False)


def header(title: str, key: str | None = None, lead: str = "") -> None:
    """The page's title, and of which experiment."""
    if key is None:
        headline(title)
        return
    experiment = data.listed(key)
    headline(plain(experiment.title or key))
    parts = [title, words.code(key), experiment.surface, experiment.status, lead]
    moment = data.as_of(key) if experiment.decisions else None
    if moment is not None:
        parts.append(f"numbers as of {words.moment(moment)}")
    st.caption(" · ".join(part for part in parts if part))


def problems() -> None:
    """What is wrong with the experiment files, which experiments can't learn or be measured, and
    what was set aside.
    """
    for problem in data.ask(database.problems):
        place = words.code(problem.subject)
        if problem.path:
            place += f" at {words.code(problem.path)}"
        sentence, icon = PROBLEMS[problem.kind]
        st.warning(f"**{sentence.format(place=place)}** {plain(problem.message)}", icon=icon)


def alarms_that_stand(key: str | None = None) -> None:
    """What the worker found wrong and told whoever `alerts.yaml` names, as long as it stands: of
    one experiment and of the worker, or of all.
    """
    for alarm in data.ask(database.standing_alarms):
        if key is not None and alarm.experiment not in (key, None):
            continue
        place = words.code(alarm.experiment or "the worker")
        if alarm.subject:
            place += f", {plain(alarm.subject)}"
        since = words.minute(alarm.raised_at)
        st.error(
            f"**{TITLES[alarm.kind]}** in {place}, since {since}. {plain(alarm.message)}",
            icon=":material/notifications_active:",
        )


def answer(where: Standing, help_: str = TERMS["verdict"]) -> None:
    """What the page comes down to: a word in its colour and with its sign, a sentence, and what to
    do next.
    """
    with st.container(border=True, key="answer"):
        badge(where)
        st.markdown(f"## {plain(where.sentence)}", help=help_, anchors=False)
        st.markdown(f"**What next?** {plain(where.next)}")
        # On pages whose step is another one: what they show is as old.
        age = _age()
        if answers.is_still(age) and answers.OF_THEN not in f"{where.sentence} {where.next}":
            st.caption(plain(answers.stillness(age)))


def _age() -> float:
    """Seconds since the worker last published; 0 where it never did, as other words say."""
    try:
        return data.age()
    except NotFound:
        return 0.0


def answer_place() -> DeltaGenerator:
    """A container for an answer that is known only after what stands below it was drawn. Until then
    it keeps the answer's room, so that nothing jumps.
    """
    place = st.container(key="answer-place")
    place.empty()  # Streamlit draws no container that has nothing in it
    return place


def badge(where: Standing) -> None:
    """The word for where something stands, in its colour and with its sign.

    Raises:
        KeyError: the glossary has no such state, which is an error of ours.
    """
    colour, icon = TONES[where.tone]
    st.badge(where.word, icon=icon, color=colour, help=STATES[where.word])


def warn(report: Report) -> None:
    """What must be repaired before the experiment's numbers are believed, but for what the verdict
    has said.
    """
    for alarm in answers.unsaid_alarms(report):
        st.warning(plain(alarm.sentence), icon=":material/warning:")

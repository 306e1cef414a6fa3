"""The frame around every page: which experiment, refreshing, empty and error states, the answer
that it opens with.
"""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from board import data, words
from board.terms import TERMS
from board.words import plain
from topbill.domain.errors import BadRequest, LogError, NotFound, TopbillError
from topbill.reporting import Report
from topbill.reporting.experiment.wording import Standing, Tone, alarms
from topbill.reporting.queries import database

TONES: dict[Tone, tuple[str, str]] = {
    "good": ("green", ":material/check_circle:"),
    "promising": ("blue", ":material/trending_up:"),
    "neutral": ("gray", ":material/hourglass_top:"),
    "warning": ("orange", ":material/warning:"),
    "bad": ("red", ":material/cancel:"),
}
"""How a tone looks: a colour and a sign, never the colour alone."""
REFRESH = {"Off": None, "10 s": 10, "1 min": 60}


def show(body: Callable[[], None], *, refresh: bool = True) -> None:
    """Draw a page: again from time to time as chosen in the sidebar, and what went wrong in
    words.
    """
    every = REFRESH[str(st.session_state.get("refresh", "10 s"))] if refresh else None

    @st.fragment(run_every=every)
    def drawn() -> None:
        try:
            body()
        except NotFound as error:
            empty(error)
        except LogError as error:
            st.warning(
                f"The record could not be read just now. It is tried again by itself.\n\n`{error}`",
                icon="⏳",
            )
        except BadRequest as error:
            st.warning(str(error), icon=":material/edit:")
        except TopbillError as error:
            st.error(str(error), icon=":material/error:")

    drawn()


def empty(error: Exception) -> None:
    """Nothing there yet: what to do."""
    with st.container(border=True):
        st.subheader("Nothing to see yet")
        st.write(
            "The dashboard reads the record that the worker publishes, and there is none in this data folder yet. "
            "Start the service and the worker, or let simulated viewers fill it:"
        )
        st.code(
            "topbill demo        # a minute of simulated viewers\ntopbill up          # service, worker and dashboard"
        )
        st.caption(str(error))


def no_decisions(key: str) -> None:
    """An experiment that was never asked."""
    with st.container(border=True):
        st.subheader("No decisions yet")
        st.write(
            f"`{key}` is in the record, but no decision has been made in it. Ask the service for one:"
        )
        st.code(
            f'curl -X POST http://127.0.0.1:8600/v1/decide -d \'{{"experiment": "{key}", "unit": "viewer-1"}}\''
        )


def chosen() -> str:
    """The experiment chosen in the sidebar. Raises NotFound where the record knows none."""
    keys = [line.key for line in data.experiments()]
    if not keys:
        raise NotFound(
            "the record knows no experiment; expected at least one file in the experiments folder"
        )
    key = str(st.session_state.get("experiment") or keys[0])
    return key if key in keys else keys[0]


def header(title: str, key: str | None = None, lead: str = "") -> None:
    """The page's title, and of which experiment."""
    if key is None:
        st.title(title, anchor=False)
    else:
        line = data.listed(key)
        st.title(line.title or key, anchor=False)
        moment = data.as_of(key) if line.decisions else None
        parts = [
            title,
            f"`{key}`",
            line.surface,
            line.status,
            lead,
            f"numbers as of {words.moment(moment)}" if moment else "",
        ]
        st.caption(" · ".join(part for part in parts if part))


def problems() -> None:
    """What is wrong with the experiment files, and which experiments can't learn or be measured."""
    for problem in data.ask(database.problems):
        place = f"`{problem.subject}`" + (f" at `{problem.path}`" if problem.path else "")
        sentence, icon = _PROBLEMS[problem.kind]
        headline = sentence.format(place=place)
        st.warning(f"**{headline}** {plain(problem.message)}", icon=f":material/{icon}:")


_PROBLEMS = {
    "file": (
        "The last edit of {place} was refused; what was there before is in force.",
        "edit_off",
    ),
    "learning": ("{place} learns nothing for now.", "sync_problem"),
    "metrics": ("The metrics of {place} can't be computed.", "calculate"),
}


def answer(found: Standing, help_: str = TERMS["verdict"]) -> None:
    """What the page comes down to: a word in its colour and with its sign, a sentence, and what to
    do next.
    """
    with st.container(border=True, key="answer"):
        badge(found)
        st.markdown(f"##### {plain(found.sentence)}", help=help_)
        st.markdown(f"**What next?** {plain(found.next)}")


def badge(found: Standing) -> None:
    """The word for where something stands, in its colour and with its sign."""
    colour, icon = TONES[found.tone]
    st.badge(found.word, icon=icon, color=colour)  # type: ignore[arg-type]


def warn(found: Report) -> None:
    """What must be repaired before the experiment's numbers are believed."""
    for alarm in alarms(found):
        st.warning(plain(alarm.sentence), icon=":material/warning:")

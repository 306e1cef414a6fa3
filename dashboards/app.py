"""Topbill's dashboards: what Streamlit runs for each viewer, and again with each choice, served by
`server.py`.
"""

from __future__ import annotations

import streamlit as st

from board import data, frame, gate, words
from board.pages import PAGES
from topbill.domain.errors import TopbillError
from topbill.reporting.queries import database

st.set_page_config(
    page_title="Topbill", page_icon="🎬", layout="wide", initial_sidebar_state="auto"
)
gate.pass_or_stop()


def navigation() -> list[st.Page]:
    """The app's pages, in the order of `board.pages`."""
    pages = []
    for entry in PAGES:
        page = st.Page(
            entry.view,
            title=entry.title,
            icon=f":material/{entry.icon}:",
            url_path=entry.path,
            default=entry is PAGES[0],
        )
        pages.append(page)
    return pages


def sidebar() -> list[str]:
    """Which experiment, and how often to look again; the experiments' keys."""
    with st.sidebar:
        keys = experiment_keys()
        if keys:
            choose_experiment(keys)
        st.segmented_control(
            "Refresh",
            list(frame.REFRESH),
            default="10 s",
            required=True,
            key="refresh",
            bind="query-params",
            help="How often the page looks for a newer state of the record.",
        )
        try:
            st.caption(f"Record as of {words.moment(data.ask(database.published_at))}")
        except TopbillError:
            st.caption("No record yet")
        gate.way_out()
    return keys


def experiment_keys() -> list[str]:
    """The keys of the experiments in the record; none where it cannot be read, which the page then
    says itself.
    """
    try:
        return [experiment.key for experiment in data.experiments()]
    except TopbillError:
        return []


def choose_experiment(keys: list[str]) -> None:
    """The choice that every page but Home follows."""
    # A link within the app changes the address but not what the session holds: the address is
    # right.
    wanted = st.query_params.get("experiment")
    if wanted in keys and st.session_state.get("experiment", wanted) != wanted:
        st.session_state["experiment"] = wanted
    st.selectbox(
        "Experiment",
        keys,
        key="experiment",
        bind="query-params",
        help="Every page but Home speaks of this experiment. The address holds your choice: "
        "share it.",
    )


# In one list: of sections Streamlit makes lists that screen readers cannot read.
page = st.navigation(navigation(), expanded=True)
experiments = sidebar()
page.run()
# Behind the first page that anybody looks at, so that Preview opens quickly later.
if experiments:
    data.get_ready(str(data.folder()), experiments[0])

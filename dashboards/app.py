"""Topbill's dashboards: run by `topbill dashboard`, or `streamlit run dashboards/app.py` with
TOPBILL_DATA set.
"""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from board import data, frame, gate, words
from topbill.domain.errors import TopbillError
from topbill.reporting.queries import database

st.set_page_config(
    page_title="Topbill", page_icon="🎬", layout="wide", initial_sidebar_state="auto"
)
gate.pass_or_stop()
st.html(Path(__file__).parent / "board" / "page.css")

PAGES = {
    "": [
        st.Page("views/home.py", title="Home", icon=":material/home:", default=True),
        st.Page(
            "views/experiment.py",
            title="Experiment",
            icon=":material/science:",
            url_path="experiment",
        ),
        st.Page("views/bandit.py", title="Bandit", icon=":material/casino:", url_path="bandit"),
        st.Page(
            "views/artwork.py",
            title="Artwork and rows",
            icon=":material/imagesmode:",
            url_path="artwork",
        ),
        st.Page("views/page.py", title="Whole page", icon=":material/web:", url_path="page"),
    ],
    "Ask": [
        st.Page(
            "views/what_if.py",
            title="What if",
            icon=":material/psychology_alt:",
            url_path="what-if",
        ),
        st.Page("views/preview.py", title="Preview", icon=":material/live_tv:", url_path="preview"),
        st.Page(
            "views/decisions.py",
            title="Decisions",
            icon=":material/manage_search:",
            url_path="decisions",
        ),
        st.Page(
            "views/health.py", title="Health", icon=":material/monitor_heart:", url_path="health"
        ),
    ],
}


def sidebar() -> list[str]:
    """Which experiment, and how often to look again; the experiments' keys."""
    with st.sidebar:
        try:
            lines = data.experiments()
        except TopbillError:
            lines = []
        keys = [line.key for line in lines]
        if keys:
            # A link within the app changes the address but not what the session holds: the address
            # is right.
            wanted = st.query_params.get("experiment")
            if wanted in keys and st.session_state.get("experiment", wanted) != wanted:
                st.session_state["experiment"] = wanted
            st.selectbox(
                "Experiment",
                keys,
                key="experiment",
                bind="query-params",
                help="Every page but Home speaks of this experiment. The address holds your choice: share it.",
            )
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


page = st.navigation(PAGES)
known = sidebar()
page.run()
if known:
    data.get_ready(str(data.folder()), known[0])

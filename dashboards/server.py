"""The dashboards' server, run by `topbill dashboard`, or `streamlit run dashboards/server.py` with
TOPBILL_DATA set: Streamlit's own, whose first answer already has the pages' style.
"""

from __future__ import annotations

from pathlib import Path

import streamlit as st
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Route

from board.pages import PAGES

STYLE = Path(__file__).parent / "board" / "page.css"
STREAMLIT = Path(st.__file__).parent / "static" / "index.html"


def first_answer() -> str:
    """Streamlit's page with ours in it. A script would bring the style only after something was
    drawn without it, which would then jump.
    """
    # Behind Streamlit's styles, of which ours are to win.
    style = f"<style>{STYLE.read_text()}</style>"
    return STREAMLIT.read_text().replace("</body>", f"{style}</body>")


def page(_: Request) -> HTMLResponse:
    """Each page's address has the same answer; scripts draw what differs."""
    return HTMLResponse(ANSWER, headers={"cache-control": "no-cache"})


ANSWER = first_answer()
app = st.App(
    Path(__file__).parent / "app.py",
    routes=[Route(f"/{entry.path}", page) for entry in PAGES],
)

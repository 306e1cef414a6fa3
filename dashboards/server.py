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
STATIC = Path(st.__file__).parent / "static"
ELEMENTS = (
    "Html",
    "ButtonGroup",
    "Selectbox",
    "Metric",
    "DownloadButton",
    "PageLink",
    "TextInput",
    "Slider",
    "Checkbox",
    "DateInput",
    "ArrowVegaLiteChart",
    "embed",
)
"""Streamlit's modules of what the pages are made of: it would load one once it meets the first."""


def first_answer() -> str:
    """Streamlit's page with ours in it: the style, which a script would bring only after something
    was drawn without it, and the modules, without which it draws something of another height first.
    """
    imports = []
    for name in ELEMENTS:
        # Their names have a digest. One that a version does not have is loaded when it is met.
        for file in (STATIC / "static" / "js").glob(f"{name}.*.js"):
            imports.append(f"import('./static/js/{file.name}');")
    # Behind Streamlit's styles, of which ours are to win.
    ours = (
        f"<style>:root {{ --tb-pages: {len(PAGES)}; }}\n{STYLE.read_text()}</style>"
        f'<script type="module">{"".join(imports)}</script>'
    )
    return (STATIC / "index.html").read_text().replace("</body>", f"{ours}</body>")


def page(_: Request) -> HTMLResponse:
    """Each page's address has the same answer; scripts draw what differs."""
    return HTMLResponse(ANSWER, headers={"cache-control": "no-cache"})


ANSWER = first_answer()
BASE = st.get_option("server.baseUrlPath").strip("/")
"""Below which path a proxy shows them."""
app = st.App(
    Path(__file__).parent / "app.py",
    routes=[Route(f"/{BASE}/{entry.path}".replace("//", "/"), page) for entry in PAGES],
)

"""The dashboards' server, run by `topbill dashboard`, or `streamlit run dashboards/server.py` with
TOPBILL_DATA set: Streamlit's own, whose first answer already has the pages' style.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from threading import Thread

import streamlit as st
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Route

from board.pages import PAGES

STYLE = Path(__file__).parent / "board" / "page.css"
STATIC = Path(st.__file__).parent / "static"
JS = STATIC / "static" / "js"
IMPORT = re.compile(r"""(?:\bfrom|\bimport)["'`]\./([\w.-]+\.js)["'`]""")
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
    "vega-interpreter",
)
"""Streamlit's modules of what the pages are made of: it would load one once it meets the first."""


def first_answer() -> str:
    """Streamlit's page with ours in it: the style, which a script would bring only after something
    was drawn without it, the modules, without which it draws something of another height first, and
    where the server is.
    """
    page = (STATIC / "index.html").read_text()
    elements = element_modules()
    # Behind Streamlit's styles, of which ours are to win.
    imports = "".join(f"import('./static/js/{name}');" for name in elements)
    ours = (
        f"<style>:root {{ --tb-pages: {len(PAGES)}; }}\n{STYLE.read_text()}</style>"
        f"<script>{connection()}</script>"
        f'<script type="module">{imports}</script>'
    )
    # A module tells what it imports itself only once it is there: told now, all come at once.
    ahead = [
        f'<link rel="modulepreload" crossorigin href="./static/js/{name}">'
        for name in with_imports(elements)
        if name not in page
    ]
    page = page.replace("</head>", f"{''.join(ahead)}</head>")
    return page.replace("</body>", f"{ours}</body>")


def element_modules() -> list[str]:
    """The files of `ELEMENTS`."""
    # Their names have a digest. One that a version does not have is loaded when it is met.
    return [file.name for element in ELEMENTS for file in JS.glob(f"{element}.*.js")]


def with_imports(names: list[str]) -> list[str]:
    """These modules and all that they import."""
    found = list(names)
    for name in found:  # which grows meanwhile
        for imported in IMPORT.findall((JS / name).read_text()):
            if imported not in found and (JS / imported).exists():
                found.append(imported)
    return found


def connection() -> str:
    """The script that tells Streamlit's client where its server is. By itself it asks below the
    page's own address first, waits a tenth of a second after it was refused there, asks at the
    root, and connects only then.
    """
    origins = json.dumps(list(st.get_option("client.allowedOrigins")))
    # Its session is a signed-in one by the cookie alone, which the first question brings.
    return (
        "window.__streamlit = {BACKEND_BASE_URL: new URL('.', location.href).href};"
        "if (document.cookie.includes('_streamlit_xsrf=')) window.__streamlit.HOST_CONFIG = "
        f"{{allowedOrigins: {origins}, useExternalAuthToken: false}};"
    )


def page(_: Request) -> HTMLResponse:
    """Each page's address has the same answer; scripts draw what differs."""
    return HTMLResponse(ANSWER, headers={"cache-control": "no-cache"})


def prepare() -> None:
    """Work out what the first page needs."""
    from board import ready  # whose imports the server's start is not to wait for

    ready.prepare()


@asynccontextmanager
async def while_served(_: st.App) -> AsyncIterator[None]:
    """What is done beside the serving."""
    # A daemon: it must not keep the server from ending.
    Thread(target=prepare, daemon=True).start()
    yield


ANSWER = first_answer()
BASE = st.get_option("server.baseUrlPath").strip("/")
"""Below which path a proxy shows them."""
app = st.App(
    Path(__file__).parent / "app.py",
    routes=[Route(f"/{BASE}/{entry.path}".replace("//", "/"), page) for entry in PAGES],
    lifespan=while_served,
)

"""The app as its users meet it: served by Streamlit on a port of its own, and looked at by a real
Chromium.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import dashboards

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
RAN = '[data-testid="stApp"][data-test-script-state="notRunning"]'


@contextmanager
def served(data: Path, port: int = 0) -> Iterator[str]:
    """The address of the app, served from a data folder."""
    with dashboards.served(data, port) as server:
        yield server.url


@contextmanager
def opened(
    browser: Any,
    url: str,
    words: str,
    *,
    width: int = 1440,
    scheme: str = "light",
    problems: list[str] | None = None,
) -> Iterator[Any]:
    """A page of the app once `words` stand there and its script has run. `problems` gets the
    console's.
    """
    page = browser.new_page()
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 2400})
    if problems is not None:

        def heard(said: Any) -> None:
            if said.type == "error":
                problems.append(said.text)

        page.on("console", heard)
        page.on("pageerror", lambda error: problems.append(str(error)))
    try:
        page.goto(url)
        page.get_by_text(words).filter(visible=True).first.wait_for(timeout=60_000)
        page.wait_for_selector(RAN, timeout=60_000)
        yield page
    finally:
        page.close()

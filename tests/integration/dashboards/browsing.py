"""The app as its users meet it: served by Streamlit on a port of its own, and looked at by a real
Chromium.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from filled import EXPERIMENTS

from topbill.cli import dashboard

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
RAN = '[data-testid="stApp"][data-test-script-state="notRunning"]'


def free_port() -> int:
    """A port on loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def served(data: Path, port: int | None = None) -> Iterator[str]:
    """The address of the app, served from a data folder."""
    port = port or free_port()
    arguments, environment = dashboard.launch(EXPERIMENTS, data, port=port)
    process = subprocess.Popen(
        [sys.executable, *arguments], env=environment, stdout=subprocess.DEVNULL
    )
    try:
        url = f"http://127.0.0.1:{port}"
        for _ in range(600):
            try:
                with urlopen(f"{url}/_stcore/health", timeout=1):  # noqa: S310  (an address of ours)
                    break
            except OSError:
                time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait(20)


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
        page.on("console", _heard(url, problems))
        page.on("pageerror", lambda error: problems.append(str(error)))
    try:
        page.goto(url)
        page.get_by_text(words).filter(visible=True).first.wait_for(timeout=60_000)
        page.wait_for_selector(RAN, timeout=60_000)
        yield page
    finally:
        page.close()


def _heard(url: str, problems: list[str]) -> Callable[[Any], None]:
    # Below a page's own path Streamlit's client looks for its server there first, in vain, and then
    # at the root.
    in_vain = f"{url.partition('?')[0]}/_stcore/"

    def heard(said: Any) -> None:
        if said.type == "error" and not said.location["url"].startswith(in_vain):
            problems.append(said.text)

    return heard

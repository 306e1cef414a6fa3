"""The whole life of an experiment over real HTTP, in simulated time; what people type and read on
the way is what `docs/launch.md` shows. With TOPBILL_TRANSCRIPT=FILE all of it is written there, for
the page to be written anew.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from topbill.cli import app
from topbill.domain.chance import uniform
from topbill.log import LOG_FILE, open_log
from topbill.service.app import create_app
from topbill.service.settings import Settings
from topbill.worker import launching, publishing
from topbill.worker.loop import Worker

pytestmark = pytest.mark.end_to_end

PAGE = Path(__file__).parents[3] / "docs" / "launch.md"
BEGIN = datetime(2026, 12, 1, 9, 0, tzinfo=UTC)
KEY = "home-artwork"
BETWEEN = 40.0
"""Seconds from one viewer to the next."""
PLAYS = {"close-up": 0.2, "chase": 0.5, "skyline": 0.5}
ABANDONS = {"close-up": 0.05, "chase": 0.6, "skyline": 0.05}
"""What nobody knows: how viewers take each picture."""
CHANCE = """
experiment: artwork-by-chance
title: Pictures by chance
surface: artwork
unit: profile_id
actions: [{id: close-up}, {id: chase}, {id: skyline}]
metrics: {play: {event: play, kind: binary, window: 10m}}
objective: {play: 1.0}
variants: {chance: {policy: uniform, share: 100%, control: true}}
"""


class Site:
    """Files, data, a service, a worker and viewers; the clock moves only when it is moved."""

    def __init__(self, root: Path) -> None:
        self.folder, self.data = root / "experiments", root / "data"
        self.folder.mkdir()
        self.now = BEGIN.timestamp()
        self.said: list[str] = []
        self.visits = 0
        self.variants: dict[str, str] = {}
        self.is_compared = True

    @contextmanager
    def running(self) -> Iterator[None]:
        """A service that listens, and a worker."""
        server = uvicorn.Server(
            uvicorn.Config(
                create_app(Settings(self.folder, self.data)),  # type: ignore[arg-type]
                log_level="warning",
            )
        )
        with socket.create_server(("127.0.0.1", 0)) as listening:
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
            thread.start()
            try:
                until(lambda: server.started)
                address = f"http://127.0.0.1:{listening.getsockname()[1]}"
                self.worker = Worker(self.folder, self.data)
                with httpx.Client(base_url=address, timeout=30.0) as self.client:
                    yield
                self.worker.finish()
            finally:
                server.should_exit = True
                thread.join()

    def write(self, name: str, text: str) -> None:
        """Save a file; the service takes it over."""
        # As editors do, so that nobody reads half of it.
        (self.data.parent / name).write_text(text.lstrip())
        (self.data.parent / name).replace(self.folder / name)
        time.sleep(0.4)
        until(lambda: self.http("GET", "/v1/experiments")["problems"] == [])

    def run(self, command: str) -> str:
        """What a command prints; noted for the page."""
        output = StringIO()
        with redirect_stdout(output), suppress(SystemExit):
            app(shlex.split(command)[1:])
        self.said.append(f"$ {command}\n{output.getvalue()}")
        if transcript := os.environ.get("TOPBILL_TRANSCRIPT"):
            Path(transcript).write_text("\n".join(self.said))
        return output.getvalue()

    def http(self, method: str, path: str, **body: Any) -> Any:
        """One call."""
        response = self.client.request(method, path, json=body or None)
        assert response.status_code < 300, response.text
        return response.json()

    def come(self, key: str, units: range) -> set[str | None]:
        """Viewers come, see a picture, play or abandon; which variants they had."""
        seen = set()
        for number in units:
            self.visits += 1
            self.now += BETWEEN
            about = {"experiment": key, "unit": f"viewer-{number}"}
            decision = self.http("POST", "/v1/decide", **about, decision_id=f"d{self.visits}")
            shown = decision["slate"][0]["action"]
            for event, chances in (("play", PLAYS), ("abandon", ABANDONS)):
                if uniform(event, str(number), shown) < chances[shown]:
                    what = {"decision_id": f"d{self.visits}", "event": event}
                    self.http("POST", "/v1/reward", **what, event_id=f"{event}{self.visits}")
            variant = decision["variant"]
            seen.add(variant)
            # Whoever had a variant has it whenever they have one, the mended one by its new name.
            if key == KEY and variant is not None and self.is_compared:
                variant = variant.replace("calm", "bold")
                assert self.variants.setdefault(about["unit"], variant) == variant
        return seen

    def work(self, hours: float = 0.0) -> None:
        """Time passes; then the worker does all that is due, and the service takes it over."""
        self.now += 3600.0 * hours
        while self.step():
            until(self.is_obeyed)

    def step(self) -> bool:
        """Whether the worker gave a step of a launch."""
        before = self.orders()
        self.worker.step()
        self.worker.launching._asking.submit(lambda: None).result()
        self.worker.step()
        return self.orders() > before

    def orders(self) -> int:
        with open_log(self.data / LOG_FILE) as log:
            return len(log.orders())

    def is_obeyed(self) -> bool:
        with open_log(self.data / LOG_FILE) as log:
            made = [order.made for order in log.orders() if order.experiment == KEY]
        running = self.http("GET", "/v1/experiments")["experiments"]
        return made[-1:] == [one["revision"] for one in running if one["key"] == KEY]


def until(happened: Callable[[], bool]) -> None:
    """Wait, on whatever machine."""
    for _ in range(3_000):
        if happened():
            return
        time.sleep(0.02)
    raise AssertionError("it did not happen")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    site = Site(tmp_path)
    monkeypatch.setattr(time, "time", lambda: site.now)
    monkeypatch.setattr(time, "time_ns", lambda: round(site.now * 1e9))
    monkeypatch.setattr("topbill.log.sqlite.now_steady", lambda: round(site.now * 1e6))
    monkeypatch.setattr("getpass.getuser", lambda: "ann")
    monkeypatch.setattr(publishing, "PUBLISH_EVERY", 0.0)
    monkeypatch.setattr(publishing, "BEAT_EVERY", 0.0)
    monkeypatch.setattr(launching, "LOOK_EVERY", 0.0)
    monkeypatch.chdir(tmp_path)
    return site


ART = """
experiment: home-artwork
title: A bolder picture
owner: discovery
hypothesis: A bolder picture wins more plays than the editors' close-up.
surface: artwork
unit: profile_id
status: draft
actions: [{id: close-up}, {id: chase}, {id: skyline}]
metrics:
  play: {event: play, kind: binary, window: 10m}
  abandon: {event: abandon, kind: binary, window: 10m, better: lower}
objective: {play: 1.0}
guardrails: [{metric: abandon, margin: 5pp}]
variants:
  editorial: {policy: fixed, order: [close-up, chase, skyline], share: 50%, control: true}
  bold: {policy: fixed, order: [chase, close-up, skyline], share: 50%}
launch:
  gate: {log: artwork-by-chance, variant: bold, margin: 5%, estimator: snips}
  shadow: 24h
  ramp: [25%, 50%, 100%]
  hold: {at_least: 24h, units: 20}
  approve_at: 100%
"""


def planned(site: Site, text: str) -> str:
    """What a change would do, asked in a checkout of the files before it is saved."""
    checkout = site.folder.with_name("checkout")
    shutil.copytree(site.folder, checkout, dirs_exist_ok=True)
    (checkout / "home-artwork.yaml").write_text(text.lstrip())
    return site.run("topbill plan checkout --check")


def shown_on_page() -> list[str]:
    return re.findall(r"```console\n(.*?)```", PAGE.read_text(), re.DOTALL)


BOLD = (
    "bold: {policy: fixed, order: [chase, close-up, skyline]",
    "calm: {policy: fixed, order: [skyline, close-up, chase]",
)
"""What the variant is, and what it becomes."""


def test_the_whole_life_of_an_experiment_is_as_the_page_shows_it(site: Site) -> None:
    (site.folder / "artwork-by-chance.yaml").write_text(CHANCE.lstrip())
    with site.running():
        site.come("artwork-by-chance", range(900))
        site.work(1.0)

        # Draft, and the plan of what its launch would be.
        site.write("home-artwork.yaml", ART)
        assert site.come(KEY, range(10)) == {None}
        site.work()
        running = ART.replace("status: draft\n", "")
        assert "Nothing would harm" in planned(site, running)

        # The log is asked first; then nobody sees anything for a day.
        site.write("home-artwork.yaml", running)
        site.work()
        assert "unseen" in site.run("topbill status")
        assert site.come(KEY, range(30)) == {None}
        decision = site.http("GET", f"/v1/decisions/d{site.visits}")
        assert [shadow["variant"] for shadow in decision["shadows"]] == ["bold"]

        # A quarter sees it, and is harmed: everybody gets the control's order again.
        site.work(24.0)
        assert site.come(KEY, range(400)) == {None, "editorial", "bold"}
        site.work(1.0)
        assert "rolled back" in site.run("topbill status")
        assert site.come(KEY, range(30)) == {None}

        # The picture is mended: the launch begins anew, and gets to its end.
        mended = running.replace(*BOLD).replace("variant: bold", "variant: calm")
        planned(site, mended)
        site.write("home-artwork.yaml", mended)
        site.work()
        site.work(24.0)
        for _ in range(2):
            site.come(KEY, range(400))
            site.work(24.0)
        assert "somebody approves" in site.run("topbill status")
        site.run("topbill approve home-artwork --because 'The editors agree'")
        site.work(1.0)
        assert None not in site.come(KEY, range(400))
        site.work(24.0)
        assert "100% of traffic" in site.run("topbill status")

        # It ends with a winner, and its file goes.
        site.run("topbill conclude home-artwork --winner calm --because 'More plays, no harm'")
        until(site.is_obeyed)
        site.work()
        site.is_compared = False
        assert site.come(KEY, range(30)) == {"calm"}
        (site.folder / "home-artwork.yaml").unlink()
        site.work()
        site.run("topbill list")
    for block in shown_on_page():
        assert block in "\n".join(site.said), block

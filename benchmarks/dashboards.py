"""What the dashboards' pages cost as people open them: served by Streamlit, and drawn by a real
Chromium.

    python -m benchmarks.dashboards [--data FOLDER] [--pages home,bandit] [--widths 1440,390]
    [--rounds 3]

Each page is opened once on a server that has done what it does as it starts ("first"), and then
again in new tabs, as somebody does who comes back ("warm": what the server asked the record is
kept; medians of the rounds). Told are

- seconds of CPU: the server's, those of the browser's process that draws the tab, and of its main
  thread alone. With a core for each, a warm page stands there after no more than the server's and
  the main thread's together: the rest of the process compiles and draws beside it;
- seconds by the clock, from the address to the last change of what the window shows, and of what
  lies below its edge too;
- how often a load ran the script, which should be once, and in how many messages it came;
- the most cumulative layout shift (CLS, https://web.dev/articles/cls): how much of what stood there
  already moved meanwhile, of which up to 0.1 is good;
- the load average of the machine at the end.

Without --data three of the example experiments have simulated viewers.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import urlopen

from streamlit.proto.ForwardMsg_pb2 import ForwardMsg

from topbill import spec
from topbill.cli import dashboard
from topbill.cli.supervise import free_port
from topbill.log import now_micros
from topbill.simulation import recording

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
PAGES = (
    "home",
    "verdict",
    "experiment",
    "bandit",
    "artwork",
    "page",
    "library",
    "what_if",
    "preview",
    "decisions",
    "health",
    "glossary",
)
VISITS = 3_000
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
WATCH = """() => {
    const seen = window.topbillLoad = {shift: 0, changed: 0, changes: [], moves: []};
    // The largest sum of shifts that follow each other within a second and five seconds in all.
    let begun = -Infinity, last = -Infinity, sum = 0;
    new PerformanceObserver(list => {
        for (const entry of list.getEntries()) {
            if (entry.hadRecentInput) continue;
            if (entry.startTime - last > 1000 || entry.startTime - begun > 5000) {
                begun = entry.startTime;
                sum = 0;
            }
            last = entry.startTime;
            sum += entry.value;
            seen.shift = Math.max(seen.shift, sum);
            const of = entry.sources.map(source => {
                const node = source.node?.nodeType === 1 ? source.node : source.node?.parentElement;
                const [from, to] = [source.previousRect, source.currentRect].map(
                    rect => `${rect.x},${rect.y} ${rect.width}x${rect.height}`);
                const words = (node?.innerText ?? '').slice(0, 30).replaceAll('\\n', ' ');
                return `${node?.dataset?.testid ?? node?.className} "${words}" ${from} → ${to}`;
            });
            seen.moves.push({at: entry.startTime, value: entry.value, of});
        }
    }).observe({type: 'layout-shift', buffered: true});
    new MutationObserver(records => {
        seen.changed = performance.now();
        for (const record of records) {
            const nodes = record.addedNodes.length ? record.addedNodes : [record.target];
            seen.changes.push(...[...nodes].map(node => [seen.changed, node]));
        }
    }).observe(document, {subtree: true, childList: true, characterData: true});
}"""
"""What a page is told to watch before anything of it is drawn."""
DRAWN = """() => document.querySelector('[data-testid=stApp][data-test-script-state=notRunning]')
    && [...document.querySelectorAll('[data-testid=stVegaLiteChart]')]
        .every(chart => chart.querySelector('canvas, svg'))
    && document.querySelector('.st-key-answer, [data-testid=stMain] h1')
    && performance.now() - window.topbillLoad.changed > 700"""
"""Whether the script has run, each chart stands there, and nothing changes any more."""


SHOWN = """() => Math.max(0, ...topbillLoad.changes.filter(([_, node]) => {
    const element = node.nodeType === 1 ? node : node.parentElement;
    const box = element?.isConnected && element.getBoundingClientRect();
    return box && box.width && box.height && box.top < innerHeight && box.bottom > 0
        && box.left < innerWidth && box.right > 0;
}).map(([at]) => at))"""
"""When something last changed that the window shows, milliseconds after the address."""


class Load(NamedTuple):
    """What opening a page took.

    Attributes:
        cpu: seconds of CPU of the server.
        drawing: seconds of CPU of the browser's process that draws the tab, all threads together.
        main: those of its main thread, which nothing is drawn without.
        runs: how often the script ran.
        messages: what the server sent.
        seen: seconds from the address to the last change of what the window shows.
        last: the same of all that is drawn.
        shift: the cumulative layout shift.
        moves: what moved, with when and from where to where.
    """

    cpu: float
    drawing: float
    main: float
    runs: int
    messages: int
    seen: float
    last: float
    shift: float
    moves: list[dict[str, Any]]


class Server(NamedTuple):
    """The dashboards' address and process."""

    url: str
    pid: int

    def cpu(self) -> float:
        """Seconds of CPU since the start, of all threads."""
        # The clock of another process, as clock_getcpuclockid(3) makes it.
        return time.clock_gettime((~self.pid << 3) | 2)


@contextmanager
def served(data: Path, port: int = 0) -> Iterator[Server]:
    """The dashboards on a data folder, just started, at a free port unless one is given."""
    port = port or free_port("127.0.0.1", 0)
    arguments, environment = dashboard.launch(EXPERIMENTS, data, port=port)
    process = subprocess.Popen(
        [sys.executable, *arguments], env=environment, stdout=subprocess.DEVNULL
    )
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            try:
                with urlopen(f"{url}/_stcore/health", timeout=1):  # noqa: S310  (an address of ours)
                    break
            except OSError:
                time.sleep(0.05)
        yield Server(url, process.pid)
    finally:
        process.terminate()
        process.wait(20)


def rested(server: Server) -> None:
    """Wait until the server has done what it does as it starts; a minute at the most."""
    for _ in range(60):
        before = server.cpu()
        time.sleep(1.0)
        if server.cpu() - before < 0.02:
            return


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser with a new profile, whose tabs share what was fetched before."""
    from playwright.sync_api import sync_playwright  # of the development's dependencies

    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        raise SystemExit("no chromium on this machine; apt-get install chromium")
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=path, args=FLAGS)
        yield browser.new_context()
        browser.close()


def opened(browser: Any, server: Server, page: str, width: int, query: str = "") -> Load:
    """Open a page in a tab of its own, and wait until all of it is drawn."""
    tab = browser.new_page()
    tab.set_viewport_size({"width": width, "height": 900})
    tab.add_init_script(f"({WATCH})()")
    meter = browser.new_cdp_session(tab)
    meter.send("Performance.enable")
    kinds = _messages(tab)
    path = "" if page == "home" else page.replace("_", "-")
    before = server.cpu()
    tab.goto(f"{server.url}/{path}?refresh=Off{query}", wait_until="commit")
    tab.wait_for_function(DRAWN, timeout=300_000, polling=100)
    cpu = server.cpu() - before
    told = meter.send("Performance.getMetrics")["metrics"]
    metrics = {metric["name"]: metric["value"] for metric in told}
    shown = tab.evaluate(SHOWN)
    seen = tab.evaluate("(({changed, shift, moves}) => ({changed, shift, moves}))(topbillLoad)")
    tab.close()
    return Load(
        cpu=cpu,
        drawing=metrics["ProcessTime"],
        main=metrics["ThreadTime"],
        runs=kinds.count("new_session"),
        messages=len(kinds),
        seen=shown / 1000,
        last=seen["changed"] / 1000,
        shift=seen["shift"],
        moves=seen["moves"],
    )


def _messages(tab: Any) -> list[str]:
    """The kinds of the messages that Streamlit's server sends to a tab, as they come: each run of
    the script begins with `new_session`.
    """
    kinds = list[str]()

    def received(frame: str | bytes) -> None:
        if isinstance(frame, bytes):
            message = ForwardMsg()
            message.ParseFromString(frame)
            kinds.append(str(message.WhichOneof("type")))

    tab.on("websocket", lambda socket: socket.on("framereceived", received))
    return kinds


def filled(folder: Path) -> None:
    """Three of the example experiments with simulated viewers, up to now: an old record would say
    so on each page.
    """
    recording.START = now_micros() - VISITS * recording.STEP - 61_000_000
    keys = ("home-artwork", "home-rows", "home-titles")
    experiments = [e for e in spec.load_all([EXPERIMENTS]) if e.key in keys]
    recording.record_visits(folder, experiments, VISITS)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path)
    parser.add_argument("--pages", default=",".join(PAGES))
    parser.add_argument("--widths", default="1440,390")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--moves", action="store_true", help="also what moved, and where")
    parser.add_argument("--query", default="", help="more of the address, such as &by=hour")
    given = parser.parse_args()
    versions = ", ".join(
        f"{name} {version(name)}" for name in ("streamlit", "altair", "playwright")
    )
    print(f"{platform.platform()}, {os.cpu_count()} cores, {versions}")
    heads = ("server s", "tab s", "main s", "window s", "all s")
    print(f"{'':12} {'':>5}   " + "  ".join(f"{head:>11}" for head in heads))
    print(f"{'':12} {'width':>5}   {'  '.join(5 * ['first  warm'])}   runs  messages    CLS   load")
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.data or Path(scratch)
        if given.data is None:
            filled(folder)
        for page in given.pages.split(","):
            for width in map(int, given.widths.split(",")):
                measured(folder, page, width, given.rounds, given.query, given.moves)


def measured(
    folder: Path, page: str, width: int, rounds: int, query: str, with_moves: bool
) -> None:
    """Print a page's line."""
    with served(folder) as server, chromium() as browser:
        rested(server)
        first = opened(browser, server, page, width, query)
        warm = [opened(browser, server, page, width, query) for _ in range(rounds)]
    worst = max([first, *warm], key=lambda load: load.shift)
    columns = []
    for name in ("cpu", "drawing", "main", "seen", "last"):
        again = statistics.median(getattr(load, name) for load in warm)
        columns.append(f"{getattr(first, name):5.2f} {again:5.2f}")
    print(
        f"{page:12} {width:5}   {'  '.join(columns)}   {max(load.runs for load in warm):4}  "
        f"{max(load.messages for load in warm):8}  {worst.shift:.3f}  {os.getloadavg()[0]:5.1f}",
        flush=True,
    )
    if with_moves:
        for move in worst.moves:
            print(f"    {move['at']:6.0f} ms {move['value']:.3f}")
            for what in move["of"]:
                print(f"        {what}")


if __name__ == "__main__":
    main()

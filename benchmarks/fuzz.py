"""Hostile requests at every door: is each answered, and does all that was let in reach the record?

    python -m benchmarks.fuzz [--requests 100000] [--seed 1] [--folder DIR]

A service and a worker run on the examples and on an experiment with every kind of feature. A
twentieth of the requests are Schemathesis' of the OpenAPI document, a tenth is HTTP that is wrong
in some way, the others are good requests with something wrong put in (`benchmarks.hostile`). None
may be answered with 5xx, but for a named 503 with `Retry-After`, or not at all; no answer may be
anything but JSON; what was accepted with an id must be answered alike when it comes again.

Then the record is read: every row of the log is published or set aside, every acknowledged id is
there, `topbill verify` exits with 0 for every experiment, and report, export, unit and `erase
--dry-run` answer for whatever ids were let in.

Prints counts by door and status, then the problems; exits 1 where there is one.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from re import findall
from socket import SHUT_WR, create_connection, socket
from typing import Any
from unittest.mock import patch
from urllib.parse import quote

from benchmarks.hostile import EVERYTHING, Corpus, Known, RawCase, RawHttp, Request

from topbill import lake
from topbill.cli.supervise import free_port
from topbill.log import open_log

EXAMPLES = Path(__file__).parents[1] / "experiments"
SHARES = (0.05, 0.1)
"""Of all requests, those of Schemathesis and those that are no right HTTP."""
PATIENCE = 30.0
"""Seconds until a request counts as not answered."""
MOST_UNITS = 40
"""Units, of those that look the worst, which are looked up."""
ERROR_LINES = 30
_MANY = 10**9
_JSON_BUT = ("/metrics", "/docs", "elsewhere")
"""Paths that answer with something else."""


@dataclass
class Ledger:
    """What was answered, what was acknowledged, and what may never be."""

    counts: Counter[tuple[str, int]] = field(default_factory=Counter)
    """By door and status; status 0 where nothing had to be answered, and was not."""
    known: Known = field(default_factory=Known)
    decisions: set[str] = field(default_factory=set)
    ranked: set[str] = field(default_factory=set)
    """Events of Personalizer: decisions, or what becomes decisions."""
    rewards: set[tuple[str, str]] = field(default_factory=set)
    events: set[tuple[str, str, str]] = field(default_factory=set)
    """Type of the unit, unit, event id."""
    problems: list[str] = field(default_factory=list)

    def note(self, door: str, status: int, body: bytes, retry: str | None, how: bytes) -> Any:
        """Judge an answer; `how` is what was sent. Returns its content where it acknowledges."""
        self.counts[door, status] += 1
        if status >= 500 and not (status == 503 and retry):
            self.wrong(f"{status} {body[:300]!r}", door, how)
        if not body or (status == 200 and door in _JSON_BUT):
            return None
        try:
            content = json.loads(body.decode(), parse_constant=_refused)
        except ValueError as error:
            return self.wrong(
                f"{status} with a body that is no JSON: {error}: {body[:200]!r}", door, how
            )
        if status >= 400 and not _names_its_error(content):
            self.wrong(f"{status} without a named error: {body[:200]!r}", door, how)
        if status in (200, 201):
            self._acknowledged(door, content)
            return content
        return None

    def wrong(self, what: str, door: str, how: bytes) -> None:
        """Note what should not be."""
        self.problems.append(f"{door}: {what}\n      sent: {how[:3_000]!r}")

    def _acknowledged(self, door: str, content: Any) -> None:
        if door.startswith("/v1/decide"):
            for answer in content.get("decisions", [content]):
                shown = [item["action"] for item in answer["slate"]]
                self.decisions.add(answer["decision_id"])
                self.known.decisions.append((answer["decision_id"], shown))
        elif door == "/v1/page":
            page = content["page_id"]
            titles = [tile["title"] for row in content["rows"] for tile in row["titles"]]
            self.decisions |= {page, f"{page}:rows"}
            self.known.pages.append((page, titles))
        elif door.startswith("/personalizer/"):
            self.ranked.add(content["eventId"])
            multi = "multislot" in door
            (self.known.slots if multi else self.known.events).append(content["eventId"])
        elif door.startswith(("/v1/reward", "/v1/event")):
            for result in content.get("results", [content]):
                if result["status"] in ("stored", "duplicate"):
                    self._stored(result)

    def _stored(self, result: dict[str, str]) -> None:
        if "decision_id" in result:
            self.rewards.add((result["decision_id"], result["event_id"]))
        else:
            self.events.add((result["unit_type"], result["unit"], result["event_id"]))


def _refused(constant: str) -> float:
    raise ValueError(f"{constant} is no number of JSON")


def _names_its_error(content: Any) -> bool:
    if isinstance(content, dict) and content.get("status") == "unavailable":
        return True
    error = content.get("error") if isinstance(content, dict) else None
    return isinstance(error, dict) and bool(error.get("code")) and bool(error.get("message"))


class Caller:
    """One connection to the service, opened anew when it was closed."""

    def __init__(self, port: int, ledger: Ledger) -> None:
        self._port, self._ledger = port, ledger
        self._socket: socket | None = None

    def ask(self, request: Request) -> Any:
        """Send a request and judge the answer; returns its content where it acknowledges."""
        raw = request.raw(self._port)
        for attempt in range(2):
            fresh = self._socket is None
            try:
                return self._answer(request, raw)
            except (OSError, HTTPException) as error:
                self.close()
                # The service closes connections that were idle for long, and after some refusals.
                if fresh or attempt:
                    self._ledger.counts[request.door, 0] += 1
                    self._ledger.wrong(f"not answered: {error!r}", request.door, raw)
                    return None
        return None

    def _answer(self, request: Request, raw: bytes) -> Any:
        if self._socket is None:
            self._socket = create_connection(("127.0.0.1", self._port), timeout=PATIENCE)
        self._socket.sendall(raw)
        response = HTTPResponse(self._socket, method=request.method)
        response.begin()
        body = response.read()
        if response.will_close:
            self.close()
        retry = response.getheader("retry-after")
        return self._ledger.note(request.door, response.status, body, retry, raw)

    def close(self) -> None:
        """Let go of the connection."""
        if self._socket is not None:
            self._socket.close()
        self._socket = None

    def send(self, case: RawCase) -> None:
        """Send bytes on a connection of their own, and read until it is closed."""
        last = (
            b""
            if not case.whole
            else b"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n"
        )
        with create_connection(("127.0.0.1", self._port), timeout=PATIENCE) as connection:
            received = b""
            try:
                with suppress(BrokenPipeError, ConnectionResetError):
                    connection.sendall(case.content + last)
                    if not case.whole:
                        connection.shutdown(SHUT_WR)
                with suppress(ConnectionResetError):
                    while part := connection.recv(1 << 16):
                        received += part
            except TimeoutError:
                self._ledger.wrong("nobody closed the connection", case.name, case.content)
        statuses = [int(text) for text in findall(rb"HTTP/1\.1 (\d{3}) ", received)]
        self._ledger.counts[f"HTTP, {case.name}", statuses[0] if statuses else 0] += 1
        if case.whole and not statuses:
            self._ledger.wrong("not answered", case.name, case.content)
        if any(status >= 500 for status in statuses) and b"retry-after" not in received:
            self._ledger.wrong(f"{statuses} {received[:300]!r}", case.name, case.content)


def _good_and_bad(caller: Caller, corpus: Corpus, count: int, chance: random.Random) -> None:
    """Send so many requests of the corpus; some that were accepted with an id are sent again."""
    for _ in range(count):
        request = corpus.draw()
        content = caller.ask(request)
        again = content is not None and request.method == "POST" and chance.random() < 0.05
        if not again:
            continue
        repeated = caller.ask(request)
        if repeated is not None and repeated != content and _is_keyed(request, content):
            caller._ledger.wrong(
                f"other answer: {content} {repeated}", request.door, request.raw(0)
            )


def _is_keyed(request: Request, content: Any) -> bool:
    """Whether a decide came with an id of its caller's."""
    if request.door != "/v1/decide":
        return False
    return bool(json.loads(request.body or b"{}").get("decision_id") == content["decision_id"])


def _of_the_document(port: int, ledger: Ledger, count: int, seed: int) -> None:
    """Send so many of Schemathesis' cases, over all operations."""
    import httpx
    import schemathesis

    address = f"http://127.0.0.1:{port}"
    document = httpx.get(f"{address}/openapi.json").json()
    keys = [e["key"] for e in httpx.get(f"{address}/v1/experiments").json()["experiments"]]
    document["components"]["schemas"]["DecideRequest"]["properties"]["experiment"] = {"enum": keys}
    document["components"]["schemas"]["PageRequest"]["properties"]["page"] = {"enum": ["home"]}
    schema = schemathesis.openapi.from_dict(document)
    operations = [found.ok() for found in schema.get_all_operations()]
    for operation in operations:
        _of_one(operation, ledger, address, max(1, count // len(operations)), seed)


def _of_one(operation: Any, ledger: Ledger, address: str, count: int, seed: int) -> None:
    import requests
    import schemathesis
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import seed as seeded
    from hypothesis import strategies as st

    modes = list(schemathesis.GenerationMode)

    @seeded(seed)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=st.one_of([operation.as_strategy(generation_mode=mode) for mode in modes]))
    def send(case: Any) -> None:
        how = f"{case.method} {case.formatted_path} {case.query} {case.body!r}"
        sent = how.encode(errors="replace")
        try:
            answer = case.call(base_url=address, timeout=PATIENCE)
        except requests.RequestException as error:
            ledger.wrong(f"not answered: {error}", operation.path, sent)
            return
        retry = answer.headers.get("retry-after", [None])[0]
        ledger.note(operation.path, answer.status_code, answer.content, retry, sent)

    send()


@contextmanager
def _processes(folder: Path, places: list[str], port: int) -> Iterator[None]:
    """Service and worker, which end in order: the worker publishes what the service has stored.
    What they say is in `service.log` and `worker.log`."""
    topbill = [sys.executable, "-m", "topbill"]
    with (
        (folder / "worker.log").open("wb") as told,
        (folder / "service.log").open("wb") as said,
        subprocess.Popen([*topbill, "worker", *places], stderr=told, stdout=told) as worker,
        subprocess.Popen(
            [*topbill, "serve", *places, "--port", str(port)], stderr=said, stdout=said
        ) as service,
    ):
        try:
            _until_ready(port, service)
            yield
        finally:
            for process in (service, worker):
                process.send_signal(signal.SIGTERM)
                process.wait(120)


def _until_ready(port: int, service: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while service.poll() is None and time.monotonic() < deadline:
        with suppress(OSError), create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.1)
    raise SystemExit("the service did not start")


# ---------------------------------------------------------------------- what became of it


def _raised(folder: Path) -> list[str]:
    """Where service and worker said that something was raised which nobody expected."""
    found = []
    for name in ("service", "worker"):
        before, *after = (folder / f"{name}.log").read_text(errors="replace").split("Traceback")
        found += [f"{name}: Traceback{text[:2_000]}" for text in after]
        found += [f"{name}: {line}" for line in before.splitlines() if "trying again" in line]
    return found


def _recorded(data: Path, statement: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = lake.sql(data / lake.DATABASE, statement).to_pylist()
    return rows


def unpublished(data: Path, ledger: Ledger) -> tuple[Counter[str], list[str]]:
    """How many rows the log holds, by kind; and those that are neither published nor set aside, and
    acknowledged ids that are in no row."""
    with open_log(data / "log.sqlite") as log:
        decisions = {(d.decision_id,) for _, d in log.read_decisions(0, _MANY)}
        rewards = {(e.decision_id, e.event_id) for _, e in log.read_events(0, _MANY)}
        events = {e.key for _, e in log.read_unit_events(0, _MANY)}
        aside = log.quarantine()
    counts = Counter(decisions=len(decisions), rewards=len(rewards), events=len(events))
    counts["set aside"] = len(aside)
    problems = [f"set aside: {row.kind} {row.seq}: {row.reason}" for row in aside]
    ids_aside = {(row.kind, row.id) for row in aside}
    for kind, columns, here in (
        ("decision", "decision_id", decisions),
        ("reward", "decision_id, event_id", rewards),
        ("event", "unit_type, unit, event_id", events),
    ):
        query = f"SELECT {columns} FROM {kind}s"  # noqa: S608 (all three are above)
        published = {tuple(row.values()) for row in _recorded(data, query)}
        missing = [key for key in here - published if (kind, key[-1]) not in ids_aside]
        problems += [f"not published: {kind} {key!r}" for key in missing]
    here = {decision_id for (decision_id,) in decisions}
    problems += [f"lost: decision {i!r}" for i in ledger.decisions - here]
    # An event with slots, or one that is not active yet, is a row of its own.
    ranked = {i for i in ledger.ranked if i not in here and f"{i}\x1f" not in here}
    problems += [f"lost: ranked {i!r}" for i in ranked]
    problems += [f"lost: reward {key!r}" for key in ledger.rewards - rewards]
    problems += [f"lost: event {key!r}" for key in ledger.events - events]
    # Files say of themselves what is wrong with them; all else came of requests.
    troubles = _recorded(data, "SELECT * FROM problems WHERE kind NOT IN ('file', 'page')")
    problems += [f"trouble: {row}" for row in troubles]
    return counts, problems


def command(*arguments: str) -> tuple[int, str]:
    """Exit status and output of the command line, run in this process. What it raises is a defect
    and goes on."""
    from topbill.cli import main

    output = io.StringIO()
    status: int | str | None = 0
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        try:
            with patch.object(sys, "argv", ["topbill", *arguments]):
                main()
        except SystemExit as error:
            status = error.code
    return int(status or 0), output.getvalue()


def commanded(folder: Path, units: list[str]) -> list[str]:
    """What the command line does not answer of what was let in."""
    data = str(folder / "data")
    keys = _recorded(
        folder / "data",
        "SELECT DISTINCT experiment FROM decisions WHERE layer <> 'page' ORDER BY ALL",
    )
    lines = []
    for key in [row["experiment"] for row in keys]:
        # Events that wait to be activated are rows of no experiment.
        if "." not in key:
            lines.append(
                ["verify", key, "--data", data, "--experiments", str(folder / "experiments")]
            )
            lines.append(["report", key, "--data", data, "--html", str(folder / f"{key}.html")])
    for name in ("parquet", "csv", "dsjson"):
        lines.append(["export", "everything", str(folder / f"everything.{name}"), "--data", data])
    for unit in units:
        lines.append(["unit", "--data", data, "--", unit])
        lines.append(["erase", "--dry-run", "--data", data, f"--unit={unit}"])
    problems = []
    for line in lines:
        try:
            status, output = command(*line)
        except Exception as error:
            problems.append(f"topbill {' '.join(line)!r}: raised {error!r}")
            continue
        if status:
            problems.append(f"topbill {' '.join(line)!r}: exit {status}: {output[-400:]}")
    return problems


def _strange(ledger: Ledger, data: Path) -> list[str]:
    """Units whose ids look the worst."""
    units = {row["unit"] for row in _recorded(data, "SELECT DISTINCT unit FROM decisions")}
    units |= {unit for _, unit, _ in ledger.events}
    return sorted(units, key=lambda unit: (unit.isalnum(), len(unit)))[:MOST_UNITS]


def _unanswered(caller: Caller, ledger: Ledger, chance: random.Random) -> None:
    """Every acknowledged decision can be asked for under its id: of some, whether it is so."""
    ids = sorted(ledger.decisions, key=lambda i: (i.isalnum(), len(i)))
    for decision_id in [*ids[:200], *chance.sample(ids, min(100, len(ids)))]:
        target = f"/v1/decisions/{quote(decision_id, safe='')}"
        content = caller.ask(Request("GET", target, None))
        if content is None or content["decision_id"] != decision_id:
            ledger.problems.append(f"GET {target}: got {content}")


def _say(what: str) -> None:
    print(
        f"{time.process_time():6.0f} s of own time, {time.strftime('%H:%M:%S')}: {what}",
        file=sys.stderr,
    )


def run(folder: Path, requests: int, seed: int) -> tuple[Ledger, Counter[str]]:
    """Everything in `folder`, which is emptied."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(EXAMPLES, folder / "experiments")
    (folder / "experiments" / "everything.yaml").write_text(EVERYTHING)
    port = free_port("127.0.0.1", 0)
    data = folder / "data"
    places = ["--experiments", str(folder / "experiments"), "--data", str(data)]
    ledger, chance = Ledger(), random.Random(seed)
    corpus = Corpus(chance, ledger.known)
    of_document, no_http = [int(requests * share) for share in SHARES]
    with _processes(folder, places, port):
        caller = Caller(port, ledger)
        _say("started")
        _good_and_bad(caller, corpus, requests - of_document - no_http, chance)
        _say("good requests with something wrong put in")
        cases = RawHttp(chance, corpus, port)
        for _ in range(no_http):
            caller.send(cases.draw())
        _say("HTTP that is wrong")
        if of_document:
            _of_the_document(port, ledger, of_document, seed)
        _say("Schemathesis' requests")
        _unanswered(caller, ledger, chance)
        caller.close()
    _say("ended, and all published")
    ledger.problems += _raised(folder)
    counts, problems = unpublished(data, ledger)
    ledger.problems += problems + commanded(folder, _strange(ledger, data))
    return ledger, counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    folder = options.folder or Path(tempfile.mkdtemp(prefix="fuzz-"))
    started = time.monotonic()
    ledger, counts = run(folder, options.requests, options.seed)
    for door in sorted({door for door, _ in ledger.counts}):
        by_status = {s: n for (of, s), n in sorted(ledger.counts.items()) if of == door}
        told = "  ".join(f"{s or 'none'}: {n:,}" for s, n in by_status.items())
        print(f"  {door[:60]:<60} {told}")
    print(", ".join(f"{count:,} {name}" for name, count in counts.items()))
    sent = sum(ledger.counts.values())
    errors = sum(n for (_, status), n in ledger.counts.items() if status >= 500)
    seconds = time.monotonic() - started
    print(f"{sent:,} requests, {errors} 5xx, {len(ledger.problems)} problems", end=" ")
    print(f"in {seconds:,.0f} s, in {folder}")
    for problem in ledger.problems[:ERROR_LINES]:
        print("  ", problem)
    sys.exit(bool(ledger.problems))


if __name__ == "__main__":
    main()

"""The demo's driver against a service that is a stub: what it sends, that nothing is sent twice,
and what it shows.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from rich.console import Console

from topbill.domain.errors import NotFound, Unavailable
from topbill.domain.records import Decision, Placement
from topbill.lake import Lake
from topbill.log import open_log
from topbill.log.opening import LOG_FILE
from topbill.simulation import driver as driving
from topbill.simulation.demo import LAUNCH, environments, live_table, run_demo, summary
from topbill.simulation.held import held
from topbill.simulation.scoreboard import ExpectedReward
from topbill.spec import Experiment
from topbill.worker.publisher import Publisher


class Service(httpx.AsyncBaseTransport):
    """Answers like the service: the control's first actions for everybody. Fails every `failing`-th
    request.
    """

    def __init__(self, experiments: list[Experiment], failing: int = 0) -> None:
        self.experiments = {e.key: e for e in experiments}
        self.failing = failing
        self.requests = 0
        self.decisions: list[dict[str, Any]] = []
        self.rewards: list[dict[str, Any]] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests += 1
        body = json.loads(await request.aread())
        if self.failing and self.requests % self.failing == 0:
            if self.requests % 2:
                raise httpx.ReadError("connection reset", request=request)
            return httpx.Response(503, json={"detail": "busy"})
        if request.url.path == "/v1/decide/batch":
            self.decisions += body["decisions"]
            return httpx.Response(
                200, json={"decisions": [self.decide(d) for d in body["decisions"]]}
            )
        assert request.url.path == "/v1/reward/batch"
        self.rewards += body["rewards"]
        stored = [{"status": "stored", "event_id": r["event_id"]} for r in body["rewards"]]
        return httpx.Response(200, json={"results": stored})

    def decide(self, request: dict[str, Any]) -> dict[str, Any]:
        experiment = self.experiments[request["experiment"]]
        ids = [a.id for a in experiment.actions if a.id not in request.get("exclude", [])][
            : experiment.slots
        ]
        slate = [
            {"position": k, "action": a, "payload": None, "propensity": 1.0}
            for k, a in enumerate(ids)
        ]
        return {
            "decision_id": request["decision_id"],
            "variant": experiment.control.name,
            "slate": slate,
        }


@pytest.fixture
def experiments(make: Callable[..., Experiment]) -> list[Experiment]:
    return [make(), make(key="home-rows", slots=3, unit=None), make(key="asleep", status="paused")]


def demo(service: Service, seconds: float = 0.6, width: int = 100) -> tuple[driving.Driver, str]:
    console = Console(file=StringIO(), width=width)
    experiments = list(service.experiments.values())
    done = run_demo(
        "http://service",
        experiments,
        console,
        seconds=seconds,
        pages_per_second=200.0,
        transport=service,
    )
    return done, console.file.getvalue()  # type: ignore[attr-defined]


def test_a_homepage_asks_for_every_running_experiment_at_once(
    experiments: list[Experiment],
) -> None:
    service = Service(experiments)
    done, _ = demo(service)
    asked = Counter(d["experiment"] for d in service.decisions)
    assert asked == {"home-artwork": done.pages, "home-rows": done.pages}
    assert done.pages > 20
    assert done.scoreboard.decisions == 2 * done.pages
    for request in service.decisions:
        assert set(request["context"]) == {"device", "hour", "days_away", "weekend", "taste"}
        assert ("unit" in request) == (request["experiment"] == "home-artwork")


def test_every_reward_is_sent_and_belongs_to_an_item_where_it_can(
    experiments: list[Experiment],
) -> None:
    service = Service(experiments)
    done, _ = demo(service)
    decided = {d["decision_id"] for d in service.decisions}
    assert done.rewards == len(service.rewards) > 0
    assert {r["decision_id"] for r in service.rewards} <= decided
    assert all(
        ("position" in r) == (r["event"] in ("play", "watch_fraction")) for r in service.rewards
    )
    sent = Counter((r["decision_id"], r["event_id"]) for r in service.rewards)
    assert set(sent.values()) == {1}


def test_a_failing_service_is_asked_again_with_the_same_ids(
    experiments: list[Experiment], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driving, "BACKOFF", 0.001)
    service = Service(experiments, failing=5)
    done, _ = demo(service)
    assert done.retries > 3
    ids = Counter(d["decision_id"] for d in service.decisions)
    assert len(ids) == done.scoreboard.decisions == 2 * done.pages


def test_a_service_that_refuses_ends_the_demo_with_its_own_words(
    experiments: list[Experiment], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: httpx.Request) -> httpx.Response:
        return httpx.Response(
            422, json={"path": "$.decisions[0].context.hour", "message": "got 'noon'"}
        )

    with pytest.raises(Unavailable, match=r"/v1/decide/batch: HTTP 422: .*got 'noon'"):
        run_demo(
            "http://x",
            experiments,
            Console(file=StringIO()),
            seconds=1.0,
            transport=httpx.MockTransport(refuse),
        )


def test_no_service_is_said_plainly(
    experiments: list[Experiment], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driving, "BACKOFF", 0.001)
    with pytest.raises(Unavailable, match="ConnectError"):
        run_demo("http://127.0.0.1:9", experiments, Console(file=StringIO()), seconds=1.0)


def test_nothing_to_send_viewers_to_is_said_plainly(experiments: list[Experiment]) -> None:
    with pytest.raises(NotFound, match="no running experiment"):
        run_demo("http://x", experiments[2:], Console(file=StringIO()))


def test_new_artwork_is_excluded_until_it_is_launched(
    experiments: list[Experiment], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert environments(experiments)["home-artwork"].absent(LAUNCH - 1.0) == ["a7"]
    monkeypatch.setattr("topbill.simulation.demo.LAUNCH", 0.3)
    service = Service(experiments)
    demo(service)
    excluded = [d.get("exclude") for d in service.decisions]
    assert excluded[0] == ["a7"]
    assert excluded[-1] is None


def test_without_a_terminal_plain_tables_are_printed(experiments: list[Experiment]) -> None:
    service = Service(experiments)
    done, printed = demo(service, width=120)
    assert "\x1b" not in printed
    assert "decisions/s" in printed
    for key in ("home-artwork", "home-rows"):
        assert key in printed
    assert f"{done.scoreboard.decisions:,} decisions" in printed


def test_on_a_terminal_the_table_is_live(experiments: list[Experiment]) -> None:
    service = Service(experiments)
    console = Console(file=StringIO(), width=100, force_terminal=True)
    run_demo(
        "http://x", experiments, console, seconds=1.2, pages_per_second=50.0, transport=service
    )
    assert console.file.getvalue().count("home-artwork") > 1  # type: ignore[attr-defined]


def test_the_summary_says_what_came_of_it_and_what_to_do_next(
    experiments: list[Experiment], tmp_path: Path
) -> None:
    done, _ = demo(Service(experiments))
    said = " ".join(summary(done, data="data", dashboard="http://127.0.0.1:8601"))
    assert f"{done.pages:,} simulated homepages" in said
    assert "topbill report home-artwork --data data" in said
    assert "http://127.0.0.1:8601" in said
    assert "nan" not in said
    # Where topbill is in no folder of PATH, it is called as the reader can call it.
    typed = " ".join(summary(done, data="data", command=".venv/bin/topbill"))
    assert "`.venv/bin/topbill report home-artwork --data data`" in typed


@pytest.mark.parametrize(("learned", "early"), [(0.4, True), (0.5, True), (0.6, False)])
def test_the_summary_says_too_early_unless_a_variant_has_overtaken_the_control(
    make: Callable[..., Experiment], learned: float, early: bool
) -> None:
    done = driving.Driver(environments([make()]), "x")
    for unit in range(30):
        for variant, value in (("editorial", 0.5), ("thompson", learned), ("linucb", 0.1)):
            done.scoreboard.count(
                "home-artwork", variant, str(unit), ExpectedReward(value, 1.0, 0.0), value, ["a0"]
            )
    (told,) = [
        sentence for sentence in summary(done, data="data") if sentence.startswith("home-artwork: ")
    ]
    assert f"thompson has lately come {learned:.0%} and editorial 50%." in told
    assert (
        told.endswith("Too early: 30 judged decisions have not taken it past the control.") == early
    )


def test_before_the_first_answer_the_board_is_empty_but_there(
    experiments: list[Experiment],
) -> None:
    console = Console(file=StringIO(), width=100)
    console.print(live_table(driving.Driver(environments(experiments), "x")))
    assert "0 homepages" in console.file.getvalue()  # type: ignore[attr-defined]


def test_what_was_answered_is_looked_for_in_log_and_record(
    experiments: list[Experiment], tmp_path: Path
) -> None:
    done, _ = demo(Service(experiments), seconds=0.2)
    answered = list(done.decision_ids())
    assert len(answered) == len(set(answered)) == 2 * done.pages
    with open_log(tmp_path / LOG_FILE) as log:
        log.append([made(decision_id) for decision_id in answered[1:]])
        log.tend()
        assert held(done, tmp_path, longest=0.0) == (len(answered), len(answered) - 1, 0)
        Publisher(log, Lake(tmp_path), lambda: experiments).step()
    found = held(done, tmp_path, longest=0.0)
    assert found == (len(answered), len(answered) - 1, len(answered) - 1)
    assert found.lost == 1
    assert found.sentence().endswith(" in the record, 1 lost.")


def made(decision_id: str) -> Decision:
    return Decision(
        decision_id=decision_id,
        experiment="home-artwork",
        revision="r1",
        variant="editorial",
        unit="u",
        context=msgspec.Raw(b"{}"),
        slate=(Placement(0, "a0", 0.25),),
        policy="uniform",
        reason="policy",
        request_hash="h",
    )


def test_no_interval_of_a_reward_is_beyond_what_can_be_earned(
    make: Callable[..., Experiment],
) -> None:
    done = driving.Driver(environments([make()]), "x")
    for unit, value in enumerate((1.0, 0.0)):
        for variant in ("editorial", "thompson"):
            done.scoreboard.count(
                "home-artwork", variant, str(unit), ExpectedReward(value, 1.0, 0.0), value, ["a0"]
            )
    told = " ".join(summary(done, data="data"))
    assert told.count("0.5000 (0.0000 to 1.0000)") == 2

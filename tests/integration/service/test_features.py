"""Features by id over HTTP, with the example of the docs: looked up, pinned, learned from as they
were, taken over in mid-flight and after a restart.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pa_parquet
import pytest
from tests.local_client import LocalClient

from topbill import lake, spec
from topbill.engine import CompiledExperiment, examples
from topbill.entities import EntityStore, KeptTables, MissingVersion
from topbill.log import LOG_FILE, open_log
from topbill.ope import evaluate
from topbill.service.app import create_app
from topbill.service.settings import Settings
from topbill.worker import archive
from topbill.worker.loop import Worker
from topbill.worker.verification import verify

PAGE = (Path(__file__).parents[3] / "docs" / "features.md").read_text()
(EXAMPLE,) = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)
(CALL,) = re.findall(r"```json\n(.*?)```", PAGE, flags=re.DOTALL)
(REFUSAL,) = re.findall(r"```text\n(.*?)\n```", PAGE, flags=re.DOTALL)
TITLES = "id,runtime,studio\nt1,90,north\nt2,120,south\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "experiments").mkdir()
    # Learned at once, so that a test need not wait for rewards.
    text = EXAMPLE.replace("window: 30m", "window: 1s")
    (tmp_path / "experiments" / "home-hero.yaml").write_text(text)
    (tmp_path / "data" / "tables").mkdir(parents=True)
    rng = np.random.default_rng(0)
    viewers = {
        "profile_id": ["u1", "u2"],
        "plan": ["premium", None],
        "taste": list(rng.standard_normal((2, 128))),
    }
    pa_parquet.write_table(pa.table(viewers), tmp_path / "data" / "tables" / "viewers.parquet")
    titles(tmp_path, TITLES)
    return tmp_path


def titles(folder: Path, text: str) -> None:
    draft = folder / "titles.draft"
    draft.write_text(text)
    draft.replace(folder / "data" / "tables" / "titles.csv")


def client_of(folder: Path) -> LocalClient:
    return LocalClient(create_app(Settings(folder / "experiments", folder / "data")))


def decide(client: LocalClient, **parts: Any) -> dict[str, Any]:
    answer = client.post("/v1/decide", content=json.dumps({**json.loads(CALL), **parts}))
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def stored(client: LocalClient, decision_id: str) -> dict[str, Any]:
    return dict(client.get(f"/v1/decisions/{decision_id}").json())


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60.0
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_example_of_the_docs_is_learned_from_as_it_was_seen(folder: Path) -> None:
    with client_of(folder) as client:
        for number in range(6):
            answer = decide(client, decision_id=f"a{number}", unit=f"u{number % 3 + 1}")
            reward = {"decision_id": f"a{number}", "event": "play", "event_id": "e"}
            client.post("/v1/reward", content=json.dumps(reward))
        first = stored(client, "a0")
        assert first["context"]["plan"] == "premium"
        assert len(first["context"]["taste"]) == 8
        viewers, seen = (list(use.values()) for use in first["entities"])
        assert (viewers[0], viewers[2:], seen[0], seen[2:]) == ("viewers", [1, 0], "titles", [2, 0])
        unknown = stored(client, "a2")
        assert unknown["context"] == {"device": "tv"}
        assert unknown["entities"][0]["unknown"] == 1
        refused = client.post("/v1/decide", content=CALL.replace('"tv"', '"tv", "plan": "basic"'))
        assert (refused.status_code, refused.json()["error"]["path"]) == (422, "$.context.plan")

        # A broken version, in mid-flight: told, and the last good one goes on.
        titles(folder, TITLES.replace("120", "long"))
        until(lambda: client.get("/readyz").json()["troubles"][-1]["code"] == "table_refused")
        assert "titles.csv: row 2: runtime" in client.get("/readyz").text
        assert "long" not in client.get("/readyz").text
        (problem,) = client.get("/v1/experiments").json()["problems"]
        assert f"{problem['file']}: {problem['path']}: {problem['message']}" == REFUSAL
        decide(client, decision_id="b0")
        assert list(stored(client, "b0")["entities"][1].values()) == seen

        # A good one takes its place.
        titles(folder, TITLES.replace("120", "10") + "t3,30,north\n")
        until(lambda: not client.get("/v1/experiments").json()["problems"])
        decide(client, decision_id="b1")
        after = list(stored(client, "b1")["entities"][1].values())
        assert after[1] != seen[1]

    # After a restart with a file that is gone.
    (folder / "data" / "tables" / "titles.csv").unlink()
    with client_of(folder) as client:
        answer = decide(client, decision_id="c0")
        assert answer["reason"] != "fallback"
        assert list(stored(client, "c0")["entities"][1].values()) == after
        for number in range(6):
            decide(client, decision_id=f"d{number}", unit=f"u{number % 3 + 1}")
            reward = {"decision_id": f"d{number}", "event": "play", "event_id": "e"}
            client.post("/v1/reward", content=json.dumps(reward))

    learned_as_served(folder)


def learned_as_served(folder: Path) -> None:
    data = folder / "data"
    experiment = spec.load(folder / "experiments" / "home-hero.yaml")
    time.sleep(1.1)
    worker = Worker(folder / "experiments", data)
    worker.step()
    worker.finish()
    with closing(open_log(data / LOG_FILE)) as log:
        checked = verify(log, experiment, archive.reader(data), EntityStore(data))
        assert checked.same
        assert checked.snapshot.watermark >= 14
        compiled = CompiledExperiment(experiment, EntityStore(data))
        runtimes = []
        for decision_id in ("a0", "c0"):
            decision = log.decision(decision_id)
            assert decision is not None
            (example,) = examples(compiled, decision, [])
            column = compiled.action_encoder.names.index("runtime")
            row = example.actions.ids.index("t2")
            runtimes.append(float(example.actions.features[row, column]))
    assert runtimes == pytest.approx([0.0, 10 / 120 - 1])
    counts = lake.sql(
        data / lake.DATABASE,
        "SELECT e.unknown, count(*) FROM decisions, unnest(entities) AS t(e) "
        "WHERE e.\"table\" = 'viewers' GROUP BY ALL ORDER BY ALL",
    )
    assert [tuple(row.values()) for row in counts.to_pylist()] == [(0, 11), (1, 4)]
    assert evaluate("home-hero", "uniform", data).decisions > 0

    # A version that is lost is no guess: what names it is set aside.
    for version in KeptTables(data).versions():
        (data / "entities" / f"{version}.sealed").unlink()
    lost = CompiledExperiment(experiment, EntityStore(data))
    with closing(open_log(data / LOG_FILE)) as log:
        decision = log.decision("a0")
    assert decision is not None
    with pytest.raises(MissingVersion, match="put it back from a backup"):
        list(examples(lost, decision, []))

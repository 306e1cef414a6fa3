"""What becomes of kept versions: shown and compared, removed when no decision names them, without
the rows of whoever is erased."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pa_parquet
import pytest
from tests.local_client import LocalClient

from topbill.cli import app as cli
from topbill.entities import KeptTables
from topbill.service.app import create_app
from topbill.service.settings import Settings
from topbill.worker import loop
from topbill.worker.erasure import erase_unit, unit_data

EXPERIMENT = """
experiment: hero
surface: artwork
unit: profile_id
entities:
  viewers:
    file: viewers.parquet
    key: id
    of: unit
    features: {plan: {type: category, values: [basic, premium]}}
  titles:
    file: titles.parquet
    key: id
    of: action
    features:
      runtime: {type: number}
      mood: {type: embedding, length: 2}
actions: [{id: t1}, {id: t2}]
metrics: {play: {event: play, kind: binary, window: 1s}}
objective: {play: 1}
variants: {only: {policy: thompson, share: 100%, control: true}}
"""


def write(data: Path, name: str, **columns: Any) -> None:
    draft = data / "draft"
    pa_parquet.write_table(pa.table(columns), draft)
    (data / "tables").mkdir(exist_ok=True)
    draft.replace(data / "tables" / f"{name}.parquet")


def titles(data: Path, runtime: float, turn: float = 1.0) -> None:
    write(data, "titles", id=["t1"], runtime=[runtime], mood=[[1.0, turn]])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "hero.yaml").write_text(EXPERIMENT)
    data = tmp_path / "data"
    data.mkdir()
    write(data, "viewers", id=["u1", "u2"], plan=["basic", "premium"])
    # Three versions; decisions name the first and the last.
    for number, runtime in enumerate((90.0, 91.0, 200.0)):
        titles(data, runtime, turn=1.0 if number < 2 else -1.0)
        with LocalClient(create_app(Settings(tmp_path / "experiments", data))) as client:
            for unit in ("u1", "u2", "u3") if number != 1 else ():
                body = json.dumps({"experiment": "hero", "unit": unit})
                assert client.post("/v1/decide", content=body).status_code == 200
    return tmp_path


def test_versions_that_no_decision_names_are_removed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = folder / "data"
    kept = KeptTables(data)
    first, second, third = [v.version for v in kept.history() if v.table == "titles"]
    monkeypatch.setattr("topbill.entities.kept.RESTS", 0.0)
    write(data, "viewers", id=["u1"], plan=[1])
    with LocalClient(create_app(Settings(folder / "experiments", data))):
        pass
    worker = loop.Worker(folder / "experiments", data)
    worker.step()
    viewers = [v.version for v in kept.history() if v.table == "viewers" and v.version]
    assert sorted(kept.versions()) == sorted([first, third, *viewers])
    assert second not in kept.versions()
    (problem,) = [p for p in worker.problems() if p.kind == "file"]
    assert (problem.subject, problem.path) == ("hero.yaml", "entities.viewers")
    assert "row 1: plan: got 1; expected text; its last good version goes on" in problem.message
    worker.finish()

    run(["features", "--data", str(data), "--json"])
    shown, people = json.loads(capsys.readouterr().out)
    assert shown["table"] == "titles"
    newest, _, oldest = shown["versions"]
    assert (newest["asked"], newest["unknown"], oldest["asked"]) == (6, 3, 6)
    # Of a mean of one title there is no spread to compare with; the embedding was turned.
    assert newest["line"]["drift"]["mood"]["cosine"] == 0.0
    assert newest["line"]["drift"]["mood"]["told"]
    assert people["refused"]["where"] == "viewers.parquet: row 1: plan"
    assert (people["current"]["asked"], people["current"]["unknown"]) == (6, 2)
    run(["features", "--data", str(data)])
    assert "cosine 0.00" in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        cli(["features", str(folder / "experiments" / "hero.yaml"), "--data", str(data)])
    assert ended.value.code == 1
    said = capsys.readouterr().out
    assert "viewers.parquet: row 1: plan: got 1; expected text" in said
    assert f"titles.parquet fits: 1 rows, version {third}, in force" in said


def run(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli(arguments)
    assert not ended.value.code


def test_an_erased_viewer_is_in_no_kept_version(folder: Path) -> None:
    data = folder / "data"
    time.sleep(0.1)
    assert unit_data(data, "u1")["features"] == {"viewers.parquet": {"plan": "basic"}}
    assert erase_unit(data, "u1").tables == {"viewers.parquet"}
    assert unit_data(data, "u1")["features"] == {}
    assert unit_data(data, "u2")["features"] == {"viewers.parquet": {"plan": "premium"}}

"""Answers worked out in advance: those that would be given now, and none that the record has left
behind.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pandas as pd
import pytest

from topbill import reporting
from topbill.lake import Lake
from topbill.reporting import answer_cache
from topbill.reporting.queries import database
from topbill.spec import Experiment, from_raw

KEY = "home-artwork"


@pytest.fixture(scope="module")
def answered(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the demo's record with its answers."""
    folder = tmp_path_factory.mktemp("answered") / "data"
    shutil.copytree(demo, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(answer_cache, "LARGE", 1_000)
        assert answer_cache.work_out(folder) > 0.0
    return folder


def test_what_is_kept_is_what_would_be_answered_now(answered: Path) -> None:
    asked = list(answer_cache.questions(answered, KEY))
    assert len(asked) > 25
    for question in asked:
        found = answer_cache.find(answered, question)
        assert found is not None, question
        assert found.at == database.published_at(answered)
        now = answer_cache.ASK[question[0]](answered, *question[1:])
        if isinstance(now, pd.DataFrame):
            pd.testing.assert_frame_equal(
                _plain(found.answer), _plain(now), rtol=1e-9, obj=str(question)
            )
    loaded = answer_cache.find(answered, ("report", KEY))
    assert loaded is not None
    held, now = (
        msgspec.json.decode(reporting.to_json(r))
        for r in (loaded.answer, reporting.load(KEY, answered))
    )
    assert held.keys() == now.keys()
    _same(held, now)


def test_a_whole_page_is_kept_too(answered: Path) -> None:
    for name in ("page", "coverage"):
        found = answer_cache.find(answered, (name, "home"))
        assert found is not None
        now = answer_cache.ASK[name](answered, "home")
        assert found.answer.equals(now) if isinstance(now, pd.DataFrame) else found.answer == now


def _same(held: object, now: object) -> None:
    """Equal but for the order in which threads add up."""
    if isinstance(held, dict) and isinstance(now, dict):
        assert held.keys() == now.keys()
        for name in held:
            _same(held[name], now[name])
    elif isinstance(held, list) and isinstance(now, list):
        assert len(held) == len(now)
        for one, other in zip(held, now, strict=True):
            _same(one, other)
    elif isinstance(held, float):
        assert held == pytest.approx(now, rel=1e-9, abs=1e-12)
    else:
        assert held == now


def _plain(frame: pd.DataFrame) -> pd.DataFrame:
    """Lists compare as JSON: Arrow gives them back as arrays."""
    return frame.assign(
        **{
            c: [msgspec.json.encode(list(v)) for v in frame[c]]
            for c in frame.columns.intersection(["groups"])
        }
    )


def test_a_page_shows_what_is_kept_and_of_when_it_is(answered: Path, open_app) -> None:
    app = open_app(answered, "experiment", experiment=KEY)
    assert not app.exception
    assert any("numbers as of 21 Sep 2026" in caption.value for caption in app.caption)


def test_an_old_answer_one_of_another_revision_and_a_damaged_one_are_not_shown(
    answered: Path, examples: dict[str, Experiment], tmp_path: Path
) -> None:
    folder, question = tmp_path / "data", ("report", KEY)
    shutil.copytree(answered, folder)
    hour = round(answer_cache.OLDEST.total_seconds() * 1e6)
    published = database.published_at(folder)
    at = round((published - pd.Timestamp(0).to_pydatetime()).total_seconds() * 1e6)
    lake, experiment = Lake(folder), examples[KEY]
    lake.write_database([experiment], at + hour)
    held = answer_cache.find(folder, question)
    assert held is not None
    assert held.at == published
    lake.write_database([experiment], at + hour + 1)
    assert answer_cache.find(folder, question) is None
    lake.write_database([from_raw({**experiment.raw, "objective": {"play": 1}}, "edited")], at)
    assert answer_cache.find(folder, question) is None
    lake.write_database([], at)
    assert answer_cache.find(folder, question) is None
    lake.write_database([experiment], at)
    assert answer_cache.find(folder, question) is not None
    for file in (folder / "answers").iterdir():
        file.write_bytes(file.read_bytes()[:-40])
    assert answer_cache.find(folder, question) is None


def test_on_a_small_lake_nothing_is_kept(demo: Path) -> None:
    answer_cache.work_out(demo)
    assert not (demo / "answers").exists()


def test_the_process_beside_the_worker_ends_with_it(tmp_path: Path) -> None:
    beside = subprocess.Popen(
        [sys.executable, "-m", "topbill", "answers", "--data", str(tmp_path)], stdin=subprocess.PIPE
    )
    time.sleep(0.5)
    assert beside.poll() is None
    beside.communicate(timeout=30)
    assert beside.returncode == 0


def test_it_goes_on_where_there_is_no_record_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []

    def until(seconds: float) -> bool:
        waits.append(seconds)
        return len(waits) > 2

    monkeypatch.setattr(answer_cache.os, "nice", lambda _: 0)  # this is the tests' own process
    answer_cache.keep_up(tmp_path, until)
    assert waits == [30.0, 30.0, 30.0]

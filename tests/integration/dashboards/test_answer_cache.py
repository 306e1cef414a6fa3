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
from topbill.reporting.queries import coverage, database, history, series
from topbill.spec import Experiment, from_raw

KEY = "home-artwork"


@pytest.fixture(scope="module")
def answered(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the demo's record with the answers of one experiment and of its page."""
    folder = tmp_path_factory.mktemp("answered") / "data"
    shutil.copytree(demo, folder)
    of_one = [line for line in database.experiments(demo) if line.key == KEY]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(answer_cache, "LARGE", 1_000)
        patch.setattr(database, "experiments", lambda _data: of_one)
        assert answer_cache.refresh(folder) > 0.0
    return folder


@pytest.mark.end_to_end
def test_a_cached_answer_is_what_would_be_answered_now(answered: Path) -> None:
    questions = list(answer_cache.questions(answered, KEY))
    assert len(questions) > 25
    for question in questions:
        function = answer_cache.QUERIES[question.query].function
        cached = answer_cache.find(answered, function, *question.arguments)
        assert cached is not None, question
        assert cached.published_at == database.published_at(answered)
        now = function(answered, *question.arguments)
        if isinstance(now, pd.DataFrame):
            pd.testing.assert_frame_equal(
                _plain(cached.answer), _plain(now), rtol=1e-9, obj=str(question)
            )
    cached = answer_cache.find(answered, answer_cache.experiment_report, KEY)
    assert cached is not None
    reports = (cached.answer, reporting.load(KEY, answered))
    held, now = (msgspec.json.decode(reporting.to_json(report)) for report in reports)
    assert held.keys() == now.keys()
    _same(held, now)


def test_a_whole_page_is_answered_in_advance_too(answered: Path) -> None:
    for query in (answer_cache.page_report, coverage.coverage):
        cached = answer_cache.find(answered, query, "home")
        assert cached is not None
        now = query(answered, "home")
        same = cached.answer.equals(now) if isinstance(now, pd.DataFrame) else cached.answer == now
        assert same


def test_a_question_that_is_not_answered_in_advance_has_no_cached_answer(answered: Path) -> None:
    assert answer_cache.find(answered, history.revision_lines, KEY) is None
    assert answer_cache.find(answered, series.progress, KEY, points=5) is None
    assert answer_cache.find(answered, series.progress, KEY) is not None


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


@pytest.mark.end_to_end
def test_a_page_shows_what_is_kept_and_of_when_it_is(answered: Path, open_app) -> None:
    app = open_app(answered, "experiment", experiment=KEY)
    assert not app.exception
    assert any("numbers as of 21 Sep 2026" in caption.value for caption in app.caption)


def test_an_old_answer_one_of_another_revision_and_a_damaged_one_are_not_shown(
    answered: Path, examples: dict[str, Experiment], tmp_path: Path
) -> None:
    folder, question = tmp_path / "data", (answer_cache.experiment_report, KEY)
    shutil.copytree(answered, folder)
    hour = round(answer_cache.OLDEST.total_seconds() * 1e6)
    published = database.published_at(folder)
    at = round((published - pd.Timestamp(0).to_pydatetime()).total_seconds() * 1e6)
    lake, experiment = Lake(folder), examples[KEY]
    lake.write_database([experiment], at + hour)
    held = answer_cache.find(folder, *question)
    assert held is not None
    assert held.published_at == published
    lake.write_database([experiment], at + hour + 1)
    assert answer_cache.find(folder, *question) is None
    lake.write_database([from_raw({**experiment.raw, "objective": {"play": 1}}, "edited")], at)
    assert answer_cache.find(folder, *question) is None
    lake.write_database([], at)
    assert answer_cache.find(folder, *question) is None
    lake.write_database([experiment], at)
    assert answer_cache.find(folder, *question) is not None
    for file in (folder / "answers").iterdir():
        file.write_bytes(file.read_bytes()[:-40])
    assert answer_cache.find(folder, *question) is None


def test_an_answer_of_another_version_is_not_shown(
    answered: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answer_cache, "__version__", "0.1.0")
    assert answer_cache.find(answered, answer_cache.experiment_report, KEY) is None


def test_on_a_small_lake_nothing_is_kept(demo: Path) -> None:
    answer_cache.refresh(demo)
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
    answer_cache.run(tmp_path, until)
    assert waits == [30.0, 30.0, 30.0]

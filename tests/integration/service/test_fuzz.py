"""Hostile requests at every door, and hostile bytes for every decoder. The long forms are
`python -m benchmarks.fuzz` and `python -m benchmarks.fuzz_decoders`.
"""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
from benchmarks.fuzz import Ledger, unpublished
from benchmarks.fuzz_decoders import EXAMPLES, all_decoders, blindly
from benchmarks.hostile import EVERYTHING, Corpus
from starlette.testclient import TestClient

from topbill.service.settings import Settings
from topbill.worker.loop import Worker

from .test_poison import learn_all


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """The examples, and an experiment with every kind of feature and all policies."""
    folder = tmp_path / "experiments"
    shutil.copytree(EXAMPLES, folder)
    (folder / "everything.yaml").write_text(EVERYTHING)
    return Settings(folder, tmp_path / "data")


def test_whatever_comes_is_answered_and_what_was_let_in_reaches_the_record(
    client: TestClient, settings: Settings
) -> None:
    ledger = Ledger()
    corpus = Corpus(random.Random(15), ledger.known)
    for _ in range(500):
        request = corpus.draw()
        if request.body is None:
            continue
        answer = client.post(request.target, content=request.body)
        retry = answer.headers.get("retry-after")
        ledger.note(request.door, answer.status_code, answer.content, retry, request.body)
    assert ledger.problems == []
    accepted = sum(n for (_, status), n in ledger.counts.items() if status < 300)
    assert 100 < accepted < 400
    worker = Worker(settings.experiments, settings.data)
    worker.step()
    worker.finish()
    counts, problems = unpublished(settings.data, ledger)
    assert problems == []
    assert min(counts[kind] for kind in ("decisions", "rewards", "events")) > 10
    learn_all(settings)


def test_every_decoder_gives_a_value_or_an_error_with_a_name(tmp_path: Path) -> None:
    decoders = all_decoders(tmp_path)
    told = blindly(decoders, random.Random(15), seconds=0.5, most=40)
    assert list(told.found.values()) == []
    assert told.counts.keys() == decoders.keys()

"""What whoever publishes reads of how experiments are learned, by whichever worker."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from topbill.alerts.standing_still import LearningTrouble
from topbill.engine import DecideRequest, Engine
from topbill.lake import Problem
from topbill.log import Duty, Log, open_log
from topbill.spec import Experiment
from topbill.worker.told import needed_by_workers, problems, troubles


@pytest.fixture
def log() -> Iterator[Log]:
    with open_log("memory:") as log:
        yield log


def decide(log: Log, *experiments: Experiment) -> None:
    engine = Engine(experiments)
    for experiment in experiments:
        log.append([engine.decide(DecideRequest(experiment=experiment.key, unit="u"))])


def test_the_log_keeps_what_any_worker_may_still_have_to_read(log: Log, art: Experiment) -> None:
    other, idle = replace(art, key="other"), replace(art, key="idle")
    every = [art, other, idle]
    for _ in range(3):
        decide(log, art, other)  # art has 1, 3 and 5, the other one 2, 4 and 6
    assert needed_by_workers(log, every) == 0, "nobody has said where it stands"

    def tell(experiment: Experiment, through: int) -> None:
        fingerprint = experiment.learning_fingerprint
        name = f"learn:{experiment.key}"
        duty = Duty(name=name, worker="a:1", fingerprint=fingerprint, through=through)
        log.note_duties([duty])

    tell(art, 3)
    assert needed_by_workers(log, every) == 1, "the other one may need its first"
    tell(other, 6)
    assert needed_by_workers(log, every) == 4, "of the next one of art"
    tell(art, 5)
    assert needed_by_workers(log, every) == 2**62

    # Said of features that the file has no longer: it is learned anew.
    anew = replace(art, context=art.context[1:])
    assert needed_by_workers(log, [anew, other, idle]) == 0


def test_what_goes_wrong_is_known_wherever_it_is_learned(log: Log, art: Experiment) -> None:
    other = replace(art, key="other")
    log.note_duties(
        [
            Duty(name="learn:art", worker="a:1", failing="singular", behind="it waits"),
            Duty(name="learn:other", worker="b:2", behind="it waits", unreadable="version 3"),
            Duty(name="learn:removed", worker="b:2", failing="of no file any more"),
        ]
    )
    assert problems(log, [art, other]) == [
        Problem("learning", "art", "", "singular"),
        Problem("snapshot", "other", "", "version 3"),
    ]
    assert troubles(log, [art, other]) == {
        "art": LearningTrouble("learning_fails", "singular"),
        "other": LearningTrouble("learning_behind", "it waits"),
    }

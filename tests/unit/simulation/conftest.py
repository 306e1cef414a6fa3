"""An experiment to simulate: eight pictures, six tastes, every kind of context feature and of
event.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from topbill.domain.records import Action
from topbill.policies import KINDS
from topbill.spec import Experiment, Feature, Metric, Variant

from ...small_page import home

__all__ = ["home"]

GENRES = ("action", "comedy", "crime", "drama", "romance", "scifi")


def build(**changes: Any) -> Experiment:
    kinds = {
        "editorial": ("uniform", 0.0),
        "thompson": ("thompson", 0.0),
        "linucb": ("linucb", 0.01),
    }
    parts: dict[str, Any] = {
        "key": "home-artwork",
        "surface": "artwork",
        "unit": "profile_id",
        "context": (
            Feature("device", "category", values=("tv", "mobile", "web")),
            Feature("hour", "cycle", period=24.0),
            Feature("days_away", "number", low=0.0, high=30.0),
            Feature("weekend", "flag"),
            Feature("taste", "vector", keys=GENRES),
        ),
        "action_features": (Feature("faces", "number"), Feature("genres", "vector", keys=GENRES)),
        "actions": tuple(
            Action(f"a{i}", {"faces": i % 3, "genres": {GENRES[i % 6]: 1.0}}) for i in range(8)
        ),
        "metrics": (
            Metric("play", "play", "binary", window=1_800.0),
            Metric("watched", "watch_fraction", "max", window=21_600.0),
            Metric("returned", "session_start", "binary", window=172_800.0),
            Metric("abandon", "abandon", "binary", window=1_800.0, better="lower"),
        ),
        "objective": {"play": 0.2, "watched": 1.0, "returned": 0.5},
        "reward_delay": 21_600.0,
        "variants": tuple(
            Variant(
                name,
                kind,
                KINDS[kind].Params(),
                1 / 3,
                control=name == "editorial",
                min_probability=floor,
            )
            for name, (kind, floor) in kinds.items()
        ),
    }
    return Experiment(**(parts | changes))


@pytest.fixture
def experiment() -> Experiment:
    return build()


@pytest.fixture
def make() -> Callable[..., Experiment]:
    """Builds the experiment with some of its fields changed."""
    return build

"""Who takes part while traffic grows."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from topbill.engine.compiled import CompiledExperiment
from topbill.spec import Experiment, Launch

FRACTIONS = st.integers(1, 10_000).map(lambda n: n / 10_000)


def variant_of(experiment: Experiment, unit: str) -> str | None:
    variant, _ = CompiledExperiment(experiment).assign(unit)
    return None if variant is None else variant.name


def test_nobody_takes_part_before_the_launch(art: Experiment) -> None:
    pending = replace(art, launch=Launch(ramp=(0.05, 1.0)))
    assert {variant_of(pending, f"u{number}") for number in range(100)} == {None}
    assert None not in {variant_of(art, f"u{number}") for number in range(100)}


# The experiment is frozen: one for all examples is as good as one for each.
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    units=st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=20),
    steps=st.lists(FRACTIONS, min_size=2, max_size=6),
    start=st.integers(0, 9_999).map(lambda n: n / 10_000),
    holdout=st.sampled_from([0.0, 0.1]),
)
def test_growing_traffic_moves_no_unit_that_has_a_variant(
    art: Experiment, units: list[str], steps: list[float], start: float, holdout: float
) -> None:
    in_layer = replace(art, layer="home", layer_start=start, holdout=holdout)
    grown = [CompiledExperiment(replace(in_layer, traffic=step)) for step in sorted(steps)]
    for unit in units:
        variants = [one.assign(unit)[0] for one in grown]
        names = [None if variant is None else variant.name for variant in variants]
        outside = names.count(None)
        # Outside until some step, and in one variant from then on.
        assert names[:outside] == [None] * outside
        assert len(set(names[outside:])) <= 1

"""Two experiments at once: the effect of the one by the variant of the other, and no call where the
two only add up.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest

from topbill import reporting
from topbill.ab import Interaction, interaction
from topbill.domain.errors import BadRequest
from topbill.reporting.experiment import interactions

pytestmark = pytest.mark.usefixtures("engine")

SETTINGS: dict[str, Any] = {
    "unit": "unit",
    "variant": "mine",
    "other": "theirs",
    "control": "old",
    "other_control": "off",
    "value": "play",
    "shares": {"old": 0.5, "new": 0.5},
    "other_shares": {"off": 0.5, "on": 0.5},
}


def world(rng: np.random.Generator, extra: float, units: int = 8_000) -> pd.DataFrame:
    """Two decisions a unit; `extra` is what both variants do together beyond what each does."""
    mine, theirs = rng.random(units) < 0.5, rng.random(units) < 0.5
    chance = 0.2 + 0.05 * mine + 0.05 * theirs + extra * (mine & theirs)
    chance = np.clip(chance + rng.normal(0.0, 0.05, units), 0.0, 1.0)
    unit = np.repeat(np.arange(units), 2)
    return pd.DataFrame(
        {
            "unit": unit,
            "mine": np.where(mine, "new", "old")[unit],
            "theirs": np.where(theirs, "on", "off")[unit],
            "play": (rng.random(unit.size) < chance[unit]).astype(float),
        }
    )


def test_the_term_is_a_difference_of_differences_with_its_variance_by_unit() -> None:
    rows = world(np.random.default_rng(1), 0.1)
    found = interaction(rows, **SETTINGS, method="fixed")
    (term,) = found.terms
    means = rows.groupby(["mine", "theirs"]).play.mean()
    expected = (means["new", "on"] - means["old", "on"]) - (
        means["new", "off"] - means["old", "off"]
    )
    assert term.difference == pytest.approx(expected)
    by_unit = rows.groupby(["mine", "theirs", "unit"]).play.mean()
    variance = sum(group.var() / len(group) for _, group in by_unit.groupby(["mine", "theirs"]))
    assert term.low is not None
    assert term.difference - term.low == pytest.approx(1.959964 * variance**0.5, rel=1e-4)
    assert {(e.variant, e.within) for e in found.effects} == {("new", "off"), ("new", "on")}
    assert found.srm_p is not None
    assert found.srm_p > 0.01


def test_a_planted_interaction_is_found_and_none_is_called_where_effects_add_up() -> None:
    (term,) = interaction(world(np.random.default_rng(2), 0.15), **SETTINGS).terms
    assert term.p_adjusted is not None
    assert term.p_adjusted < 0.01
    calls = 0
    for seed in range(40):
        rows = world(np.random.default_rng(300 + seed), 0.0, units=1_500)
        (term,) = interaction(rows, **SETTINGS, method="fixed").terms
        assert term.p_value is not None
        calls += term.p_value < 0.05
    # 40 looks at 5%: more than 6 happen in less than 1 of 100 runs.
    assert calls <= 6


def test_weak_data_has_reasons_and_wrong_arguments_names() -> None:
    rows = world(np.random.default_rng(3), 0.0, units=50)
    alone = rows[rows.theirs == "off"]
    (term,) = interaction(alone, **SETTINGS).terms
    assert (term.difference, term.reason) == (None, "too_few_units")
    (term,) = interaction(rows.assign(play=1.0), **SETTINGS).terms
    assert term.reason == "constant_metric"
    with pytest.raises(BadRequest, match=r"data\.nothing"):
        interaction(rows, **{**SETTINGS, "value": "nothing"})
    with pytest.raises(BadRequest, match="two experiments"):
        interaction(rows, **{**SETTINGS, "other": "mine"})


def tables(key: str, unit: str | None = "profile", **said: Any) -> Any:
    spec = msgspec.json.encode(said).decode()
    return SimpleNamespace(key=key, experiment={"spec": spec, "unit": unit})


def test_experiments_that_never_share_a_unit_are_refused_with_the_reason() -> None:
    check = interactions._check_together
    check(tables("a"), tables("b"))
    for one, other, why in (
        (tables("a", layer="home"), tables("b", layer="home"), "are in one layer, home"),
        (tables("a"), tables("a"), "itself"),
        (tables("a"), tables("b", unit="account"), "randomise profile and account"),
        (tables("a", unit=None), tables("b", unit=None), "single decisions"),
    ):
        with pytest.raises(BadRequest, match=why):
            check(one, other)


def test_the_sentence_withholds_what_a_broken_split_makes_doubtful() -> None:
    found = interaction(world(np.random.default_rng(4), 0.15), **SETTINGS)
    assert "depends on the variant of b" in interactions.interaction_sentence(found, "a", "b")
    broken = msgspec.structs.replace(found, srm_p=1e-9)
    assert "not split as intended" in interactions.interaction_sentence(broken, "a", "b")
    assert isinstance(found, Interaction)
    assert reporting.interaction is interactions.interaction
    assert Path(interactions.__file__).name == "interactions.py"

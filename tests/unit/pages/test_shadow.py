"""On a page too, a variant in shadow gives what it would have given: under the rules, and with what
they add to its scores.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from topbill.domain.patience import Patience
from topbill.engine import Engine
from topbill.engine.compiled import Shadow
from topbill.pages.compiled import CompiledPage
from topbill.spec import from_raw

from ...small_page import PAGE, RULES

DIVERSE = PAGE.replace("candidates: 16", "candidates: 16, diversity: 0.8")
BOOSTED = (
    RULES
    + """
boosts:
  - {title: t55, by: 2, until: 2027-12-01}
"""
)


@pytest.mark.parametrize(("page_file", "rules"), [(PAGE, RULES), (DIVERSE, BOOSTED)])
def test_it_gives_what_the_variant_itself_gave(home: Any, page_file: str, rules: str) -> None:
    home.write(page=page_file, rules=rules)
    alone = home.compose(home.compiled_page(), 3)
    page = home.compiled_page()
    for compiled in page.engine.experiments.values():
        compiled.shadows = [Shadow(compiled.variants["only"], Patience())]
    beside = home.compose(page, 3)
    assert beside.answer.rows == alone.answer.rows
    layers = [decision for decision in beside.decisions if decision.layer != "page"]
    assert {decision.layer for decision in layers} == {"rows", "titles", "artwork"}
    for decision in layers:
        (shadow,) = decision.shadows
        assert shadow.failure == ""
        own = [placed.propensity for placed in decision.slate]
        assert shadow.propensities == pytest.approx(own, rel=1e-12)
        for position in shadow.probabilities or ():
            assert sum(position) == pytest.approx(1.0)


def test_what_ran_before_goes_on_beside_a_layers_launch(home: Any) -> None:
    home.write()
    alone = home.compose(home.compiled_page(), 3)
    page = home.compiled_page()
    launched = []
    for compiled in page.engine.experiments.values():
        former = compiled.experiment
        raw = {**former.raw, "title": "launched", "launch": {"shadow": "24h", "ramp": ["100%"]}}
        launched.append(replace(from_raw(raw, former.source), former=former))
    engine = Engine(launched, clock=lambda: 0.0)
    beside = home.compose(CompiledPage(page.file, engine, page.catalog), 3)
    assert beside.answer.rows == alone.answer.rows
    for before, after in zip(alone.decisions, beside.decisions, strict=True):
        assert (after.variant, after.revision) == (before.variant, before.revision)

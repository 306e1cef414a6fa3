"""Pages are what they were, decision by decision: a rewrite that draws something else, tells a
policy something else or logs other masks is no rewrite. They were pinned anew when pools came to
lie in the order of their merit, which 0.1.0 had by popularity, and watched titles to rest; and
when spare titles came to be sampled by Floyd's algorithm.
"""

from __future__ import annotations

import json
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec
import pytest

from topbill import pages, spec
from topbill.domain.records import Decision
from topbill.engine import Engine
from topbill.pages import CompiledPage, ComposedPage, PageRequest, compose

EXAMPLES = Path(__file__).parents[3] / "experiments"
REFERENCE = Path(__file__).parents[2] / "data" / "reference" / "pages"
NOW = 1_790_000_000.0


def digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True).encode()
    return blake2b(text, digest_size=8).hexdigest()


def summary(decision: Decision) -> dict[str, Any]:
    """What was drawn and how likely; the rest, whatever it holds, by its digest."""
    return {
        "id": decision.decision_id,
        "shown": [placed.action for placed in decision.slate],
        "propensities": [placed.propensity for placed in decision.slate],
        "eligible": digest(decision.eligible),
        "masks": digest(msgspec.to_builtins(decision.masks)),
        "context": digest(msgspec.json.decode(decision.context)),
    }


def composed(home: Any) -> dict[str, list[ComposedPage]]:
    small = home.compiled_page()
    asked = ({}, {"kids": True}, {"region": "de", "watched": ["t02", "t08"], "maturity": 12})
    known = spec.load_all(pages.experiment_folders(EXAMPLES))
    (file,) = pages.load_all(EXAMPLES, known)
    catalog = file.read_catalog()
    large = CompiledPage(file, Engine(known, clock=lambda: 0.0), catalog)
    request = PageRequest(page="home", profile="p1", watched=list(catalog.ids[3:30:9]))
    viewer = large.viewer(request, "page-1")
    return {
        "small": [home.compose(small, number, **body) for number, body in enumerate(asked)],
        "example": [compose(large, request, viewer, "page-1", NOW)],
    }


@pytest.mark.parametrize("page", ["small", "example"])
def test_a_page_is_what_it_was(home: Any, page: str) -> None:
    expected = json.loads((REFERENCE / f"{page}.json").read_text())
    decisions = [summary(d) for made in composed(home)[page] for d in made.decisions]
    assert len(decisions) == len(expected)
    for decision, pinned in zip(decisions, expected, strict=True):
        propensities = pinned.pop("propensities")
        # Sums may differ in their last bits from one processor to another.
        assert decision.pop("propensities") == pytest.approx(propensities, abs=1e-9)
        assert decision == pinned

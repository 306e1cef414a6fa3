"""Over very many pages, nothing stands on any that a rule bars."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.slow


def test_no_ineligible_title_in_a_million_placements(home: Any) -> None:
    """Conservation: region, age, dates, blocks, caps and no title twice, over a million placed
    titles and pictures.
    """
    home.write(policy="policy: uniform")
    compiled_page = home.compiled_page()
    catalog, placed, number = compiled_page.catalog, 0, 0
    limits = {
        kids: compiled_page.rules.allowed_by_rule("us", 7 if kids else 99, home.now)
        for kids in (True, False)
    }
    open_ = {kids: np.logical_and.reduce(list(lets.values())) for kids, lets in limits.items()}
    while placed < 1_000_000:
        kids = number % 2 == 0
        page = home.compose(compiled_page, number, kids=kids, region="us").answer
        rows = [catalog.index[tile.title] for row in page.rows for tile in row.titles]
        assert open_[kids][rows].all()
        assert len(set(rows)) == len(rows)
        assert np.bincount(catalog.franchise[rows], minlength=1).max() <= 2
        placed += 2 * len(rows)
        number += 1

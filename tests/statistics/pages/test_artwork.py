"""A catalogue's own pictures, where one kind earns more, are learned: with features across titles,
and without any picture by picture.
"""

from __future__ import annotations

import pytest
from benchmarks import artwork

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("with_features", [True, False])
def test_the_kind_that_earns_more_passes_80_percent_within_200_placements_a_title(
    with_features: bool,
) -> None:
    points = artwork.measure(60, 200, seed=4, with_features=with_features)
    assert max(point.share for point in points) > 0.8
    assert points[-1].share > points[0].share

"""The house's rules: what may stand on a page at all, and what may stand at a position given what
stands above it.

Every rule narrows the eligible set before the draw, so that the logged propensity stays the
probability of the draw. Region, maturity and availability always hold, and no title stands on a
page twice.
"""

from topbill.rules.compiled import CompiledRules, Counts, PoolCaps
from topbill.rules.constraints import PoolOrder, PositionChoices, RowConstraints
from topbill.rules.schema import RULE, Cap, PageShape, Rules, build

__all__ = [
    "RULE",
    "Cap",
    "CompiledRules",
    "Counts",
    "PageShape",
    "PoolCaps",
    "PoolOrder",
    "PositionChoices",
    "RowConstraints",
    "Rules",
    "build",
]

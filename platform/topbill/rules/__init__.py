"""The house's rules: what may stand on a page at all, and what may stand at a position given what
stands above it.

Every rule narrows the eligible set before the draw, so that the logged propensity stays the
probability of the draw. Region, maturity and availability always hold, and no title stands on a
page twice.
"""

from topbill.rules.filling import Filling, Turns
from topbill.rules.form import RULE, Cap, Rules, build
from topbill.rules.house import Counts, House

__all__ = ["RULE", "Cap", "Counts", "Filling", "House", "Rules", "Turns", "build"]

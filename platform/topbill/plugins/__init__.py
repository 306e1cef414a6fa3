"""What an installed package may bring to Topbill: policies of its own, named by entry points of the
group `topbill.policies`.
"""

from topbill.domain.chance import greedy, inverse_gap, mostly_greedy, softmax
from topbill.domain.features import FeatureColumns
from topbill.domain.records import Actions, Example, Floats
from topbill.plugins.policy import NoParams, OwnPolicy, State

__all__ = [
    "Actions",
    "Example",
    "FeatureColumns",
    "Floats",
    "NoParams",
    "OwnPolicy",
    "State",
    "greedy",
    "inverse_gap",
    "mostly_greedy",
    "softmax",
]

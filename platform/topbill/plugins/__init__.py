"""What an installed package may bring to Topbill: policies, named by entry points of the group
`topbill.policies`, and candidate signals, of the group `topbill.signals`.
"""

from topbill.domain.chance import greedy, inverse_gap, mostly_greedy, softmax
from topbill.domain.features import FeatureColumns
from topbill.domain.records import Actions, Example, Floats
from topbill.plugins.policy import NoParams, OwnPolicy, State
from topbill.plugins.signal import OwnSignal, PageTitles, PageViewer

__all__ = [
    "Actions",
    "Example",
    "FeatureColumns",
    "Floats",
    "NoParams",
    "OwnPolicy",
    "OwnSignal",
    "PageTitles",
    "PageViewer",
    "State",
    "greedy",
    "inverse_gap",
    "mostly_greedy",
    "softmax",
]

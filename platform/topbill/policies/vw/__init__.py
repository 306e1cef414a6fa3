"""Vowpal Wabbit as a policy: `policy` is what Topbill calls, `options` what a file may say of it,
`engine` what is asked of a build of VW, and `next_engine` and `mainline` are the two builds.
"""

from topbill.policies.vw.options import EXPLORATIONS, VWParams
from topbill.policies.vw.policy import VW

__all__ = ["EXPLORATIONS", "VW", "VWParams"]

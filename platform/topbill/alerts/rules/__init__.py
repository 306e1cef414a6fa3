"""The rules: each reads the sums of the last hours and says what of an experiment is at fault, what
is sound, and of what nothing can be said yet.

Each look of a rule calls a sound record faulty with probability `LEVEL` at most, by the statistics
that stand in its file. Of an experiment with ten tests that is looked at every hour, that is one
false alarm in more than a hundred years.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from topbill.alerts.rules.drawing import propensity_mismatch
from topbill.alerts.rules.drifting import feature_drift
from topbill.alerts.rules.exploring import exploration_collapsed
from topbill.alerts.rules.look import LEVEL, AlarmRule, RecordLook, RuleReading
from topbill.alerts.rules.rewarding import reward_silence
from topbill.alerts.rules.splitting import sample_ratio
from topbill.domain.alarm import AlarmKind

__all__ = ["LEVEL", "RULES", "AlarmRule", "RecordLook", "RuleReading"]

RULES: Mapping[AlarmKind, AlarmRule] = MappingProxyType(
    {
        "sample_ratio": sample_ratio,
        "reward_silence": reward_silence,
        "exploration_collapsed": exploration_collapsed,
        "feature_drift": feature_drift,
        "propensity_mismatch": propensity_mismatch,
    }
)
"""The rules that read sums of hours. In this order: a later one sees what the earlier ones say."""

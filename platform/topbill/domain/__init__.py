"""What words mean, once each: decisions, rewards, metrics, features, slates, chance."""

from topbill.domain.metric import METRIC_KINDS, Metric, MetricKind
from topbill.domain.objective import Objective

__all__ = ["METRIC_KINDS", "Metric", "MetricKind", "Objective"]

"""What an off-policy estimate is: a number with its interval, or the reason why there is none."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from topbill.domain.reasons import REMEDIES
from topbill.ope.diagnostics import REASONS, Diagnostics
from topbill.stats.frames import frame_of, html_of

if TYPE_CHECKING:
    import pandas as pd

TEXT = ("estimator", "reason", "method")
"""Columns of a frame of estimates that hold text."""


@dataclass(frozen=True)
class Estimate:
    """A policy's estimated value per decision (per slate for rankings), in units of the reward.

    `value`, `se`, `low`, `high` are all None when the log cannot bear a verdict; `reason` then
    holds a stable code (see `topbill.ope.REASONS`), else None. `method` states how the interval was
    made.
    """

    estimator: str
    value: float | None
    se: float | None
    low: float | None
    high: float | None
    reason: str | None
    diagnostics: Diagnostics
    method: str = ""
    lam: float | None = None
    alpha: float = 0.05

    @property
    def half_width(self) -> float | None:
        """How far the interval reaches from the value, on its wider side; None without one."""
        if self.value is None or self.low is None or self.high is None:
            return None
        return max(self.high - self.value, self.value - self.low)

    @property
    def remedy(self) -> str | None:
        """What to do where the estimate was refused, else None."""
        return REMEDIES[self.reason] if self.reason else None

    def as_dict(self) -> dict[str, Any]:
        """Plain types only; an infinite λ becomes the string "inf", as JSON has no such number."""
        # Diagnostics become a dict too.
        plain = asdict(self)
        plain["remedy"] = self.remedy
        if plain["lam"] == float("inf"):
            plain["lam"] = "inf"
        return plain

    def rescaled(self, shift: float, factor: float) -> Estimate:
        """The same estimate of shift + factor · reward; `factor` above 0."""
        if self.value is None or self.se is None or self.low is None or self.high is None:
            return self
        return replace(
            self,
            value=shift + factor * self.value,
            se=factor * self.se,
            low=shift + factor * self.low,
            high=shift + factor * self.high,
        )

    def within(self, least: float, most: float) -> Estimate:
        """The same estimate with its interval cut to what can be; whole where nothing of it can."""
        if self.low is None or self.high is None or self.low > most or self.high < least:
            return self
        return replace(self, low=max(self.low, least), high=min(self.high, most))

    def told_beyond(self, least: float, most: float) -> Estimate:
        """The same estimate, with a warning where its value itself is one that cannot be."""
        if self.value is None or least <= self.value <= most:
            return self
        side = f"above {most:g}, the most" if self.value > most else f"below {least:g}, the least"
        warning = (
            f"{self.estimator} is {self.value:.5g}, {side} that can be earned: its weights do "
            "that, being large or not 1 on average; of the others believe those that lie within"
        )
        warnings = (*self.diagnostics.warnings, warning)
        return replace(self, diagnostics=replace(self.diagnostics, warnings=warnings))

    def to_frame(self) -> pd.DataFrame:
        """A frame of one row: see `Estimates.to_frame`."""
        return Estimates({self.estimator: self}).to_frame()

    def _repr_html_(self) -> str:
        return Estimates({self.estimator: self})._repr_html_()


RECOMMENDED = ("dr", "snips", "ips", "cascade-dr", "snrips", "rips", "snsips", "sips")
"""Estimators in the order in which they are believed; the others only where these refuse."""


class Estimates(dict[str, Estimate]):
    """Estimates of one policy by the name of the estimator, in the order that was asked for."""

    def as_dict(self) -> dict[str, Any]:
        """Plain types only, for JSON."""
        return {name: each.as_dict() for name, each in self.items()}

    @property
    def recommended(self) -> Estimate | None:
        """The estimate to speak of where one is wanted: of those that were given, the one that
        assumes least, and is right however the log's probabilities moved; None where all refuse.
        """
        for name in (*RECOMMENDED, *self):
            if name in self and self[name].value is not None:
                return self[name]
        return None

    def noted(self, *notes: str) -> Estimates:
        """The same estimates, with sentences among the warnings of their diagnostics."""
        if not notes:
            return self
        estimates = Estimates()
        for name, each in self.items():
            warnings = (*notes, *each.diagnostics.warnings)
            estimates[name] = replace(
                each, diagnostics=replace(each.diagnostics, warnings=warnings)
            )
        return estimates

    def rescaled(self, shift: float, factor: float) -> Estimates:
        """The same estimates of shift + factor · reward."""
        return Estimates({name: each.rescaled(shift, factor) for name, each in self.items()})

    def within(self, least: float, most: float) -> Estimates:
        """The same estimates, each `Estimate.within`."""
        return Estimates({name: each.within(least, most) for name, each in self.items()})

    def told_beyond(self, least: float, most: float) -> Estimates:
        """The same estimates, each `Estimate.told_beyond`."""
        return Estimates({name: each.told_beyond(least, most) for name, each in self.items()})

    def to_frame(self) -> pd.DataFrame:
        """A row per estimator, one column a number: estimator, value, se, low, high, lam, alpha,
        ess, rows, units, method, reason. A number that is unknown is `pandas.NA`, and `reason`
        says why.
        """
        return frame_of([row_of(each) for each in self.values()], text=TEXT)

    def _repr_html_(self) -> str:
        codes = dict.fromkeys(each.reason for each in self.values() if each.reason)
        notes = [f"{code}: {REASONS[code]}. {REMEDIES[code]}" for code in codes]
        return html_of(self.to_frame(), *notes)


def row_of(each: Estimate) -> dict[str, Any]:
    """An estimate as a row of a frame."""
    return {
        "estimator": each.estimator,
        "value": each.value,
        "se": each.se,
        "low": each.low,
        "high": each.high,
        "lam": each.lam,
        "alpha": each.alpha,
        "ess": each.diagnostics.ess,
        "rows": each.diagnostics.rows,
        "units": each.diagnostics.units,
        "method": each.method,
        "reason": each.reason or "",
    }


def refused(name: str, reason: str, diagnostics: Diagnostics, alpha: float) -> Estimate:
    """An estimate that is not given, and why."""
    return Estimate(name, None, None, None, None, reason, diagnostics, alpha=alpha)

"""The one dict of estimators over single choices; rankings have theirs in
`slate`."""

from __future__ import annotations

from collections.abc import Iterable

from topbill.domain.errors import BadRequest
from topbill.ope.estimators import adaptive, dr, ips, mips
from topbill.ope.estimators.estimator import Estimator

ESTIMATORS: dict[str, Estimator] = {
    estimator.name: estimator
    for estimator in (*ips.FAMILY, *dr.FAMILY, *mips.FAMILY, *adaptive.FAMILY)
}
DEFAULT = ("ips", "snips", "clipped-ips", "dm", "dr", "sndr", "switch-dr", "dros")


def chosen(names: str | Iterable[str]) -> list[Estimator]:
    """The estimators of those names, in that order. Raises BadRequest for a name that is not
    registered.
    """
    # One name may come as a string, whose letters are no names.
    wanted = (names,) if isinstance(names, str) else tuple(dict.fromkeys(names))
    unknown = [name for name in wanted if name not in ESTIMATORS]
    if unknown:
        raise BadRequest(
            "estimators",
            f"got {', '.join(map(repr, unknown))}; expected some of {', '.join(ESTIMATORS)}",
        )
    return [ESTIMATORS[name] for name in wanted]

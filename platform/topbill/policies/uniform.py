"""Uniform and fixed orders: the two policies that learn nothing, one all chance, one none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

import msgspec
import numpy as np

from topbill.domain.records import Actions, Example, Floats, Indices
from topbill.domain.slate import Slate, SlateRequest, SlatesRequest
from topbill.policies import codec
from topbill.policies.linear.chances import GREEDY, Chances
from topbill.policies.linear.drawing import Drawing
from topbill.policies.linear.models import ActionIndex

_NO_CONTEXT = np.zeros(0)


class _Even:
    """Every remaining action is equally likely."""

    __slots__ = ()
    mean: Floats | None = None
    width: Floats | None = None

    def probabilities(self, remaining: Indices) -> Floats:
        return np.full(len(remaining), 1.0 / len(remaining))


class _Ordered:
    """The first remaining action of an order, surely."""

    __slots__ = ("places",)
    mean: Floats | None = None
    width: Floats | None = None

    def __init__(self, places: Indices) -> None:
        self.places = places

    def probabilities(self, remaining: Indices) -> Floats:
        p = np.zeros(len(remaining))
        p[self.places[remaining].argmin()] = 1.0
        return p


class Stateless:
    """What policies without a state share: they learn nothing, and nothing is known of why."""

    kind: ClassVar[str]
    default_spread: ClassVar[float] = 0.0

    @staticmethod
    def own_spread(params: Any) -> float:  # noqa: ARG004
        """Nothing."""
        return 0.0

    def update(self, examples: Sequence[Example]) -> None:
        """Learns nothing."""

    def dump(self) -> bytes:
        return codec.dump(self.kind)

    def load(self, blob: bytes) -> None:
        codec.load(self.kind, blob, arrays={}, numbers=())

    def explain(
        self,
        x: Floats,  # noqa: ARG002
        actions: Actions,
        names: tuple[Sequence[str], Sequence[str]],  # noqa: ARG002
    ) -> list[dict[str, float]]:
        """Nothing adds to a score that does not exist."""
        return [{} for _ in actions.ids]


class _SameForAll(Stateless):
    """What policies share that give every viewer the same: the highest of their `scores`, ties
    shared."""

    _drawing: Drawing | None = None

    def scores(self, actions: Actions) -> Floats:
        """(K,) scores that say what `score` says."""
        raise NotImplementedError

    def slate(self, x: Floats, actions: Actions, request: SlateRequest) -> Slate | None:
        """The slate that `domain.slate.rank` draws of `score`, in compiled calls; None where it has
        to.
        """
        return self._drawing_of(actions).slate(x, request)

    def slates(self, xs: Floats, actions: Actions, request: SlatesRequest) -> list[Slate] | None:
        """`slate` of several contexts (n × d), in one compiled call; None where it takes one for
        each.
        """
        return self._drawing_of(actions).slates(xs, request, None, None)

    def _drawing_of(self, actions: Actions) -> Drawing:
        """What draws slates of these."""
        drawing = self._drawing
        if drawing is None or drawing.index.actions is not actions:
            index = ActionIndex(actions, {})
            drawing = Drawing(index, Chances(GREEDY), scores=self.scores(actions))
            self._drawing = drawing
        return drawing


class UniformParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Uniform takes no parameters."""


class Uniform(_SameForAll):
    """Every order equally likely: the reference for off-policy evaluation and the simplest
    control.
    """

    kind: ClassVar[str] = "uniform"
    deterministic: ClassVar[bool] = False

    Params: ClassVar[type[msgspec.Struct]] = UniformParams

    @staticmethod
    def own_spread(params: UniformParams) -> float:  # noqa: ARG004
        """All of it."""
        return 1.0

    def __init__(
        self,
        params: UniformParams,  # noqa: ARG002
        *,
        context_size: int = 0,  # noqa: ARG002
        action_size: int = 0,  # noqa: ARG002
        seed: int = 0,  # noqa: ARG002
    ) -> None:
        self._scored = _Even()

    def score(self, x: Floats, actions: Actions, seed: int) -> _Even:  # noqa: ARG002
        return self._scored

    def scores(self, actions: Actions) -> Floats:
        """(K,) all alike."""
        return np.zeros(len(actions))


class FixedParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`order` names actions, best first; an action that is named twice keeps its first place."""

    order: Annotated[
        list[str], msgspec.Meta(description="action ids, best first; others follow as given")
    ] = []


class Fixed(_SameForAll):
    """The editors' order: the actions named in `order`, then the others as given."""

    kind: ClassVar[str] = "fixed"
    deterministic: ClassVar[bool] = True

    Params: ClassVar[type[msgspec.Struct]] = FixedParams

    def __init__(
        self,
        params: FixedParams,
        *,
        context_size: int = 0,  # noqa: ARG002
        action_size: int = 0,  # noqa: ARG002
        seed: int = 0,  # noqa: ARG002
    ) -> None:
        self._place: dict[str, int] = {}
        for name in params.order:
            self._place.setdefault(name, len(self._place))
        self._last: tuple[Actions, _Ordered] | None = None

    def score(self, x: Floats, actions: Actions, seed: int) -> _Ordered:  # noqa: ARG002
        last = self._last
        if last is None or last[0] is not actions:
            after = len(self._place)
            places = [self._place.get(name, after + i) for i, name in enumerate(actions.ids)]
            last = self._last = (actions, _Ordered(np.array(places, dtype=np.intp)))
        return last[1]

    def scores(self, actions: Actions) -> Floats:
        """(K,) the higher the sooner."""
        return -self.score(_NO_CONTEXT, actions, 0).places.astype(np.float64)

"""OpenFeature's own OFREP provider for a Topbill service, with what it leaves open: what was shown
is told, and `track` is a reward.

    from openfeature import api
    from openfeature.evaluation_context import EvaluationContext
    from topbill_client import Client
    from topbill_client.openfeature import TopbillProvider

    topbill = Client("http://127.0.0.1:8600")
    api.set_provider(TopbillProvider("http://127.0.0.1:8600", topbill))
    flags = api.get_client()
    viewer = EvaluationContext(targeting_key="profile-7", attributes={"device": "tv"})
    show(flags.get_object_value("home-artwork", {}, viewer))
    flags.track("play", viewer)

Needs `pip install 'topbill-client[openfeature]'`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from threading import Lock

from openfeature.contrib.provider.ofrep import OFREPProvider
from openfeature.evaluation_context import EvaluationContext
from openfeature.flag_evaluation import FlagEvaluationDetails, FlagValueType
from openfeature.hook import Hook, HookContext, HookHints
from openfeature.track import TrackingEventDetails

from topbill_client.clients import Client

_VIEWERS = 10_000
"""Of how many viewers it is known what they were shown last."""
FLAG = "flag"
"""The attribute of a tracking event that says of which flag alone it is."""


class TopbillProvider(OFREPProvider):
    """An OFREP provider that rewards what it evaluated.

    `track` rewards the last decision of each flag that this process evaluated for the context's
    targeting key, or of the one flag that the event's attribute `flag` names. Of a viewer whom
    another process served it knows nothing: send rewards by the `decisionId` of the flag's metadata
    there.
    """

    def __init__(
        self,
        base_url: str,
        client: Client,
        *,
        headers_factory: Callable[[], dict[str, str]] | None = None,
        timeout: float = 5.0,
    ) -> None:
        """`client` queues and delivers the rewards, of the same service; all else is as the OFREP
        provider has it. A service with keys takes `headers_factory=lambda: {"Authorization":
        "Bearer KEY"}`.
        """
        super().__init__(base_url, headers_factory=headers_factory, timeout=timeout)
        self._client = client
        self._shown: OrderedDict[str, dict[str, str]] = OrderedDict()
        self._lock = Lock()

    def get_provider_hooks(self) -> list[Hook]:
        """One that remembers what was decided."""
        return [*super().get_provider_hooks(), _Remembering(self)]

    def remember(self, viewer: str, flag: str, decision_id: str) -> None:
        """Note what a viewer is shown of a flag."""
        with self._lock:
            self._shown.setdefault(viewer, {})[flag] = decision_id
            self._shown.move_to_end(viewer)
            while len(self._shown) > _VIEWERS:
                self._shown.popitem(last=False)

    def track(
        self,
        tracking_event_name: str,
        evaluation_context: EvaluationContext | None = None,
        tracking_event_details: TrackingEventDetails | None = None,
    ) -> None:
        """Reward what the context's viewer was shown. Raises nothing: what comes of rewards is
        counted in the client's `delivered`.
        """
        viewer = None if evaluation_context is None else evaluation_context.targeting_key
        value, flag = 1.0, None
        if tracking_event_details is not None:
            said = tracking_event_details.value
            value = 1.0 if said is None else float(said)
            flag = tracking_event_details.attributes.get(FLAG)
        with self._lock:
            shown = dict(self._shown.get(viewer or "", {}))
        for key, decision_id in shown.items():
            if flag in (None, key):
                self._client.reward(decision_id, tracking_event_name, value)


class _Remembering(Hook):
    """Tells its provider what was decided."""

    def __init__(self, provider: TopbillProvider) -> None:
        self._provider = provider

    def after(
        self,
        hook_context: HookContext,
        details: FlagEvaluationDetails[FlagValueType],
        hints: HookHints,  # noqa: ARG002
    ) -> None:
        """Remember a decision."""
        viewer = hook_context.evaluation_context.targeting_key
        decision_id = details.flag_metadata.get("decisionId")
        if viewer and isinstance(decision_id, str):
            self._provider.remember(viewer, hook_context.flag_key, decision_id)

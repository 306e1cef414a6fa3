"""Whole pages as the service would have logged them: each layer drawn by itself, plays that depend
on two of them.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np

from topbill import spec
from topbill.domain.origin import Origin
from topbill.domain.records import Decision, Placement, RewardEvent
from topbill.spec import Experiment

START, STEP = 1_790_000_000_000_000, 100_000  # µs
VIEWERS = 150
LAYER = """
experiment: page-{layer}
title: The homepage's {layer}
surface: {layer}
layer: page-{layer}
unit: profile_id
context: {{device: {{type: category, values: [tv, mobile]}}}}
actions: {actions}
metrics:
  play: {{event: play, kind: binary, window: 5s}}
  watched: {{event: watch_fraction, kind: max, window: 5s}}
objective: {{play: 0.5, watched: 1.0}}
variants:
  first: {{policy: fixed, share: 50%, control: true}}
  any: {{policy: uniform, share: 50%}}
"""
ACTIONS = {layer: [f"{layer[0]}{i}" for i in range(12)] for layer in ("rows", "titles", "artwork")}
Event = tuple[RewardEvent, Origin]


def layers(folder: Path) -> list[Experiment]:
    """The three experiments that decide the page."""
    for layer, actions in ACTIONS.items():
        named = ", ".join(f"{{id: {action}}}" for action in actions)
        (folder / f"{layer}.yaml").write_text(LAYER.format(layer=layer, actions=f"[{named}]"))
    return spec.load_all([folder])


def browse(pages: int, seed: int = 8) -> tuple[list[Decision], list[Event]]:
    """`pages` pages of 150 viewers, each with one variant of every layer: drawing titles or
    pictures at random doubles or trebles the chance of a play; one page in twenty had popular
    titles for want of candidates."""
    rng = np.random.default_rng(seed)
    decisions, events = list[Decision](), list[Event]()
    assigned = [
        {layer: str(rng.choice(["first", "any"])) for layer in ACTIONS} for _ in range(VIEWERS)
    ]
    for number in range(pages):
        drawn = assigned[number % VIEWERS]
        likely = 0.15 * (1 + (drawn["titles"] == "any")) * (1 + 2 * (drawn["artwork"] == "any"))
        own = [
            _page(number, drawn, rng),
            *(_layer(number, layer, v, rng) for layer, v in drawn.items()),
        ]
        decisions += own
        if rng.random() < likely:
            watched = float(rng.random())
            for decision in own:
                for name, value in (("play", 1.0), ("watch_fraction", watched)):
                    at = decision.decided_at + 500_000
                    event = RewardEvent(
                        decision_id=decision.decision_id,
                        event_id=name,
                        event=name,
                        value=value,
                        received_at=at,
                        position=0,
                    )
                    events.append((event, Origin.of(decision)))
    return decisions, events


def _page(number: int, drawn: dict[str, str], rng: np.random.Generator) -> Decision:
    told = {
        "layers": [
            {"layer": layer, "experiment": f"page-{layer}", "variant": v}
            for layer, v in drawn.items()
        ],
        "fallbacks": ["candidates"] if rng.random() < 0.05 else [],
    }
    return Decision(
        **_who(number, "home", f"page-{number}"),
        variant=None,
        layer="page",
        actions=msgspec.Raw(msgspec.json.encode(told)),
        slate=(Placement(0, "t0/r0", 1.0),),
        policy="page",
    )


def _layer(number: int, layer: str, variant: str, rng: np.random.Generator) -> Decision:
    known = ACTIONS[layer]
    order = list(rng.permutation(known)) if variant == "any" else known
    p = [1.0 / (len(known) - k) if variant == "any" else 1.0 for k in range(4)]
    slate = tuple(Placement(k, str(order[k]), p[k]) for k in range(4))
    return Decision(
        **_who(number, f"page-{layer}", f"page-{number}:{layer}"),
        variant=variant,
        layer=layer,
        eligible=tuple(known),
        slate=slate,
        propensity=float(np.prod(p)),
        policy="uniform" if variant == "any" else "fixed",
        latency_us=300,
    )


def _who(number: int, experiment: str, decision_id: str) -> dict[str, object]:
    return {
        "decision_id": decision_id,
        "experiment": experiment,
        "revision": "r",
        "unit": f"u{number % VIEWERS}",
        "context": msgspec.Raw(b'{"device": "tv"}'),
        "page": f"page-{number}",
        "reason": "policy",
        "decided_at": START + number * STEP,
    }

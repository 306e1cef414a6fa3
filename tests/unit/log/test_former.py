"""What goes on beside a launch: the revision that ran before, by the audit and the orders alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from topbill.log import Log, open_log
from topbill.log.former import former_of, with_formers
from topbill.log.orders import give_order, obeyed, order_of, orders_of
from topbill.log.protocol import Order, OrderKind
from topbill.spec import Experiment, Status, from_raw

LAUNCH = {"launch": {"ramp": ["10%", "100%"]}}


class World:
    """A log, a file, and a service that takes over whatever is ordered."""

    def __init__(self, art: Experiment, log: Log) -> None:
        self.art, self.log, self.file = art, log, art

    def save(self, **changed: Any) -> str:
        """Save the file with these keys; returns the revision that runs then."""
        self.file = from_raw({**self.art.raw, **changed}, "art.yaml")
        return self.take_over().fingerprint

    def take_over(self) -> Experiment:
        (running,) = with_formers(obeyed([self.file], self.log.orders()), [self.file], self.log)
        text = msgspec.json.encode(running.raw).decode()
        self.log.revise("art", running.fingerprint, "ann", text)
        return running

    def launch(self, kind: OrderKind, traffic: float | None, status: Status | None = None) -> None:
        """Give a step of the launch."""
        given = orders_of(self.log, self.file)
        order = Order("art", "", "", 0, "launch", status, "", kind=kind, traffic=traffic)
        self.log.give_order(order_of(self.file, order._replace(step=len(given) + 1)))
        self.take_over()

    def person(self, status: Status | None) -> None:
        give_order(self.log, "art", status, "ann", "")
        self.take_over()

    @property
    def beside(self) -> str | None:
        """The revision that goes on beside what runs."""
        former = self.take_over().former
        return None if former is None else former.fingerprint


@pytest.fixture
def world(art: Experiment) -> Iterator[World]:
    with open_log("memory:") as log:
        yield World(art, log)


def test_a_key_that_never_ran_has_nothing_beside_its_launch(world: World) -> None:
    world.save(**LAUNCH)
    assert world.beside is None
    world.save(title="mended", **LAUNCH)
    assert world.beside is None


def test_what_ran_goes_on_until_the_last_step(world: World) -> None:
    before = world.save()
    world.save(**LAUNCH)
    assert world.beside == before
    world.launch("shadow", None)
    world.launch("traffic", 0.1)
    assert world.beside == before
    world.launch("traffic", 1.0)
    assert world.beside is None


@pytest.mark.parametrize("status", ["stopped", "paused", "draft"])
def test_what_did_not_run_does_not_go_on(status: str, world: World) -> None:
    world.save()
    world.save(status=status)
    world.save(**LAUNCH)
    assert world.beside is None


@pytest.mark.parametrize(("kind", "status"), [("rollback", "stopped"), ("pause", "paused")])
def test_harm_brings_back_what_ran_before(kind: OrderKind, status: Status, world: World) -> None:
    before = world.save()
    world.save(**LAUNCH)
    for traffic in (0.1, 1.0):
        world.launch("traffic", traffic)
        world.launch(kind, traffic, status)
        assert world.beside == before
        # Somebody who stops the experiment stops all of it.
        world.person("stopped")
        assert world.beside is None
        world.launch("approval", traffic, "stopped")
        assert world.beside is None
        world.person(None)
        assert world.beside == (before if traffic < 1.0 else None)


def test_a_launch_that_did_not_get_to_its_end_is_no_former(world: World) -> None:
    before = world.save()
    world.save(**LAUNCH)
    world.launch("traffic", 0.1)
    world.save(title="mended", **LAUNCH)
    assert world.beside == before
    world.launch("traffic", 1.0)
    world.launch("rollback", 1.0, "stopped")
    world.save(title="mended again", **LAUNCH)
    assert world.beside == before


def test_what_was_launched_to_its_end_is_what_runs(world: World) -> None:
    world.save(**LAUNCH)
    for traffic in (0.1, 1.0):
        world.launch("traffic", traffic)
    launched = world.take_over().fingerprint
    world.save(title="the next one", **LAUNCH)
    assert world.beside == launched


@pytest.mark.parametrize(
    "changed",
    [
        {"unit": "account_id"},
        {"layer": "another"},
        {"layer": "art-layer", "traffic": "50%", "launch": {"ramp": ["10%", "50%"]}},
    ],
)
def test_what_gives_other_units_their_place_does_not_go_on(
    changed: dict[str, Any], world: World
) -> None:
    world.save(layer=changed.get("layer", "art") if "traffic" in changed else "art")
    world.save(**{**LAUNCH, **changed})
    assert world.beside is None


def test_what_this_version_cannot_read_does_not_go_on(world: World) -> None:
    world.log.revise("art", "f" * 12, "ann", '{"experiment": "art"}')
    world.save(**LAUNCH)
    assert former_of(world.file, world.log.revisions(), world.log.orders()) is None


def test_a_launch_brings_what_did_not_run_before_in_the_same_way(world: World) -> None:
    variants = world.art.raw["variants"]
    world.save()
    more = {"uniform": {"policy": "uniform", "share": "10%"}}
    more["bold"] = {"policy": "fixed", "order": ["b"], "share": "10%"}
    world.save(**LAUNCH, variants={**variants, **more})
    assert [variant.name for variant in world.take_over().launched] == ["bold"]
    other = {"thompson": {"policy": "thompson", "share": "60%", "exploration": 0.5}}
    world.save(**LAUNCH, variants={**variants, **other})
    assert [variant.name for variant in world.take_over().launched] == ["thompson"]
    # Policies that learn on other features are others; orders and chance are not.
    world.save(**LAUNCH, context={"device": {"type": "category", "values": ["tv"]}})
    assert [variant.name for variant in world.take_over().launched] == ["thompson"]


def test_without_a_former_a_launch_brings_all_but_the_control(art: Experiment) -> None:
    file = from_raw({**art.raw, **LAUNCH}, "art.yaml")
    assert [variant.name for variant in file.launched] == ["thompson", "uniform"]

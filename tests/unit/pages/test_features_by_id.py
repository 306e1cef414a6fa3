"""A page whose layers look features up by id: what its policies saw can be had again from its
decisions, also when the tables have changed since.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pa_parquet
import pytest

from topbill.domain.records import Actions, Decision
from topbill.engine import CompiledExperiment, DecisionInput, Engine, logged_actions
from topbill.entities import EntityStore
from topbill.pages import CompiledPage
from topbill.policies import KINDS

TABLE = """
entities:
  {name}:
    file: {name}.parquet
    key: id
    of: {of}
    features:
      worth: {{type: number}}
      {name}_look: {{type: embedding, length: 3}}
"""
VIEWERS = """
  people:
    file: people.parquet
    key: id
    of: unit
    features:
      plan: {type: category, values: [basic, premium]}
"""


def write(data: Path, name: str, ids: list[str], seed: int) -> None:
    rng = np.random.default_rng(seed)
    columns = {
        "id": ids,
        "worth": rng.standard_normal(len(ids)),
        f"{name}_look": list(rng.standard_normal((len(ids), 3))),
        "plan": rng.choice(["basic", "premium"], len(ids)),
    }
    (data / "tables").mkdir(parents=True, exist_ok=True)
    draft = data / "draft"
    pa_parquet.write_table(pa.table(columns), draft)
    draft.replace(data / "tables" / f"{name}.parquet")


class World:
    """The small page with a table for each layer, half of whose ids are known, and one of
    viewers."""

    def __init__(self, home: Any, data: Path, policy: str) -> None:
        home.write(policy=policy)
        own = home.folder / "pages" / "home"
        for name in ("rows", "titles", "artwork"):
            more = TABLE.format(name=name, of="action") + (VIEWERS if name == "titles" else "")
            (own / f"{name}.yaml").write_text((own / f"{name}.yaml").read_text() + more)
        self.data, self.catalog = data, home.catalog()
        self.change(seed=1)
        self.store = EntityStore(data)
        self.engine = Engine(home.experiments(), clock=lambda: 0.0, tables=self.store)
        self.engine.follow_tables()
        self.page = CompiledPage(home.file(), self.engine, self.catalog)

    def change(self, seed: int) -> None:
        pictures = [picture.id for own in self.catalog.pictures for picture in own]
        write(self.data, "rows", ["best", "fun"], seed)
        write(self.data, "titles", list(self.catalog.ids)[::2], seed)
        write(self.data, "artwork", pictures[::2], seed)
        write(self.data, "people", ["u1", "u2"], seed)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "fixed"])
def test_what_policies_saw_can_be_had_again_though_the_tables_have_changed(
    kind: str, home: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ", model: shared" if kind in ("linucb", "thompson", "squarecb") else ""
    scores = ", feature: worth" if kind == "scored" else ""
    policy = f"policy: {kind}{model}{scores}, min_probability: 1%"
    world = World(home, tmp_path / "data", policy)
    seen: dict[str, tuple[Actions, Any]] = {}
    choose = Engine.choose

    def spy(
        engine: Engine, compiled: CompiledExperiment, inputs: DecisionInput, *others: Any
    ) -> Decision:
        seen[inputs.decision_id] = inputs.actions, inputs.x
        return choose(engine, compiled, inputs, *others)

    monkeypatch.setattr(Engine, "choose", spy)
    first = home.compose(world.page, 1)
    world.change(seed=2)
    assert world.engine.follow_tables()
    world.page.renew_features()
    second = home.compose(world.page, 2)
    decisions = [d for d in (*first.decisions, *second.decisions) if d.layer != "page"]
    assert {d.reason for d in decisions} == {"policy"}
    versions = {(use.table, use.version) for d in decisions for use in d.entities}
    assert len(versions) == 8
    for decision in decisions:
        compiled = CompiledExperiment(
            world.engine.find(decision.experiment).experiment, EntityStore(world.data)
        )
        again = logged_actions(compiled, decision)
        actions, x = seen[decision.decision_id]
        assert again.ids == actions.ids
        assert np.array_equal(again.features, actions.features)
        assert np.array_equal(compiled.encoder.encode(json.loads(bytes(decision.context))), x)
        own = next(use for use in decision.entities if use.table == decision.layer)
        assert own.asked == len(actions.ids)
        assert 0 < own.unknown < own.asked or decision.layer == "artwork"
        look = compiled.action_encoder.names.index(f"{decision.layer}_look:0")
        assert np.count_nonzero(actions.features[:, look] == 0.0) == own.unknown
        # Nothing of the tables of actions is in what is logged of them.
        assert b"worth" not in bytes(decision.actions)
        if decision.layer == "titles":
            assert json.loads(bytes(decision.context))["plan"] in ("basic", "premium")


def test_a_guest_s_id_is_not_asked_for(home: Any, tmp_path: Path) -> None:
    world = World(home, tmp_path / "data", "policy: uniform")
    titles = home.compose(world.page, profile=None, session="s").decisions[2]
    people = next(use for use in titles.entities if use.table == "people")
    assert (people.asked, people.unknown) == (0, 0)
    assert "plan" not in json.loads(bytes(titles.context))

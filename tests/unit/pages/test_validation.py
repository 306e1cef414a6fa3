"""What validates is what the service can start with: experiments of every layer, with every kind of
policy and with any part left out, make pages of which no layer falls back.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pa_parquet
import pytest

from topbill import pages, policies, spec
from topbill.domain.errors import SpecError
from topbill.engine import Engine
from topbill.pages import CompiledPage

from ...small_page import PAGE, ROWS, layer

OWN = {
    "rows": ("{}", "{source: {type: category, values: [a]}}", "{'*': {type: hashed, size: 8}}"),
    "titles": (
        "{}",
        "{new: {type: flag}}",
        "{sources: {type: vector, keys: [nothing]}}",
        "{row: {type: category, values: [other]}}",
        "{decade: {type: number, min: 0, max: 1}, maturity: {type: number}}",
    ),
    "artwork": ("{}", "{tone: {type: category, values: [a]}}", "{mood: {type: vector, keys: [a]}}"),
}
CONTEXTS = ("", "context: {}", "context: {'*': {type: hashed, size: 8}}")
SETTINGS = ("status: draft", "status: stopped", "traffic: 50%", "holdout: 10%", "slots: 2")
WIDE = "[" + ", ".join(f"k{i}" for i in range(1000)) + "]"


def variations() -> Iterator[tuple[str, str]]:
    """(layer, its experiment file)."""
    for surface, declared in OWN.items():
        actions = ROWS if surface == "rows" else "[]"
        plain = layer(surface, surface, "policy: thompson, model: shared", "{}", actions)
        for features in declared:
            yield surface, layer(surface, surface, "policy: auto", features, actions)
        for kind in policies.KINDS:
            if kind == "scored":
                continue
            policy = f"policy: {kind}" + (", min_probability: 1%" if kind == "linucb" else "")
            yield surface, layer(surface, surface, policy, "{}", actions)
        if surface == "titles":
            scored = "policy: scored, feature: merit"
            yield surface, layer(surface, surface, scored, "{merit: {type: number}}", actions)
        lines = plain.splitlines()
        at = lines.index("context:")
        for context in CONTEXTS:
            yield surface, "\n".join([*lines[:at], context, *lines[at + 2 :]])
        for setting in SETTINGS:
            yield surface, f"{plain}{setting}\n"


def test_an_experiment_of_any_layer_that_validates_makes_pages_without_a_fallback(
    home: Any,
) -> None:
    own, made = home.folder / "pages" / "home", 0
    for surface, text in variations():
        home.write()
        (own / f"{surface}.yaml").write_text(text)
        experiments = home.experiments()
        assert not [v for v in map(pages.validate_experiment, experiments) if v not in experiments]
        ((_, page),) = pages.validate(home.folder, experiments)
        assert isinstance(page, pages.PageFile), (text, page)
        compiled = home.compiled_page()
        answer = home.compose(compiled).answer
        assert answer.fallbacks == (), text
        assert any(row.titles for row in answer.rows)
        made += 1
    assert made > 50


def test_a_layer_of_any_context_takes_what_no_other_layer_declares(home: Any) -> None:
    rows = home.folder / "pages" / "home" / "rows.yaml"
    taste = "taste: {type: vector, keys: [comedy, drama, action]}"
    rows.write_text(rows.read_text().replace(taste, "'*': {type: hashed, size: 8}"))
    context = msgspec.Raw(b'{"anything": {"nested": 1}}')
    answer = home.compose(home.compiled_page(), context=context).answer
    assert answer.fallbacks == ()


def test_layers_that_read_one_context_feature_differently_are_refused(home: Any) -> None:
    rows = home.folder / "pages" / "home" / "rows.yaml"
    taste = "{type: vector, keys: [comedy, drama, action]}"
    rows.write_text(rows.read_text().replace(taste, "{type: number}"))
    with pytest.raises(SpecError, match="titles, whose context feature taste is a vector"):
        home.file()


def test_a_policy_that_needs_more_memory_than_there_is_is_refused(home: Any) -> None:
    titles = home.folder / "pages" / "home" / "titles.yaml"
    wide = f"{{genres: {{type: vector, keys: {WIDE}}}}}"
    text = layer("titles", "titles", "policy: thompson, model: shared", wide)
    titles.write_text(text.replace("keys: [comedy, drama, action]", f"keys: {WIDE}"))
    with pytest.raises(SpecError, match=r"variants.only: got thompson .*GiB; expected at most 2"):
        home.experiments()


def test_a_policy_whose_package_is_not_there_is_told_of_its_file(
    home: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("topbill.policies.vw.engine.util.find_spec", lambda _: None)
    monkeypatch.setattr("topbill.policies.vw.policy.engine", lambda *_: _missing())
    titles = home.folder / "pages" / "home" / "titles.yaml"
    titles.write_text(layer("titles", "titles", "policy: vw"))
    verdicts = [pages.validate_experiment(experiment) for experiment in home.experiments()]
    (problem,) = [v for v in verdicts if not isinstance(v, spec.Experiment)]
    assert "titles.yaml: variants" in str(problem)
    assert "pip install vowpalwabbit" in str(problem)


def _missing() -> Any:
    from topbill.policies.vw import engine

    return engine.engine.__wrapped__(None)


def with_pictures(home: Any, pictures: str, features: str = "{}") -> Any:
    """The small page whose titles all have these pictures (JSON), or what is wrong with it."""
    home.write(rules="", page=PAGE.replace("titles.csv", "own.parquet"))
    rows = []
    for number in range(12):
        row = {
            "id": f"t{number:02d}",
            "title": f"T{number}",
            "year": 2000,
            "genres": "comedy|drama|action",
        }
        rows.append({**row, "regions": "us", "franchise": "saga0", "pictures": pictures})
    pa_parquet.write_table(pa.Table.from_pylist(rows), home.folder / "pages" / "own.parquet")
    own = home.folder / "pages" / "home" / "artwork.yaml"
    own.write_text(layer("artwork", "artwork", "policy: thompson, model: shared", features))
    ((_, verdict),) = pages.validate(home.folder, home.experiments())
    if isinstance(verdict, SpecError):
        return str(verdict)
    return " ".join(pages.notes(verdict, verdict.read_catalog(), home.experiments()))


PAIR = '[{"url": "a.jpg", "scene": "sea", "people": 2}, {"url": "b.jpg", "scene": "sky"}]'
SCENE = "{scene: {type: category, values: [sea, sky]}}"


def test_pictures_of_which_nothing_can_be_learned_across_titles_are_told(home: Any) -> None:
    says = with_pictures(home, '["a", "b"]', SCENE)
    assert "artwork: to its policies all pictures of a title look alike" in says
    assert "only learns nothing with model: shared; model: hybrid learns each picture" in says
    assert "look alike" in with_pictures(home, PAIR, "{}")
    assert "look alike" not in with_pictures(home, PAIR, SCENE)
    assert "has nothing to choose" in with_pictures(home, '["a"]', SCENE)


def test_a_feature_of_pictures_is_declared_as_what_it_is(home: Any) -> None:
    says = with_pictures(home, PAIR, "{scene: {type: number}}")
    assert "action feature scene (number); expected type category, since pictures have text" in says
    says = with_pictures(home, PAIR, "{scenes: {type: category, values: [sea]}}")
    assert "artwork: no picture has scenes; did you mean scene?" in says


def test_pictures_reach_the_policy_and_the_page(home: Any) -> None:
    with_pictures(home, PAIR, SCENE)
    (file,) = pages.load_all(home.folder, home.experiments())
    page = CompiledPage(file, Engine(home.experiments(), clock=lambda: 0.0), file.read_catalog())
    composed = home.compose(page)
    tile = composed.answer.rows[0].titles[0]
    assert (tile.picture or "").startswith(f"{tile.title}/")
    drawn = next(d for d in composed.decisions if d.layer == "artwork")
    offers = msgspec.json.decode(drawn.actions)
    assert {offer["features"]["scene"] for offer in offers} == {"sea", "sky"}
    assert all(offer["features"].keys() == {"scene"} for offer in offers)

"""Fingerprints: pinned to those of the first version, whatever keys are called and whatever keys
are added.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import pytest
import yaml

from topbill.domain.errors import SpecError
from topbill.policies import KINDS
from topbill.spec import Experiment, Metric, Variant, canonical, from_audit, load
from topbill.spec.model import Guardrail
from topbill.spec.schema import json_schema

ROOT = Path(__file__).parents[3]
EVERY_KEY = ROOT / "tests" / "data" / "every-key.yaml"
# (fingerprint, learning_fingerprint), computed with 0.1.0 from the files as they were then.
PINNED = {
    "experiments/home-artwork.yaml": ("7c4c6e65f07e", "4c1e64631b32"),
    "experiments/home-rows.yaml": ("dde00ccf1fa7", "1e5fcba6238c"),
    "experiments/home-titles.yaml": ("cbe87f44a5f3", "a35744e675e1"),
    "experiments/pages/home/artwork.yaml": ("fc0107209f0b", "f15f3c4c1eb8"),
    "experiments/pages/home/rows.yaml": ("e70ac2f632d4", "0ee4c3297246"),
    "tests/data/page-titles.yaml": ("2c6a6b24263c", "fb406a2fde89"),
    "experiments/personalizer.yaml": ("21f7b9df40a0", "46775dfd8653"),
    "tests/data/experiments/midnight-run.yaml": ("56d3b54b7bd6", "3cf64e04760d"),
    "tests/data/every-key.yaml": ("8e56b084292b", "df8e9958f608"),
}


WITHOUT_MIN_PROBABILITY = {
    "experiments/home-artwork.yaml",
    "experiments/home-rows.yaml",
    "experiments/home-titles.yaml",
    "tests/data/experiments/midnight-run.yaml",
    "tests/data/every-key.yaml",
}
"""Files with a `thompson` that says none: 0.1 gave it none, today it has a default."""


def as_it_was(name: str) -> Experiment:
    """The file as it was when its fingerprints were computed: the examples' guardrail had a margin
    that nobody could show in any time."""
    text = re.sub(r"margin: (10|40|50)%", "margin: 2%", (ROOT / name).read_text())
    with TemporaryDirectory() as folder:
        file = Path(folder) / Path(name).name
        file.write_text(text)
        return load(file)


def as_first_read(name: str) -> Experiment:
    """The experiment of an audit that 0.1 wrote of the file."""
    audit = msgspec.json.encode(as_it_was(name).raw).decode()
    return from_audit(audit, name, PINNED[name][0])


def prints(experiment: Experiment) -> tuple[str, str]:
    return experiment.fingerprint, experiment.learning_fingerprint


@pytest.mark.parametrize("name", PINNED)
def test_fingerprints_are_those_of_the_first_version(name: str) -> None:
    assert prints(as_first_read(name)) == PINNED[name]
    experiment = as_it_was(name)
    assert (prints(experiment) == PINNED[name]) == (name not in WITHOUT_MIN_PROBABILITY)
    today = load(ROOT / name)
    assert today.learning_fingerprint == PINNED[name][1], "it goes on learning where it stood"


def test_the_file_of_every_key_has_every_key_and_every_policy() -> None:
    text = EVERY_KEY.read_text()
    written = yaml.safe_load(text)
    # `personalizer` leaves no room for the rest, and the others came later.
    later = {"personalizer", "method", "looks", "entities", "audience", "overrides", "launch"}
    later |= {"conclusion", "alerts", "learn_share"}
    top = set(json_schema()["properties"]) - later
    assert top <= set(written)
    assert {parts["policy"] for parts in written["variants"].values()} == set(KINDS) - {"scored"}
    for part in ("Metric", "Guardrail", "Variant"):
        for field in set(canonical.FIELDS[part]) - {"name", "params"}:
            assert f"{field}:" in text


def test_every_field_of_the_first_version_is_still_there_under_its_name_of_today() -> None:
    for part in (Experiment, Metric, Guardrail, Variant):
        assert set(canonical.FIELDS[part.__name__]) <= {field.name for field in fields(part)}
    for kind, policy in KINDS.items():
        assert set(canonical.FIELDS.get(kind, ())) <= set(policy.Params.__struct_fields__)


@dataclass(frozen=True)
class LaterMetric(Metric):
    decay: float = 0.0


@dataclass(frozen=True)
class LaterVariant(Variant):
    budget: float | None = None


@dataclass(frozen=True)
class LaterExperiment(Experiment):
    tags: tuple[str, ...] = ()


def later(experiment: Experiment) -> LaterExperiment:
    """The experiment as a later version would hold it, which knows one optional key more of
    everything.
    """

    def as_later(part: object, kind: type) -> dict[str, object]:
        return {field.name: getattr(part, field.name) for field in fields(kind)}

    variants = []
    for variant in experiment.variants:
        params = msgspec.defstruct(
            "LaterParams", [("warmth", float, 0.5)], bases=(type(variant.params),), kw_only=True
        )
        more = params(**msgspec.structs.asdict(variant.params))
        variants.append(LaterVariant(**as_later(variant, Variant) | {"params": more}))  # type: ignore[arg-type]
    metrics = [LaterMetric(**as_later(m, Metric)) for m in experiment.metrics]  # type: ignore[arg-type]
    return LaterExperiment(
        **as_later(experiment, Experiment)  # type: ignore[arg-type]
        | {"variants": tuple(variants), "metrics": tuple(metrics)}
    )


@pytest.mark.parametrize("name", PINNED)
def test_a_new_optional_key_with_its_default_alters_no_fingerprint(name: str) -> None:
    assert prints(later(as_first_read(name))) == PINNED[name]


def test_a_new_key_with_another_value_is_something_that_the_file_says() -> None:
    experiment = later(as_first_read("tests/data/every-key.yaml"))
    pinned = PINNED["tests/data/every-key.yaml"]
    first, *others = experiment.metrics
    changed = replace(experiment, metrics=(replace(first, decay=0.5), *others))  # type: ignore[call-arg]
    assert changed.fingerprint != pinned[0]
    variant, *rest = experiment.variants
    changed = replace(experiment, variants=(replace(variant, budget=2.0), *rest))  # type: ignore[call-arg]
    assert changed.fingerprint != pinned[0]
    assert replace(experiment, tags=("new",)).fingerprint != pinned[0]
    warm = replace(variant, params=msgspec.structs.replace(variant.params, warmth=0.9))
    changed = replace(experiment, variants=(warm, *rest))
    assert changed.fingerprint != pinned[0]
    assert changed.learning_fingerprint != pinned[1], "parameters of policies are learned under"


def test_a_default_that_is_written_out_alters_no_fingerprint(tmp_path: Path) -> None:
    written = dict(as_it_was("tests/data/experiments/midnight-run.yaml").raw)
    written |= {"holdout": "0%", "slots": 1, "feedback": "item", "refit": "never"}
    written["learn_share"] = "100%"
    written["variants"]["thompson"] |= {"min_probability": "0%", "samples": 128, "training": "own"}
    written["metrics"]["play"] |= {"cap": 1, "better": "higher"}
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(written, sort_keys=False))
    assert prints(load(tmp_path / "x.yaml")) == PINNED["tests/data/experiments/midnight-run.yaml"]


def test_another_share_of_decisions_is_learned_under_another_print(tmp_path: Path) -> None:
    before = as_it_was("tests/data/experiments/midnight-run.yaml")
    (tmp_path / "x.yaml").write_text(
        yaml.safe_dump(before.raw | {"learn_share": "25%"}, sort_keys=False)
    )
    after = load(tmp_path / "x.yaml")
    assert after.learn_share == 0.25
    assert after.fingerprint != before.fingerprint
    assert after.learning_fingerprint != before.learning_fingerprint


def test_no_share_at_all_is_refused(tmp_path: Path) -> None:
    before = as_it_was("tests/data/experiments/midnight-run.yaml")
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(before.raw | {"learn_share": "0%"}))
    with pytest.raises(SpecError, match="learn_share: got 0%; expected more than 0%"):
        load(tmp_path / "x.yaml")

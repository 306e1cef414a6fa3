"""Whatever is wrong in a shipped file is told with its line, what was got and what was expected;
and all of it at once.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from topbill import pages, spec
from topbill.domain.errors import FileProblem, SpecError
from topbill.domain.suggestion import nearest
from topbill.spec import alerts

EXAMPLES = Path(__file__).parents[3] / "experiments"
EXPERIMENTS = sorted((*EXAMPLES.glob("*.yaml"), *EXAMPLES.glob("pages/*/*.yaml")))
PAGES = sorted(EXAMPLES.glob("pages/*.yaml"))
ALERTS = """\
alerts:
  channels:
    ops: {type: webhook, url: "https://ops.example/hook", kinds: [harm]}
    desk:
      type: email
      host: mail.example
      port: 587
      from: topbill@example.org
      to: [desk@example.org]
      tls: starttls
  mute: [stale]
"""
WRONG = '{"?": []}'
"""No number, text, list or name, and no key of any section."""
ANYTHING = ("payload",)
"""Keys at which any value is right."""
TAGS = ("policy", "type", "source", "rule")
"""Keys that say what the others beside them mean."""
DECLARED = "actions[0].features."
"""Values that are held against what action_features says."""


@dataclass(frozen=True)
class Written:
    """A key of a file, as another parser sees it: its path, its line, and where its value stands in
    the text.
    """

    path: str
    line: int
    value: yaml.Node

    @property
    def is_scalar(self) -> bool:
        return isinstance(self.value, yaml.ScalarNode)


def keys(text: str) -> list[Written]:
    """The keys of a text, of each list those of its first item; and nothing below a key at which
    anything may stand.
    """
    return list(_below(yaml.compose(text, Loader=yaml.SafeLoader), ""))


def _below(node: yaml.Node, path: str) -> Iterator[Written]:
    if isinstance(node, yaml.SequenceNode) and node.value:
        yield from _below(node.value[0], f"{path}[0]")
    if not isinstance(node, yaml.MappingNode):
        return
    for key, value in node.value:
        if key.value in ANYTHING:
            continue
        inner = f"{path}.{key.value}" if path else key.value
        yield Written(inner, key.start_mark.line + 1, value)
        yield from _below(value, inner)


def corrupted(text: str, *written: Written) -> str:
    """The text with what cannot be at these keys; the lines before and at them stay."""
    for one in sorted(written, key=lambda each: -each.value.start_mark.index):
        start, end = one.value.start_mark.index, one.value.end_mark.index
        # A block ends where the next key begins.
        after = text[start:end]
        end -= len(after) - len(after.rstrip())
        text = f"{text[:start]}{WRONG}{text[end:]}"
    return text


def problems(path: Path) -> tuple[FileProblem, ...]:
    """What is wrong with a file of a copy of the examples."""
    with pytest.raises(SpecError) as caught:
        _load(path)
    return caught.value.problems


def _load(path: Path) -> None:
    if path.name in alerts.NAMES:
        alerts.load_settings(path)
    elif path.parent.name == "pages":
        pages.load_all(path.parent.parent, pages.load_experiments(EXAMPLES))
    else:
        spec.load(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("places") / "experiments"
    shutil.copytree(EXAMPLES, folder, ignore=shutil.ignore_patterns("artwork"))
    (folder / "alerts.yaml").write_text(ALERTS)
    return folder


FILES = [*(path.relative_to(EXAMPLES) for path in (*EXPERIMENTS, *PAGES)), Path("alerts.yaml")]


@pytest.mark.parametrize("name", FILES, ids=str)
def test_each_wrong_key_is_told_with_its_line(folder: Path, name: Path) -> None:
    path = folder / name
    text = path.read_text()
    written = keys(text)
    assert len(written) > 5
    try:
        for key in written:
            path.write_text(corrupted(text, key))
            _check(problems(path), path, [key])
    finally:
        path.write_text(text)


@pytest.mark.parametrize("name", FILES, ids=str)
def test_all_wrong_keys_are_told_at_once(folder: Path, name: Path) -> None:
    path = folder / name
    text = path.read_text()
    written = [key for key in keys(text) if key.is_scalar and _is_told_beside_others(key)]
    try:
        path.write_text(corrupted(text, *written))
        _check(problems(path), path, written)
    finally:
        path.write_text(text)


def _is_told_beside_others(key: Written) -> bool:
    """A tag that is wrong leaves open what the keys beside it mean, and a declaration what values
    fit it.
    """
    return key.path.rpartition(".")[2] not in TAGS and not key.path.startswith(DECLARED)


def _check(found: tuple[FileProblem, ...], path: Path, written: list[Written]) -> None:
    for problem in found:
        assert problem.file == path.name, problem
        assert problem.line > 0, problem
        assert str(problem).startswith(f"{path.name}:{problem.line}: {problem.path}: got ")
        assert problem.expected, problem
    for key in written:
        # What stands in the mapping that is wrong has a line of its own where it begins.
        lines = (key.line, key.value.start_mark.line + 1)
        told = [p for p in found if p.path == key.path or p.path.startswith(f"{key.path}.")]
        assert any(problem.line in lines for problem in told), (key, found)


def test_what_is_missing_is_told_with_the_line_of_what_it_is_missing_from(folder: Path) -> None:
    path = folder / "home-artwork.yaml"
    text = path.read_text()
    (variant,) = (key for key in keys(text) if key.path == "variants.editorial")
    assert "share: 20%" in text
    path.write_text(text.replace("share: 20%, ", "", 1).replace("surface: artwork\n", "", 1))
    try:
        found = {problem.path: problem for problem in problems(path)}
    finally:
        path.write_text(text)
    # A line less stands above it now.
    assert found["variants.editorial.share"].line == variant.line - 1
    assert found["surface"].line == keys(text)[0].line


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("experiment: a\nsurface: [rows\nslots: 1\n", "x.yaml:3: column "),
        ("experiment: a\nsurface: &b rows\nlayer: *b\n", "x.yaml:3: got an alias"),
        ("experiment: a\nsurface: !!python/none rows\n", "x.yaml:2: got a tag"),
        ("experiment: a\n---\nexperiment: b\n", "x.yaml:2: got a second document"),
        ("experiment: a\nexperiment: b\n", "x.yaml:2: experiment: got the key twice"),
        ("- a\n", "x.yaml:1: file: got a list"),
    ],
)
def test_what_is_no_plain_yaml_is_told_with_its_line(tmp_path: Path, text: str, place: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    assert str(problems(path)[0]).startswith(place)


def test_what_only_files_together_show_has_a_line_too(folder: Path, tmp_path: Path) -> None:
    text = (folder / "home-artwork.yaml").read_text()
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text(f"# the same twice\n{text}")
    with pytest.raises(SpecError) as caught:
        spec.load_all([tmp_path])
    assert str(caught.value).startswith("b.yaml:")


@pytest.mark.parametrize(
    ("name", "names", "hint"),
    [
        ("slotz", ["slots", "status"], "did you mean slots?"),
        ("Slots", ["slots"], "did you mean slots?"),
        ("churn", ["minutes", "play"], ""),
        ("live", ["draft", "running", "paused", "stopped"], "did you mean running?"),
        ("rollout", ["draft", "running", "paused", "stopped"], ""),
        ("rate", ["binary", "last", "mean"], "did you mean binary?"),
        ("targeting", ["actions", "audience"], "did you mean audience?"),
        ("targeting", ["actions"], ""),
        ("weight", ["share", "control"], "did you mean share?"),
        ("x" * 10_000, ["slots"], ""),
        ("", ["slots"], ""),
    ],
)
def test_a_name_is_suggested_only_where_the_guess_is_near(
    name: str, names: list[str], hint: str
) -> None:
    assert nearest(name, names) == hint

"""Every command that prints a result prints it as text that fits a terminal, as JSON and as CSV."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from topbill import cli, spec
from topbill.cli.output import Output, print_csv
from topbill.cli.reference import commands
from topbill.cli.shell import err, out
from topbill.cli.standing import board, standing_now
from topbill.domain.errors import BadRequest, TopbillError
from topbill.domain.records import RewardEvent
from topbill.engine import DecideRequest, Engine
from topbill.lake import Lake
from topbill.log import open_log
from topbill.worker.learner import Learner
from topbill.worker.publisher import Publisher

from ...conftest import write

OBD = Path(__file__).parents[2] / "data" / "obd" / "random_all.parquet"
RUN_ON = {"serve", "worker", "up", "dashboard", "demo", "mcp"}
"""What runs until it is stopped has no result."""
IS_JSON = {"schema"}
"""A JSON Schema has one form."""
WIDTH = 80


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of every kind that a command takes, and a data folder that has decided, learned and
    been published.
    """
    folder = tmp_path_factory.mktemp("world")
    experiments = write(folder / "experiments")
    art = spec.load(experiments / "art.yaml")
    data = folder / "data"
    log, engine = open_log(data / "log.sqlite"), Engine([art])
    log.append(
        [
            engine.decide(DecideRequest(experiment="art", unit=f"u{i}", decision_id=f"d{i}"))
            for i in range(200)
        ],
        [RewardEvent(decision_id=f"d{i}", event_id="e", event="play") for i in range(0, 200, 7)],
    )
    time.sleep(1.2)
    Learner(log, [art]).step()
    revision = engine.find("art").revision
    log.revise("art", revision, "tests", msgspec.json.encode(art.raw).decode())
    Publisher(log, Lake(data), lambda: [art]).step()
    log.close()
    (experiments / "alerts.yaml").write_text(
        'alerts: {channels: {ops: {type: webhook, url: "http://127.0.0.1:9/"}}}\n'
    )
    rows = [f"u{i},{'ab'[i % 2]},{500 + i % 5},w{i % 3},t{i // 2}" for i in range(60)]
    (folder / "test.csv").write_text("\n".join(["id,arm,plays,week,test", *rows]) + "\n")
    events = ["unit,event,action,value,at", "u1,play,t1,1,2026-01-02T03:04:05Z"]
    (folder / "events.csv").write_text("\n".join(events) + "\n")
    secret = folder / "secret"
    secret.write_text("0123456789abcdef" * 4)
    secret.chmod(0o600)
    return folder


EXAMPLES: dict[str, str] = {
    "alerts list": "--data data",
    "alerts test": "--experiments experiments",
    "approve": "art --data data",
    "assign": "art --unit u1 --data data --experiments experiments",
    "backup": "backups --data data",
    "compare": "test.csv --unit id --variant arm --control a --metric plays=mean:plays",
    "completion": "bash",
    "conclude": "art --winner thompson --because better --again --data data",
    "erase": "--unit u3 --data data --experiments experiments",
    "evaluate": "art --policy uniform --policy always=b --data data",
    "examples": "mine",
    "explain": "d5 --data data --experiments experiments",
    "export": "art out.csv --data data",
    "features": "experiments/art.yaml --data data",
    "glossary": "lift",
    "hash": "u1 u2 --data data",
    "import": "art.dsjson --data imported",
    "import events": "events.csv --data data --experiments experiments",
    "key": "site --scopes decide",
    "list": "--data data",
    "migrate": "--data data",
    "override": "art thompson --override-secret secret --experiments experiments",
    "pause": "art --now --data data",
    "plan": "experiments --data data",
    "power": "art --data data",
    "replay obd": f"{OBD} --policy uniform",
    "report": "art --data data",
    "restore": "backups --data restored",
    "resume": "art --now --data data",
    "retain": "--keep 400d --data data --experiments experiments",
    "simulate": "experiments/art.yaml --rounds 50",
    "sql": "QUERY --data data",
    "srm": "test.csv --test test --units plays --period week",
    "status": "--data data",
    "stop": "art --now --data data",
    "train": "art --policy linucb --data data",
    "unit": "u5 --data data",
    "validate": "experiments",
    "verify": "art --files --data data",
}
QUERY = "SELECT * FROM decisions ORDER BY decision_id LIMIT 3"
LEFT_OUT = {
    # Each says why it does nothing here, in one message; elsewhere it is tested that it does.
    "approve": "its file has no launch",
    "migrate": "nothing to do",
}
NOTHING_YET = {
    "alerts list": "there was no alarm",
    "plan": "the folder's files are those that run",
}
ENDS_WITH_1 = {
    "alerts test": "nobody listens at that address",
    "status": "no worker runs",
}

Run = Callable[..., str]


@pytest.fixture
def run(
    world: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    """Runs a command's example on a copy of its own, and returns what it prints."""
    monkeypatch.setattr(out, "width", WIDTH)
    monkeypatch.setattr(err, "width", WIDTH)

    def run(name: str, *form: str) -> str:
        place = tmp_path / "-".join(("world", *form)).replace("-", "")
        shutil.copytree(world, place)
        monkeypatch.chdir(place)
        _prepare(name)
        capsys.readouterr()
        words = [QUERY if word == "QUERY" else word for word in EXAMPLES[name].split()]
        words = ["always b" if word == "always=b" else word for word in words]
        status = 0
        try:
            cli.app([*name.split(), *words, *form], result_action="return_value")
        except SystemExit as ended:
            status = int(ended.code or 0)
        assert status == int(name in ENDS_WITH_1)
        return capsys.readouterr().out

    return run


def _prepare(name: str) -> None:
    """What has to be there before, beside the world."""
    before = {
        "restore": "backup backups --data data",
        "import": "export art art.dsjson --data data",
        "resume": "pause art --now --data data",
    }
    if name in before:
        cli.app(before[name].split(), result_action="return_value")


def _results() -> Iterator[str]:
    for typed, _ in commands(cli.app):
        name = typed.removeprefix("topbill ")
        if name not in RUN_ON | IS_JSON:
            yield name


def test_every_command_with_a_result_has_all_forms_and_an_example_here() -> None:
    assert set(_results()) == set(EXAMPLES)
    for typed, command in commands(cli.app):
        options = {a.name for a in command.assemble_argument_collection() if a.show}
        has_forms = typed.removeprefix("topbill ") in EXAMPLES
        assert ({"--json", "--csv"} <= options) == has_forms, typed


TELLS_FORMS_APART = {"report": "analysis.py", "sql": "sql.py"}
"""Commands that do not leave JSON and CSV to `Output.show`, and where they are."""


def test_only_these_commands_tell_json_from_csv_themselves() -> None:
    folder = Path(cli.__file__).parent
    asking = {
        file.name
        for file in folder.glob("*.py")
        if re.search(r"\boutput\.(csv|json)\b", file.read_text()) and file.name != "output.py"
    }
    assert asking == set(TELLS_FORMS_APART.values())


def json_and_csv(name: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """A command's result in both forms: of one run, where it is `Output.show` that makes them."""
    if name in TELLS_FORMS_APART:
        return run(name, "--json"), run(name, "--csv")
    show, cut = Output.show, "\n-- as CSV --\n"

    def show_both(self: Output, *given: Any, **named: Any) -> None:
        show(self, *given, **named)
        print(cut, end="")
        show(Output(csv=True), *given, **named)

    monkeypatch.setattr(Output, "show", show_both)
    as_json, _, as_csv = run(name, "--json").partition(cut)
    return as_json, as_csv


@pytest.mark.parametrize("name", sorted(EXAMPLES.keys() - LEFT_OUT.keys()))
def test_a_result_is_text_that_fits_json_and_csv(
    name: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = run(name)
    if name not in ("completion", "unit"):
        # Sentences are cut by the terminal; what stands in columns has to fit by itself.
        for line in text.splitlines():
            assert len(line) <= WIDTH or not line.startswith("  "), line
        assert "…" not in text
    as_json, as_csv = json_and_csv(name, run, monkeypatch)
    assert json.loads(as_json) or name in NOTHING_YET
    rows = list(csv.reader(io.StringIO(as_csv)))
    if name in NOTHING_YET:
        assert not rows
        return
    assert len(rows) > 1, "a header and what stands below it"
    names = rows[0]
    assert all(names), names
    assert {len(row) for row in rows} == {len(names)}
    assert any(any(row) for row in rows[1:])


@pytest.mark.parametrize(("name", "why"), LEFT_OUT.items())
def test_what_finds_nothing_to_do_says_so(name: str, why: str, run: Run) -> None:
    try:
        said = run(name)
    except TopbillError as error:
        said = str(error)
    assert why in said


def test_both_forms_at_once_are_refused() -> None:
    with pytest.raises(BadRequest, match="expected one of the two"):
        Output(json=True, csv=True)
    done = subprocess.run(
        [sys.executable, "-m", "topbill", "list", "--json", "--csv"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "expected one of the two" in done.stderr
    assert "Traceback" not in done.stderr


def test_csv_has_a_column_for_whatever_a_row_holds(capsys: pytest.CaptureFixture[str]) -> None:
    print_csv([{"a": 1, "b": {"c": None, "d": True}}, {"a": 'x"y,\nz', "e": [1, "ü"], "b": {}}])
    text = capsys.readouterr().out
    assert list(csv.DictReader(io.StringIO(text))) == [
        {"a": "1", "b.c": "", "b.d": "true", "e": "", "b": ""},
        {"a": 'x"y,\nz', "b.c": "", "b.d": "", "e": '[1, "ü"]', "b": "{}"},
    ]


def test_sql_prints_wide_rows_one_below_the_other_and_all_of_csv(world: Path, run: Run) -> None:
    text = run("sql")
    assert text.startswith("row 1 ─")
    lines = [line for line in text.splitlines() if line.startswith("variant ")]
    assert len(lines) == 3
    assert all(line.split()[1] in ("editorial", "thompson", "uniform") for line in lines)
    rows = list(csv.DictReader(io.StringIO(run("sql", "--csv"))))
    assert [row["decision_id"] for row in rows] == ["d0", "d1", "d10"]
    assert all(json.loads(row["propensities"]) for row in rows)


@pytest.mark.parametrize(
    ("query", "text", "table"),
    [
        ("SELECT 1 AS n, 2 AS n", "1   2", "n,n\n1,2\n"),
        ("SELECT 0.1 + 0.2::DOUBLE AS x", "0.3", "x\n0.30000000000000004\n"),
        ("SELECT NULL AS x, true AS y", "true", "x,y\n,true\n"),
        ("SELECT 1 AS n WHERE false", "No rows.", "n\n"),
    ],
)
def test_sql_loses_no_column_and_no_digit(
    world: Path, capsys: pytest.CaptureFixture[str], query: str, text: str, table: str
) -> None:
    line = ["sql", query, "--data", str(world / "data")]
    cli.app(line, result_action="return_value")
    assert text in capsys.readouterr().out
    cli.app([*line, "--csv"], result_action="return_value")
    assert capsys.readouterr().out == table


@pytest.mark.parametrize(
    ("query", "hint"),
    [
        ("SELECT revision, at, who FROM revisions", "at is called "),
        ("SELECT metric, default FROM metrics", 'write the column as "default"'),
    ],
)
def test_sql_says_what_to_write_of_a_word_that_it_keeps_for_itself(
    world: Path, query: str, hint: str
) -> None:
    with pytest.raises(BadRequest, match=hint):
        cli.app(["sql", query, "--data", str(world / "data")], result_action="return_value")


def test_status_is_one_look_on_a_terminal_and_sentences_elsewhere(world: Path, run: Run) -> None:
    assert "art is running" in run("status")
    with out.capture() as capture:
        out.print(board(standing_now(world / "data")))
    lines = capture.get().splitlines()
    assert lines[0].startswith("● The worker is down.")
    (line,) = (line for line in lines if line.startswith("art"))
    assert line.split()[:2] == ["art", "running"]
    assert "200" in line
    assert max(map(len, lines)) <= WIDTH


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("lift", "lift: How much more"),
        ("SRM", "sample ratio mismatch"),
        ("uplift", "Not: uplift."),
        ("Inconclusive", "Inconclusive (state)"),
        ("min_probability", "min_probability"),
    ],
)
def test_a_word_is_explained_by_its_name_its_short_form_or_what_is_not_said(
    word: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.app(["glossary", word], result_action="return_value")
    assert says.casefold() in capsys.readouterr().out.casefold()


def test_a_word_that_is_not_there_leads_to_one_that_is_near() -> None:
    with pytest.raises(TopbillError, match=r"guardral: not in the glossary; did you mean"):
        cli.app(["glossary", "guardral"], result_action="return_value")


@pytest.mark.parametrize("typed", ["", "report", "alerts list", "import events"])
def test_a_help_leads_to_the_glossary(typed: str, capsys: pytest.CaptureFixture[str]) -> None:
    cli.app([*typed.split(), "--help"], result_action="return_value")
    assert "What a word means: topbill glossary WORD" in capsys.readouterr().out


def test_status_is_watched_on_a_terminal_alone() -> None:
    with pytest.raises(BadRequest, match="expected a terminal"):
        cli.app(["status", "--watch"], result_action="return_value")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_every_command(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    cli.app(["completion", shell], result_action="return_value")
    script = capsys.readouterr().out
    for typed, _ in commands(cli.app):
        assert typed.split()[1] in script
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_a_completion_is_installed_where_the_shell_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    cli.app(["completion", "bash", "--install", "--json"], result_action="return_value")
    file = Path(json.loads(capsys.readouterr().out)["file"])
    assert file.is_relative_to(tmp_path)
    assert "topbill" in file.read_text()


@pytest.mark.parametrize(
    ("typed", "meant"), [(["reprot"], "report"), (["report", "art", "--dta", "x"], "--data")]
)
def test_a_verb_or_option_that_is_near_is_asked_for(typed: list[str], meant: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "topbill", *typed], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert f"Did you mean {meant}" in done.stdout.replace('"', "") + done.stderr.replace('"', "")

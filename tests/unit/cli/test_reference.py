"""The page of commands is made of the application: every command and option, and what it is for."""

from __future__ import annotations

from pathlib import Path

from topbill import cli
from topbill.cli.reference import commands, reference

PAGE = Path(__file__).parents[3] / "docs" / "cli.md"


def test_the_page_is_that_of_the_application() -> None:
    assert PAGE.read_text() == reference(), (
        "run python -m topbill.cli.reference > docs/cli.md to make the page anew"
    )


def test_every_command_says_what_it_does_and_stands_on_the_page_with_its_options() -> None:
    page = PAGE.read_text()
    typed = dict(commands(cli.app))
    assert {"topbill worker", "topbill verify", "topbill report", "topbill replay obd"} <= set(
        typed
    )
    assert "topbill answers" not in typed, "the worker runs it; nobody else needs to"
    for name, command in typed.items():
        section = page.partition(f"## {name}\n")[2].partition("\n## ")[0]
        assert command.help.strip(), name
        for argument in command.assemble_argument_collection(parse_docstring=True):
            if argument.show and argument.name.startswith("--") and not argument.required:
                # What is positional too, and may be left out, stands in brackets.
                places = (f"`{argument.name}`", f"`[{argument.name.strip('-').upper()}]`")
                assert any(place in section for place in places), (name, argument.name)
                assert argument.parameter.help, (name, argument.name)

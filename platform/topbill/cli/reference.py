"""docs/cli.md, made of the application itself: `python -m topbill.cli.reference > docs/cli.md`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from inspect import Parameter, cleandoc
from typing import Any

import cyclopts

from topbill.cli import app
from topbill.domain.formatting import window

_OPENING = """# The command line

Every command with every option, as `topbill COMMAND --help` says them. This page is made by
`python -m topbill.cli.reference`.

Every command that prints a result also prints it as JSON (`--json`) and as a table for spreadsheets
(`--csv`: the rows of the result, a row a line; nothing where there are none). The words that they
use are in the [glossary](glossary.md).

`topbill completion bash --install` (or `zsh`, `fish`) has the shell complete commands, options and
their values.

Exit status: 0 where all went well; 1 where something is wrong, which is said in one message on
standard error, or where what was asked for does not hold (`validate`, `verify`); 2 where a command
or option is not there, or is called otherwise today.
"""


def commands(
    application: cyclopts.App, prefix: str = "topbill"
) -> Iterator[tuple[str, cyclopts.App]]:
    """Every command that does something and is shown, by what is typed for it."""
    for name in sorted(application):
        if name.startswith("-") or not application[name].show:
            continue
        command = application[name]
        has_commands = any(not inner.startswith("-") for inner in command)
        if not has_commands or command.default_command is not None:
            yield f"{prefix} {name}", command
        if has_commands:
            yield from commands(command, f"{prefix} {name}")


def reference() -> str:
    """The page."""
    lines = [_OPENING]
    for typed, command in commands(app):
        # What is not shown is a group of options, which stand there one by one as well.
        arguments = [
            a for a in command.assemble_argument_collection(parse_docstring=True) if a.show
        ]
        synopsis = _synopsis(typed, arguments)
        lines += [f"## {typed}\n", f"```sh\n{synopsis}\n```\n", f"{_paragraphs(command.help)}\n"]
        if arguments:
            lines += ["| option | default | |", "|---|---|---|"]
            lines += [_row(argument) for argument in arguments]
            lines.append("")
    return "\n".join(lines)


def _synopsis(typed: str, arguments: Sequence[Any]) -> str:
    """What is typed: what must be, and whether there is more."""
    words = [typed]
    words += [_placeholder(argument) for argument in arguments if _is_positional(argument)]
    options = [argument for argument in arguments if not _is_positional(argument)]
    for option in options:
        if option.required:
            words += [option.name, _placeholder(option)]
    if any(not option.required for option in options):
        words.append("[OPTIONS]")
    return " ".join(words)


def _is_positional(argument: Any) -> bool:
    kinds = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.VAR_POSITIONAL)
    return argument.field_info.kind in kinds


def _placeholder(argument: Any) -> str:
    """KEY for `--key`, in brackets where it may be left out."""
    name = argument.name.strip("-").upper()
    if argument.field_info.kind is Parameter.VAR_POSITIONAL:
        return f"[{name}...]"
    may_be_left_out = _is_positional(argument) and not argument.required
    return f"[{name}]" if may_be_left_out else str(name)


def _row(argument: Any) -> str:
    name = _placeholder(argument) if _is_positional(argument) else argument.name
    help_text = " ".join((argument.parameter.help or "").split())
    choices = argument.get_choices()
    if choices:
        help_text += f" One of {', '.join(f'`{choice}`' for choice in choices)}."
    return f"| `{name}` | {_default(argument)} | {help_text} |"


def _default(argument: Any) -> str:
    if argument.required:
        return "required"
    value = argument.field_info.default
    # A flag is off and a list empty unless said otherwise: nobody needs to read that.
    if value is Parameter.empty or value is None or value is False or value == ():
        return ""
    if isinstance(value, tuple):
        return " ".join(f"`{item}`" for item in value)
    if isinstance(value, timedelta):
        return f"`{window(value.total_seconds()).replace(' ', '')}`"
    return f"`{value}`"


def _paragraphs(help_text: str) -> str:
    """The description without its list of arguments, a paragraph a line."""
    description = cleandoc(help_text).partition("\nArgs:")[0].strip()
    return "\n\n".join(" ".join(part.split()) for part in description.split("\n\n"))


if __name__ == "__main__":
    print(reference(), end="")

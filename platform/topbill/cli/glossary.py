"""What the words mean that commands, dashboards and pages use: `topbill glossary`."""

from __future__ import annotations

from typing import Any

from rich.text import Text

from topbill.cli.output import TEXT, Output
from topbill.cli.shell import app, out
from topbill.domain.errors import NotFound
from topbill.domain.suggestion import nearest
from topbill.domain.terms import load_terms

Entry = dict[str, Any]


@app.command
def glossary(word: str = "", *, output: Output = TEXT) -> None:
    """Say what a word means that commands, the dashboards and the documentation use.

    Args:
        word: A term, a state, a column or a reason, such as lift, SRM or inconclusive; left out,
            all of them.
    """
    entries = matching(word)
    output.show(entries, lambda: _print(entries))


def matching(word: str) -> list[Entry]:
    """The entries that a word names, or that have it in their name; all without one.

    Raises:
        NotFound: There is none.
    """
    entries = every_entry()
    asked = word.casefold()
    named = [e for e in entries if asked in (e["word"].casefold(), e["key"], *e["instead_of"])]
    found = named or [e for e in entries if asked in e["word"].casefold()]
    if not found:
        hint = nearest(word, [e["word"] for e in entries])
        raise NotFound(
            f"{word}: not in the glossary; {hint or 'topbill glossary has all of its words'}"
        )
    return found if word else entries


def every_entry() -> list[Entry]:
    """Terms, states, columns and reasons: word, meaning, what kind of word it is, the key that
    columns and code know it by, and the words that are not said for it.
    """
    words = load_terms()
    entries: list[Entry] = []
    for key, term in words.terms.items():
        said = {"word": term.term, "meaning": term.meaning, "kind": "term", "key": key}
        entries.append({**said, "instead_of": list(term.never)})
    for kind, meanings in (
        ("state", words.listed_states()),
        ("column", words.columns),
        ("reason", words.reasons),
    ):
        for name, meaning in meanings.items():
            said = {"word": name, "meaning": meaning, "kind": kind, "key": name}
            entries.append({**said, "instead_of": []})
    return sorted(entries, key=lambda entry: (entry["word"].casefold(), entry["kind"] != "term"))


def _print(entries: list[Entry]) -> None:
    for entry in entries:
        kind = "" if entry["kind"] == "term" else f" ({entry['kind']})"
        out.print(Text.assemble((entry["word"], "bold"), f"{kind}: {entry['meaning']}"))
        if entry["instead_of"]:
            not_said = ", ".join(entry["instead_of"])
            out.print(f"  Not: {not_said}.", style="dim", highlight=False, markup=False)

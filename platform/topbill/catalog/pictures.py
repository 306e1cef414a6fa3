"""The pictures of a catalogue's titles: names, or structs of an address and what is known of each.

A struct has `url`, maybe an `id`, and features under any other name: text, a number, true or false,
or many numbers (a list, or a mapping from name to number; a list of words counts each as 1). Where
a title's pictures can't be what they should, that title goes without, and is told.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

import msgspec

from topbill.domain.features import LARGEST

FieldKind = Literal["text", "number", "flag", "numbers"]
"""What a feature of pictures holds."""
FIELDS: dict[str, FieldKind] = {
    "tone": "text",
    "faces": "number",
    "mood": "numbers",
    "embedding": "numbers",
}
"""Features whose kind is settled; any other is what most pictures have under its name."""
MOST = 100
"""Pictures of a title: each row of a page chooses among those of all its titles."""
_LONGEST_URL = 2_048
_LONGEST_ID = 128
_LONGEST_WORD = 256
_LONGEST_NUMBERS = 4_096
_NAMING = ("url", "id")
_EXAMPLE = 'a list of names, or of structs such as {"url": "a.jpg", "tone": "warm"}'


class Picture(NamedTuple):
    """One artwork of a title: its id (unique in the catalogue), raw features, and payload."""

    id: str
    features: dict[str, Any]
    payload: dict[str, Any]


class Wrong(ValueError):
    """What is wrong with one title's pictures: `where` among them, `got`, and `expected`."""

    def __init__(self, where: str, got: Any, expected: str) -> None:
        self.where, self.got, self.expected = where, got, expected
        super().__init__(where)

    def __str__(self) -> str:
        return f"pictures{self.where}: got {repr(self.got)[:80]}; expected {self.expected}"


def pictures_of(title: str, cell: Any) -> list[Picture]:
    """The pictures in a title's cell, without what other titles' have to say.

    Args:
        title: The title's id, with which its pictures' ids begin.
        cell: None, names separated by bars, JSON text, or a list of names or structs.

    Raises:
        Wrong: The cell, or one picture in it, can't be what it should.
    """
    entries = _entries(cell)
    if len(entries) > MOST:
        raise Wrong("", f"{len(entries):,} pictures", f"at most {MOST} of a title")
    pictures = []
    first: dict[str, int] = {}
    for number, entry in enumerate(entries):
        where = f"[{number}]"
        picture = _picture(title, entry, where)
        earlier = first.setdefault(picture.id, number)
        if earlier != number:
            raise Wrong(where, entry, f"one of its own: pictures[{earlier}] is the same")
        pictures.append(picture)
    return pictures


def _entries(cell: Any) -> list[Any]:
    """What a cell lists."""
    if cell is None:
        return []
    if isinstance(cell, str):
        text = cell.strip()
        # Names never begin so: a bracket says that JSON follows.
        if not text.startswith(("[", "{")):
            return list(dict.fromkeys(word for word in cell.split("|") if word))
        try:
            cell = msgspec.json.decode(text)
        except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
            raise Wrong("", text, f"JSON text ({error})") from None
    if not isinstance(cell, list):
        raise Wrong("", cell, _EXAMPLE)
    if all(isinstance(entry, str) for entry in cell):
        return list(dict.fromkeys(word for word in cell if word))
    return cell


def _picture(title: str, entry: Any, where: str) -> Picture:
    if isinstance(entry, str):
        return Picture(_id(title, entry), {}, {"image": _url(entry, where)})
    if not isinstance(entry, dict):
        raise Wrong(where, entry, _EXAMPLE)
    url = _url(entry.get("url"), f"{where}.url")
    name = url if entry.get("id") is None else entry["id"]
    if entry.get("id") is not None and not (
        isinstance(name, str) and 0 < len(name) <= _LONGEST_ID and _is_clean(name)
    ):
        raise Wrong(f"{where}.id", name, f"text of 1 to {_LONGEST_ID} characters")
    features = {}
    for field, value in entry.items():
        if field not in _NAMING and value is not None:
            features[field] = _feature(value, f"{where}.{field[:40]}")
    return Picture(_id(title, name), features, {"image": url})


def _id(title: str, name: str) -> str:
    """A picture's id. A long address is known by its digest: ids stand in every decision."""
    if len(name) > _LONGEST_ID:
        name = blake2b(name.encode(), digest_size=12).hexdigest()
    return f"{title}/{name}"


def _url(value: Any, where: str) -> str:
    """An address of the web, or a file's path below the catalogue's folder."""
    expected = "https://… or a file's path below the catalogue's folder"
    if not isinstance(value, str) or not 0 < len(value) <= _LONGEST_URL or not _is_clean(value):
        raise Wrong(where, value, expected)
    # Browsers take either slash for the other.
    path = value.replace("\\", "/")
    try:
        parts = urlsplit(path)
    except ValueError:
        raise Wrong(where, value, expected) from None
    if parts.scheme in ("http", "https"):
        is_good = bool(parts.hostname) and "@" not in parts.netloc
    else:
        # No other scheme: what clients put on a page must never run there.
        is_good = not (parts.scheme or path.startswith("/") or ".." in path.split("/"))
    if not is_good:
        raise Wrong(where, value, expected)
    return value


def _is_clean(text: str) -> bool:
    """Whether a text has no control characters: no address or name has any."""
    return all(character.isprintable() for character in text)


def _feature(value: Any, where: str) -> Any:
    """A feature as JSON has it: text, number, flag, or a mapping from name to number."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        if len(value) > _LONGEST_WORD:
            raise Wrong(where, value, f"text of at most {_LONGEST_WORD} characters")
        return value
    if isinstance(value, list | dict):
        return _numbers(value, where)
    return _number(value, where)


def _number(value: Any, where: str) -> float:
    expected = f"a number within ±{LARGEST:,.0f}"
    if isinstance(value, bool):
        raise Wrong(where, value, expected)
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise Wrong(where, value, expected) from None
    if not -LARGEST <= number <= LARGEST:
        raise Wrong(where, value, expected)
    # Text is read as the same value whether a file says 2 or 2.0.
    return int(number) if number.is_integer() else number


def _numbers(value: list[Any] | dict[Any, Any], where: str) -> dict[str, float]:
    """Numbers by name: those of a mapping, of a list by their place, of words 1 each."""
    if len(value) > _LONGEST_NUMBERS:
        raise Wrong(where, f"{len(value):,} values", f"at most {_LONGEST_NUMBERS:,}")
    pairs: Iterable[tuple[Any, Any]]
    if isinstance(value, dict):
        pairs = value.items()
    elif all(isinstance(part, str) for part in value):
        pairs = [(part, 1) for part in value]
    elif all(_is_pair(part) for part in value):
        pairs = value  # as Arrow gives its maps
    else:
        pairs = [(str(place), part) for place, part in enumerate(value)]
    numbers = {}
    for key, part in pairs:
        if part is None and not isinstance(value, dict):
            raise Wrong(where, value, "numbers without gaps")
        if part is not None:
            numbers[str(key)] = _number(part, f"{where}.{str(key)[:40]}")
    return numbers


def _is_pair(part: Any) -> bool:
    return isinstance(part, tuple | list) and len(part) == 2 and isinstance(part[0], str)


def kind_of(value: Any) -> FieldKind:
    """What a feature's value is."""
    if isinstance(value, bool):
        return "flag"
    if isinstance(value, str):
        return "text"
    return "numbers" if isinstance(value, Mapping) else "number"


class PictureFields:
    """What the pictures of a catalogue have under each feature's name.

    Attributes:
        kinds: Feature → what it holds: what is settled (`FIELDS`), or what most pictures have.
        embedding_size: How many numbers an `embedding` has: as most have.
    """

    def __init__(self, pictures: Iterable[Sequence[Picture]]) -> None:
        counts: dict[str, Counter[FieldKind]] = {}
        sizes: Counter[int] = Counter()
        for own in pictures:
            for picture in own:
                for name, value in picture.features.items():
                    counts.setdefault(name, Counter())[kind_of(value)] += 1
                embedding = picture.features.get("embedding")
                if isinstance(embedding, dict):
                    sizes[len(embedding)] += 1
        self.kinds: dict[str, FieldKind] = {}
        for name, kinds in counts.items():
            self.kinds[name] = FIELDS.get(name) or kinds.most_common(1)[0][0]
        self.embedding_size = sizes.most_common(1)[0][0] if sizes else 0

    def check(self, pictures: Sequence[Picture]) -> None:
        """Raises Wrong where a title's pictures have something else under a name than the others
        have.
        """
        for number, picture in enumerate(pictures):
            for name, value in picture.features.items():
                kind = self.kinds[name]
                if kind_of(value) != kind:
                    raise Wrong(f"[{number}].{name[:40]}", value, _EXPECTED[kind])
            embedding = picture.features.get("embedding")
            if embedding is not None and len(embedding) != self.embedding_size:
                where, got = f"[{number}].embedding", f"{len(embedding)} numbers"
                raise Wrong(where, got, f"{self.embedding_size}, as most pictures have")


_EXPECTED: dict[FieldKind, str] = {
    "text": "text",
    "number": "a number",
    "flag": "true or false",
    "numbers": "numbers: a list, or a mapping from name to number",
}

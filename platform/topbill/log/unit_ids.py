"""How a data folder stores ids of units: as they are sent, or, where its `settings.yaml` says
`hash_units: true`, as a keyed hash of each.

Whatever comes in is replaced at the edge, before anything is assigned, stored or logged; whoever
looks a unit up by its id has it replaced by the same rule. The key is a secret of the folder, in
the file `unit-salt`: without it nobody can tell which hash is whose, not even by trying ids.
"""

from __future__ import annotations

import dataclasses
import hmac
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from secrets import token_hex

from topbill.domain.durable import sealed, sync, unsealed
from topbill.domain.errors import LogError, SpecError
from topbill.spec import Experiment
from topbill.spec.yaml import contents, parse

SETTINGS = "settings.yaml"
"""What holds of a whole data folder, in the folder itself."""
SALT = "unit-salt"
_PREFIX = "hashed-"
_STORED = re.compile(r"hashed-[0-9a-f]{32}")
_DIGITS = 32
"""Hexadecimal digits of a hash: among a billion units two are alike once in 10^20."""
_BLOCK = 64
"""Bytes of a block of SHA-256 (RFC 2104)."""


class UnitIds:
    """What ids of units become in a data folder: HMAC-SHA-256 under the folder's salt, cut to 128
    bits and written as `hashed-` and 32 hexadecimal digits; without a salt they stay as they are.
    """

    def __init__(self, salt: bytes | None = None) -> None:
        self._salt = salt

    @property
    def hashed(self) -> bool:
        """Whether ids are hashed."""
        return self._salt is not None

    @property
    def rule(self) -> str:
        """What two folders have alike that store ids alike; the salt is not to be told from it."""
        if self._salt is None:
            return "as they are"
        return f"hashed {hmac.digest(self._salt, b'rule', 'sha256').hex()[:16]}"

    def stored(self, unit: str) -> str:
        """What is stored in the place of an id. One that is a stored one already stays."""
        if self._salt is None or _STORED.fullmatch(unit):
            return unit
        digest = hmac.digest(self._salt, unit.encode(), "sha256")
        return _PREFIX + digest.hex()[:_DIGITS]

    def stored_sql(self, column: str) -> tuple[str, Mapping[str, bytes]]:
        """SQL for the same of a VARCHAR, and the parameters that it takes. What is empty or NULL
        stays.
        """
        if self._salt is None:
            return column, {}
        key = self._salt.ljust(_BLOCK, b"\0")
        inner = f"unhex(sha256($unit_inner || encode({column})))"
        digest = f"left(sha256($unit_outer || {inner}), {_DIGITS})"
        sql = (
            f"CASE WHEN {column} = '' OR regexp_full_match({column}, '{_STORED.pattern}') "
            f"THEN {column} ELSE '{_PREFIX}' || {digest} END"
        )
        parameters = {
            "unit_inner": bytes(byte ^ 0x36 for byte in key),
            "unit_outer": bytes(byte ^ 0x5C for byte in key),
        }
        return sql, parameters

    def in_experiments(self, experiments: Sequence[Experiment]) -> list[Experiment]:
        """The experiments with the units of their `exclude` and `overrides` as they are stored: so
        the audit and the record, which hold the whole file, name nobody either.
        """
        return [self._in_experiment(experiment) for experiment in experiments]

    def _in_experiment(self, experiment: Experiment) -> Experiment:
        if self._salt is None:
            return experiment
        raw, exclude = dict(experiment.raw), experiment.exclude
        if exclude.units:
            exclude = dataclasses.replace(exclude, units=self._several(exclude.units))
            raw["exclude"] = {**raw["exclude"], "units": list(exclude.units)}
        overrides = []
        for override in experiment.overrides:
            overrides.append(dataclasses.replace(override, units=self._several(override.units)))
            section = {"units": list(overrides[-1].units), "variant": override.variant}
            raw["overrides"] = {**raw["overrides"], override.name: section}
        return dataclasses.replace(experiment, exclude=exclude, overrides=tuple(overrides), raw=raw)

    def _several(self, units: Iterable[str]) -> tuple[str, ...]:
        return tuple([self.stored(unit) for unit in units])


def unit_ids(data: Path) -> UnitIds:
    """The rule of a data folder, for whoever writes into it: called before the log is opened. A new
    folder whose settings ask for hashes gets its salt.

    Raises:
        LogError: The settings or the salt cannot be read or trusted, or the folder has rows of
            another rule.
    """
    wanted = _wanted(data)
    salt = _read_salt(data)
    if wanted and salt is None:
        has_rows = any(data.glob("log.sqlite*")) or (data / "lake").exists()
        # Looked for once more: another process may have made it, and then the log, meanwhile.
        salt = _read_salt(data)
        if has_rows and salt is None:
            raise LogError(
                f"{data / SETTINGS}: hash_units is true, and the folder holds rows whose units are "
                f"not hashed, or has lost its {SALT}; expected a new data folder, or {SALT} as it "
                "was when the rows came (every backup has it)"
            )
        salt = salt or _make_salt(data)
    if wanted is False and salt is not None:
        raise LogError(
            f"{data / SETTINGS}: hash_units is false, and the folder's units are hashed, which "
            "cannot be undone; expected true, or a new data folder"
        )
    return UnitIds(salt)


def known_unit_ids(data: Path) -> UnitIds:
    """The rule of a data folder, for whoever reads from it. Raises LogError where the salt cannot
    be read or trusted.
    """
    return UnitIds(_read_salt(data))


def _wanted(data: Path) -> bool | None:
    """What the settings say; None where they say nothing."""
    path = data / SETTINGS
    if not path.exists():
        return None
    try:
        settings, problems, _ = parse(contents(path), str(path))
    except SpecError as error:
        raise LogError(str(error)) from error
    if problems:
        raise LogError(str(SpecError(problems)))
    settings = {} if settings is None else settings
    if not isinstance(settings, dict) or settings.keys() - {"hash_units"}:
        raise LogError(f"{path}: got {settings!r}; expected hash_units: true, and nothing else")
    wanted = settings.get("hash_units")
    if not isinstance(wanted, bool | None):
        raise LogError(f"{path}: hash_units: got {wanted!r}; expected true or false")
    return wanted


def _read_salt(data: Path) -> bytes | None:
    path = data / SALT
    try:
        mode = path.stat().st_mode
        salt = bytes.fromhex(unsealed(path.read_bytes().strip()).decode())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        # Not what stands in it: messages go into logs.
        reason = error.strerror if isinstance(error, OSError) else "it is not what was written"
        raise LogError(
            f"{path}: cannot be read: {reason}; expected the file that the service made, readable "
            "for the user who runs this"
        ) from None
    if mode & 0o007:
        raise LogError(f"{path}: others may read or write it: chmod 600 {path}")
    if len(salt) < 16:
        raise LogError(f"{path}: got {len(salt)} bytes; expected the file that the service made")
    return salt


def _make_salt(data: Path) -> bytes:
    """Make the folder's salt; where another process was faster, its."""
    path = data / SALT
    draft = data / f".{SALT}.{os.getpid()}"
    try:
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(sealed(token_hex(32).encode()).decode() + "\n")
        sync(draft)
        try:
            # Unlike a rename, it takes no other's place: whoever reads it once reads it for ever.
            os.link(draft, path)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
        sync(data)
    except OSError as error:
        raise LogError(f"{path}: cannot be made: {error.strerror}; run it again") from error
    salt = _read_salt(data)
    if salt is None:
        raise LogError(f"{path}: is gone as soon as it was made; run it again")
    return salt

"""The files of a lake in an object store.

Nothing else in Topbill imports `obstore`.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, NamedTuple, NoReturn

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError
from obstore.store import from_url

from topbill.domain.errors import LogError
from topbill.lake.causes import cause
from topbill.lake.places import allows_http

_RETRIES: Any = {"max_retries": 3, "retry_timeout": timedelta(seconds=20)}
_ERRORS = (BaseError, OSError, ValueError)


def _client() -> Any:
    return {"connect_timeout": "5s", "timeout": "60s", "allow_http": allows_http()}


class StoredObject(NamedTuple):
    """What a file holds, and the tag that is another one whenever it holds something else."""

    content: bytes
    tag: str


class ObjectFiles:
    """The files below a URL; see `topbill.lake.files.Files`.

    Raises:
        LogError: its environment makes no sense.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        try:
            if "://" in root:
                self._store: Any = from_url(root, retry_config=_RETRIES, client_options=_client())
            else:
                self._store = from_url(f"file://{root}", mkdir=True)
        except _ERRORS as error:
            self._fail("cannot be opened", error)

    def sizes(self, folder: str) -> dict[str, int]:
        """The bytes of each file below a folder."""
        try:
            found = {}
            for batch in obstore.list(self._store, folder):
                found.update({each["path"]: int(each["size"]) for each in batch})
            return found
        except _ERRORS as error:
            self._fail(f"{folder}: cannot be listed", error)

    def tags(self, folder: str) -> dict[str, str]:
        """The tag of each file below a folder."""
        try:
            found = {}
            for batch in obstore.list(self._store, folder):
                found.update({each["path"]: _tag(each) for each in batch})
            return found
        except _ERRORS as error:
            self._fail(f"{folder}: cannot be listed", error)

    def tag(self, path: str) -> str | None:
        """A file's tag; None where it is not there."""
        try:
            return _tag(obstore.head(self._store, path))
        except FileNotFoundError:
            self._refuse_bucket()
            return None
        except _ERRORS as error:
            self._fail(f"{path}: cannot be read", error)

    def get(self, path: str) -> StoredObject | None:
        """A file as it is now; None where it is not there."""
        try:
            answer = obstore.get(self._store, path)
            return StoredObject(bytes(answer.bytes()), _tag(answer.meta))
        except FileNotFoundError:
            self._refuse_bucket()
            return None
        except _ERRORS as error:
            self._fail(f"{path}: cannot be read", error)

    def read(self, path: str) -> bytes:
        """What a file holds."""
        found = self.get(path)
        if found is None:
            raise LogError(f"{self.root}/{path}: is not there")
        return found.content

    def reader(self, path: str, size: int) -> Any:
        """A file of so many bytes, to be read in parts."""
        try:
            return obstore.open_reader(self._store, path, size=size)
        except _ERRORS as error:
            self._fail(f"{path}: cannot be read", error)

    def add(self, path: str, content: bytes | memoryview) -> None:
        """Make a new file."""
        self.write(path, bytes(content))  # obstore takes nothing else

    def write(self, path: str, content: bytes) -> None:
        """Have a file hold this, whole or as before."""
        try:
            obstore.put(self._store, path, content)
        except _ERRORS as error:
            self._fail(f"{path}: cannot be written", error)

    def make(self, path: str, content: bytes) -> bool:
        """Write a file that is not there yet; of several who do, the first one's is there, and it
        alone is told that it was the first."""
        try:
            obstore.put(self._store, path, content, mode="create")
        except (AlreadyExistsError, PreconditionError):
            return False
        except _ERRORS as error:
            self._fail(f"{path}: cannot be written", error)
        return True

    def delete(self, path: str) -> None:
        """Delete a file, where it is there."""
        try:
            obstore.delete(self._store, path)
        except FileNotFoundError:
            self._refuse_bucket()
        except _ERRORS as error:
            self._fail(f"{path}: cannot be deleted", error)

    def rename(self, path: str, name: str) -> None:
        """Give a file another path."""
        try:
            obstore.rename(self._store, path, name)
        except _ERRORS as error:
            self._fail(f"{path}: cannot be renamed", error)

    def _refuse_bucket(self) -> None:
        """A file that is not there is one thing, a bucket that is not there another, which only a
        list tells.
        """
        try:
            next(iter(obstore.list(self._store, chunk_size=1)), None)
        except _ERRORS as error:
            self._fail("cannot be read", error)

    def _fail(self, what: str, error: Exception) -> NoReturn:
        raise LogError(f"{self.root}: {what}: {cause(error)}") from error


def _tag(meta: Any) -> str:
    return str(meta["e_tag"]).strip('"').replace("/", "-")

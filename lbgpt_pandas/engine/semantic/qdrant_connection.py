"""The client of a Qdrant: one for all threads, closed before a fork, its errors in our words."""

from __future__ import annotations

import math
import threading
import warnings
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakValueDictionary

from lbgpt_pandas.engine.errors import MissingExtraError
from lbgpt_pandas.engine.lifetime import close_at_fork_and_exit, no_fork
from lbgpt_pandas.engine.secrets import redact
from lbgpt_pandas.engine.semantic.qdrant_folder import check_folder, close_to_others, in_use

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lbgpt_pandas.engine.secrets import Secret

T = TypeVar("T")

INSTALL_LINE = "pip install 'lbgpt-pandas[qdrant]'"

_LARGE = "large-local-collection"
"""What the client calls its warning that a folder has many entries, as our docstring says."""

_NOT_FOUND = 404
_REFUSED = frozenset({401, 403})
_LONGEST_REASON = 200


class NoCollection(LookupError):
    """The collection has not been made, or was removed."""


class QdrantConnection:
    """A Qdrant server, or Qdrant's local mode; its methods block and may be called in any thread.

    The local mode is not thread-safe, so that it does one thing at a time.

    Parameters
    ----------
    options : dict
        Arguments of the client that say where it is.
    place : str
        The same for people, without any secret.
    api_key : Secret, optional
        The server's key.
    timeout_s : float
        Seconds that the server may take for an answer.
    """

    def __init__(
        self,
        options: dict[str, Any],
        *,
        place: str,
        api_key: Secret | None = None,
        timeout_s: float = 10.0,
    ) -> None:
        self.place = place
        folder = options.get("path")
        self.folder = None if folder is None else Path(folder)
        self.in_memory = "location" in options
        self.is_local = self.in_memory or self.folder is not None
        self._options = options
        self._api_key = api_key
        # The client takes whole seconds.
        self._timeout_s = math.ceil(timeout_s)
        self._client: Any = None
        # Held inside `no_fork` only, so that a forked child never finds it taken.
        self._lock = threading.Lock()
        if not self.in_memory:
            close_at_fork_and_exit(self)

    def do(self, work: Callable[[Any], T]) -> T:
        """Do blocking work with the client.

        Raises
        ------
        NoCollection
            If the server knows no such collection.
        MissingExtraError
            If the client is not installed.
        ConfigurationError
            If the folder is in use, damaged, or not to be trusted.
        OSError
            If the server cannot be reached, takes too long, refuses or fails.
        """
        with no_fork:
            if self.is_local:
                with self._lock:
                    return work(self._opened())
            with self._lock:
                client = self._opened()
            with self._explained():
                return work(client)

    def protect(self) -> None:
        """Let nobody else read what the local mode has written so far."""
        if self.folder is not None:
            close_to_others(self.folder)

    def close(self) -> None:
        """Close the client; any use opens another. What lies in memory only is kept."""
        if not self.in_memory:
            with self._lock:
                client, self._client = self._client, None
                if client is not None:
                    client.close()

    def release(self) -> None:
        """Close the client once nobody forks; see `close`, which a fork calls."""
        with no_fork:
            self.close()

    def __del__(self) -> None:
        if self._client is not None:
            self._client.close()

    def _opened(self) -> Any:
        if self._client is None:
            if self.folder is not None:
                check_folder(self.folder)
            qdrant_client = load_qdrant_client()
            with self._explained_opening(), _without_advice(is_local=self.is_local):
                self._client = qdrant_client.QdrantClient(**self._arguments())
            self.protect()
        return self._client

    def _arguments(self) -> dict[str, Any]:
        if self.is_local:
            return {**self._options, "force_disable_check_same_thread": True}
        return {
            **self._options,
            # As a header, because the client warns of plain http, as our cache has done already.
            "metadata": {} if self._api_key is None else {"api-key": self._api_key.reveal()},
            "timeout": self._timeout_s,
            "check_compatibility": False,
        }

    @contextmanager
    def _explained_opening(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            if self.folder is None or "already accessed" not in str(error):
                raise
            raise in_use(self.folder) from error

    @contextmanager
    def _explained(self) -> Iterator[None]:
        from qdrant_client.http.exceptions import (  # noqa: PLC0415  # an extra
            ResponseHandlingException,
            UnexpectedResponse,
        )

        # Without their causes, whose texts are the server's.
        try:
            yield
        except ResponseHandlingException as error:
            source = error.source
            if "Timeout" in type(source).__name__:
                raise TimeoutError(
                    f"Qdrant at {self.place} did not answer within {self._timeout_s} s"
                ) from None
            raise ConnectionError(
                f"Qdrant at {self.place} cannot be reached: {self._without_key(source)}"
            ) from None
        except UnexpectedResponse as error:
            status = error.status_code
            if status == _NOT_FOUND:
                raise NoCollection(f"Qdrant at {self.place} has no such collection") from None
            if status in _REFUSED:
                raise PermissionError(
                    f"Qdrant at {self.place} refused the api_key (HTTP {status}); give one that "
                    "may read and write"
                ) from None
            reason = self._without_key(error.content.decode(errors="replace"))
            raise OSError(f"Qdrant at {self.place} answered HTTP {status}: {reason}") from None

    def _without_key(self, reason: object) -> str:
        text = f"{reason}"
        if self._api_key is not None:
            text = text.replace(self._api_key.reveal(), "***")
        return redact(text)[:_LONGEST_REASON]


@contextmanager
def _without_advice(*, is_local: bool) -> Iterator[None]:
    """Open a large folder without a word; filters are changed for that moment only."""
    if not is_local:
        yield
        return
    with suppress(ImportError):
        from qdrant_client.common import client_warnings  # noqa: PLC0415  # an extra

        client_warnings.SEEN_MESSAGES.add(_LARGE)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Local mode is not recommended")
        yield


_folders: WeakValueDictionary[Path, QdrantConnection] = WeakValueDictionary()
_folders_lock = threading.Lock()


def folder_connection(folder: Path) -> QdrantConnection:
    """Return the one connection of this process to a folder, which only one may open."""
    with no_fork, _folders_lock:
        connection = _folders.get(folder)
        if connection is None:
            connection = QdrantConnection({"path": str(folder)}, place=str(folder))
            _folders[folder] = connection
        return connection


def load_qdrant_client() -> Any:
    """Import the client, which takes most of a second the first time.

    Raises
    ------
    MissingExtraError
        If it is not installed.
    """
    try:
        import qdrant_client  # noqa: PLC0415  # an extra
    except ImportError as error:
        raise MissingExtraError(
            f"QdrantSemanticCache needs qdrant-client, which cannot be imported ({error}): "
            f"{INSTALL_LINE}"
        ) from error
    return qdrant_client

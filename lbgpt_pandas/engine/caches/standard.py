"""The standard tier: answers under the key of exactly the request that they answer."""

from __future__ import annotations

import hashlib
import threading
from typing import TYPE_CHECKING

import orjson

from lbgpt_pandas.engine.clock import SYSTEM_CLOCK

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from lbgpt_pandas.engine.caches.base import Cache
    from lbgpt_pandas.engine.clock import Clock

ENVELOPE_VERSION = 1

_RESPONSE = b',"resp":'
_BEGIN = b'{"v":%d,"sha256":"' % ENVELOPE_VERSION
_DIGEST_LENGTH = 64
_AFTER_DIGEST = b'",'


class CorruptEntry(ValueError):
    """A stored text that is not the envelope that was stored under its key."""


def seal(
    key: str, *, family: str, model: str, payload: dict[str, object], created: datetime
) -> str:
    """Write the envelope of an answer.

    Parameters
    ----------
    key : str
        The request's key.
    family, model : str
        Whose model answered, and its name in the request; for clearing by model.
    payload : dict
        The provider's answer.
    created : datetime
        When, in UTC.

    Returns
    -------
    str
        JSON: ``v``, ``sha256``, ``key``, ``created``, ``family``, ``model``, ``resp``. The
        checksum covers all that follows it, byte for byte, so that it is verified without
        writing the JSON again.
    """
    about = {"key": key, "created": created.isoformat(), "family": family, "model": model}
    covered = orjson.dumps(about)[1:-1] + _RESPONSE + orjson.dumps(payload)
    return _wrap(covered).decode()


def unseal(key: str, text: str) -> dict[str, object]:
    """Read the answer out of its envelope.

    Raises
    ------
    CorruptEntry
        If version, checksum or key differ.
    """
    try:
        raw = text.encode()
    except UnicodeEncodeError:
        raise CorruptEntry("the entry is not valid text") from None
    covered = raw[len(_BEGIN) + _DIGEST_LENGTH + len(_AFTER_DIGEST) : -1]
    if raw != _wrap(covered):
        raise CorruptEntry("the entry's checksum does not fit its content")
    about, _, response = covered.partition(_RESPONSE)
    if orjson.loads(b"{" + about + b"}")["key"] != key:
        raise CorruptEntry("the entry belongs to another key")
    payload: dict[str, object] = orjson.loads(response)
    return payload


def _wrap(covered: bytes) -> bytes:
    digest = hashlib.sha256(covered).hexdigest().encode()
    return b"".join((_BEGIN, digest, _AFTER_DIGEST, covered, b"}"))


class StandardTier:
    """What the pipeline knows of the exact cache: find answers, save answers, never fail.

    A store that cannot be read is a row of misses, one that cannot be written is left alone
    for the rest of the process or until `reset`; either is told once.

    Parameters
    ----------
    cache : Cache
        Where the envelopes lie.
    clock : Clock, optional
        Source of the time that is written into them.

    Attributes
    ----------
    hits, misses, corrupt, read_failures, write_failures : int
        What has happened so far.
    """

    def __init__(self, cache: Cache, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self.cache = cache
        self._clock = clock
        self._lock = threading.Lock()
        self._notices: list[str] = []
        self._told: set[str] = set()
        self._writable = True
        self.hits = self.misses = self.corrupt = 0
        self.read_failures = self.write_failures = 0

    def __repr__(self) -> str:
        return f"StandardTier({self.cache!r})"

    async def find(self, keys: Sequence[str]) -> dict[str, dict[str, object]]:
        """Return the verified answers of those `keys` that are stored.

        Parameters
        ----------
        keys : sequence of str
            Any number; looked up together.
        """
        try:
            texts = await self.cache.get_many(keys)
        except Exception as error:  # noqa: BLE001  # the store is anybody's code
            self.read_failures += 1
            self._tell("read", f"the cache cannot be read, rows are asked anew: {error}")
            return {}
        found = {}
        for key, text in texts.items():
            try:
                found[key] = unseal(key, text)
            except ValueError:
                await self._discard(key)
        self.hits += len(found)
        self.misses += len(keys) - len(found)
        return found

    async def save(
        self,
        key: str,
        *,
        family: str,
        model: str,
        payload: dict[str, object],
        replace: bool = False,
    ) -> bool:
        """Store an answer.

        Parameters
        ----------
        key : str
            The request's key.
        family, model : str
            Whose model answered, and its name in the request.
        payload : dict
            The provider's answer.
        replace : bool, default False
            Whether an answer that is stored already gives way.

        Returns
        -------
        bool
            Whether it is stored.
        """
        if not self._writable:
            return False
        text = seal(key, family=family, model=model, payload=payload, created=self._clock.wall())
        try:
            await self.cache.set(key, text, replace=replace)
        except Exception as error:  # noqa: BLE001  # the store is anybody's code
            self.write_failures += 1
            self._writable = False
            self._tell(
                "write",
                f"the cache cannot be written, answers are returned but not kept: {error}",
            )
            return False
        return True

    def reset(self) -> None:
        """Try a store again that failed, and tell again if it still does."""
        with self._lock:
            self._writable = True
            self._told.clear()

    def take_notices(self) -> list[str]:
        """Return what has to be told, each text once; the caller warns in its own thread."""
        with self._lock:
            notices, self._notices = self._notices, []
        # A store that repairs itself has something to tell as well.
        return [*notices, *getattr(self.cache, "take_notices", list)()]

    async def _discard(self, key: str) -> None:
        self.corrupt += 1
        self._tell("corrupt", "cache entries are damaged; they are removed and asked anew")
        try:
            await self.cache.delete(key)
        except Exception as error:  # noqa: BLE001  # the store is anybody's code
            self._tell("delete", f"a damaged cache entry cannot be removed: {error}")

    def _tell(self, topic: str, text: str) -> None:
        with self._lock:
            if topic not in self._told:
                self._told.add(topic)
                self._notices.append(text)

"""The standard tier: answers under the key of exactly the request that they answer."""

from __future__ import annotations

import gc
import hashlib
import json
import threading
from typing import TYPE_CHECKING, Any

import orjson

from lbgpt_pandas.engine.clock import SYSTEM_CLOCK
from lbgpt_pandas.engine.errors import ConfigurationError
from lbgpt_pandas.engine.lifetime import renew_after_fork
from lbgpt_pandas.engine.secrets import redact

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from lbgpt_pandas.engine.caches.base import Cache
    from lbgpt_pandas.engine.clock import Clock

ENVELOPE_VERSION = 1

KEYS_A_LOOKUP = 10_000
"""Keys that are looked up and verified before the event loop gets its turn."""

_RESPONSE = b',"resp":'
_BEGIN = b'{"v":%d,"sha256":"' % ENVELOPE_VERSION
_DIGEST_LENGTH = 64
_AFTER_DIGEST = b'",'
_BY_JSON = b" "
"""Begins what orjson could not write; it would read a long integer as a float."""

_LONGEST_REASON = 200


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

    Raises
    ------
    TypeError
        If `payload` is not JSON data.
    """
    about = {"key": key, "created": created.isoformat(), "family": family, "model": model}
    covered = _inside(about) + _RESPONSE + _dump(payload)
    return _wrap(covered).decode()


def unseal(key: str, text: str) -> dict[str, object]:
    """Read the answer out of its envelope.

    Parameters
    ----------
    key : str
        What it was stored under.
    text : str
        The envelope.

    Returns
    -------
    dict
        The provider's answer, the caller's own.

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
    if not covered.startswith(_inside({"key": key}) + b","):
        raise CorruptEntry("the entry belongs to another key")
    payload = _load(covered.partition(_RESPONSE)[2])
    if not isinstance(payload, dict):
        raise CorruptEntry("the entry holds no answer")
    return payload


def _wrap(covered: bytes) -> bytes:
    digest = hashlib.sha256(covered).hexdigest().encode()
    return b"".join((_BEGIN, digest, _AFTER_DIGEST, covered, b"}"))


def _inside(members: dict[str, str]) -> bytes:
    """Write the members of an object without its braces, each by itself."""
    return b",".join(
        b'"%s":%s' % (name.encode(), _dump(text).lstrip(_BY_JSON)) for name, text in members.items()
    )


def _dump(value: object) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError:
        # Lone surrogates and long integers, which a provider's JSON may hold.
        return _BY_JSON + json.dumps(value).encode()


def _load(raw: bytes) -> Any:
    try:
        return json.loads(raw) if raw.startswith(_BY_JSON) else orjson.loads(raw)
    except (ValueError, RecursionError) as error:
        raise CorruptEntry("the entry is not JSON") from error


class StandardTier:
    """What the pipeline knows of the exact cache: find answers, save answers, never fail.

    A store that cannot be read is a row of misses, one that cannot be written is left alone
    until `reset`; either is told once. Plain data: any event loop and any thread may use it.

    Parameters
    ----------
    cache : Cache
        Where the envelopes lie.
    clock : Clock, optional
        Source of the time that is written into them.

    Attributes
    ----------
    hits, misses, corrupt, read_failures, write_failures : int
        What has happened so far. A key that could not be looked up, or whose entry was corrupt,
        is a miss.
    """

    def __init__(self, cache: Cache, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self.cache = cache
        self._clock = clock
        self._notices: list[str] = []
        self._told: set[str] = set()
        self._damaged: set[str] = set()
        self._writable = True
        self.hits = self.misses = self.corrupt = 0
        self.read_failures = self.write_failures = 0
        self.after_fork()
        renew_after_fork(self)

    def __repr__(self) -> str:
        return f"StandardTier({self.cache!r})"

    def after_fork(self) -> None:
        """Replace the lock, which a thread of the parent may have held."""
        self._lock = threading.Lock()

    async def find(
        self, keys: Sequence[str], *, repair: bool = True
    ) -> dict[str, dict[str, object]]:
        """Return the verified answers of those `keys` that are stored.

        Parameters
        ----------
        keys : sequence of str
            Any number, each once; looked up together.
        repair : bool, default True
            Whether corrupt entries are removed; they are misses in any case.

        Returns
        -------
        dict
            Answers by key. Missing are keys that are not stored, those whose entry is corrupt,
            and all that a failing store did not give.

        Raises
        ------
        ConfigurationError
            If the store is refused as a whole, such as a directory that others may write to.
        """
        found: dict[str, dict[str, object]] = {}
        try:
            for start in range(0, len(keys), KEYS_A_LOOKUP):
                texts = await self.cache.get_many(keys[start : start + KEYS_A_LOOKUP])
                for key in _unseal_all(texts, into=found):
                    await self._discard(key, repair=repair)
        except ConfigurationError:
            raise
        except Exception as error:  # noqa: BLE001  # the store is anybody's code
            self._count(read_failures=1)
            self._tell("read", f"the cache cannot be read, rows are asked anew: {_reason(error)}")
        self._count(hits=len(found), misses=len(keys) - len(found))
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
        """Store an answer; a failing store never raises.

        Parameters
        ----------
        key : str
            The request's key.
        family, model : str
            Whose model answered, and its name in the request.
        payload : dict
            The provider's answer.
        replace : bool, default False
            Whether an answer that is stored already gives way. A corrupt one always does.

        Returns
        -------
        bool
            Whether it is stored.
        """
        if not self._writable:
            return False
        try:
            text = seal(
                key, family=family, model=model, payload=payload, created=self._clock.wall()
            )
        except (TypeError, ValueError, RecursionError) as error:
            # The answer is at fault, not the store.
            self._count(write_failures=1)
            self._tell("seal", f"an answer cannot be kept in the cache: {_reason(error)}")
            return False
        try:
            await self.cache.set(key, text, replace=replace or key in self._damaged)
        except Exception as error:  # noqa: BLE001  # the store is anybody's code
            self._writable = False
            self._count(write_failures=1)
            self._tell(
                "write",
                f"the cache cannot be written, answers are returned but not kept: {_reason(error)}",
            )
            return False
        with self._lock:
            self._damaged.discard(key)
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

    async def _discard(self, key: str, *, repair: bool) -> None:
        self._count(corrupt=1)
        done = "removed and asked anew" if repair else "asked anew"
        self._tell("corrupt", f"cache entries are damaged; they are {done}")
        if not repair:
            return
        with self._lock:
            # Not every store can delete, and a damaged entry must not keep its place.
            self._damaged.add(key)
        try:
            await self.cache.delete(key)
        except Exception as error:  # noqa: BLE001  # the store is anybody's code
            self._tell("delete", f"a damaged cache entry cannot be removed: {_reason(error)}")

    def _count(self, **events: int) -> None:
        with self._lock:
            for name, number in events.items():
                setattr(self, name, getattr(self, name) + number)

    def _tell(self, topic: str, text: str) -> None:
        with self._lock:
            if topic not in self._told:
                self._told.add(topic)
                self._notices.append(text)


def _unseal_all(texts: dict[str, str], *, into: dict[str, dict[str, object]]) -> list[str]:
    """Unseal what can be unsealed; return the keys of the rest."""
    corrupt = []
    # JSON holds no cycles, and looking for some takes as long as reading it.
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        for key, text in texts.items():
            try:
                into[key] = unseal(key, text)
            except CorruptEntry:
                corrupt.append(key)
    finally:
        if was_enabled:
            gc.enable()
    return corrupt


def _reason(error: Exception) -> str:
    return redact(f"{type(error).__name__}: {error}")[:_LONGEST_REASON]

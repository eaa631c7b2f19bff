"""The standard tier: answers under the key of exactly the request that they answer."""

from __future__ import annotations

import asyncio
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from lbgpt_pandas.engine.caches.envelope import CorruptEntry, outdated, seal, unseal
from lbgpt_pandas.engine.caches.held_back import HeldBack
from lbgpt_pandas.engine.caches.resting import Rest
from lbgpt_pandas.engine.clock import SYSTEM_CLOCK
from lbgpt_pandas.engine.collection import no_collection
from lbgpt_pandas.engine.errors import ConfigurationError
from lbgpt_pandas.engine.lifetime import renew_after_fork
from lbgpt_pandas.engine.secrets import redact

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from lbgpt_pandas.engine.caches.base import Cache
    from lbgpt_pandas.engine.clock import Clock

KEYS_A_LOOKUP = 3_000
"""Keys that are looked up and verified before the event loop gets its turn."""

WRITES_AT_ONCE = 16
"""Texts that were held back and are written at a time."""

_LONGEST_REASON = 200

_OUTAGES = {
    ("read",): "cannot be read, rows are asked anew",
    ("write",): "cannot be written, answers are kept in memory until it can",
    ("read", "write"): "can be neither read nor written, rows are asked anew and answers are kept "
    "in memory until it can",
}


class StandardTier:
    """What the pipeline knows of the exact cache: find answers, save answers, never fail.

    A store that cannot be read is a row of misses. What one that cannot be written did not take
    is held in memory, found there, and written once the store works again. Either is told once;
    the store rests for 1, 2, 4 ... 30 seconds, and the next lookup or answer after that tries
    it again. Plain data: any event loop and any thread may use it.

    If the cache has ``ttl_s``, older answers are misses that give way to new ones.

    Parameters
    ----------
    cache : Cache
        Where the envelopes lie.
    clock : Clock, optional
        Source of the time that is written into them, and of the rests.

    Attributes
    ----------
    hits, misses, corrupt, read_failures, write_failures : int
        What has happened so far. A key that could not be looked up, or whose entry was corrupt
        or too old, is a miss. Lookups during a rest count as failed reads.
    """

    def __init__(self, cache: Cache, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self.cache = cache
        self._clock = clock
        self._notices: list[str] = []
        self._outages: dict[str, str] = {}
        self._told: set[str] = set()
        self._giving_way: set[str] = set()
        self._held = HeldBack()
        self._runs = 0
        self._news: set[str] = set()
        self._reads, self._writes = Rest(), Rest()
        self.hits = self.misses = self.corrupt = 0
        self.read_failures = self.write_failures = 0
        self.after_fork()
        renew_after_fork(self)

    def __repr__(self) -> str:
        return f"StandardTier({self.cache!r})"

    def after_fork(self) -> None:
        """Replace the lock, which a thread of the parent may have held, and try anew."""
        self._lock = threading.Lock()
        self._is_writing_held = False
        self._runs = 0  # those of the parent go on there
        self._news.clear()
        self._reads.reset()
        self._writes.reset()

    async def find(
        self,
        keys: Sequence[str],
        *,
        repair: bool = True,
        counts: bool = True,
        read: Callable[[str, str], Any] = unseal,
    ) -> dict[str, Any]:
        """Return the verified answers of those `keys` that are stored.

        Parameters
        ----------
        keys : sequence of str
            Any number, each once; looked up together.
        repair : bool, default True
            Whether corrupt entries are removed; they are misses in any case.
        counts : bool, default True
            Whether these are hits and misses.
        read : callable, default `unseal`
            Makes something of a key and its envelope, and raises `CorruptEntry` if that is not
            what was stored.

        Returns
        -------
        dict
            What `read` made of the answers, by key. Missing are keys that are not stored, those
            whose entry is corrupt or too old, and all that a failing store did not give.

        Raises
        ------
        ConfigurationError
            If the store is refused as a whole, such as a directory that others may write to.
        """
        found: dict[str, Any] = {}
        missing = keys
        if self._held:
            with self._lock:
                texts = self._held.get_many(keys)
            await self._take_in(texts, found, repair=repair, read=read)
            missing = [key for key in keys if key not in found]
        if missing:
            await self._read(missing, found, repair=repair, read=read)
        if counts:
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
            Whether an answer that is stored already gives way. A corrupt one and one that is
            too old always do.

        Returns
        -------
        bool
            Whether it is stored; False if it is held in memory, or cannot be kept at all.
        """
        try:
            text = seal(
                key, family=family, model=model, payload=payload, created=self._clock.wall()
            )
        except (TypeError, ValueError, RecursionError) as error:
            # The answer is at fault, not the store.
            self._count(write_failures=1)
            self._tell("seal", f"an answer cannot be kept in the cache: {_reason(error)}")
            return False
        replace = replace or await self._gives_way(key)
        if self._runs > 1:
            with self._lock:
                self._news.add(key)
        if not await self._write(key, text, replace=replace):
            self._hold(key, text, replace=replace)
            return False
        if self._held:
            with self._lock:
                self._held.discard(key)
            await self._write_held()
        return True

    async def flush(self) -> None:
        """Try the store again now, and write what is held back; for the end of a run."""
        if self._held:
            with self._lock:
                self._writes.reset()
            await self._write_held()

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Let a run read and write; what others store meanwhile is news to it."""
        with self._lock:
            self._runs += 1
        try:
            yield
        finally:
            with self._lock:
                self._runs -= 1
                if not self._runs:
                    self._news.clear()

    def is_news(self, key: str) -> bool:
        """Tell whether a run has stored this answer after another may have looked for it."""
        return key in self._news

    def retry_reads(self) -> None:
        """Look again at the next lookup, however short ago a failure was."""
        with self._lock:
            self._reads.reset()

    def reset(self) -> None:
        """Try a store again that failed, and tell again if it still does."""
        with self._lock:
            self._reads.reset()
            self._writes.reset()
            self._told.clear()

    def take_notices(self) -> list[str]:
        """Return what has to be told, each text once; the caller warns in its own thread."""
        with self._lock:
            notices, self._notices = self._notices, []
            outages, self._outages = self._outages, {}
        if outages:
            what = _OUTAGES[tuple(sorted(outages))]
            notices.insert(0, f"the cache {what}: {next(iter(outages.values()))}")
        # A store that repairs itself has something to tell as well.
        return [*notices, *getattr(self.cache, "take_notices", list)()]

    async def _read(
        self,
        keys: Sequence[str],
        found: dict[str, Any],
        *,
        repair: bool,
        read: Callable[[str, str], Any],
    ) -> None:
        with self._lock:
            attempt = self._reads.begin(self._clock.monotonic())
        if attempt is None:
            self._count(read_failures=1)
            return
        try:
            for start in range(0, len(keys), KEYS_A_LOOKUP):
                texts = await self.cache.get_many(keys[start : start + KEYS_A_LOOKUP])
                await self._take_in(texts, found, repair=repair, read=read)
        except ConfigurationError:
            raise
        except Exception as error:  # noqa: BLE001  # the store is anybody's code
            self._count(read_failures=1)
            self._fail("read", self._reads, attempt, error)
        else:
            with self._lock:
                self._reads.succeeded(attempt)
        finally:
            with self._lock:
                self._reads.abandoned(attempt)

    async def _take_in(
        self,
        texts: dict[str, str],
        found: dict[str, Any],
        *,
        repair: bool,
        read: Callable[[str, str], Any],
    ) -> None:
        for key in _read_all(texts, read, into=found):
            await self._discard(key, repair=repair)
        ttl_s = getattr(self.cache, "ttl_s", None)
        if ttl_s is None:
            return
        old = outdated(texts, now=self._clock.wall(), ttl_s=ttl_s)
        for key in old:
            found.pop(key, None)
        with self._lock:
            self._giving_way.update(old)

    async def _write(self, key: str, text: str, *, replace: bool) -> bool:
        with self._lock:
            attempt = self._writes.begin(self._clock.monotonic())
        if attempt is None:
            return False
        try:
            await self.cache.set(key, text, replace=replace)
        except Exception as error:  # noqa: BLE001  # the store is anybody's code
            self._count(write_failures=1)
            self._fail("write", self._writes, attempt, error)
            return False
        else:
            with self._lock:
                self._writes.succeeded(attempt)
                self._giving_way.discard(key)
            return True
        finally:
            with self._lock:
                self._writes.abandoned(attempt)

    async def _gives_way(self, key: str) -> bool:
        """Tell whether what is stored may be replaced: it is still too old, or damaged."""
        if key not in self._giving_way:
            return False
        try:
            text = (await self.cache.get_many([key])).get(key)
            if text is None:
                return True
            unseal(key, text)
        except Exception:  # noqa: BLE001  # damaged, or the write will tell
            return True
        ttl_s = getattr(self.cache, "ttl_s", None)
        now = self._clock.wall()
        return ttl_s is not None and bool(outdated({key: text}, now=now, ttl_s=ttl_s))

    def _hold(self, key: str, text: str, *, replace: bool) -> None:
        with self._lock:
            dropped = self._held.add(key, text, replace=replace)
        if dropped:
            self._tell(
                "dropped",
                "the cache cannot be written and no more answers fit into memory; the oldest are "
                "dropped and will be asked anew",
            )

    async def _write_held(self) -> None:
        with self._lock:
            if self._is_writing_held:
                return
            self._is_writing_held = True
            entries = self._held.entries()
        waiting = iter(entries)

        async def write() -> None:
            for key, text, replace in waiting:
                if not await self._write(key, text, replace=replace):
                    return
                with self._lock:
                    self._held.discard(key, text)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(WRITES_AT_ONCE, len(entries))):
                    group.create_task(write())
        finally:
            self._is_writing_held = False

    async def _discard(self, key: str, *, repair: bool) -> None:
        self._count(corrupt=1)
        done = "removed and asked anew" if repair else "asked anew"
        self._tell("corrupt", f"cache entries are damaged; they are {done}")
        if not repair:
            return
        with self._lock:
            # Not every store can delete, and a damaged entry must not keep its place.
            self._giving_way.add(key)
        try:
            await self.cache.delete(key)
        except Exception as error:  # noqa: BLE001  # the store is anybody's code
            self._tell("delete", f"a damaged cache entry cannot be removed: {_reason(error)}")

    def _fail(self, kind: str, rest: Rest, attempt: int, error: Exception) -> None:
        with self._lock:
            rest.failed(attempt, self._clock.monotonic())
            if kind not in self._told:
                self._told.add(kind)
                self._outages[kind] = _reason(error)

    def _count(self, **events: int) -> None:
        with self._lock:
            for name, number in events.items():
                setattr(self, name, getattr(self, name) + number)

    def _tell(self, topic: str, text: str) -> None:
        with self._lock:
            if topic not in self._told:
                self._told.add(topic)
                self._notices.append(text)


def _read_all(
    texts: dict[str, str], read: Callable[[str, str], Any], *, into: dict[str, Any]
) -> list[str]:
    """Read what can be read; return the keys of the rest."""
    corrupt = []
    with no_collection():
        for key, text in texts.items():
            try:
                into[key] = read(key, text)
            except CorruptEntry:
                corrupt.append(key)
    return corrupt


def _reason(error: Exception) -> str:
    return redact(f"{type(error).__name__}: {error}")[:_LONGEST_REASON]

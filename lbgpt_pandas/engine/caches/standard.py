"""The standard tier: answers under the key of exactly the request that they answer."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Literal

from lbgpt_pandas.engine.caches.envelope import outdated, seal, unseal, unseal_all
from lbgpt_pandas.engine.caches.held_back import HeldBack
from lbgpt_pandas.engine.caches.news import News
from lbgpt_pandas.engine.caches.notices import Notices
from lbgpt_pandas.engine.caches.resting import Rest
from lbgpt_pandas.engine.caches.underway import Underway, Written
from lbgpt_pandas.engine.clock import SYSTEM_CLOCK
from lbgpt_pandas.engine.errors import ConfigurationError
from lbgpt_pandas.engine.lifetime import renew_after_fork

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from contextlib import AbstractContextManager

    from lbgpt_pandas.engine.caches.base import Cache
    from lbgpt_pandas.engine.clock import Clock

KEYS_A_LOOKUP = 3_000
"""Keys that are looked up and verified before the event loop gets its turn."""


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
        self._notices = Notices()
        self._giving_way: set[str] = set()
        self._held = HeldBack()
        self._underway = Underway(cache, self._written)
        self._news = News()
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
        self._held.after_fork()
        self._notices.after_fork()
        self._underway.after_fork()
        self._news.after_fork()
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
            Whether corrupt entries are removed, and a damaged store is mended; they are misses
            in any case. Without it nothing in the store is changed or made.
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
        if texts := self._unwritten(keys):
            await self._take_in(texts, found, repair=repair, read=read)
            missing = [key for key in keys if key not in found]
        if missing:
            await self._read(missing, found, repair=repair, read=read)
        if counts:
            self._count(hits=len(found), misses=len(keys) - len(found))
        return found

    async def envelopes(self, keys: Sequence[str]) -> dict[str, str]:
        """Return the envelopes of those `keys` that there are, as they are; change nothing.

        Those that the store has not written yet are among them, and come first.

        Raises
        ------
        Exception
            What the store raises, if it is needed for any of the keys.
        """
        texts = self._unwritten(keys)
        missing = [key for key in keys if key not in texts]
        for start in range(0, len(missing), KEYS_A_LOOKUP):
            texts |= await self._look_up(missing[start : start + KEYS_A_LOOKUP], repair=False)
        return texts

    def unwritten_keys(self) -> list[str]:
        """Return the keys of what is held in memory or underway to the store."""
        underway = self._underway.keys()
        return list(dict.fromkeys([*underway, *self._held.keys()]))

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
            self._count(write_failures=1)
            self._notices.tell("seal", "an answer cannot be kept in the cache", error)
            return False
        if not replace and key in self._giving_way:
            replace = await self._gives_way(key)
        self._news.add(key)
        if self._news.runs and not self._held and self._write_soon(key, text, replace=replace):
            return True
        if key in self._underway:
            await self.flush()  # so that the last one that replaces is the one that stays
        if not await self._write(key, text, replace=replace):
            self._hold(key, text, replace=replace)
            return False
        if self._held:
            self._held.discard(key)
            await self._write_held()
        return True

    async def flush(self) -> None:
        """Finish what is underway, and try to write what is held back; for the end of a run."""
        if self._underway:
            await self.cache.finish()  # type: ignore[attr-defined]  # of a store with set_soon
        if self._held:
            with self._lock:
                self._writes.reset()
            await self._write_held()

    def in_use(self) -> AbstractContextManager[None]:
        """Let a run read and write; what others store meanwhile is news to it."""
        return self._news.during_run()

    @property
    def is_quick(self) -> bool:
        """Whether `save` hardly ever waits."""
        return hasattr(self.cache, "set_soon")

    def is_news(self, key: str) -> bool:
        """Tell whether a run has stored this answer after another may have looked for it."""
        return key in self._news.keys

    def retry_reads(self) -> None:
        """Look again at the next lookup, however short ago a failure was."""
        with self._lock:
            self._reads.reset()

    def reset(self) -> None:
        """Try a store again that failed, and tell again if it still does."""
        with self._lock:
            self._reads.reset()
            self._writes.reset()
        self._notices.tell_again()

    def take_notices(self) -> list[str]:
        """Return what has to be told, each text once; the caller warns in its own thread."""
        return [*self._notices.take(), *getattr(self.cache, "take_notices", list)()]

    def _unwritten(self, keys: Sequence[str]) -> dict[str, str]:
        if not self._held and not self._underway:
            return {}
        # In this order: what cannot be written is held before it stops being underway.
        underway = self._underway.get_many(keys)
        return self._held.get_many(keys) | underway

    def _look_up(self, keys: Sequence[str], *, repair: bool) -> Awaitable[dict[str, str]]:
        # Only a store that repairs itself has two ways of reading.
        peek = None if repair else getattr(self.cache, "peek_many", None)
        return (peek or self.cache.get_many)(keys)

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
                some = keys[start : start + KEYS_A_LOOKUP]
                texts = await self._look_up(some, repair=repair)
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
        for key in unseal_all(texts, read, into=found):
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
        attempt = self._begin_write()
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

    def _begin_write(self) -> int | None:
        attempt = self._writes.round
        if self._writes.is_well:
            return attempt
        with self._lock:
            return self._writes.begin(self._clock.monotonic())

    def _write_soon(self, key: str, text: str, *, replace: bool) -> bool:
        attempt = self._begin_write()
        if attempt is None:
            return False
        if self._underway.begin(key, Written(text, replace, attempt)):
            return True
        with self._lock:
            self._writes.abandoned(attempt)
        return False

    def _written(self, entries: dict[str, Written], error: BaseException | None) -> None:
        if error is None:
            with self._lock:
                for written in entries.values():
                    self._writes.succeeded(written.attempt)
                self._giving_way.difference_update(entries)
            return
        if isinstance(error, Exception):
            self._count(write_failures=len(entries))
        for key, (text, replace, attempt) in entries.items():
            self._fail("write", self._writes, attempt, error)
            self._hold(key, text, replace=replace)

    async def _gives_way(self, key: str) -> bool:
        """Tell whether what was too old or damaged still is, so that it may be replaced."""
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
        if self._held.add(key, text, replace=replace):
            self._notices.tell(
                "dropped",
                "the cache cannot be written and no more answers fit into memory; the oldest are "
                "dropped and will be asked anew",
            )

    async def _write_held(self) -> None:
        await self._held.write_out(self._write)

    async def _discard(self, key: str, *, repair: bool) -> None:
        self._count(corrupt=1)
        done = "removed and asked anew" if repair else "asked anew"
        self._notices.tell("corrupt", f"cache entries are damaged; they are {done}")
        if not repair:
            return
        with self._lock:
            # Not every store can delete, and a damaged entry must not keep its place.
            self._giving_way.add(key)
        try:
            await self.cache.delete(key)
        except Exception as error:  # noqa: BLE001  # the store is anybody's code
            self._notices.tell("delete", "a damaged cache entry cannot be removed", error)

    def _fail(
        self, kind: Literal["read", "write"], rest: Rest, attempt: int, error: BaseException
    ) -> None:
        with self._lock:
            rest.failed(attempt, self._clock.monotonic())
        self._notices.tell_outage(kind, error)

    def _count(self, **events: int) -> None:
        with self._lock:
            for name, number in events.items():
                setattr(self, name, getattr(self, name) + number)

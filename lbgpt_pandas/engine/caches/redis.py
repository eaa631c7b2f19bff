"""Texts in a Redis, for processes on any number of machines."""

from __future__ import annotations

import asyncio
import math
import re
import threading
from operator import methodcaller
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import unquote, urlsplit

from lbgpt_pandas.engine.caches.redis_line import RedisLine, end_with
from lbgpt_pandas.engine.caches.ttl import ttl_seconds
from lbgpt_pandas.engine.errors import ConfigurationError, MissingExtraError
from lbgpt_pandas.engine.lifetime import renew_after_fork
from lbgpt_pandas.engine.secrets import Secret, redact

if TYPE_CHECKING:
    from collections.abc import (
        AsyncIterator,
        Awaitable,
        Callable,
        Iterator,
        Sequence,
    )
    from datetime import timedelta

    from redis.asyncio import Redis

    from lbgpt_pandas.engine.caches.redis_line import Lines

T = TypeVar("T")

INSTALL_LINE = "pip install 'lbgpt-pandas[redis]'"

KEYS_A_COMMAND = 250
"""Texts that are read or removed with one command; a loop stands still while they are parsed."""

_COMMANDS_AT_ONCE = 4
_KEYS_A_SCAN = 2_000
_GLOB = re.compile(r"[*?\[\]\\^]")
_LONGEST_REASON = 200
_DEFAULT_PORT = 6379


class RedisCache:
    """Texts in a Redis, for processes on any number of machines.

    What one process stored first, all read. Connections are made at the first use on each event
    loop, and end with it or with this object. The user in the URL needs the commands MGET, SET,
    TYPE, UNLINK and SCAN. Let the server keep what was paid for: ``maxmemory-policy
    noeviction``, and a file.

    Parameters
    ----------
    url : str
        ``redis://[[user]:password@]host[:port][/number]``, ``rediss://`` with TLS, or
        ``unix://path``. The password is never shown.
    prefix : str, default "lbgpt:"
        What its keys begin with in the database.
    ttl : float or timedelta, optional
        Seconds that a text counts; Redis removes it after them. None: for ever.
    timeout_s : float, default 5.0
        Seconds to wait until Redis accepts a connection, and for an answer. A queue for one of
        the connections is no outage and has no time-out.
    max_connections : int, default 32
        Connections at a time of one event loop.

    Attributes
    ----------
    location : str
        The URL without user and password.
    ttl_s : float or None
        `ttl` in seconds.

    Raises
    ------
    ConfigurationError
        If an argument cannot work.
    MissingExtraError
        At the first use, if redis is not installed.

    Examples
    --------
    >>> RedisCache("redis://:secret@localhost/2", ttl=3600)
    RedisCache('redis://localhost:6379/2')
    """

    is_shared = True
    """Other processes may write to it meanwhile."""

    def __init__(
        self,
        url: str,
        *,
        prefix: str = "lbgpt:",
        ttl: float | timedelta | None = None,
        timeout_s: float = 5.0,
        max_connections: int = 32,
    ) -> None:
        self.location = _location(url)
        self.prefix = prefix
        self.ttl_s = ttl_seconds(ttl)
        if not 0 < timeout_s < math.inf:
            raise ConfigurationError(f"timeout_s={timeout_s!r}: give seconds above 0")
        if not isinstance(max_connections, int) or max_connections < 1:
            raise ConfigurationError(
                f"max_connections={max_connections!r}: give a whole number of at least 1"
            )
        self._url = Secret(url)
        self._password = Secret(urlsplit(url).password or "")
        self._timeout_s, self._max_connections = timeout_s, max_connections
        self._lines: Lines = {}
        self._closing = end_with(self, self._lines)
        self.after_fork()
        renew_after_fork(self)

    def __repr__(self) -> str:
        return f"RedisCache({self.location!r})"

    def after_fork(self) -> None:
        """In a forked child: its loops are others, and a thread may have held the lock."""
        self._lock = threading.Lock()
        # Kept, because a client that is collected here would say that it was not closed.
        self._of_parent, self._lines = self._lines, {}
        self._closing.detach()
        self._closing = end_with(self, self._lines)

    async def get_many(self, keys: Sequence[str]) -> dict[str, str]:
        """Return the texts of those `keys` that are stored.

        Raises
        ------
        OSError
            If Redis cannot be reached, does not answer in time, or refuses.
        """
        found: dict[str, str] = {}
        remaining = _chunks(keys)

        async def read() -> None:
            for chunk in remaining:
                names = [self.prefix + key for key in chunk]
                values = await self._ask(methodcaller("mget", names))
                for key, value in zip(chunk, values, strict=True):
                    if value is not None:
                        found[key] = _text(value)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(_COMMANDS_AT_ONCE, math.ceil(len(keys) / KEYS_A_COMMAND))):
                    group.create_task(read())
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
        return found

    async def set(self, key: str, value: str, *, replace: bool = False) -> None:
        """Store a text; the first writer wins unless `replace`.

        Something that is no text under its key, such as a list, gives way in any case.

        Raises
        ------
        OSError
            As `get_many`.
        """
        name = self.prefix + key
        milliseconds = None if self.ttl_s is None else max(1, round(1_000 * self.ttl_s))

        async def store(client: Redis) -> None:
            is_stored = await client.set(name, value, nx=not replace, px=milliseconds)
            if not is_stored and _text(await client.type(name)) != "string":
                await client.set(name, value, px=milliseconds)

        await self._ask(store)

    async def delete(self, key: str) -> None:
        """Remove a text, if there is one."""
        await self.delete_many([key])

    async def delete_many(self, keys: Sequence[str]) -> int:
        """Remove texts; return how many there were."""
        removed = 0
        for chunk in _chunks(keys):
            names = [self.prefix + key for key in chunk]
            removed += await self._ask(methodcaller("unlink", *names))
        return removed

    async def scan(self) -> AsyncIterator[dict[str, str]]:
        """Give all keys with their texts, some thousand at a time."""
        seen: set[str] = set()
        pattern = _GLOB.sub(r"\\\g<0>", self.prefix) + "*"
        cursor: int | None = None
        while cursor != 0:
            fresh = list[str]()
            while cursor != 0 and len(fresh) < _KEYS_A_SCAN:
                scan = methodcaller("scan", cursor or 0, pattern, _KEYS_A_SCAN)
                cursor, names = await self._ask(scan)
                fresh += [_text(name).removeprefix(self.prefix) for name in names]
            # A key may be given twice while Redis rearranges its table.
            wanted = list(dict.fromkeys(key for key in fresh if key not in seen))
            seen.update(wanted)
            yield await self.get_many(wanted)

    async def close(self) -> None:
        """Close the connections; any use opens them again."""
        here = asyncio.get_running_loop()
        with self._lock:
            lines = self._lines.copy()
            self._lines.clear()
        for loop, line in lines.items():
            if loop is here:
                await line.close()
            elif loop.is_running():
                done = asyncio.run_coroutine_threadsafe(line.close(), loop)
                await asyncio.wait([asyncio.wrap_future(done)], timeout=self._timeout_s)

    async def _ask(self, command: Callable[[Redis], Awaitable[T]]) -> T:
        line = await self._line()
        from redis import exceptions  # noqa: PLC0415  # an extra, loaded by now

        async with line.place():
            try:
                answer = await line.ask(command)
            except exceptions.RedisError as error:
                ours = self._in_our_words(error)
                if isinstance(error, (exceptions.ConnectionError, exceptions.TimeoutError)):
                    line.fell_silent(ours)
                # Without its cause, which may quote what was sent.
                raise ours from None
            line.is_heard()
        return answer

    async def _line(self) -> RedisLine:
        loop = asyncio.get_running_loop()
        with self._lock:
            known = self._lines.get(loop)
        if known is not None:
            return known
        await asyncio.to_thread(_load_redis)
        with self._lock:
            for other in [each for each in self._lines if each.is_closed()]:
                del self._lines[other]
            if loop in self._lines:
                return self._lines[loop]
            line = self._lines[loop] = RedisLine(self._new_client())
        await line.open()
        return line

    def _new_client(self) -> Redis:
        from redis.asyncio import BlockingConnectionPool, Redis  # noqa: PLC0415  # an extra
        from redis.asyncio.retry import Retry  # noqa: PLC0415  # same
        from redis.backoff import NoBackoff  # noqa: PLC0415  # same
        from redis.exceptions import ConnectionError as LostConnection  # noqa: PLC0415  # same

        try:
            pool = BlockingConnectionPool.from_url(
                self._url.reveal(),
                max_connections=self._max_connections,
                timeout=None,
                socket_timeout=self._timeout_s,
                socket_connect_timeout=self._timeout_s,
                # One more attempt, because a server that was restarted has dropped connections
                # that look alive. Longer waits are the caller's business.
                retry=Retry(NoBackoff(), 1, supported_errors=(LostConnection,)),
                protocol=2,
            )
        except (ValueError, TypeError) as error:
            raise ConfigurationError(
                f"the URL of Redis at {self.location} cannot be used: {self._hidden(error)}"
            ) from None
        return Redis.from_pool(pool)

    def _in_our_words(self, error: Exception) -> OSError:
        from redis import exceptions  # noqa: PLC0415  # an extra

        where, reason = f"Redis at {self.location}", self._hidden(error)
        refused = (
            exceptions.AuthenticationError,
            exceptions.AuthorizationError,
            exceptions.NoPermissionError,
        )
        if isinstance(error, exceptions.TimeoutError):
            return TimeoutError(f"{where} did not answer within {self._timeout_s:g} s")
        if isinstance(error, refused):
            return PermissionError(
                f"{where} refused the user: {reason}; give one in the URL who may use MGET, SET, "
                "TYPE, UNLINK and SCAN"
            )
        if isinstance(error, exceptions.ConnectionError):
            return ConnectionError(f"{where} cannot be reached: {reason}")
        return OSError(f"{where} refused: {reason}")

    def _hidden(self, error: Exception) -> str:
        text, password = str(error), self._password.reveal()
        for shape in filter(None, {password, unquote(password)}):
            text = text.replace(shape, "***")
        return redact(text)[:_LONGEST_REASON]


def _chunks(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    return (keys[start : start + KEYS_A_COMMAND] for start in range(0, len(keys), KEYS_A_COMMAND))


def _text(value: bytes | str) -> str:
    # What is not UTF-8 fails its checksum; it must not fail the entries beside it.
    return value if isinstance(value, str) else value.decode(errors="replace")


def _location(url: object) -> str:
    """Return a URL without user, password and options."""
    wanted = "give redis://host:port/number, rediss:// with TLS, or unix://path"
    if not isinstance(url, str):
        raise ConfigurationError(f"RedisCache({type(url).__name__}): {wanted}")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "localhost", parts.port or _DEFAULT_PORT
    except ValueError:
        raise ConfigurationError(f"the URL of the Redis cannot be read; {wanted}") from None
    if parts.scheme not in {"redis", "rediss", "unix"}:
        # Not the URL itself: what stands where the scheme should be may be a password.
        raise ConfigurationError(f"the URL of the Redis has no scheme that is known; {wanted}")
    if parts.scheme == "unix":
        return f"unix://{parts.path}"
    if ":" in host:
        host = f"[{host}]"
    return f"{parts.scheme}://{host}:{port}{parts.path if parts.path != '/' else ''}"


def _load_redis() -> None:
    try:
        import redis.asyncio  # noqa: F401, PLC0415  # an extra, loaded off the event loop
    except ImportError as error:
        raise MissingExtraError(
            f"RedisCache needs redis, which cannot be imported ({error}): {INSTALL_LINE}"
        ) from error

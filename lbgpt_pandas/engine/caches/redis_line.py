"""The connections to a Redis: how long they live, and the queue for them."""

from __future__ import annotations

import asyncio
import sys
import weakref
from contextlib import asynccontextmanager, suppress
from contextvars import Context
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

    from redis.asyncio import Redis

    Lines = dict[asyncio.AbstractEventLoop, "RedisLine"]

T = TypeVar("T")

_ending: set[asyncio.Task[None]] = set()


class RedisLine:
    """The connections of one event loop, and the queue for them.

    Parameters
    ----------
    client : Redis
        Its own queue is not used: a waiter that is cancelled may leave it standing, and it does
        not end when the server has gone silent.
    """

    def __init__(self, client: Redis) -> None:
        self._client = client
        self._lifetime = _lifetime(client)
        pool = client.connection_pool
        self._places = asyncio.Semaphore(pool.max_connections)
        pool.max_connections = sys.maxsize
        self._failures = 0
        self._failure: tuple[type[OSError], str] | None = None

    async def open(self) -> None:
        """Have the connections closed when the running event loop ends, if not before."""
        await anext(self._lifetime)

    async def close(self) -> None:
        """Close the connections; on their event loop."""
        await self._lifetime.aclose()

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Wait for a free connection as long as the others are answered.

        Raises
        ------
        OSError
            If one who had a connection came to nothing meanwhile, and nobody was answered since.
        """
        failures = self._failures
        async with self._places:
            if self._failure is not None and self._failures != failures:
                kind, text = self._failure
                raise kind(text)
            yield

    async def ask(self, command: Callable[[Redis], Awaitable[T]]) -> T:
        """Send a command, in a context of its own.

        Open connections keep the context in which they were made. The caller's holds its
        settings, and with them the cache, which could then never go.
        """

        async def send() -> T:
            return await command(self._client)

        return await asyncio.get_running_loop().create_task(send(), context=Context())

    def fell_silent(self, error: OSError) -> None:
        """Let those who wait have this error, until somebody is answered."""
        self._failures += 1
        self._failure = type(error), str(error)

    def is_heard(self) -> None:
        """Let those who wait have their try."""
        self._failure = None


def end_with(owner: object, lines: Lines) -> weakref.finalize[..., object]:
    """Close what is in `lines` when `owner` goes, in whatever thread that happens."""
    # This also keeps them out of the garbage that the owner may be part of: connections that
    # are collected say that nobody has closed them.
    closing = weakref.finalize(owner, _close_all, lines)
    closing.atexit = False  # the loops end then, and close them
    return closing


def _close_all(lines: Lines) -> None:
    for loop, line in lines.items():
        with suppress(RuntimeError):  # the loop is closed, and with it the connections
            loop.call_soon_threadsafe(_begin_to_close, line)


def _begin_to_close(line: RedisLine) -> None:
    task = asyncio.get_running_loop().create_task(line.close())
    _ending.add(task)
    task.add_done_callback(_ending.discard)


async def _lifetime(client: Redis) -> AsyncGenerator[None]:
    # Loops end the generators that began on them.
    try:
        yield
    finally:
        await client.aclose()

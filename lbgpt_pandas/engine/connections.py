"""Connections of an engine: one session for each event loop, while somebody uses it."""

from __future__ import annotations

import asyncio
import threading
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, NoReturn

from lbgpt_pandas.engine.lifetime import renew_after_fork

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from lbgpt_pandas.engine.session import Session


class Connections(ABC):
    """An async context manager that holds a session of the running event loop open.

    Blocks may be nested and run at the same time: the first one opens the session, the last one
    closes it.
    """

    def __init__(self) -> None:
        self._sessions: dict[asyncio.AbstractEventLoop, Session] = {}
        self._lock = threading.Lock()
        renew_after_fork(self)

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled and copied."""
        raise TypeError(
            f"{type(self).__name__} is not pickled or copied: it holds keys, and limits that are "
            "kept once. Make another one, or pass what it is made from"
        )

    def after_fork(self) -> None:
        """In a forked child: its loops are others, and a thread may have held the lock."""
        self._lock = threading.Lock()
        # Kept, because a client that is collected here would complain that it was not closed.
        self._of_parent, self._sessions = self._sessions, {}

    async def __aenter__(self) -> Self:
        if self._join() is None:
            await self.enter()
        return self

    def _join(self) -> Session | None:
        """Enter the session of the running loop if it is open, as it is for nearly every call."""
        # Only this loop's own thread opens and closes its session.
        session = self._sessions.get(asyncio.get_running_loop())
        if session is None or not session.is_open:
            return None
        session.users += 1
        return session

    async def enter(self, *, eager: bool = True) -> Session:
        """Open the session of the running loop, or join it; ``async with`` does it.

        With ``eager=False`` the client is opened at the first call.
        """
        loop = asyncio.get_running_loop()
        with self._lock:
            session = self._sessions.get(loop)
            if session is None:
                session = self._sessions[loop] = self._new_session()
        try:
            await session.enter()
            if eager:
                await self._open_clients(session)
                session.is_open = True
        except BaseException:
            session.users -= 1
            if self._leave(loop, session):
                await session.close()
            raise
        return session

    @abstractmethod
    def _new_session(self) -> Session:
        """Make a session that is not open yet."""

    async def _open_clients(self, session: Session) -> None:
        for lane in session.lanes:
            await lane.open()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        session = self._sessions[asyncio.get_running_loop()]
        if self._is_last(session):
            await session.close()

    def _is_last(self, session: Session) -> bool:
        """Leave a session; tell whether nobody uses it any more, so that it is to be closed."""
        session.users -= 1
        return not session.users and self._leave(asyncio.get_running_loop(), session)

    def _leave(self, loop: asyncio.AbstractEventLoop, session: Session) -> bool:
        """Forget a session that nobody uses any more; return whether it was forgotten."""
        with self._lock:
            return not session.users and self._sessions.pop(loop, None) is not None

"""Texts as objects in an S3 bucket, of Amazon or of any server that speaks its protocol."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, unquote

from lbgpt_pandas.engine.caches.s3_errors import (
    EXISTS_STATUS,
    explained,
    is_missing,
    is_unknown_feature,
    status_of,
)
from lbgpt_pandas.engine.caches.ttl import ttl_seconds
from lbgpt_pandas.engine.errors import ConfigurationError
from lbgpt_pandas.engine.lifetime import renew_after_fork

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from datetime import timedelta

T = TypeVar("T")

THREADS = 16
"""More of them hold the interpreter so often that event loops wait."""

_OBJECTS_A_REMOVAL = 1_000
_ATTEMPTS_AT_A_CONFLICT = 3
_CONFLICT_STATUS = 409


class S3Cache:
    """Texts as objects in an S3 bucket, of Amazon or of any server that speaks its protocol.

    What one process stored first, all read, if the store knows ``If-None-Match``; otherwise the
    last writer wins. Calls are made in threads of its own, up to 16 at a time. The user needs
    the permissions s3:GetObject, s3:PutObject, s3:DeleteObject and s3:ListBucket; without the
    last one a missing object looks like a forbidden one.

    Parameters
    ----------
    s3_client : boto3 client or callable
        Or what makes one, at the first use in each process. A good one has
        ``Config(max_pool_connections=16, connect_timeout=5, read_timeout=10,
        retries={"max_attempts": 2})`` of ``botocore.config``.
    bucket : str
        An existing bucket.
    prefix : str, default "lbgpt/"
        What the names of its objects begin with.
    ttl : float or timedelta, optional
        Seconds that a text counts. Objects stay; a lifecycle rule of the bucket removes them.

    Attributes
    ----------
    location : str
        Bucket and prefix.
    ttl_s : float or None
        `ttl` in seconds.

    Raises
    ------
    ConfigurationError
        If an argument cannot work.

    Examples
    --------
    >>> def client():
    ...     import boto3
    ...     return boto3.client("s3")
    >>> S3Cache(client, "my-bucket")
    S3Cache('s3://my-bucket/lbgpt/')
    """

    is_shared = True
    """Other processes may write to it meanwhile."""

    def __init__(
        self,
        s3_client: object,
        bucket: str,
        prefix: str = "lbgpt/",
        *,
        ttl: float | timedelta | None = None,
    ) -> None:
        if not isinstance(bucket, str) or not bucket or "/" in bucket:
            raise ConfigurationError(f"bucket={bucket!r}: give the name of a bucket")
        if not callable(s3_client) and not hasattr(s3_client, "get_object"):
            raise ConfigurationError(
                f"s3_client={type(s3_client).__name__}: give boto3.client('s3') or a function that "
                "returns it"
            )
        self.bucket, self.prefix = bucket, prefix
        self.location = f"s3://{bucket}/{prefix}"
        self.ttl_s = ttl_seconds(ttl)
        self._given: Any = s3_client
        self._client: Any = None
        self._executor: ThreadPoolExecutor | None = None
        self._has_conditions = True
        self._losses = 0
        self._is_forked = False
        self._lock = threading.Lock()
        renew_after_fork(self)

    def __repr__(self) -> str:
        return f"S3Cache({self.location!r})"

    def after_fork(self) -> None:
        """In a forked child: no threads, and no connection that the parent uses as well."""
        self._lock = threading.Lock()
        self._executor = None
        self._is_forked = True

    async def get_many(self, keys: Sequence[str]) -> dict[str, str]:
        """Return the texts of those `keys` that are stored.

        Raises
        ------
        OSError
            If the store cannot be reached, or refuses; says which bucket and what to do.
        """
        found: dict[str, str] = {}

        def read(key: str) -> None:
            text = self._read(key)
            if text is not None:
                found[key] = text

        await self._for_each(read, keys)
        return found

    async def set(self, key: str, value: str, *, replace: bool = False) -> None:
        """Store a text; the first writer wins unless `replace`, where the store can tell.

        Raises
        ------
        OSError
            As `get_many`.
        """
        await self._in_thread(partial(self._write, key, value, replace=replace))

    async def delete(self, key: str) -> None:
        """Remove a text, if there is one."""
        await self._in_thread(partial(self._remove, self._name(key)))

    async def delete_many(self, keys: Sequence[str]) -> int:
        """Remove texts; return for how many keys, stored or not, because S3 does not tell."""
        names = [self._name(key) for key in keys]
        for start in range(0, len(names), _OBJECTS_A_REMOVAL):
            some = names[start : start + _OBJECTS_A_REMOVAL]
            if not await self._in_thread(partial(self._remove_together, some)):
                await self._for_each(self._remove, some)
        return len(names)

    async def scan(self) -> AsyncIterator[dict[str, str]]:
        """Give all keys with their texts, a thousand at a time."""
        token: str | None = None
        while True:
            names, token = await self._in_thread(partial(self._list, token))
            keys = [unquote(name.rpartition("/")[2].replace("=", "%")) for name in names]
            yield await self.get_many(
                [key for key, name in zip(keys, names, strict=True) if self._name(key) == name]
            )
            if token is None:
                return

    async def close(self) -> None:
        """End the threads, and close a client that was made here; any use makes them again."""
        with self._lock:
            executor, self._executor = self._executor, None
            client, self._client = self._client, None
        if executor is not None:
            await asyncio.to_thread(executor.shutdown)
        if client is not None and client is not self._given:
            await asyncio.to_thread(client.close)

    def _name(self, key: str) -> str:
        # Stores divide their load by the first characters of a name.
        spread = hashlib.sha256(key.encode()).hexdigest()[:2]
        # Without "%", which some servers decode twice, and without names like "..".
        safe = quote(key, safe="").replace(".", "%2E").replace("%", "=")
        return f"{self.prefix}{spread}/{safe}"

    def _read(self, key: str) -> str | None:
        with explained("GetObject", self.bucket):
            try:
                answer = self._opened().get_object(Bucket=self.bucket, Key=self._name(key))
            except Exception as error:
                if is_missing(error):
                    return None
                raise
            with answer["Body"] as body:
                raw: bytes = body.read()
        # What is not UTF-8 fails its checksum; it must not fail the entries beside it.
        return raw.decode(errors="replace")

    def _write(self, key: str, value: str, *, replace: bool) -> None:
        content = {
            "Bucket": self.bucket,
            "Key": self._name(key),
            "Body": value.encode(),
            "ContentType": "application/json",
        }
        with explained("PutObject", self.bucket):
            client = self._opened()
            if not replace and self._has_conditions and self._write_first(client, content):
                return
            client.put_object(**content)

    def _write_first(self, client: Any, content: dict[str, Any]) -> bool:
        """Store an object unless there is one; False if the store does not know how."""
        attempt = 0
        while True:
            attempt += 1
            try:
                client.put_object(**content, IfNoneMatch="*")
            except Exception as error:
                status = status_of(error)
                if status == EXISTS_STATUS:
                    return True
                # Somebody else is writing it at this moment.
                if status == _CONFLICT_STATUS and attempt < _ATTEMPTS_AT_A_CONFLICT:
                    continue
                if not is_unknown_feature(error):
                    raise
                self._has_conditions = False
                return False
            else:
                return True

    def _remove(self, name: str) -> None:
        with explained("DeleteObject", self.bucket):
            try:
                self._opened().delete_object(Bucket=self.bucket, Key=name)
            except Exception as error:
                if not is_missing(error):
                    raise

    def _remove_together(self, names: Sequence[str]) -> bool:
        """Remove objects with one call; False if they are to be removed one by one."""
        removal = {"Objects": [{"Key": name} for name in names], "Quiet": True}
        with explained("DeleteObjects", self.bucket):
            try:
                answer = self._opened().delete_objects(Bucket=self.bucket, Delete=removal)
            except Exception as error:
                if not is_unknown_feature(error):
                    raise
                return False
        return not answer.get("Errors")

    def _list(self, token: str | None) -> tuple[list[str], str | None]:
        further = {} if token is None else {"ContinuationToken": token}
        with explained("ListObjectsV2", self.bucket):
            answer = self._opened().list_objects_v2(
                Bucket=self.bucket, Prefix=self.prefix, **further
            )
        names = [entry["Key"] for entry in answer.get("Contents", ())]
        return names, answer.get("NextContinuationToken") if answer.get("IsTruncated") else None

    def _opened(self) -> Any:
        with self._lock:
            if self._is_forked:
                self._is_forked = False
                self._leave_connections_to_parent()
            if self._client is None:
                is_client = hasattr(self._given, "get_object")
                self._client = self._given if is_client else self._given()
            return self._client

    def _leave_connections_to_parent(self) -> None:
        client, self._client = self._client, None
        if client is not None and client is self._given:
            # Closes this process's copies of the sockets; the client makes new ones.
            client.close()
        else:
            self._of_parent = client

    async def _in_thread(self, work: Callable[[], T]) -> T:
        before = self._losses

        def unless_lost() -> T:
            if self._losses != before:
                # Otherwise each that waits for a thread would wait for its own time-out as well.
                raise ConnectionError(f"the connection to {self.location} was lost meanwhile")
            try:
                return work()
            except (ConnectionError, TimeoutError):
                self._losses += 1
                raise

        return await asyncio.get_running_loop().run_in_executor(self._threads(), unless_lost)

    async def _for_each(self, work: Callable[[str], None], items: Sequence[str]) -> None:
        waiting = deque(items)

        def do() -> None:
            while True:
                try:
                    item = waiting.popleft()
                except IndexError:
                    return
                work(item)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(THREADS, len(items))):
                    group.create_task(self._in_thread(do))
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
        finally:
            # Threads cannot be cancelled, but they find nothing more to do.
            waiting.clear()

    def _threads(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._executor is None:
                self._executor = ThreadPoolExecutor(THREADS, thread_name_prefix="lbgpt-s3")
            return self._executor

"""Answers in real S3 stores: with and without conditions, killed, slow, and refused."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import threading
import time
import uuid

import pandas as pd
import pytest

import lbgpt_pandas as lb
from lbgpt_pandas.engine.caches.base import Cache, Scannable
from lbgpt_pandas.engine.caches.s3 import S3Cache
from lbgpt_pandas.engine.caches.standard import StandardTier
from lbgpt_pandas.engine.errors import CacheWarning, ConfigurationError, MissingExtraError
from lbgpt_pandas.testing import FakeClock, ScriptedGPT

pytest.importorskip("boto3")

pytestmark = pytest.mark.process

WRONG_SECRET = ("owner-access-key-01", "canary-secret-key-001")
UNKNOWN_KEY = ("somebody-access-key-01", "canary-secret-key-001")


@pytest.fixture
def make():
    """Makes caches in a corner of their own, and closes them and their clients."""
    corner, caches, clients = f"lbgpt/{uuid.uuid4().hex}/", [], []

    def make(server, *keys, bucket=None, prefix=corner, ttl=None, **options):
        client = server.client(*keys, **options)
        clients.append(client)
        caches.append(S3Cache(client, bucket or server.bucket, prefix, ttl=ttl))
        return caches[-1]

    yield make
    for cache in caches:
        lb.engine.portal.run_sync(cache.close())
    for client in clients:
        client.close()


def complete(tier, engine, rows=12):
    frame = pd.DataFrame({"text": [f"row {number}" for number in range(rows)]})
    with lb.using(cache=tier, progress=False, errors="raise"):
        answers = frame.lbgpt.complete("{text}", model="m", engine=engine)
    assert answers.tolist() == frame["text"].tolist()


def complete_with_one_warning(tier, engine, *, match, rows=12):
    with pytest.warns(CacheWarning, match=match) as caught:
        complete(tier, engine, rows)
    assert [each.category for each in caught] == [CacheWarning]
    assert "canary" not in str(caught[0].message)


async def contents(cache):
    return {key: text async for page in cache.scan() for key, text in page.items()}


KEYS = ["a", "v1:0af", "../../up", ".", "with space/and=sign%41", "ü", "x" * 200]


async def test_texts_go_in_and_come_out(s3_server, make):
    cache = make(s3_server)
    assert isinstance(cache, Cache)
    assert isinstance(cache, Scannable)
    assert await cache.get_many([]) == {}
    assert await contents(cache) == {}
    assert await cache.get_many(["a"]) == {}
    texts = {key: f"ü {key}" for key in KEYS}
    await asyncio.gather(*(cache.set(key, text) for key, text in texts.items()))
    assert await cache.get_many([*texts, "missing"]) == texts
    assert await contents(cache) == texts
    await cache.set("a", "new", replace=True)
    assert await cache.get_many(["a"]) == {"a": "new"}
    await cache.delete("a")
    await cache.delete("a")
    assert await cache.get_many(["a"]) == {}
    assert await cache.delete_many(KEYS[1:3]) == 2
    assert set(await contents(cache)) == set(KEYS[3:])
    await cache.close()
    assert set(await contents(cache)) == set(KEYS[3:])


async def test_other_objects_are_left_alone(seaweed_server, make):
    cache = make(seaweed_server)
    await cache.set("a", "1")
    with contextlib.closing(seaweed_server.client()) as client:
        for name in ("notes.txt", "ff/a"):
            client.put_object(Bucket=cache.bucket, Key=cache.prefix + name, Body=b"mine")
    assert await contents(cache) == {"a": "1"}


async def test_the_first_of_many_writers_wins(seaweed_server, make):
    one, other = make(seaweed_server), make(seaweed_server)
    await asyncio.gather(*((one, other)[n % 2].set("a", str(n)) for n in range(32)))
    first = await one.get_many(["a"])
    await other.set("a", "late")
    assert await other.get_many(["a"]) == first
    await other.set("a", "new", replace=True)
    assert await one.get_many(["a"]) == {"a": "new"}


async def test_without_conditions_the_last_writer_wins_and_nothing_is_damaged(own_s3, make):
    own_s3.start()
    cache = make(own_s3)
    texts = [str(n % 10) * 10_000 for n in range(32)]
    done = await asyncio.gather(*(cache.set("a", text) for text in texts), return_exceptions=True)
    # This store fails at times when one object is written by several at once.
    assert all(each is None or isinstance(each, OSError) for each in done)
    assert None in done
    assert (await cache.get_many(["a"]))["a"] in texts
    await cache.set("a", "late")
    assert await cache.get_many(["a"]) == {"a": "late"}


class Refusing:
    """A client to a store that does not know conditions, or at times has conflicts."""

    def __init__(self, client, status, code, times=10**9):
        self._client, self._times = client, times
        self._refusal = {
            "Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status},
        }  # fmt: skip
        self.refused = 0

    def __getattr__(self, name):
        return getattr(self._client, name)

    def put_object(self, **arguments):
        from botocore.exceptions import ClientError

        if "IfNoneMatch" in arguments and self.refused < self._times:
            self.refused += 1
            raise ClientError(self._refusal, "PutObject")
        return self._client.put_object(**arguments)

    def delete_objects(self, **arguments):
        from botocore.exceptions import ClientError

        raise ClientError(self._refusal, f"DeleteObjects of {len(arguments)}")


async def test_a_store_that_knows_neither_conditions_nor_removals_of_many(seaweed_server, make):
    plain = make(seaweed_server)
    with contextlib.closing(seaweed_server.client()) as client:
        refusing = Refusing(client, 501, "NotImplemented")
        cache = S3Cache(refusing, plain.bucket, plain.prefix)
        for key in "abc":
            await cache.set(key, "1")
        # It is not asked for what it does not know again and again.
        assert refusing.refused == 1
        assert await plain.get_many([*"abc"]) == dict.fromkeys("abc", "1")
        assert await cache.delete_many([*"abc"]) == 3
        await cache.close()
    assert await contents(plain) == {}


async def test_a_conflict_with_another_writer_is_tried_again(seaweed_server, make):
    plain = make(seaweed_server)
    with contextlib.closing(seaweed_server.client()) as client:
        for times, stored in ((2, {"a": "1"}), (99, None)):
            refusing = Refusing(client, 409, "ConditionalRequestConflict", times)
            cache = S3Cache(refusing, plain.bucket, f"{plain.prefix}{times}/")
            if stored:
                await cache.set("a", "1")
                assert await cache.get_many(["a"]) == stored
            else:
                with pytest.raises(OSError, match="ConditionalRequestConflict"):
                    await cache.set("a", "1")
            await cache.close()


async def test_what_is_no_utf_8_fails_alone(seaweed_server, make):
    cache = make(seaweed_server)
    await cache.set("a", "1")
    await cache.set("bad", "2")
    with contextlib.closing(seaweed_server.client()) as client:
        listed = client.list_objects_v2(Bucket=cache.bucket, Prefix=cache.prefix)["Contents"]
        [name] = [each["Key"] for each in listed if each["Key"].endswith("/bad")]
        client.put_object(Bucket=cache.bucket, Key=name, Body=b"\xff")
    assert await cache.get_many(["a", "bad"]) == {"a": "1", "bad": "\ufffd"}


async def test_more_than_a_page(seaweed_server, make):
    cache = make(seaweed_server)
    keys = [f"v1:{number:04}" for number in range(1_001)]
    await asyncio.gather(*(cache.set(key, key) for key in keys))
    pages = [page async for page in cache.scan()]
    assert len(pages) == 2
    assert pages[0] | pages[1] == {key: key for key in keys}
    assert await cache.delete_many(keys) == 1_001
    assert await contents(cache) == {}


def test_over_several_loops_and_threads(seaweed_server, make):
    cache = make(seaweed_server)

    async def work(name):
        await asyncio.gather(*(cache.set(f"{name}{n}", "x") for n in range(16)))
        assert len(await cache.get_many([f"{name}{n}" for n in range(16)])) == 16

    for name in "ab":
        asyncio.run(work(name))
    threads = [threading.Thread(target=asyncio.run, args=(work(name),)) for name in "cd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(asyncio.run(contents(cache))) == 4 * 16


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("is_made", [True, False])
def test_a_forked_child_has_connections_of_its_own(seaweed_server, make, in_child, is_made):
    cache = make(seaweed_server)
    if is_made:
        cache = S3Cache(seaweed_server.client, cache.bucket, cache.prefix)
    run = lb.engine.portal.run_sync
    run(cache.set("parent", "1"))

    def child():
        run(cache.set("child", "2"))
        assert run(cache.get_many(["parent"])) == {"parent": "1"}
        run(cache.close())

    in_child(child)
    assert run(cache.get_many(["parent", "child"])) == {"parent": "1", "child": "2"}
    run(cache.close())


async def test_the_loop_goes_on_while_many_objects_are_read(seaweed_server, make):
    cache = make(seaweed_server)
    keys = [f"k{number}" for number in range(300)]
    await asyncio.gather(*(cache.set(key, "x" * 1_000) for key in keys))
    turns = 0

    async def count():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    assert len(await cache.get_many(keys)) == 300
    counting.cancel()
    assert turns > 100


async def test_a_broken_off_lookup_asks_for_nothing_more(seaweed_server, make):
    asked = []

    class Counting:
        def __init__(self, client):
            self._client = client

        def get_object(self, **arguments):
            asked.append(arguments)
            return self._client.get_object(**arguments)

    plain = make(seaweed_server)
    with contextlib.closing(seaweed_server.client()) as client:
        cache = S3Cache(Counting(client), plain.bucket, plain.prefix)
        lookup = asyncio.create_task(cache.get_many([f"k{n}" for n in range(2_000)]))
        while not asked:
            await asyncio.sleep(0)
        lookup.cancel()
        await asyncio.wait([lookup])
        await cache.close()
    assert len(asked) < 1_000


def test_runs_on_each_store(s3_server, make):
    engine = ScriptedGPT()
    for _ in range(2):
        complete(StandardTier(make(s3_server)), engine)
    assert len(engine.requests) == 12


def test_killed_in_the_middle_of_a_run_and_restarted(own_s3, make):
    own_s3.start()
    clock, sent = FakeClock(), 0

    def answer(request):
        nonlocal sent
        sent += 1
        if sent == 10:
            own_s3.kill()
        return request.messages[-1]["content"]

    cache = make(own_s3, timeout_s=1.0)
    tier, engine = StandardTier(cache, clock=clock), ScriptedGPT(answer, max_parallel_calls=4)
    complete_with_one_warning(tier, engine, match="written.*'answers'", rows=30)
    own_s3.start()
    lb.engine.portal.run_sync(tier.flush())
    complete(StandardTier(cache), engine, rows=30)
    assert len(engine.requests) == 30


def test_down_at_the_start(own_s3, make):
    cache, engine = make(own_s3, timeout_s=1.0), ScriptedGPT()
    tier = StandardTier(cache, clock=FakeClock())
    complete_with_one_warning(tier, engine, match="neither read nor written.*cannot be reached")
    own_s3.start()
    lb.engine.portal.run_sync(tier.flush())
    complete(StandardTier(cache), engine)
    assert len(engine.requests) == 12


def test_a_line_that_is_too_slow_costs_few_time_outs(seaweed_server, make, slow_line):
    line = slow_line(seaweed_server.port)
    near = make(seaweed_server)
    with contextlib.closing(line_client(line, seaweed_server, timeout_s=0.2)) as client:
        cache = S3Cache(client, near.bucket, near.prefix)
        tier = StandardTier(cache, clock=FakeClock())
        engine = ScriptedGPT(max_parallel_calls=4)
        line.delay_s = 1.0
        start = time.monotonic()
        complete_with_one_warning(tier, engine, match="did not answer in time", rows=100)
        # A write times out after 1.2 seconds, with the second that boto3 waits for a sign to go on.
        assert time.monotonic() - start < 4
        line.delay_s = 0.0
        lb.engine.portal.run_sync(tier.flush())
        lb.engine.portal.run_sync(cache.close())
    complete(StandardTier(near), engine, rows=100)
    assert len(engine.requests) == 100


def line_client(line, server, **options):
    """Return a client that reaches the server over the line."""
    port, server.port = server.port, line.port
    try:
        return server.client(**options)
    finally:
        server.port = port


@pytest.mark.parametrize(
    ("keys", "code"), [(WRONG_SECRET, "SignatureDoesNotMatch"), (UNKNOWN_KEY, "InvalidAccessKeyId")]
)
def test_a_wrong_key_is_one_warning_without_it(seaweed_server, make, keys, code):
    tier = StandardTier(make(seaweed_server, keys), clock=FakeClock())
    complete_with_one_warning(tier, ScriptedGPT(), match=f"GetObject.*'answers'.*{code}")


async def test_refusals_say_bucket_operation_code_and_what_to_do(seaweed_server, make):
    wrong = make(seaweed_server, WRONG_SECRET)
    nowhere = make(seaweed_server, bucket="no-such-bucket")
    refused = [
        (wrong.get_many(["a"]), PermissionError, "GetObject", "another access key"),
        (wrong.set("a", "1"), PermissionError, "PutObject", "another access key"),
        (wrong.delete("a"), PermissionError, "DeleteObject", "another access key"),
        (wrong.delete_many(["a"]), PermissionError, "DeleteObjects", "another access key"),
        (contents(wrong), PermissionError, "ListObjectsV2", "another access key"),
        (nowhere.get_many(["a"]), FileNotFoundError, "GetObject", "make the bucket"),
        (nowhere.set("a", "1"), FileNotFoundError, "PutObject", "make the bucket"),
    ]
    for call, kind, operation, remedy in refused:
        with pytest.raises(kind, match=f"^{operation} in the S3 bucket .*{remedy}") as caught:
            await call
        assert caught.value.__cause__ is None
        assert "canary" not in str(caught.value)


def test_a_user_who_may_only_read(seaweed_server, make):
    engine = ScriptedGPT()
    complete(StandardTier(make(seaweed_server)), engine)
    reader = make(seaweed_server, ("reader-access-key-01", "reader-secret-key-0001"))
    tier = StandardTier(reader, clock=FakeClock())
    complete(tier, engine)
    assert len(engine.requests) == 12
    complete_with_one_warning(tier, engine, match="AccessDenied.*s3:PutObject", rows=20)
    assert len(engine.requests) == 20


def test_a_missing_bucket_is_one_warning(seaweed_server, make):
    tier = StandardTier(make(seaweed_server, bucket="no-such-bucket"), clock=FakeClock())
    complete_with_one_warning(tier, ScriptedGPT(), match="make the bucket")


async def test_without_credentials_it_is_said_how_to_give_them(monkeypatch, tmp_path):
    import boto3

    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    session = boto3.session.Session(region_name="us-east-1")
    cache = S3Cache(lambda: session.client("s3", endpoint_url="http://127.0.0.1:9"), "answers")
    with pytest.raises(PermissionError, match="AWS_ACCESS_KEY_ID"):
        await cache.get_many(["a"])
    await cache.close()


async def test_without_the_package_the_install_line_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "boto3", None)

    def client():
        import boto3

        return boto3.client("s3")

    cache = S3Cache(client, "answers")
    with pytest.raises(MissingExtraError, match=r"lbgpt-pandas\[s3\]"):
        await StandardTier(cache).find(["a"])
    await cache.close()


@pytest.mark.parametrize(
    "wrong",
    [{"bucket": ""}, {"bucket": "a/b"}, {"bucket": None}, {"s3_client": 3}, {"ttl": 0}],
)
def test_arguments_that_cannot_work_are_refused_at_once(wrong):
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        S3Cache(**{"s3_client": object, "bucket": "answers", **wrong})


def test_nothing_is_loaded_or_opened_by_making_one():
    script = """
import sys, threading
from lbgpt_pandas.engine.caches.s3 import S3Cache
S3Cache(lambda: 1, "answers")
assert "boto3" not in sys.modules and "botocore" not in sys.modules
assert threading.active_count() == 1
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_the_composed_minio_if_it_runs(composed, make, composed_s3):
    server = composed_s3(composed("minio", 9000))
    engine = ScriptedGPT()
    for _ in range(2):
        complete(StandardTier(make(server)), engine)
    assert len(engine.requests) == 12

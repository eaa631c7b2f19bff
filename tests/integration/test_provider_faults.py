"""What goes wrong on the wire, and what the engines make of it, over both HTTP stacks."""

from __future__ import annotations

import asyncio
import gc
import itertools

import pytest

from lbgpt_pandas.engine import errors
from lbgpt_pandas.engine.gpt import AzureGPT, ChatGPT
from lbgpt_pandas.testing import FakeClock, FakeProvider, Fault

KEY = "sk-CANARY0123456789abcdef"

pytestmark = pytest.mark.parametrize("stack", ["aiohttp", "httpx"])


def engine_for(server, stack, **settings):
    return ChatGPT(KEY, base_url=server.base_url, http_client=stack, clock=FakeClock(), **settings)


def ask(text="x", **more):
    return {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": text}], **more}


def text_of(answer):
    return answer.choices[0].message.content


@pytest.mark.parametrize(
    ("fault", "kind", "maybe_billed"),
    [
        (Fault.rate_limited(2.5), errors.RateLimited, False),
        (Fault.server_error(500), errors.ServerError, None),
        (Fault.server_error(529), errors.ServerError, None),
        (Fault.reset(), errors.Timeout, True),
        (Fault.reset(after=40), errors.Timeout, True),
        (Fault.cut(after=40), errors.Timeout, True),
        (Fault.respond(200, b""), errors.MalformedResponse, True),
        (Fault.respond(200, b"{"), errors.MalformedResponse, True),
        (Fault.respond(200, b"null"), errors.MalformedResponse, True),
        (Fault.respond(200, b"[]"), errors.MalformedResponse, True),
        (Fault.respond(200, b"{}"), errors.MalformedResponse, True),
        (Fault.respond(200, {"choices": []}), errors.MalformedResponse, True),
        (Fault.respond(200, "<html>", content_type="text/html"), errors.MalformedResponse, True),
    ],
    ids=lambda value: value.kind if isinstance(value, Fault) else "",
)
async def test_what_may_pass_is_asked_again(stack, fault, kind, maybe_billed):
    with FakeProvider(faults=[fault, None, fault]) as server:
        engine = engine_for(server, stack)
        answer = await engine.cached_chat_completion(ask())
        assert (text_of(answer), answer.attempts) == ("A:x", 2)
        with pytest.raises(kind) as caught:
            await engine.chat_completion(**ask())
        assert len(server.requests) == 3
        assert KEY not in str(caught.value) + repr(caught.value)
        if maybe_billed is not None:
            assert caught.value.maybe_billed is maybe_billed


async def test_the_time_that_is_said_is_waited(stack):
    with FakeProvider(faults=[Fault.rate_limited(2.5)]) as server:
        engine = engine_for(server, stack)
        await engine.cached_chat_completion(ask())
        assert 2.5 <= engine.clock.monotonic() - 1000 <= 3.5


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        ({"faults": lambda _: Fault.insufficient_quota()}, errors.QuotaExhausted),
        ({"faults": lambda _: Fault.content_filter()}, errors.ContentFiltered),
        ({"keys": ["other"]}, errors.AuthError),
        ({"models": ["other"]}, errors.NotFound),
        ({"context_tokens": 1, "models": ["gpt-4o-mini"]}, errors.ContextTooLong),
        ({"tpm": 1}, errors.RequestExceedsQuota),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
async def test_what_waiting_cannot_cure_is_asked_once(stack, settings, kind):
    with FakeProvider(**settings) as server:
        with pytest.raises(kind) as caught:
            await engine_for(server, stack).chat_completion(**ask("a long question"))
        assert KEY not in str(caught.value)
        engine = engine_for(server, stack)
        with pytest.raises(errors.LbgptError):
            await engine.cached_chat_completion(ask("a long question"))
        assert len(server.requests) == 2
        assert engine.clock.slept == []


async def test_azure_is_understood_alike(stack):
    with FakeProvider(deployments={"mine": "gpt-4o-mini"}, keys=["good"]) as server:
        for key, deployment, kind in (
            ("bad", "mine", errors.AuthError),
            ("good", "other", errors.NotFound),
        ):
            engine = AzureGPT(
                key, server.azure_base, {"gpt-4o-mini": deployment}, http_client=stack
            )
            with pytest.raises(kind):
                await engine.chat_completion(**ask())
        engine = AzureGPT("good", server.azure_base, {"gpt-4o-mini": "mine"}, http_client=stack)
        assert text_of(await engine.chat_completion(**ask())) == "A:x"
        assert engine.usage_cache_list[0].total_tokens == 2


@pytest.mark.parametrize("fault", [Fault.hang(), Fault.drip(0.02)], ids=["hang", "drip"])
async def test_an_attempt_ends_in_time_although_bytes_arrive(stack, fault):
    with FakeProvider(faults=[fault]) as server:
        engine = engine_for(server, stack, request_timeout=0.2)
        answer = await engine.cached_chat_completion(ask())
        assert (text_of(answer), answer.attempts) == ("A:x", 2)
        while server.tally.in_flight:
            await asyncio.sleep(0.002)
        assert server.requests[0].aborted
        assert server.tally.aborted == 1


async def test_nobody_listens(stack):
    server = FakeProvider()
    with server:
        pass
    engine = engine_for(server, stack, stop_after_attempts=3)
    with pytest.raises(errors.ConnectionFailed) as caught:
        await engine.cached_chat_completion(ask())
    assert not caught.value.maybe_billed
    assert engine.clock.monotonic() > 1000
    with server:
        assert text_of(await engine.cached_chat_completion(ask())) == "A:x"


@pytest.mark.parametrize(
    "usage", [None, {}, {"prompt_tokens": -1, "completion_tokens": 2}, {"prompt_tokens": "many"}]
)
async def test_usage_that_is_missing_or_absurd_is_estimated(stack, usage):
    body = {"choices": [{"message": {"role": "assistant", "content": "four"}}], "usage": usage}
    with FakeProvider(reply=lambda _: body) as server:
        engine = engine_for(server, stack)
        assert text_of(await engine.chat_completion(**ask())) == "four"
        assert 2 <= engine.get_usage_stats().tokens < 20


async def test_a_cancelled_run_hangs_up_and_leaves_nothing_open(stack):
    with FakeProvider(faults=itertools.chain([None], itertools.repeat(Fault.hang()))) as server:
        engine = engine_for(server, stack, max_parallel_calls=8)
        await engine.chat_completion(**ask("the first call goes alone"))
        engine.proven.add("gpt-4o-mini")
        run = asyncio.create_task(
            engine.achat_completion_list([ask(str(n)) for n in range(50)], show_progress=False)
        )
        while server.tally.in_flight < 8:
            await asyncio.sleep(0.002)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        while server.tally.in_flight:
            await asyncio.sleep(0.002)
        assert server.tally.aborted == len(server.requests) - 1 == 8
    gc.collect()


async def test_limits_are_kept_by_a_client_that_waits_as_it_is_told(stack):
    with FakeProvider(rpm=6_000, window="bucket", burst_s=0.2) as server:
        engine = ChatGPT(KEY, base_url=server.base_url, http_client=stack, max_parallel_calls=8)
        answers = await engine.achat_completion_list(
            [ask(str(n)) for n in range(40)], show_progress=False
        )
        assert [text_of(answer) for answer in answers] == [f"A:{n}" for n in range(40)]
        assert server.tally.by_status[200] == 40

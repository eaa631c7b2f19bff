"""Rate-limit headers of every provider, and the junk that comes with them."""

from __future__ import annotations

import importlib
from datetime import UTC, datetime, timedelta

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbgpt_pandas.engine.limits.headers import LimitReading, parse_reset, read_limits
from lbgpt_pandas.testing.rate_headers import go_duration

http = importlib.import_module("httpx2" if openai.__version__ >= "3" else "httpx")
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1s", 1.0), ("6m0s", 360.0), ("17ms", 0.017), ("1h2m3.5s", 3723.5), ("0s", 0.0),
        ("59", 59.0), ("0.25", 0.25), ("1m", 60.0), ("1h", 3600.0), ("2m17ms", 120.017),
        ("2026-01-01T12:00:30Z", 30.0), ("2026-01-01T13:00:30+01:00", 30.0), (" 5s ", 5.0),
        (str(int((NOON + timedelta(seconds=9)).timestamp() * 1000)), 9.0),
    ],
)  # fmt: skip
def test_every_form_of_a_reset(text, seconds):
    assert parse_reset(text, now=NOON) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    ["", "-1s", "-5", "nan", "inf", "1e9", "\u0661s", "\u0663", "25h", "s", "m", "abc", "1s2m",
     "2025-01-01T12:00:00Z", "2026-02-01T12:00:00Z", "1 s 2", "0x10", "9" * 40, "1d",
     "\u0662\u0660\u0662\u0666-01-01T12:00:30Z", "2026-13-01T00:00:00Z", "0001-01-01T00:00:00+23:59"],
)  # fmt: skip
def test_junk_is_no_reset(text):
    assert parse_reset(text, now=NOON) is None


@given(st.integers(0, 86_000_000))
def test_go_durations_are_read_as_they_are_written(milliseconds):
    text = go_duration(milliseconds / 1000)
    assert parse_reset(text, now=NOON) == pytest.approx(milliseconds / 1000, abs=2e-3)


def openai(**values: str) -> dict[str, str]:
    return {f"x-ratelimit-{name.replace('_', '-')}": value for name, value in values.items()}


def test_openais_six_headers():
    headers = openai(
        limit_requests="500", remaining_requests="499", reset_requests="120ms",
        limit_tokens="30000", remaining_tokens="29000", reset_tokens="2s",
    )  # fmt: skip
    assert read_limits(headers, now=NOON) == {
        "requests": LimitReading(500, 499, 0.12),
        "tokens": LimitReading(30_000, 29_000, 2.0),
    }


def test_headers_that_litellm_passes_on():
    headers = {f"llm_provider-{name}": value for name, value in
               openai(limit_requests="500", remaining_requests="1").items()}  # fmt: skip
    assert read_limits(headers, now=NOON) == {"requests": LimitReading(500, 1, None)}


@pytest.mark.parametrize("write", [str.lower, str.upper, str.title])
def test_names_are_read_in_any_case(write):
    headers = {
        "llm_provider-anthropic-ratelimit-input-tokens-limit": "60",
        "x-ratelimit-remaining": "3",
        "x-ratelimit-limit-tokens": "90",
    }
    assert read_limits({write(name): text for name, text in headers.items()}, now=NOON) == {
        "requests": LimitReading(None, 3, None),
        "tokens": LimitReading(90, None, None),
        "input_tokens": LimitReading(60, None, None),
    }


def test_the_headers_of_an_http_library_are_read():
    headers = http.Headers({"X-RateLimit-Limit-Requests": "500", "X-Ratelimit-Other": "1"})
    assert read_limits(headers, now=NOON) == {"requests": LimitReading(500, None, None)}


def test_azures_junk_is_nothing():
    headers = openai(limit_requests="-1", remaining_requests="-1", reset_requests="0")
    assert read_limits(headers, now=NOON) == {}
    assert read_limits({**headers, **openai(remaining_requests="9")}, now=NOON) == {
        "requests": LimitReading(None, 9, 0.0)
    }


def test_anthropic_counts_input_and_output_apart():
    headers = {}
    for name, limit in (
        ("requests", 50),
        ("tokens", 90),
        ("input-tokens", 60),
        ("output-tokens", 30),
    ):
        headers[f"anthropic-ratelimit-{name}-limit"] = str(limit)
        headers[f"anthropic-ratelimit-{name}-remaining"] = str(limit - 1)
        headers[f"anthropic-ratelimit-{name}-reset"] = "2026-01-01T12:00:10Z"
    assert read_limits(headers, now=NOON) == {
        "requests": LimitReading(50, 49, 10.0),
        "tokens": LimitReading(90, 89, 10.0),
        "input_tokens": LimitReading(60, 59, 10.0),
        "output_tokens": LimitReading(30, 29, 10.0),
    }


def test_openrouters_form_has_one_resource():
    reset = str(int((NOON + timedelta(seconds=20)).timestamp() * 1000))
    headers = {"x-ratelimit-limit": "20", "x-ratelimit-remaining": "0", "x-ratelimit-reset": reset}
    assert read_limits(headers, now=NOON) == {"requests": LimitReading(20, 0, 20.0)}


@pytest.mark.parametrize(
    "headers", [{}, {"content-type": "application/json"}, {"x-ratelimit": "x"}]
)
def test_no_headers_say_nothing(headers):
    assert read_limits(headers, now=NOON) == {}


@pytest.mark.parametrize("value", ["", "abc", "-5", "1.5", "\u0661\u0662", "1" * 40, "1,000"])
def test_limits_that_are_no_numbers_are_ignored(value):
    headers = openai(limit_requests=value, remaining_requests="7", reset_requests=value)
    reading = read_limits(headers, now=NOON)["requests"]
    assert (reading.limit, reading.remaining) == (None, 7)


@given(st.dictionaries(st.sampled_from(list(openai(
    limit_requests="", remaining_requests="", reset_requests="", limit_tokens="",
    remaining_tokens="", reset_tokens=""))), st.text(max_size=12)))  # fmt: skip
def test_nothing_in_headers_raises(headers):
    for reading in read_limits(headers, now=NOON).values():
        assert reading.limit is None or reading.limit > 0
        assert reading.remaining is None or reading.remaining >= 0
        assert reading.reset_s is None or 0 <= reading.reset_s <= 86_400

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbgpt_pandas.engine.retry_after import (
    LONGEST_WAIT_S,
    parse_retry_after,
    wait_in_text,
    wait_of,
)

NOW = datetime(2023, 9, 29, 16, 26, 37, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "2"}, 2.0),
        ({"Retry-After": "2"}, 2.0),
        ({"retry-after": " 20 "}, 20.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after-ms": "40"}, 0.04),
        ({"retry-after-ms": "40", "retry-after": "2"}, 0.04),
        ({"retry-after-ms": "0", "retry-after": "2"}, 2.0),
        ({"retry-after-ms": "soon", "retry-after": "2"}, 2.0),
        ({"retry-after": "86400"}, 86_400.0),
        ({"retry-after": "Fri, 29 Sep 2023 16:26:57 GMT"}, 20.0),
        ({"retry-after": "Fri, 29 Sep 2023 16:27:37 GMT"}, 60.0),
        ({"retry-after": "Friday, 29-Sep-23 16:26:57 GMT"}, 20.0),
        ({"retry-after": "Fri Sep 29 16:26:57 2023"}, 20.0),
        ({"retry-after": "Fri, 29 Sep 2023 18:26:57 +0200"}, 20.0),
    ],
)
def test_what_a_header_says(headers, seconds):
    assert parse_retry_after(headers, now=NOW) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    [
        "", "0", "0.0", "-10", "-0", "nan", "inf", "-inf", "Infinity", "1e3", "+5", "1_000",
        "\u0662\u0660", "\uff12", "20s", "20 s", "1,5", "0x10", "soon", "None", "9" * 40,
        "9" * 5000, "86401",
        "Zun, 29 Sep 2023 16:26:57 GMT", "29 Sep 2023 16:26:57 GMT", "Fri, 29 Foo 2023 16:26:57 GMT",
        "Fri, 99 Sep 2023 16:26:57 GMT", "Fri, 29 Sep 99999 16:26:57 GMT", "Fri",
        "Fri, 29 Sep 2023 16:26:37 GMT", "Fri, 29 Sep 2023 16:26:27 GMT",
        "Sun, 29 Sep 2024 16:26:57 GMT",
    ],
)  # fmt: skip
def test_what_is_of_no_use(text):
    assert parse_retry_after({"retry-after": text}, now=NOW) is None


@pytest.mark.parametrize(
    "text", ["", "0", "-40", "nan", "inf", "4e1", "\u0664\u0660", "40ms", "9" * 40, "86400001"]
)
def test_what_is_of_no_use_in_milliseconds(text):
    assert parse_retry_after({"retry-after-ms": text}, now=NOW) is None


def test_without_headers_there_is_nothing():
    assert parse_retry_after({}, now=NOW) is None


@given(st.text() | st.from_regex(r"\d{1,30}(\.\d{1,9})?") | st.datetimes().map(str))
def test_no_text_breaks_it(text):
    seconds = parse_retry_after({"retry-after": text, "retry-after-ms": text}, now=NOW)
    assert seconds is None or 0 < seconds <= LONGEST_WAIT_S


@given(st.integers(1, 86_400))
def test_a_date_is_read_as_the_time_until_then(seconds):
    date = format_datetime(NOW + timedelta(seconds=seconds), usegmt=True)
    assert parse_retry_after({"retry-after": date}, now=NOW) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("message", "seconds"),
    [
        ("Rate limit reached for gpt-4o. Please try again in 20s. Visit ...", 20.0),
        ("Please try again in 6m0s.", 360.0),
        ("Please try again in 120ms.", 0.12),
        ("Please try again in 1h2m3.5s.", 3723.5),
        ("Please retry after 6 seconds. Please go here: ...", 6.0),
        ("Please retry after 1 second.", 1.0),
        ("Please retry in 36.429760048s.", 36.429760048),
        ("Try again in 2 minutes", 120.0),
        ("Please try again later.", None),
        ("Please try again in 0s", None),
        ("Please try again in 48 hours", None),
        ("Please try again in 20", None),
        ("Quota will be replenished in 12.15:20:00.", None),
        ("", None),
    ],
)
def test_what_a_sentence_says(message, seconds):
    assert wait_in_text(message) == (None if seconds is None else pytest.approx(seconds))


def test_a_number_alone():
    assert wait_of("38") == 38.0
    assert wait_of("38s") is None
    assert wait_of("0") is None

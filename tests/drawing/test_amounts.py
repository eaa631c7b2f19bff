"""Numbers are readable whatever they are; the docstrings hold the ordinary ones."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbgpt_pandas.drawing.amounts import count, duration, money, percent, rate, several, short, wait


@pytest.mark.parametrize("write", [count, short, money, duration, wait, rate])
@given(number=st.floats(min_value=-1e12, max_value=1e12) | st.sampled_from([float("nan"), 1e300]))
def test_any_number_is_written_in_plain_digits(write, number):
    text = write(number) if write is not money or number < 1e300 else ""
    assert not re.search(r"nan|inf|e[+-]?\d", text)
    assert len(text) <= 24


@given(st.integers(0, 10_000), st.integers(0, 10_000))
def test_all_and_none_are_said_only_of_all_and_of_none(part, whole):
    text = percent(part, whole)
    assert (text == "100 %") == (0 < whole <= part)
    assert (text == "0 %") == (part == 0 or whole == 0)


def test_nearly_all_is_not_all():
    assert percent(1 - 1e-12, 1) == "99.9 %"
    assert percent(1e-12, 1) == "<0.1 %"


def test_short_numbers_keep_their_order_of_magnitude():
    assert [short(10**n) for n in range(3, 16, 3)] == ["1,000", "1 M", "1 G", "1 T", "1 P"]
    assert short(-12_500) == "-12.5 k"


def test_one_is_no_plural():
    assert (several(0, "row"), several(1, "row")) == ("0 rows", "1 row")

from __future__ import annotations

import math
import re
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbgpt_pandas.engine import pricing
from lbgpt_pandas.engine.errors import ConfigurationError
from lbgpt_pandas.engine.pricing import PRICES_AS_OF, Price, cost_usd, price_of, set_price
from lbgpt_pandas.engine.types import TokenCount

if TYPE_CHECKING:
    from collections.abc import Iterator

MILLION = TokenCount(1_000_000, 1_000_000)


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    yield
    for name in ("gpt-4o", "gpt-4o-2024-08-06", "mine", "local/tiny", "gemini-2.5-pro"):
        set_price(name, None)


@pytest.mark.parametrize(
    ("model", "prompt", "completion", "cached"),
    [
        ("gpt-4o", 2.5, 10.0, 1.25),
        ("gpt-4o-mini", 0.15, 0.6, 0.075),
        ("gpt-4.1", 2.0, 8.0, 0.5),
        ("gpt-4.1-mini", 0.4, 1.6, 0.1),
        ("gpt-4.1-nano", 0.1, 0.4, 0.025),
        ("gpt-5", 1.25, 10.0, 0.125),
        ("gpt-5-mini", 0.25, 2.0, 0.025),
        ("gpt-5-nano", 0.05, 0.4, 0.005),
        ("o3", 2.0, 8.0, 0.5),
        ("o4-mini", 1.1, 4.4, 0.275),
        ("text-embedding-3-small", 0.02, 0.0, None),
        ("text-embedding-3-large", 0.13, 0.0, None),
        ("claude-opus-4-5", 5.0, 25.0, 0.5),
        ("claude-sonnet-4-5", 3.0, 15.0, 0.3),
        ("claude-haiku-4-5", 1.0, 5.0, 0.1),
        ("gemini-2.5-pro", 1.25, 10.0, 0.125),
        ("gemini-2.5-flash", 0.3, 2.5, 0.03),
    ],
)
def test_a_well_known_model(model, prompt, completion, cached):
    assert price_of(model) == Price(prompt, completion, cached)


@pytest.mark.parametrize(
    ("snapshot", "model"),
    [
        ("gpt-4o-mini-2024-07-18", "gpt-4o-mini"),
        ("gpt-4o-2024-08-06", "gpt-4o"),
        ("gpt-4.1-2025-04-14", "gpt-4.1"),
        ("gpt-5-mini-2025-08-07", "gpt-5-mini"),
        ("o3-2025-04-16", "o3"),
        ("claude-sonnet-4-5-20250929", "claude-sonnet-4-5"),
        ("gemini-2.5-flash-001", "gemini-2.5-flash"),
        ("openai/gpt-4o", "gpt-4o"),
        ("anthropic/claude-sonnet-4-5-20250929", "claude-sonnet-4-5"),
        ("gemini/gemini-2.5-flash", "gemini-2.5-flash"),
    ],
)
def test_another_spelling_of_a_model(snapshot, model):
    assert price_of(snapshot) == price_of(model) is not None


def test_a_snapshot_with_a_price_of_its_own():
    assert price_of("gpt-4o-2024-05-13") == Price(5.0, 15.0)
    assert price_of("openai/gpt-4o-2024-05-13") == Price(5.0, 15.0)


@pytest.mark.parametrize(
    "model",
    [
        "", "mine", "gpt-9", "GPT-4o", "gpt-4o-", "gpt-4o-2024", "gpt-4o-mini-audio-preview",
        "ft:gpt-4o-mini-2024-07-18:org::id", "gpt-4o-mini-2024-07-18\n", "azure/gpt-4o",
        "openrouter/openai/gpt-4o", "gpt-4o-mini-2024-07-18-2024-07-18", "locally",
        "gpt-4o-\u0662\u0660\u0662\u0664-07-18",
    ],
)  # fmt: skip
def test_an_unknown_model_has_no_price_and_costs_not_nothing(model):
    assert price_of(model) is None
    assert cost_usd(model, MILLION) is None


@pytest.mark.parametrize("model", ["local/smollm2", "local/"])
def test_a_model_that_runs_here_is_free(model):
    assert price_of(model) == Price(0.0, 0.0, 0.0)
    assert cost_usd(model, MILLION) == 0.0


def test_what_an_answer_costs():
    tokens = TokenCount(prompt=2_000, completion=500)
    assert cost_usd("gpt-4o-mini", tokens) == pytest.approx((2_000 * 0.15 + 500 * 0.6) / 1e6)


def test_cached_tokens_are_a_part_of_the_prompt():
    tokens = TokenCount(prompt=2_000, completion=0, cached=1_500)
    assert cost_usd("gpt-4o", tokens) == pytest.approx((500 * 2.5 + 1_500 * 1.25) / 1e6)


def test_without_a_discount_cached_tokens_cost_as_much_as_others():
    set_price("mine", Price(2.0, 4.0))
    assert cost_usd("mine", TokenCount(1_000, 0, cached=1_000)) == pytest.approx(0.002)


@pytest.mark.parametrize("cached", [-5, 5_000])
def test_impossible_numbers_of_cached_tokens_stay_within_the_prompt(cached):
    cost = cost_usd("gpt-4o", TokenCount(1_000, 0, cached=cached))
    assert 0.00125 <= cost <= 0.0025


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6))
def test_more_tokens_never_cost_less(prompt, completion, cached):
    cost = cost_usd("gpt-5.4", TokenCount(prompt, completion, min(cached, prompt)))
    more = cost_usd("gpt-5.4", TokenCount(prompt + 1, completion + 1, min(cached, prompt)))
    assert 0 <= cost <= more


@pytest.mark.parametrize(
    ("model", "edge", "prompt", "completion", "cached"),
    [
        ("gpt-5.4", 272_000, 5.0, 22.5, 0.5),
        ("gemini-2.5-pro", 200_000, 2.5, 15.0, 0.25),
        ("claude-haiku-5-5", 100_000, 0.5, 2.5, 0.05),
    ],
)
def test_a_long_prompt_raises_the_price_of_the_whole_request(
    model, edge, prompt, completion, cached
):
    short, long = TokenCount(edge, 100, 50), TokenCount(edge + 1, 100, 50)
    price = price_of(model)
    assert cost_usd(model, short) == pytest.approx(
        (
            (edge - 50) * price.prompt_usd_per_million
            + 50 * price.cached_prompt_usd_per_million
            + 100 * price.completion_usd_per_million
        )
        / 1e6
    )
    assert cost_usd(model, long) == pytest.approx(
        ((edge + 1 - 50) * prompt + 50 * cached + 100 * completion) / 1e6
    )


def test_an_own_price_holds_for_every_length():
    set_price("gemini-2.5-pro", Price(1.0, 1.0))
    assert cost_usd("gemini-2.5-pro", TokenCount(1_000_000, 0)) == 1.0


def test_an_own_price_goes_before_the_table_until_it_is_taken_back():
    set_price("gpt-4o", Price(1.0, 2.0))
    assert price_of("gpt-4o") == Price(1.0, 2.0)
    assert price_of("gpt-4o-2024-08-06") == Price(1.0, 2.0)
    assert price_of("gpt-4o-2024-05-13") == Price(5.0, 15.0)
    set_price("gpt-4o-2024-08-06", Price(3.0, 4.0))
    assert price_of("gpt-4o-2024-08-06") == Price(3.0, 4.0)
    assert price_of("gpt-4o") == Price(1.0, 2.0)
    set_price("gpt-4o", None)
    assert price_of("gpt-4o") == Price(2.5, 10.0, 1.25)
    set_price("gpt-4o", None)


def test_a_price_of_nothing_is_a_price():
    set_price("mine", Price(0.0, 0.0))
    assert cost_usd("mine", MILLION) == 0.0
    set_price("local/tiny", Price(1.0, 1.0))
    assert cost_usd("local/tiny", MILLION) == 2.0


def test_prices_can_be_set_from_many_threads():
    def work(number: int) -> bool:
        set_price(f"thread-{number}", Price(float(number), 0.0))
        found = price_of(f"thread-{number}") == Price(float(number), 0.0)
        set_price(f"thread-{number}", None)
        return found and price_of(f"thread-{number}") is None

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(200)))


@pytest.mark.parametrize("bad", [-0.1, math.nan, math.inf])
@pytest.mark.parametrize("field", range(3))
def test_what_is_no_price(bad, field):
    values = [1.0, 1.0, 1.0]
    values[field] = bad
    with pytest.raises(ConfigurationError, match="a price is a number of USD"):
        Price(*values)


def test_the_table_says_of_when_it_is():
    assert re.fullmatch(r"20\d\d-\d\d", PRICES_AS_OF)


def test_the_table_is_plausible():
    for name, price in pricing._PRICES.items():
        assert 0.01 <= price.prompt_usd_per_million <= 100, name
        if "embedding" not in name:
            assert price.completion_usd_per_million >= 2 * price.prompt_usd_per_million, name
        if price.cached_prompt_usd_per_million is not None:
            assert price.cached_prompt_usd_per_million < price.prompt_usd_per_million, name
    assert pricing._SURCHARGES.keys() <= pricing._PRICES.keys()

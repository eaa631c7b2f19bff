"""The public interface as a type checker sees it; read by mypy in lint, never run.

Every assignment states the type that a caller may rely on: a change of a return type, a lost
annotation or an Any that turns up in its place (see `warn_unused_ignores` and `strict`) is an
error here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_type

import lbgpt_pandas as lb
from lbgpt_pandas.accessor import LbgptAccessor
from lbgpt_pandas.engine import DiskCache, Request, Usage, UsageStats
from lbgpt_pandas.testing import ScriptedGPT

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd


async def columns(frame: pd.DataFrame) -> list[pd.Series]:
    """Both accessors take the same arguments and give a Series."""
    accessor = LbgptAccessor(frame)
    first: pd.Series = accessor.complete("{a}", model="m", temperature=0.5, name="x")
    second: pd.Series = await accessor.acomplete(
        lambda row: str(row["a"]), engine=ScriptedGPT("yes"), errors="ignore", progress=False
    )
    third: pd.Series = LbgptAccessor(frame["a"]).complete(
        [{"role": "user", "content": "{value}"}], system=lb.col("a"), cache_mode="refresh"
    )
    return [first, second, third]


def session() -> None:
    """Settings are typed, choices are literals."""
    lb.configure(lb.ChatGPT("sk-x"), model="m", cache=None, errors="raise", progress="none")
    with lb.using(cache_mode="read_only", max_parallel=4) as current:
        assert_type(current, lb.Settings)
    assert_type(lb.settings().model, str | None)
    lb.configure(errors="explode")  # type: ignore[arg-type]  # no such choice
    lb.configure(cache_mode="sometimes")  # type: ignore[arg-type]  # no such choice


def report() -> pd.DataFrame | None:
    """A report may be missing, and its cost unknown."""
    last = lb.last_run()
    if last is None:
        return None
    assert_type(last.cost_usd, float | None)
    assert_type(last.wall_s, float)
    again: pd.Series = last.retry_failed()
    rows: pd.DataFrame = last.rows
    return rows.assign(again=again)


def money() -> pd.DataFrame:
    """Budgets are objects or numbers, usage is a frame."""
    lb.configure(budget=5)
    lb.configure(budget="5")  # type: ignore[arg-type]  # no number
    budget = lb.Budget(usd=1.5, on_exceeded="null")
    budget.add(usd=0.5)
    assert_type(budget.left.usd, float | None)
    assert_type(lb.settings().budget, lb.Budget | None)
    lb.set_price("m", lb.Price(1.0, 2.0))
    return lb.usage(("model", "day"), since="2 hours").join(lb.headroom())


async def engines() -> Sequence[Usage]:
    """Engines are async context managers of their own type."""
    async with lb.LocalGPT("model.gguf", slots=2) as local:
        assert_type(local, lb.LocalGPT)
    azure = lb.AzureGPT("key", "https://x.openai.azure.com", {"m": "d"}, cache=DiskCache("c"))
    assert_type(azure.get_usage_stats(), UsageStats)
    scripted = ScriptedGPT("yes")
    assert_type(scripted.requests, list[Request])
    return azure.usage_cache_list


def errors(error: lb.RequestError, rows: lb.RowErrors) -> list[str | None]:
    """Errors carry what code decides on."""
    assert_type(error.status, int | None)
    assert_type(error.retry_after, float | None)
    assert_type(error.maybe_billed, bool)
    return [error.code, *(str(each) for each in rows.exceptions)]

"""Test doubles for code that uses this package, and for the package itself.

- `ScriptedGPT`: an engine that answers from a script. Cache, retries, reports and everything
  else are the real ones. The first choice for tests of your own code.
- `FakeProvider`: an HTTP server on this machine that speaks OpenAI's and Azure's language, with
  limits, latency and faults. For tests in which the client's side of HTTP matters.
- `KeyLimits`: what a `FakeProvider` allows one key, and how it measures the minute.
- `Fault` and `Record`: what a `FakeProvider` can be told to do wrong, and what it remembers.
- `FakeClock`: virtual time, in which waiting costs nothing.

Examples
--------
>>> import pandas as pd
>>> import lbgpt_pandas as lb
>>> engine = ScriptedGPT(lambda request: request.messages[-1]["content"].upper())
>>> with lb.using(engine, cache=None, progress="none"):
...     pd.Series(["rome", "oslo"]).lbgpt.complete("{value}!").tolist()
['ROME!', 'OSLO!']
"""

from __future__ import annotations

from lbgpt_pandas.testing.clock import FakeClock
from lbgpt_pandas.testing.faults import Fault, Record
from lbgpt_pandas.testing.limits import KeyLimits
from lbgpt_pandas.testing.provider import FakeProvider
from lbgpt_pandas.testing.scripted import ScriptedGPT
from lbgpt_pandas.testing.tally import Tally

__all__ = ["FakeClock", "FakeProvider", "Fault", "KeyLimits", "Record", "ScriptedGPT", "Tally"]

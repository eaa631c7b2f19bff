"""Whole runs on a cache directory that is full, may not be written, or is damaged."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pandas as pd
import pytest

import lbgpt_pandas as lb
from lbgpt_pandas.engine.caches.disk import DiskCache
from lbgpt_pandas.engine.errors import CacheWarning, ConfigurationError
from lbgpt_pandas.testing import ScriptedGPT

pytestmark = pytest.mark.process

ROWS = 60
FRAME = pd.DataFrame({"text": [f"row {number}" for number in range(ROWS)]})


@pytest.fixture
def open_cache(tmp_path):
    """Makes caches over ``cache`` and closes them."""
    caches = []

    def make(**options):
        caches.append(DiskCache(tmp_path / "cache", **options))
        return caches[-1]

    yield make
    for cache in caches:
        lb.engine.portal.run_sync(cache.close())


def complete(cache, engine, frame=FRAME):
    with lb.using(cache=cache, progress=False, errors="raise"):
        answers = frame.lbgpt.complete("{text}", model="m", engine=engine)
    assert answers.tolist() == frame["text"].tolist()


def complete_with_one_warning(cache, engine, *, match, frame=FRAME):
    with pytest.warns(CacheWarning, match=match) as caught:
        complete(cache, engine, frame)
    assert [each.category for each in caught] == [CacheWarning]


FULL = """
import json, resource, sys, warnings
import pandas as pd
import lbgpt_pandas as lb
from lbgpt_pandas.testing import ScriptedGPT

frame = pd.DataFrame({"text": [f"row {number} " + "x" * 5_000 for number in range(401)]})
engine = ScriptedGPT()
lb.configure(engine=engine, cache=sys.argv[1], model="m", progress=False, errors="raise")
ask = lambda rows: frame.head(rows).lbgpt.complete("{text}").eq(frame["text"].head(rows)).all()
told = []
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for limit, rows in ((None, 5), (1_000_000, 400), (None, 401)):
        before = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit or before, before))
        assert ask(rows)
        told.append([each.category.__name__ for each in caught])
        caught.clear()
print(json.dumps([told, len(engine.requests)]))
"""


def test_a_full_disk_is_one_warning_and_no_answer_is_lost(tmp_path, open_cache):
    command = [sys.executable, "-c", FULL, str(tmp_path / "cache")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.stderr == ""
    told, calls = json.loads(ended.stdout)
    # No row was asked twice, neither in the process nor, once there was room again, after it.
    assert (told, calls) == ([[], ["CacheWarning"], []], 401)
    frame = pd.DataFrame({"text": [f"row {number} " + "x" * 5_000 for number in range(401)]})
    engine = ScriptedGPT()
    complete(open_cache(), engine, frame)
    assert engine.requests == []


def test_a_cache_that_may_only_be_read(open_cache):
    engine = ScriptedGPT()
    complete(open_cache(), engine, FRAME.head(20))
    complete(open_cache(read_only=True), engine, FRAME.head(20))
    assert len(engine.requests) == 20
    complete_with_one_warning(open_cache(read_only=True), engine, match="for reading only")
    assert len(engine.requests) == ROWS


def test_a_truncated_database_is_moved_aside_with_one_warning(tmp_path, open_cache):
    engine = ScriptedGPT()
    complete(open_cache(), engine)
    database = tmp_path / "cache" / "cache.db"
    lb.engine.portal.run_sync(open_cache().close())
    database.write_bytes(b"no database at all" * 500)
    complete_with_one_warning(open_cache(), engine, match="damaged")
    complete(open_cache(), engine)
    assert len(engine.requests) == 2 * ROWS


@pytest.mark.filterwarnings("ignore:runs are not registered")
def test_a_directory_that_is_refused_is_an_error_before_any_call(tmp_path, open_cache):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache").chmod(0o777)
    engine = ScriptedGPT()
    if os.name == "posix":
        with pytest.raises(ConfigurationError, match="chmod"):
            complete(open_cache(), engine)
        assert engine.requests == []

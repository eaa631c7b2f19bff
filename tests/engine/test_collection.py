"""The collector comes more rarely while a run goes on, and as before when it has ended."""

from __future__ import annotations

import gc

import pytest

from lbgpt_pandas.engine.batch import Batch
from lbgpt_pandas.engine.collection import NEW_OBJECTS, rare_collection
from lbgpt_pandas.engine.types import Request
from lbgpt_pandas.testing import ScriptedGPT

USUAL = (700, 10, 10)


@pytest.fixture(autouse=True)
def usual_thresholds():
    before = gc.get_threshold()
    gc.set_threshold(*USUAL)
    yield
    gc.set_threshold(*before)


async def test_it_comes_rarely_during_a_run_only():
    during = []

    def answer(_request):
        during.append(gc.get_threshold())
        return "ok"

    requests = [Request([{"role": "user", "content": "?"}], {"model": "m"})]
    await Batch(ScriptedGPT(answer), requests).arun()
    assert during == [(NEW_OBJECTS, *USUAL[1:])]
    assert gc.get_threshold() == USUAL


async def test_a_run_that_fails_leaves_nothing_behind():
    class Broken(ScriptedGPT):
        def prepare(self, request):
            raise OSError(request)

    requests = [Request([{"role": "user", "content": "?"}], {"model": "m"})]
    with pytest.raises(OSError, match="content"):
        await Batch(Broken(lambda _request: "ok"), requests).arun()
    assert gc.get_threshold() == USUAL


def test_the_last_of_several_runs_restores_it():
    with rare_collection:
        with rare_collection:
            pass
        assert gc.get_threshold()[0] == NEW_OBJECTS
    assert gc.get_threshold() == USUAL


@pytest.mark.parametrize("threshold", [0, NEW_OBJECTS, 2 * NEW_OBJECTS])
def test_a_collector_that_is_off_or_comes_more_rarely_is_left_alone(threshold):
    gc.set_threshold(threshold, 5, 5)
    with rare_collection:
        assert gc.get_threshold() == (threshold, 5, 5)
    assert gc.get_threshold() == (threshold, 5, 5)


def test_what_somebody_else_sets_meanwhile_stays():
    with rare_collection:
        gc.set_threshold(900, 5, 5)
    assert gc.get_threshold() == (900, 5, 5)


def test_in_a_forked_child_it_is_as_before():
    with rare_collection:
        rare_collection.after_fork()  # what the fork calls in the child
        assert gc.get_threshold() == USUAL
        with rare_collection:
            assert gc.get_threshold()[0] == NEW_OBJECTS
        assert gc.get_threshold() == USUAL
    with rare_collection:
        assert gc.get_threshold()[0] == NEW_OBJECTS

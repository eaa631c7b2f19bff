"""Events from bytes, however they are cut."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbgpt_pandas.engine.errors import MalformedResponse
from lbgpt_pandas.engine.transports.sse import LARGEST_EVENT_BYTES, EventReader, read_events


async def events(*pieces):
    async def give():
        for piece in pieces:
            yield piece

    return [event async for event in read_events(give())]


STREAM = (
    ': PROCESSING\n\ndata: {"a":1}\r\n\r\nid: 7\ndata:{"b":"ü"}\n\n'
    'data: {"c":\ndata: 3}\n\ndata: [DONE]\n\ndata: {"late":1}\n\n'
).encode()
MEANT = [{"a": 1}, {"b": "ü"}, {"c": 3}]


@given(st.lists(st.integers(0, len(STREAM))))
def test_events_are_the_same_wherever_the_bytes_are_cut(cuts):
    edges = [0, *sorted(cuts), len(STREAM)]
    pieces = [STREAM[a:b] for a, b in pairwise(edges)]
    reader = EventReader()
    data = [data for piece in pieces for _, data in reader.feed(piece)]
    assert data[:3] == [b'{"a":1}', '{"b":"ü"}'.encode(), b'{"c":\n3}']
    assert data[3:] == [b"[DONE]", b'{"late":1}']


async def test_the_json_of_events_up_to_done():
    assert await events(STREAM[:20], STREAM[20:]) == MEANT


async def test_a_last_event_without_its_blank_line_counts_and_a_cut_one_does_not():
    assert await events(b'data: {"a":1}\n') == [{"a": 1}]
    assert await events(b'data: {"a":1}') == [{"a": 1}]
    assert await events(b'data: {"a":1}\n\ndata: {"b":') == [{"a": 1}]


@pytest.mark.parametrize(
    ("data", "event"),
    [
        ('{"message":"x"}', {"error": {"message": "x"}}),
        ('{"error":{"message":"x"}}', {"error": {"message": "x"}}),
        ('"x"', {"error": "x"}),
        ("overloaded", {"error": {"message": "overloaded"}}),
    ],
)
async def test_data_of_an_error_event_is_an_error(data, event):
    assert await events(f"event: error\ndata: {data}\n\n".encode()) == [event]


async def test_an_event_that_is_not_json_is_malformed_and_shows_no_key():
    with pytest.raises(MalformedResponse, match="begins with") as caught:
        await events(b"data: <html> sk-CANARY0123456789abcdef\n\n")
    assert "CANARY" not in str(caught.value)


async def test_an_event_without_end_is_refused():
    piece = b"x" * (LARGEST_EVENT_BYTES // 8 + 1)
    with pytest.raises(MalformedResponse, match="over"):
        await events(b"data: ", *[piece] * 9)
    with pytest.raises(MalformedResponse, match="over"):
        await events(*[b"data: " + piece + b"\n"] * 9)

"""diskcache with SafeDisk neither writes pickles nor reads them."""

from __future__ import annotations

import os
import pickle
import sqlite3
from pathlib import Path

import diskcache
import pytest

from lbgpt_pandas.engine.caches.safedisk import SafeDisk


class Bomb:
    """Leaves a directory behind if it is ever unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


class Text(str):
    """diskcache would pickle it."""

    __slots__ = ()


@pytest.fixture
def store(tmp_path):
    with diskcache.Cache(str(tmp_path / "cache"), disk=SafeDisk) as store:
        yield store


@pytest.mark.parametrize("text", ["a", "ü" * 50_000, b"b", b"\x00" * 50_000])
def test_texts_and_bytes_come_back_whatever_their_length(store, text):
    store[text[:100]] = text
    assert store[text[:100]] == text
    assert list(store) == [text[:100]]
    assert not list(Path(store.directory).rglob("*.val"))


@pytest.mark.parametrize("bad", [{"a": 1}, 3, 1.5, None, ("a",), True, Text("a")])
def test_nothing_else_is_taken(store, bad):
    with pytest.raises(TypeError, match="cache value"):
        store["a"] = bad
    with pytest.raises(TypeError, match="cache key"):
        store[bad] = "a"
    with pytest.raises(TypeError, match="cache key"):
        store.get(bad)
    assert len(store) == 0


@pytest.mark.parametrize("inline", [True, False])
def test_a_planted_value_is_refused_and_not_run(store, tmp_path, inline):
    store["a"] = "good"
    bomb = pickle.dumps(Bomb(tmp_path / "exploded"))
    (tmp_path / "cache" / "bomb.val").write_bytes(bomb)
    value, file = (bomb, None) if inline else (None, "bomb.val")
    connection = sqlite3.connect(tmp_path / "cache" / "cache.db")
    with connection:
        connection.execute("UPDATE Cache SET mode = 4, value = ?, filename = ?", (value, file))
    connection.close()
    for read in (store.get, store.__getitem__, store.pop):
        with pytest.raises(ValueError, match="not plain text"):
            read("a")
    assert not (tmp_path / "exploded").exists()


def test_a_planted_key_is_refused_and_not_run(store, tmp_path):
    store["a"] = "good"
    bomb = pickle.dumps(Bomb(tmp_path / "exploded"))
    connection = sqlite3.connect(tmp_path / "cache" / "cache.db")
    with connection:
        connection.execute("UPDATE Cache SET raw = 0, key = ?", (bomb,))
    connection.close()
    for read in (list, lambda store: store.peekitem()):
        with pytest.raises(ValueError, match="pickle"):
            read(store)
    assert not (tmp_path / "exploded").exists()

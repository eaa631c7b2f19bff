"""What the cache on disk relies on and cannot see from its own surface."""

from __future__ import annotations

import pytest

from lbgpt_pandas.engine.caches.database import DATABASE, Database


@pytest.fixture
def database(tmp_path):
    database = Database(tmp_path, read_only=False)
    yield database
    database.close()


def test_entries_are_written_all_or_none(database):
    with pytest.raises(UnicodeEncodeError):
        database.store([("a", "1", False), ("b", "\ud800", False)])
    assert database.get_many(["a", "b"]) == {}
    database.store([("c", "1", False)])
    assert database.get_many(["a", "b", "c"]) == {"c": "1"}


def test_first_and_replacing_entries_may_be_mixed(database):
    database.store([("a", "1", False), ("a", "2", False), ("b", "1", False), ("b", "2", True)])
    assert database.get_many(["a", "b"]) == {"a": "1", "b": "2"}


def test_a_key_that_is_asked_for_twice_is_answered(database):
    database.store([("a", "1", False)])
    assert database.get_many(["a", "b", "a"]) == {"a": "1"}


def test_more_keys_than_one_statement_takes(database):
    keys = [f"k{number}" for number in range(9_999)]
    database.store([(key, key, False) for key in keys])
    assert database.get_many(keys) == dict(zip(keys, keys, strict=True))


def test_it_is_not_current_once_its_file_is_gone_or_another(database, tmp_path):
    assert database.is_current()
    (tmp_path / DATABASE).rename(tmp_path / "aside")
    assert not database.is_current()
    (tmp_path / DATABASE).write_bytes(b"")
    assert not database.is_current()

"""Texts that wait in memory, within bounds."""

from __future__ import annotations

from lbgpt_pandas.engine.caches.held_back import HeldBack


def test_the_oldest_leave_first_when_there_are_too_many():
    held = HeldBack(max_entries=2)
    assert [held.add(key, key * 3, replace=False) for key in "abcd"] == [0, 0, 1, 1]
    assert held.get_many("abcd") == {"c": "ccc", "d": "ddd"}
    assert held.entries() == [("c", "ccc", False), ("d", "ddd", False)]


def test_the_oldest_leave_first_when_they_are_too_long():
    held = HeldBack(max_characters=10)
    held.add("a", "x" * 6, replace=False)
    assert held.add("b", "y" * 4, replace=False) == 0
    assert held.add("c", "z" * 8, replace=False) == 2
    assert held.add("d", "w" * 100, replace=False) == 1
    assert held.get_many("abcd") == {"d": "w" * 100}
    held.discard("d")
    assert held.add("e", "x" * 10, replace=False) == 0
    assert len(held) == 1


def test_the_first_text_stays_unless_it_is_replaced():
    held = HeldBack(max_characters=10)
    for text, replace in (("1", False), ("2", False), ("333", True)):
        held.add("a", text, replace=replace)
        assert held.get_many(["a"]) == {"a": "1" if text != "333" else "333"}
    assert held.entries() == [("a", "333", True)]
    assert held.add("b", "x" * 7, replace=False) == 0


def test_only_the_text_that_was_written_is_forgotten():
    held = HeldBack()
    held.add("a", "1", replace=False)
    held.discard("a", "older")
    assert len(held) == 1
    held.discard("a", "1")
    held.discard("a")
    assert len(held) == 0

"""A file is there in full or not at all."""

from __future__ import annotations

import os
import stat

import pytest

from lbgpt_pandas.command_line.outputs import Output
from lbgpt_pandas.engine.errors import ConfigurationError


def output(path, *, replaces=False):
    return Output.of(str(path), source="in.csv", replaces=replaces)


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_a_failure_leaves_what_was_there_and_nothing_else(tmp_path, error):
    target = tmp_path / "o.csv"
    target.write_text("precious")

    def fail():
        with output(target, replaces=True).opened() as file:
            file.write(b"half a")
            raise error

    with pytest.raises(type(error)):
        fail()
    assert target.read_text() == "precious"
    assert list(tmp_path.iterdir()) == [target]


def test_nothing_is_seen_under_the_name_before_the_end(tmp_path):
    target = tmp_path / "o.csv"
    with output(target).opened() as file:
        file.write(b"half a table")
        file.flush()
        assert not target.exists()
    assert target.read_bytes() == b"half a table"
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(target.stat().st_mode) == 0o666 & ~mask


def test_a_file_that_came_meanwhile_is_kept(tmp_path):
    target = tmp_path / "o.csv"

    def write():
        with output(target).opened() as file:
            file.write(b"ours")
            target.write_text("theirs")

    with pytest.raises(ConfigurationError, match="there already"):
        write()
    assert target.read_text() == "theirs"
    assert list(tmp_path.iterdir()) == [target]


def test_the_bytes_are_on_the_disk_before_the_name(tmp_path, monkeypatch):
    seen = []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda number: (seen.append("fsync"), sync(number))[1])
    monkeypatch.setattr(os, "replace", lambda a, b: (seen.append("replace"), replace(a, b))[1])
    with output(tmp_path / "o.csv").opened() as file:
        file.write(b"x")
    assert seen == ["fsync", "replace", "fsync"]


def test_stdout_takes_the_format_of_the_input():
    assert Output.of("-", source="in.jsonl.gz", replaces=False).form.kind == "jsonl"
    assert not Output.of("-", source="in.jsonl.gz", replaces=False).form.is_zipped

"""On what kind of file system a directory lies; its trust is tested in test_disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from lbgpt_pandas.engine.caches import directory as module
from lbgpt_pandas.engine.caches.directory import make_private, network_file_system


@pytest.fixture
def mounts(tmp_path, monkeypatch):
    path = tmp_path / "mounts"
    monkeypatch.setattr(module, "MOUNTS", path)

    def write(*lines):
        path.write_text("".join(f"{line} rw,relatime 0 0\n" for line in lines))

    return write


def test_the_nearest_mount_counts(mounts, tmp_path):
    inner, spaced = tmp_path / "inner", tmp_path / "with space"
    for path in (inner / "deep", spaced):
        path.mkdir(parents=True)
    mounts(
        "/dev/sda / ext4",
        f"server:/home {tmp_path} nfs4",
        f"/dev/sdb {inner} xfs",
        f"//host/share {tmp_path}/with\\040space cifs",
    )
    assert network_file_system(tmp_path) == "nfs4"
    assert network_file_system(inner / "deep") is None
    assert network_file_system(spaced) == "cifs"
    assert network_file_system(Path("/")) is None


def test_of_two_mounts_on_one_place_the_later_one_is_seen(mounts, tmp_path):
    mounts(f"server:/x {tmp_path} nfs4", f"/dev/sda {tmp_path} ext4")
    assert network_file_system(tmp_path) is None


def test_without_a_list_nothing_is_known(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MOUNTS", tmp_path / "none")
    assert network_file_system(tmp_path) is None


def test_directories_above_are_made_as_well(tmp_path):
    make_private(tmp_path / "a" / "b")
    make_private(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700

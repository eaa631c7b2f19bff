"""Archives: written atomically and alike, and refused when anything about them is odd."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import time
import warnings
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import pytest

from lbgpt_pandas.engine import archive as module
from lbgpt_pandas.engine.archive import (
    MANIFEST,
    RESPONSES,
    SUMS,
    Entry,
    open_archive,
    write_archive,
)
from lbgpt_pandas.engine.caches.envelope import seal
from lbgpt_pandas.engine.errors import CacheCorrupt, ConfigurationError

LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


def entry(number, request=None):
    key = f"v1:{number:064x}"
    payload = {"choices": [{"message": {"content": f"answer {number} é"}}]}
    text = seal(key, family="openai", model="m", payload=payload, created=LONG_AGO)
    return Entry(key, text, request)


ENTRIES = [entry(1, {"model": "m", "messages": []}), entry(2)]
ABOUT = {"kind": "run", "b": 1, "a": {"ä": [1, 2]}}


@pytest.fixture
def path(tmp_path):
    place = tmp_path / "study.lbgpt.zip"
    write_archive(place, ABOUT, ENTRIES)
    return place


def read(path):
    with open_archive(path) as archive:
        return archive.manifest, list(archive.entries())


def members(path):
    with zipfile.ZipFile(path) as zipped:
        return {name: zipped.read(name) for name in zipped.namelist()}


def rebuild(path, contents, *, sums=None):
    """Write a zip with these members and, unless given, the checksums that fit."""
    if sums is None:
        sums = "".join(
            f"{hashlib.sha256(content).hexdigest()}  {name}\n"
            for name, content in contents.items()
            if name in (MANIFEST, RESPONSES)
        ).encode()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name, content in {**contents, SUMS: sums}.items():
            zipped.writestr(name, content)


def changed(path, **contents):
    found = members(path)
    found.pop(SUMS)
    names = {"manifest": MANIFEST, "responses": RESPONSES}
    rebuild(path, found | {names[name]: content for name, content in contents.items()})


def test_what_is_written_is_read(path):
    manifest, entries = read(path)
    assert entries == ENTRIES
    assert manifest == {**ABOUT, "format": "lbgpt-archive", "version": 1, "responses": 2}


def test_it_has_plain_members_with_checksums(path):
    found = members(path)
    assert set(found) == {MANIFEST, RESPONSES, SUMS}
    assert [json.loads(line)["key"] for line in found[RESPONSES].splitlines()] == [
        each.key for each in ENTRIES
    ]
    for line in found[SUMS].decode().splitlines():
        digest, name = line.split("  ")
        assert hashlib.sha256(found[name]).hexdigest() == digest


def test_integers_of_any_length_are_kept(tmp_path):
    seed = 10**30
    place = tmp_path / "long.zip"
    write_archive(place, {"seed": seed}, [entry(1, {"params": {"seed": seed}})])
    assert str(seed) in members(place)[RESPONSES].decode()


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
def test_it_is_for_this_user_alone(path):
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_same_content_gives_the_same_bytes(path, tmp_path):
    other = tmp_path / "other.zip"
    write_archive(other, dict(reversed(ABOUT.items())), ENTRIES)
    assert other.read_bytes() == path.read_bytes()


def test_a_failure_leaves_what_was_there(path, tmp_path):
    before = path.read_bytes()

    def broken():
        yield ENTRIES[0]
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_archive(path, ABOUT, broken())
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_flipped_bit_anywhere_is_refused_or_changes_nothing(path):
    good, raw = read(path), bytearray(path.read_bytes())
    refused = 0
    for position in range(len(raw)):
        for bit in (0x01, 0x80):
            raw[position] ^= bit
            path.write_bytes(raw)
            try:
                assert read(path) == good, position
            except (CacheCorrupt, ConfigurationError):
                refused += 1
            raw[position] ^= bit
    assert refused > len(raw)


@pytest.mark.parametrize("name", [MANIFEST, RESPONSES, SUMS])
def test_a_flipped_byte_of_a_member_names_it(path, name):
    raw = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as zipped:
        info = zipped.getinfo(name)
    local = info.header_offset
    extra = int.from_bytes(raw[local + 28 : local + 30], "little")
    start = local + 30 + len(name) + extra
    # The last bits of a compressed stream mean nothing.
    for offset in range(info.compress_size - 1):
        damaged = bytearray(raw)
        damaged[start + offset] ^= 0x10
        path.write_bytes(damaged)
        with pytest.raises(CacheCorrupt, match=name):
            read(path)


@pytest.mark.parametrize("length", [0, 1, 100, -1, -30])
def test_a_cut_file_is_refused(path, length):
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(CacheCorrupt, match=r"study\.lbgpt\.zip is not used"):
        read(path)


@pytest.mark.parametrize(
    "name", ["../evil", "/etc/evil", "a/../../evil", "..\\evil", "C:\\evil", "\\\\host\\evil"]
)
def test_members_outside_are_refused(path, name, tmp_path):
    found = members(path)
    found.pop(SUMS)
    rebuild(path, {**found, name: b"x"})
    with pytest.raises(CacheCorrupt, match="outside of itself"):
        read(path)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["notes.txt", "sub/manifest.json", "Manifest.json"])
def test_unknown_members_are_refused(path, name):
    found = members(path)
    found.pop(SUMS)
    rebuild(path, {**found, name: b"x"})
    with pytest.raises(CacheCorrupt, match=name):
        read(path)


@pytest.mark.parametrize("name", [MANIFEST, RESPONSES, SUMS])
def test_missing_members_are_refused(path, name):
    found = members(path)
    del found[name]
    with zipfile.ZipFile(path, "w") as zipped:
        for each, content in found.items():
            zipped.writestr(each, content)
    with pytest.raises(CacheCorrupt, match=name):
        read(path)


def test_a_member_twice_is_refused(path):
    with warnings.catch_warnings(), zipfile.ZipFile(path, "a") as zipped:
        warnings.simplefilter("ignore")
        zipped.writestr(RESPONSES, b"")
    with pytest.raises(CacheCorrupt, match="twice"):
        read(path)


def test_encrypted_members_are_refused(path):
    raw = bytearray(path.read_bytes())
    place = 0
    while (place := raw.find(b"PK\x01\x02", place)) >= 0:
        raw[place + 8] |= 1
        place += 4
    path.write_bytes(raw)
    with pytest.raises(CacheCorrupt, match="encrypted"):
        read(path)


def test_a_bomb_is_refused_before_it_is_unpacked(path):
    changed(path, responses=b"\0" * (module.RATIO_FROM_BYTES + 1))
    assert path.stat().st_size < 100_000
    with pytest.raises(CacheCorrupt, match="compressed as no answers are"):
        read(path)


def test_oversized_archives_are_refused(path, monkeypatch):
    monkeypatch.setattr(module, "MAX_BYTES", 100)
    with pytest.raises(CacheCorrupt, match="more than 100"):
        read(path)


def test_a_member_that_is_longer_than_it_says_is_refused(path):
    raw = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as zipped:
        size = zipped.getinfo(RESPONSES).file_size
    place = raw.find(b"PK\x01\x02")
    assert int.from_bytes(raw[place + 24 : place + 28], "little") == size
    raw[place + 24 : place + 28] = (size - 10).to_bytes(4, "little")
    path.write_bytes(raw)
    with pytest.raises(CacheCorrupt, match=RESPONSES):
        read(path)


def test_a_newer_version_says_so(path):
    about = json.loads(members(path)[MANIFEST])
    changed(path, manifest=json.dumps({**about, "version": 2}).encode())
    with pytest.raises(ConfigurationError, match="newer"):
        read(path)


@pytest.mark.parametrize("about", [b"[]", b"{}", b"no", b'{"format": "lbgpt-archive"}'])
def test_another_zip_is_no_archive(path, about):
    changed(path, manifest=about)
    with pytest.raises(CacheCorrupt, match=MANIFEST):
        read(path)


@pytest.mark.parametrize(
    "line",
    [
        b"[]",
        b"no",
        b'{"key": 1, "envelope": "x"}',
        b'{"key": "v1:0"}',
        json.dumps({"key": ENTRIES[1].key, "envelope": ENTRIES[0].envelope}).encode(),
        json.dumps({**ENTRIES[0]._asdict(), "request": [1]}).encode(),
    ],
)
def test_answers_that_are_none_are_refused_with_their_line(path, line):
    changed(path, responses=members(path)[RESPONSES].splitlines()[0] + b"\n" + line + b"\n")
    with pytest.raises(CacheCorrupt, match="line 2"):
        read(path)


def test_answers_that_are_missing_are_noticed(path):
    changed(path, responses=members(path)[RESPONSES].splitlines()[0] + b"\n")
    with pytest.raises(CacheCorrupt, match="1 answers"):
        read(path)


def test_no_file_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "none.zip")


@pytest.mark.parametrize(("name", "most"), [(SUMS, 4_096), (MANIFEST, 256 * 2**20)])
def test_what_is_read_in_one_go_has_a_bound_of_its_own(path, name, most, monkeypatch):
    monkeypatch.setattr(module, "MOST_BYTES", {**module.MOST_BYTES, MANIFEST: 4_096})
    contents = members(path) | {name: b"\n" * 5_000}
    rebuild(path, contents, sums=contents[SUMS])
    with pytest.raises(CacheCorrupt, match=rf"{name} would unpack to 5,000 bytes, more than 4,096"):
        read(path)
    assert module.MOST_BYTES[SUMS] == 4_096
    assert most >= 4_096


@pytest.mark.parametrize(
    "odd",
    [
        {"engine": {"name": "x"}},
        {"engine": "x"},
        {"engine": {"family": "f", "tools": 5}},
        {"keys": 5},
        {"keys": {"a": 1}},
        {"keys": [1]},
        {"failures": [1]},
        {"near": [1]},
        {"asked_again": ["k"]},
        {"asked_again": {"k": []}},
        {"asked_again": {"k": [1]}},
        {"near": {"k": {"row": 0}}},
        {"unsendable": "x"},
    ],
)
def test_a_manifest_whose_parts_are_odd_is_refused(path, odd):
    contents = members(path)
    about = json.loads(contents[MANIFEST]) | odd
    rebuild(path, contents | {MANIFEST: json.dumps(about).encode()})
    with pytest.raises(CacheCorrupt, match="not one of this package"):
        read(path)


def test_what_a_killed_export_left_is_removed_by_the_next_one(path, monkeypatch):
    made = []
    real = module.tempfile.mkstemp

    def noted(**how):
        made.append(real(**how))
        return made[-1]

    monkeypatch.setattr(module.tempfile, "mkstemp", noted)
    write_archive(path, ABOUT, ENTRIES)
    left = Path(made[0][1]).name
    names = {
        left: False,
        left.replace(".study", ".other"): True,
        f".{path.name}.settings": True,
        f"{left}.bak": True,
        left.upper(): True,
    }
    old = time.time() - module.GIVEN_UP_AFTER_S - 60
    for name in names:
        path.with_name(name).touch()
        os.utime(path.with_name(name), (old, old))
    young = path.with_name(left[: -len(".unfinished") - 8] + "abcdefgh.unfinished")
    young.touch()
    linked = path.with_name(young.name.replace("abcdefgh", "linked__"))
    linked.symlink_to(path)
    os.utime(linked, (old, old), follow_symlinks=False)
    write_archive(path, ABOUT, ENTRIES)
    assert {name: path.with_name(name).exists() for name in names} == names
    assert young.exists()
    assert linked.is_symlink()


def test_a_missing_folder_is_named(tmp_path):
    folder = tmp_path / "no" / "such"
    with pytest.raises(FileNotFoundError) as caught:
        write_archive(folder / "x.zip", ABOUT, ENTRIES)
    assert caught.value.filename == str(folder)

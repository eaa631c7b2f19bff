"""`images=`: cells that become parts of a message, and those that are refused."""

from __future__ import annotations

import base64
import io
import json
import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbgpt_pandas import images as images_module
from lbgpt_pandas.engine.errors import ConfigurationError, InvalidInput, TemplateError
from lbgpt_pandas.engine.keys import request_key
from lbgpt_pandas.frames import to_requests
from lbgpt_pandas.image_addresses import check_address
from lbgpt_pandas.images import Images
from lbgpt_pandas.pictures import Picture, Reader

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
JPEG = b"\xff\xd8\xff\xe0" + bytes(40)
WEBP = b"RIFF\x10\0\0\0WEBPVP8 " + bytes(8)
URL = "https://example.com/cat.png"


def data_url(content, mime="image/png"):
    return f"data:{mime};base64,{base64.b64encode(content).decode()}"


def plan_of(data, images="photo", *, template="What is it?", **keywords):
    data = data if isinstance(data, pd.DataFrame) else pd.DataFrame({"photo": cells(data)})
    return to_requests(data, template=template, images=images, params={}, options={}, **keywords)


def cells(values):
    column = np.empty(len(values), dtype=object)
    for place, value in enumerate(values):
        column[place] = value
    return column


def parts(plan, number=0):
    return plan.requests[number].messages[-1]["content"]


def error_of(value, **keywords):
    plan = plan_of([value], **keywords)
    assert plan.codes.tolist() == [-1]
    assert not len(plan.skipped)
    assert isinstance(plan.errors[0], InvalidInput)
    return str(plan.errors[0])


def keys(plan):
    return [request_key(request, family="f") for request in plan.requests]


def test_an_address_follows_the_text_and_is_passed_on_as_it_is():
    plan = plan_of([URL])
    assert plan.requests[0].messages == [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is it?"},
                {"type": "image_url", "image_url": {"url": URL}},
            ],
        }
    ]
    assert plan.provenance.columns == ("photo",)


def test_detail_is_sent_and_part_of_the_key():
    plain, low = plan_of([PNG]), plan_of([PNG], Images("photo", detail="low"))
    assert parts(low)[1]["image_url"] == {"url": data_url(PNG), "detail": "low"}
    assert "detail" not in parts(plain)[1]["image_url"]
    assert keys(plain) != keys(low)


@pytest.mark.parametrize(
    ("content", "mime"),
    [(PNG, "image/png"), (JPEG, "image/jpeg"), (WEBP, "image/webp"), (b"GIF89a...", "image/gif")],
)
def test_the_type_is_found_by_content_whatever_it_is_said_to_be(content, mime, tmp_path):
    file = tmp_path / "wrong.bmp"
    file.write_bytes(content)
    for value in (content, bytearray(content), data_url(content, "image/tiff"), file):
        plan = plan_of([value], image_root=tmp_path)
        assert parts(plan)[1]["image_url"]["url"] == data_url(content, mime)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"BM1234", "BMP"), (b"II*\0....", "TIFF"), (b"%PDF-1.7", "PDF"), (b" <svg >", "SVG"),
        (b"\0\0\0\x18ftypheic", "HEIC"), (b"hello", "no known image"), (b"", "empty"),
        (b"RIFF....WAVE", "no known image"),
    ],
)  # fmt: skip
def test_other_content_is_an_error_of_its_row(content, said):
    plan = plan_of([PNG, content])
    assert plan.codes.tolist() == [0, -1]
    assert said in str(plan.errors[1])
    assert "row 1 (index 1), column 'photo'" in str(plan.errors[1])


def test_equal_images_share_a_request_however_they_are_given(tmp_path):
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(PNG)
    given = [PNG, tmp_path / "a.png", tmp_path / "b.png", data_url(PNG), data_url(PNG, "x/y"), JPEG]
    plan = plan_of(given, image_root=tmp_path)
    assert plan.codes.tolist() == [0, 0, 0, 0, 0, 1]


def test_the_key_is_of_the_bytes_so_that_a_moved_file_is_found(tmp_path):
    before, after = tmp_path / "before", tmp_path / "after"
    before.mkdir()
    (before / "a.png").write_bytes(PNG)
    first = keys(plan_of([Path("a.png")], Images("photo", root=before)))
    before.rename(after)
    (after / "a.png").rename(after / "b.png")
    assert keys(plan_of([after / "b.png"], Images("photo", root=after))) == first
    (after / "b.png").write_bytes(PNG + b"\0")
    assert keys(plan_of([after / "b.png"], Images("photo", root=after))) != first


def test_a_request_does_not_change_when_its_file_is_gone(tmp_path):
    (tmp_path / "a.png").write_bytes(PNG)
    plan = plan_of([tmp_path / "a.png"], image_root=tmp_path)
    (tmp_path / "a.png").unlink()
    assert parts(plan)[1]["image_url"]["url"] == data_url(PNG)


def test_a_missing_file_is_an_error_of_its_row(tmp_path):
    plan = plan_of([tmp_path / "gone.png", URL], image_root=tmp_path)
    assert plan.codes.tolist() == [-1, 0]
    assert re.search(r"row 0 \(index 0\), column 'photo': there is nothing at", str(plan.errors[0]))
    assert "there is no file at" in error_of(tmp_path, image_root=tmp_path)


def test_files_outside_the_folder_are_not_read(tmp_path, monkeypatch):
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    outside.mkdir()
    (outside / "secret.png").write_bytes(PNG)
    (inside / "link.png").symlink_to(outside / "secret.png")
    (inside / "ok.png").write_bytes(PNG)
    monkeypatch.chdir(inside)
    refused = [
        outside / "secret.png", Path("../out/secret.png"), Path("link.png"), Path("/etc/passwd"),
        outside / "there_is_none.png",
    ]  # fmt: skip
    for path in refused:
        assert "is not under" in error_of(path)
    assert len(plan_of([Path("ok.png"), inside / "ok.png"]).requests) == 1
    assert len(plan_of([Path("secret.png")], image_root=outside).requests) == 1
    # A folder of the call is more than the configured one.
    own = Images("photo", root=inside)
    assert len(plan_of([Path("ok.png")], own, image_root=outside).requests) == 1


def test_neither_pipes_nor_devices_nor_loops_are_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    for name in ("pipe.png", "loop.png", "nul\0.png", "x" * 5_000):
        assert error_of(tmp_path / name, image_root=tmp_path)


def test_a_text_never_opens_a_file(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(PNG)
    monkeypatch.chdir(tmp_path)
    assert "pathlib.Path" in error_of("a.png")
    assert "pathlib.Path" in error_of(str(tmp_path / "a.png"))


@pytest.mark.parametrize("scheme", ["file", "FILE", "ftp", "s3", "gs", "javascript"])
def test_other_schemes_are_refused(scheme):
    assert "is refused" in error_of(f"{scheme}:///etc/passwd")


PRIVATE = [
    "localhost", "LOCALHOST", "localhost.", "a.localhost", "127.0.0.1", "127.1", "127.0.0.1.",
    "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "010.8.8.8", "0", "0.0.0.0", "10.0.0.1",
    "192.168.1.1", "172.16.0.1", "169.254.169.254", "100.64.0.1", "224.0.0.1", "255.255.255.255",
    "256.1.1.1", "[::1]", "[::]", "[fe80::1]", "[fe80::1%25eth0]", "[fc00::1]", "[ff02::1]",
    "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]", "[2002:7f00:1::]",
    "[64:ff9b::7f00:1]", "[2001:0:7f00:1::]", "１２７.0.0.1", "127。0。0。1", "ⓛocalhost", "intranet", "router.local",
    "metadata.google.internal", "nas.lan", "x.home.arpa", "%31%32%37.0.0.1", "a..b",
]  # fmt: skip


@pytest.mark.parametrize("host", PRIVATE)
def test_addresses_of_private_networks_are_refused(host):
    for port in ("", ":8080"):
        with pytest.raises(InvalidInput, match=r"public internet|is none"):
            check_address(f"http://{host}{port}/x.png")


@pytest.mark.parametrize(
    "host",
    ["example.com", "8.8.8.8", "[2001:4860:4860::8888]", "münchen.de", "a_b.example.com",
     "10.example.com", "localhost.example.com", "xn--mnchen-3ya.de", "example.com."],
)  # fmt: skip
def test_addresses_of_the_public_internet_are_not(host):
    check_address(f"https://{host}:8443/a/b%20c.png?x=[1]#y")
    assert parts(plan_of([f"HTTPS://{host}/x"]))[1]["image_url"]["url"] == f"HTTPS://{host}/x"


@pytest.mark.parametrize(
    "address",
    ["http:///x.png", "http://", "http://example.com:99999/", "http://[::1", "http://exa mple.com/",
     "http://a.com\\@127.0.0.1/", "http://a.com/\n", "http://a.com/\ud800", "https://u:p@a.com/"],
)  # fmt: skip
def test_addresses_that_may_be_read_in_two_ways_are_refused(address):
    with pytest.raises(InvalidInput):
        check_address(address)


def test_an_error_does_not_repeat_what_may_be_a_key():
    assert "sig=secret" not in error_of("http://10.0.0.1/x.png?sig=secret")
    assert "hunter2" not in error_of("https://me:hunter2@example.com/x.png")


@given(st.text(max_size=60))
def test_no_text_gets_through_but_addresses_and_data(text):
    plan = plan_of([text])
    if plan.errors:
        assert str(plan.errors[0]).startswith("row 0")
    else:
        url = parts(plan)[1]["image_url"]["url"]
        assert url.casefold().startswith(("http://", "https://", "data:image/"))


@given(st.binary(max_size=200))
def test_bytes_come_out_as_they_went_in(tail):
    picture = Reader(Path("/nowhere"), 10_000).read(b"\xff\xd8\xff" + tail)
    assert base64.b64decode(picture.url.partition(",")[2]) == b"\xff\xd8\xff" + tail
    assert Reader(Path("/nowhere"), 10_000).read(picture.url) == picture


@pytest.mark.parametrize(
    "url", ["data:image/png;base64", "data:image/png;base64,@@", "data:image/png;base64,AAA=A"]
)
def test_broken_data_urls_are_errors_of_their_rows(url):
    assert "data URL is broken" in error_of(url)


def test_data_urls_may_be_url_safe_percent_coded_or_without_padding():
    content = JPEG + b"\xfb\xff\xfe"
    safe = "data:;base64," + base64.urlsafe_b64encode(content).decode().rstrip("=")
    coded = "data:image/jpeg," + "".join(f"%{byte:02x}" for byte in content)
    assert plan_of([content, safe, coded, f" {safe}"]).codes.tolist() == [0, 0, 0, -1]


def test_too_large_images_are_errors_of_their_rows(tmp_path):
    large = PNG + bytes(2_000)
    (tmp_path / "large.png").write_bytes(large)
    for value in (large, data_url(large), tmp_path / "large.png"):
        chosen = Images("photo", root=tmp_path, largest_mb=0.002)
        assert "more than the 0.002 MB" in error_of(value, images=chosen)
        assert "largest_mb=" in error_of(value, images=chosen)
        assert len(plan_of([value], Images("photo", root=tmp_path)).requests) == 1
    exact = Images("photo", largest_mb=len(large) / 1_000_000)
    assert len(plan_of([large], exact).requests) == 1


def test_a_call_does_not_read_more_than_it_can_hold(tmp_path, monkeypatch):
    monkeypatch.setattr(images_module, "MOST_HELD_MB", 2.5 * len(PNG) / 1_000_000)
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(PNG + bytes([number]))
    paths = [tmp_path / f"{number}.png" for number in (0, 1, 0, 1)]
    # Equal images count once, and bytes are the frame's own.
    assert len(plan_of([*paths, PNG, JPEG], image_root=tmp_path).requests) == 4
    with pytest.raises(ConfigurationError, match="held in memory"):
        plan_of([*paths, tmp_path / "2.png"], image_root=tmp_path)


def test_an_image_of_pillow_becomes_a_png():
    image_module = pytest.importorskip("PIL.Image")
    red = image_module.new("RGB", (2, 2), (255, 0, 0))
    cmyk = image_module.new("CMYK", (2, 2), (0, 255, 255, 0))
    plan = plan_of([red, red.copy(), cmyk])
    assert plan.codes[0] == plan.codes[1]
    for number in range(len(plan.requests)):
        kind, _, text = parts(plan, number)[1]["image_url"]["url"].partition(",")
        assert kind == "data:image/png;base64"
        opened = image_module.open(io.BytesIO(base64.b64decode(text)))
        assert opened.convert("RGB").getpixel((0, 0)) == (255, 0, 0)


def test_a_damaged_image_of_pillow_is_an_error_of_its_row():
    image_module = pytest.importorskip("PIL.Image")
    file = io.BytesIO()
    image_module.new("RGB", (64, 64)).save(file, "PNG")
    cut_off = image_module.open(io.BytesIO(file.getvalue()[:60]))
    assert "cannot be written as PNG" in error_of(cut_off)


@pytest.mark.parametrize("value", [3, {"bytes": PNG}, object(), True, np.zeros((2, 2))])
def test_what_is_no_image_is_an_error_of_its_row(value):
    assert "is no image" in error_of(value)


def test_several_columns_and_lists_keep_their_order():
    frame = pd.DataFrame({"a": [URL], "b": cells([[PNG, JPEG]]), "c": cells([[]])})
    plan = plan_of(frame, ["a", "b", "c"], template="{index}: compare")
    assert [part.get("image_url", {}).get("url") for part in parts(plan)] == [
        None, URL, data_url(PNG), data_url(JPEG, "image/jpeg"),
    ]  # fmt: skip
    assert plan_of(frame, ["c"]).requests[0].messages[0]["content"] == "What is it?"
    assert parts(plan_of(pd.DataFrame({"photo": cells([cells([PNG])])})))[1]["type"] == "image_url"


def test_what_is_na_follows_the_rule_for_na():
    frame = pd.DataFrame({"photo": cells([URL, None, float("nan"), pd.NA])}, index=list("abcd"))
    plan = plan_of(frame)
    assert (plan.codes.tolist(), plan.skipped.tolist()) == ([0, -1, -1, -1], [1, 2, 3])
    for na in ("empty", "no picture"):
        plan = plan_of(frame, na=na)
        assert plan.codes.tolist() == [0, 1, 1, 1]
        assert parts(plan, 1) == "What is it?"
    with pytest.raises(TemplateError, match=r"row 1 \(index 'b'\), column 'photo'"):
        plan_of(frame, na="raise")


def test_files_of_rows_without_a_prompt_are_not_read(tmp_path):
    frame = pd.DataFrame({"t": [None, "x"], "photo": cells([tmp_path / "gone.png", PNG])})
    plan = plan_of(frame, template="{t}", image_root=tmp_path)
    assert (plan.skipped.tolist(), plan.errors) == ([0], {})


def test_the_image_goes_to_the_last_message_of_the_user():
    frame = pd.DataFrame({"photo": [URL]})
    chat = [
        {"role": "user", "content": "one"},
        {"role": "user", "content": [{"type": "text", "text": "two"}]},
        {"role": "assistant", "content": "It is"},
    ]
    image = {"type": "image_url", "image_url": {"url": URL}}
    request = plan_of(frame, template=chat, system="Be brief").requests[0]
    assert [each["content"] for each in request.messages] == [
        "Be brief", "one", [{"type": "text", "text": "two"}, image], "It is",
    ]  # fmt: skip
    alone = plan_of(frame, template=[{"role": "system", "content": "Describe"}]).requests[0]
    assert alone.messages[-1] == {"role": "user", "content": [image]}
    assert parts(plan_of(frame, template="")) == [image]


def test_a_column_of_messages_is_not_changed():
    chat = [{"role": "user", "content": "hello"}]
    frame = pd.DataFrame({"m": cells([chat]), "photo": [URL]})
    plan = to_requests(frame, messages="m", images="photo", params={}, options={})
    assert len(parts(plan)) == 2
    assert len(parts(plan)) == 2
    assert chat == [{"role": "user", "content": "hello"}]


def test_a_series_of_images():
    plan = to_requests(
        pd.Series(cells([PNG, None])), template="What?", images="value", params={}, options={}
    )
    assert (plan.codes.tolist(), len(parts(plan))) == ([0, -1], 2)


def test_the_column_may_have_any_name():
    frame = pd.DataFrame({("a", 1): cells([PNG])})
    assert len(parts(plan_of(frame, ("a", 1)))) == 2
    assert len(parts(plan_of(pd.DataFrame({7: cells([PNG])}), 7))) == 2


def test_arrow_columns_of_bytes_are_read():
    pyarrow = pytest.importorskip("pyarrow")
    column = pd.Series([PNG, None, PNG], dtype=pd.ArrowDtype(pyarrow.binary()))
    assert plan_of(pd.DataFrame({"photo": column})).codes.tolist() == [0, -1, 0]


@pytest.mark.parametrize(
    ("images", "said"),
    [
        ("foto", "there is no column 'foto'; did you mean 'photo'"),
        (["photo", "x"], "no column 'x'"),
    ],
)
def test_a_column_that_is_not_there_is_told_before_anything(images, said):
    with pytest.raises(TemplateError, match=re.escape(said)):
        plan_of([URL], images)


def test_arguments_that_cannot_work_are_told_before_anything(tmp_path):
    for make in (
        lambda: plan_of([URL], {"photo": "low"}),
        lambda: plan_of([URL], []),
        Images,
        lambda: Images("photo", detail="sharp"),
        lambda: Images("photo", largest_mb=0),
        lambda: Images("photo", largest_mb="10"),
        lambda: plan_of([URL], Images("photo", root=tmp_path / "none")),
        lambda: plan_of([URL], image_root=tmp_path / "none"),
    ):
        with pytest.raises(ConfigurationError):
            make()


def test_the_manifest_tells_of_images_without_their_bytes():
    plan = plan_of([PNG], Images("photo", detail="high"))
    assert json.loads(plan.provenance.template) == {
        "template": "What is it?",
        "images": ["high", "photo"],
    }
    assert plan_of([PNG]).provenance.sha256 != plan.provenance.sha256


def test_near_answers_are_not_for_images():
    from lbgpt_pandas.engine.keys import KeyMaker
    from lbgpt_pandas.engine.semantic.questions import question_of

    request = plan_of([PNG]).requests[0]
    maker = KeyMaker.for_request(request, family="f")
    assert question_of(request, maker.key(request.messages), maker) is None


def test_a_picture_shows_no_bytes():
    assert len(repr(Picture.of(PNG + bytes(10_000)))) < 200

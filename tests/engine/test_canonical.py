from __future__ import annotations

import base64
import hashlib
import json
import math
from collections import OrderedDict
from enum import StrEnum
from types import MappingProxyType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from lbgpt_pandas.engine.canonical import canonical_json
from lbgpt_pandas.engine.errors import InvalidInput

# Field names that mean nothing special, so that plain JSON is the reference.
NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=6).filter(
    lambda name: name not in {"schema", "parameters", "properties", "url", "data", "content"}
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)


def with_whole_numbers(value: object) -> object:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [with_whole_numbers(item) for item in value]
    if isinstance(value, dict):
        return {name: with_whole_numbers(item) for name, item in value.items()}
    return value


def shuffled(value: object, *, backwards: bool) -> object:
    """Give the same JSON, written differently: key order, tuples, 1.0 for 1."""
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if isinstance(value, int):
        return float(value) if abs(value) < 2**53 else value
    if isinstance(value, list):
        return tuple(shuffled(item, backwards=backwards) for item in value)
    if isinstance(value, dict):
        names = sorted(value, reverse=backwards)
        return OrderedDict((name, shuffled(value[name], backwards=backwards)) for name in names)
    return value


@given(JSON)
def test_is_what_the_standard_library_writes_for_whole_numbers_and_sorted_keys(value):
    expected = json.dumps(
        with_whole_numbers(value), sort_keys=True, ensure_ascii=False, separators=(",", ":")
    )
    assert canonical_json(value) == expected


@given(JSON, st.booleans())
def test_equal_values_give_the_same_text(value, backwards):
    assert canonical_json(shuffled(value, backwards=backwards)) == canonical_json(value)


@given(JSON, JSON)
def test_the_text_says_what_the_value_was(first, second):
    if canonical_json(first) == canonical_json(second):
        assert json.loads(canonical_json(first)) == with_whole_numbers(second)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (1, 1.0),
        (0, -0.0),
        (10**22, 1e22),
        ([1, 2], (1, 2)),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ({"a": 1}, MappingProxyType({"a": 1})),
        ({50256: -100}, {"50256": -100}),
        (0.1, np.float64(0.1)),
        ("red", StrEnum("Colour", {"RED": "red"}).RED),
        ("text", np.str_("text")),
    ],
)
def test_equal(first, second):
    assert canonical_json(first) == canonical_json(second)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (True, 1),
        (False, 0),
        (None, "null"),
        (1, "1"),
        (2**53 + 1, float(2**53)),
        (" a", "a"),
        ("a\n", "a"),
        ("é", "e\u0301"),
        ("A", "a"),
        ([], {}),
        ([1, 2], [2, 1]),
        ({"a": None}, {}),
        ([["a", 1]], {"a": 1}),
    ],
)
def test_different(first, second):
    assert canonical_json(first) != canonical_json(second)


@pytest.mark.parametrize(
    "field",
    ["schema", "parameters", "input_schema", "response_schema", "guided_json", "responseSchema"],
)
def test_the_order_inside_a_schema_is_kept(field):
    one = {field: {"type": "object", "properties": {"reason": {}, "label": {}}}}
    other = {field: {"type": "object", "properties": {"label": {}, "reason": {}}}}
    assert canonical_json(one) != canonical_json(other)


def test_the_order_inside_a_schema_is_kept_without_properties_of_its_own():
    definitions = {"a": {"type": "string"}, "b": {"type": "string"}}
    one = {"schema": {"$defs": definitions, "$ref": "#/$defs/a"}}
    other = {"schema": {"$defs": dict(reversed(definitions.items())), "$ref": "#/$defs/a"}}
    assert canonical_json(one) != canonical_json(other)


def test_a_schema_in_an_unknown_field_is_known_by_its_properties():
    one = {"structured_outputs": {"json": {"properties": {"reason": {}, "label": {}}}}}
    other = {"structured_outputs": {"json": {"properties": {"label": {}, "reason": {}}}}}
    assert canonical_json(one) != canonical_json(other)


def test_what_surrounds_a_schema_is_sorted():
    schema = {"properties": {"reason": {}, "label": {}}}
    one = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": schema}}
    other = {"json_schema": {"schema": schema, "strict": True, "name": "x"}, "type": "json_schema"}
    assert canonical_json(one) == canonical_json(other)


def test_a_schema_is_never_confused_with_a_list_of_pairs():
    assert canonical_json({"schema": {"const": {"a": 1}}}) != canonical_json(
        {"schema": {"const": [["a", 1]]}}
    )


def test_numbers_inside_a_schema_are_equal_too():
    assert canonical_json({"maximum": 5.0}, ordered=True) == canonical_json(
        {"maximum": 5}, ordered=True
    )


def test_a_pydantic_class_is_its_schema():
    class Review(BaseModel):
        reason: str
        label: str

    schema = Review.model_json_schema()
    assert canonical_json({"response_format": Review}) == canonical_json(
        {"response_format": schema}
    )


def test_pydantic_classes_of_one_name_and_other_fields_differ():
    def review(kind: type) -> type[BaseModel]:
        class Review(BaseModel):
            label: kind  # type: ignore[valid-type]

        return Review

    assert canonical_json(review(str)) == canonical_json(review(str))
    assert canonical_json(review(str)) != canonical_json(review(int))


def test_the_order_of_pydantic_fields_is_kept():
    class First(BaseModel):
        reason: str
        label: str

    class Second(BaseModel):
        label: str
        reason: str

    Second.__name__ = "First"
    Second.model_config["title"] = "First"
    Second.model_rebuild(force=True)
    assert First.model_json_schema() == Second.model_json_schema() | {
        "required": ["reason", "label"]
    }
    assert canonical_json(First) != canonical_json(Second)


def test_a_pydantic_object_is_its_data():
    class Message(BaseModel):
        role: str
        content: str
        refusal: str | None = None

    assert canonical_json(Message(role="user", content="Hi")) == canonical_json(
        {"role": "user", "content": "Hi"}
    )


class Unwritable(BaseModel):
    function: object


Unwritable.model_json_schema = classmethod(lambda _: 1 / 0)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (math.nan, ["value is nan", "finite number"]),
        (math.inf, ["value is inf"]),
        ({"a": [1, -math.inf]}, ["value.a[1] is -inf"]),
        (b"text", ["bytes", "decode them"]),
        (bytearray(b"text"), ["bytearray", "decode them"]),
        ({1, 2}, ["type set"]),
        ({"a b": object()}, ["value['a b'] is of type object"]),
        (int, ["type int"]),
        ({True: 1}, ["key of type bool"]),
        ({None: 1}, ["key of type NoneType"]),
        ({1: "a", "1": "b"}, ["'1'", "as text and as number"]),
        ("\ud800", ["lone surrogate", "encode"]),
        ([{"text": "a\udfff"}], ["value[0].text contains a lone surrogate"]),
        ({"\ud800": 1}, ["lone surrogate"]),
        ([10**5000], ["value[0]", "thousands of digits"]),
        (np.int64(1), ["int64", "convert it"]),
        (np.float32(1), ["float32"]),
        (np.bool_(True), ["bool"]),
        (Unwritable, ["Unwritable", "no JSON schema"]),
    ],
)
def test_what_is_not_json_is_refused_with_its_place(value, words):
    with pytest.raises(InvalidInput) as caught:
        canonical_json(value)
    for word in words:
        assert word in str(caught.value)
    assert str(caught.value).isprintable()


def test_a_value_that_contains_itself_is_refused():
    loop: list[object] = []
    loop.append(loop)
    with pytest.raises(InvalidInput, match="nested too deeply, or contains itself"):
        canonical_json(loop)


PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
BASE64 = base64.b64encode(PNG).decode()


def image(url: object, **more: object) -> str:
    return canonical_json({"content": [{"type": "image_url", "image_url": {"url": url, **more}}]})


def test_an_image_is_the_digest_of_its_bytes():
    assert hashlib.sha256(PNG).hexdigest() in image(f"data:image/png;base64,{BASE64}")
    assert BASE64[:20] not in image(f"data:image/png;base64,{BASE64}")


@pytest.mark.parametrize(
    "url",
    [
        f"DATA:image/PNG;base64,{BASE64}",
        f"data:image/png;base64,{BASE64.rstrip('=')}",
        f"data:image/png;base64,{BASE64[:40]}\n{BASE64[40:]}",
        f"data:image/png;base64,{BASE64.replace('+', '%2B').replace('/', '%2F')}",
        f"data:image/png;base64,{base64.urlsafe_b64encode(PNG).decode()}",
    ],
)
def test_the_same_bytes_in_another_spelling_are_the_same_image(url):
    assert image(url) == image(f"data:image/png;base64,{BASE64}")


@pytest.mark.parametrize(
    "other",
    [
        image(f"data:image/jpeg;base64,{BASE64}"),
        image(f"data:image/png;base64,{BASE64}", detail="low"),
        image(f"data:image/png;base64,{base64.b64encode(PNG + b'!').decode()}"),
        image("https://example.org/a.png"),
    ],
)
def test_another_type_detail_or_content_is_another_image(other):
    assert other != image(f"data:image/png;base64,{BASE64}")


def test_a_remote_image_stays_its_address():
    assert '"url":"https://example.org/a.png?v=1"' in image("https://example.org/a.png?v=1")


@pytest.mark.parametrize("url", ["data:", "data:image/png", "data:image/png;base64,%%%"])
def test_a_broken_data_url_stays_its_text(url):
    assert json.dumps(url) in image(url)


def test_a_percent_encoded_image_is_the_digest_of_its_bytes():
    digest = hashlib.sha256(b"<svg/>").hexdigest()
    assert digest in image("data:image/svg+xml,%3Csvg/%3E")
    assert image("data:image/svg+xml,<svg/>") == image("data:image/svg+xml,%3Csvg/%3E")


@pytest.mark.parametrize(
    "part",
    [
        {"type": "input_audio", "input_audio": {"data": BASE64, "format": "wav"}},
        {"type": "file", "file": {"file_data": f"data:application/pdf;base64,{BASE64}"}},
        {"type": "input_image", "image_url": f"data:image/png;base64,{BASE64}"},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": BASE64}},
        {"type": "tool_result", "content": [{"type": "image", "source": {"data": BASE64}}]},
    ],
)
def test_sounds_files_and_nested_images_are_digests(part):
    assert hashlib.sha256(PNG).hexdigest() in canonical_json({"content": [part]})


@pytest.mark.parametrize(
    "message",
    [
        {"content": f"data:image/png;base64,{BASE64}"},
        {"content": [{"type": "text", "text": f"data:image/png;base64,{BASE64}"}]},
        {"url": f"data:image/png;base64,{BASE64}"},
    ],
)
def test_a_data_url_that_is_text_stays_text(message):
    assert BASE64 in canonical_json(message)


def test_a_lone_surrogate_in_a_data_url_is_refused():
    with pytest.raises(InvalidInput, match=r"image_url\.url contains a lone surrogate"):
        image("data:image/png;base64,\ud800")
    with pytest.raises(InvalidInput, match=r"image_url\.url contains a lone surrogate"):
        image("data:image/png,\ud800")

"""The syntax of text templates."""

from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbgpt_pandas.engine.errors import TemplateError
from lbgpt_pandas.fields import parse_fields
from lbgpt_pandas.frames import to_requests
from lbgpt_pandas.rows import FieldNames

FRAME = pd.DataFrame({"city": ["Rome"], "price": [2.5], "n": [7], "review text": ["good"]})


def render(template, data=FRAME):
    plan = to_requests(data, template=template, params={}, options={})
    return [None if c < 0 else plan.requests[c].messages[0]["content"] for c in plan.codes]


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{city}", "Rome"),
        ("{city} {city}", "Rome Rome"),
        ("in {review text}!", "in good!"),
        ("{{city}}", "{city}"),
        ("{{{city}}}", "{Rome}"),
        ("}}{{", "}{"),
        ('{{"a": {n}}}', '{"a": 7}'),
        ("no column", "no column"),
        ("", ""),
        ("{price:.2f}|{price:8.1f}|{price:<6}|{n:d}|{n:03}", "2.50|     2.5|2.5   |7|007"),
        ("{city:>6}|{city:^6}|{city:.2}|{city:s}|{n:s}", "  Rome| Rome |Ro|Rome|7"),
        ("{price:e}|{price:g}|{price:.0%}|{n:.1f}", "2.500000e+00|2.5|250%|7.0"),
        ("{index}: {city:}", "0: Rome"),
    ],
)
def test_what_a_template_becomes(template, text):
    assert render(template) == [text]


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{citty}", "no column 'citty'; did you mean 'city'"),
        ("{CITY}", "did you mean 'city'"),
        ("{review_text}", "did you mean 'review text'"),
        ("{zzz}", "there are 'city', 'price', 'n', 'review text', 'index'"),
        ("{}", "value of a Series"),
        ("{0}", "names, not numbers"),
        ("{city.__class__}", "attributes and indices"),
        ("{city[0]}", "attributes and indices"),
        ("{city[0].x:>5}", "attributes and indices"),
        ("{city!r}", "conversions"),
        ("{city!s:>5}", "conversions"),
        ("{nope!r}", "conversions"),
        ("{price:10000.2f}x{price:10001f}", "wider than 10,000"),
        ("{price:.10001f}", "wider than 10,000"),
        ("{price:" + "9" * 5000 + "}", "wider than 10,000"),
        ("{price:,}", "format ',' is not supported"),
        ("{price:x}", "not supported"),
        ("{price:=+5d}", "not supported"),
        ("{price:*>5}", "not supported"),
        ("{price: }", "not supported"),
        ('{"a": 1}', "written {{ and }}"),
        ("{ city }", "did you mean 'city'"),
    ],
)
def test_what_a_field_may_not_be(template, message):
    with pytest.raises(TemplateError) as caught:
        render(template)
    assert message in str(caught.value)
    assert isinstance(caught.value, KeyError)


@pytest.mark.parametrize(
    ("template", "position"),
    [
        ("a {city", 2),
        ("a } b", 2),
        ("{city}}", 6),
        ("{{city}", 6),
        ("{price:{n}}", 0),
        ("{", 0),
        ("line\nb {", 7),
    ],
)
def test_a_lone_brace_is_named_with_its_position(template, position):
    with pytest.raises(TemplateError, match=rf"position {position} \(line.*no partner"):
        render(template)


def test_positions_count_lines_and_columns():
    with pytest.raises(TemplateError, match=r"position 8 \(line 2, column 5, near"):
        render("one\ntwo {citty}")


def test_an_exact_column_name_wins_over_syntax():
    odd = pd.DataFrame(
        {"a.b": [1], "t: start": [2], "x!r": [3], "y[0]": [4], 5: [6], ("p", "q"): [7]}
    )
    assert render("{a.b} {t: start} {x!r} {y[0]} {5} {('p', 'q')}", odd) == ["1 2 3 4 6 7"]
    assert render("{t: start:>3}", odd) == ["  2"]


def test_a_label_that_is_no_str_matches_by_its_str_unless_a_str_does():
    frame = pd.DataFrame([["number", "text"]], columns=[1, "1"])
    assert render("{1}", frame) == ["text"]
    dated = pd.DataFrame([["x"]], columns=[pd.Timestamp("2024-05-01")])
    assert render("{2024-05-01 00:00:00}", dated) == ["x"]


def test_columns_of_one_name_are_refused_where_they_are_used():
    frame = pd.DataFrame([["a", "b", "c"]], columns=["t", "t", "u"])
    assert render("{u}", frame) == ["c"]
    with pytest.raises(TemplateError, match="'t' names more than one column"):
        render("{t}", frame)


def test_cells_are_never_parsed():
    cells = ["{city}", "{0}", "{x.__class__}", "{{", "}", "%s", "{{ 7 * 7 }}"]
    frame = pd.DataFrame({"t": cells, "city": "secret"})
    assert render("<{t}>", frame) == [f"<{cell}>" for cell in cells]


def test_a_spec_that_does_not_fit_names_the_row_and_not_the_cell():
    frame = pd.DataFrame({"p": [1, "hush", 2]}, index=["a", "b", "c"])
    with pytest.raises(TemplateError, match=r"row 1 \(index 'b'\).*\{p:\.2f\}.*is a str") as caught:
        render("{p:.2f}", frame)
    assert "hush" not in str(caught.value)


def test_whole_floats_pass_for_ints():
    frame = pd.DataFrame({"n": [3.0, None, 10.0]})
    assert render("{n:d}", frame) == ["3", None, "10"]
    with pytest.raises(TemplateError, match="is a float"):
        render("{n:d}", pd.DataFrame({"n": [3.5]}))


@given(st.text(alphabet="ab{}:.[]! 0", max_size=12))
def test_any_source_is_a_template_or_a_template_error(source):
    fields = FieldNames(["a", "b", "a b"])
    try:
        literals, used = parse_fields(source, fields=fields, what="template")
    except TemplateError:
        return
    assert len(literals) == len(used) + 1
    assert all(name in fields for name, _ in used)


@given(st.lists(st.sampled_from(["{{", "}}", "{a}", "x", "é"])), st.text("{}a%\\"))
def test_rendering_agrees_with_str_format(pieces, cell):
    template = "".join(pieces)
    assert render(template, pd.DataFrame({"a": [cell]}))[0] == template.format(a=cell)

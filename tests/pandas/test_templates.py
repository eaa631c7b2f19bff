"""Templates of every kind, through the requests that they become."""

from __future__ import annotations

import copy

import jinja2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbgpt_pandas.engine.errors import InvalidInput, TemplateError
from lbgpt_pandas.frames import col, to_requests
from lbgpt_pandas.rows import Row, Table
from lbgpt_pandas.templates import compile_template

FRAME = pd.DataFrame(
    {
        "city": ["Rome", None, "Oslo"],
        "n": [1, 2, 3],
        "x": [0.5, 1.5, np.nan],
        "my col": list("abc"),
    },
    index=["a", "b", "c"],
)


def plan_of(template=None, data=FRAME, **keywords):
    return to_requests(data, template=template, params={}, options={}, **keywords)


def chats(template=None, data=FRAME, **keywords):
    plan = plan_of(template, data, **keywords)
    return [None if code < 0 else plan.requests[code].messages for code in plan.codes]


def texts(template=None, data=FRAME, **keywords):
    return [chat and chat[-1]["content"] for chat in chats(template, data, **keywords)]


def test_the_hint_for_a_name_with_braces_can_be_followed():
    frame = pd.DataFrame({"a}": ["x"]})
    with pytest.raises(TemplateError, match=r"did you mean 'a}'\? .* callable"):
        plan_of("{a}", frame)
    assert texts(lambda row: row["a}"], frame) == ["x"]


@pytest.mark.parametrize(
    ("template", "used"),
    [
        ("{n} {city} {n:d}", ("n", "city")),
        ("constant", ()),
        (lambda row: row.n, None),
        (jinja2.Template("{{ n }}"), None),
        ([{"role": "system", "content": "{n}"}, {"role": "user", "content": "{city} {n}"}],
         ("n", "city")),
        ([{"role": "user", "content": "{n}"}, {"role": "user", "content": str}], None),
    ],
)  # fmt: skip
def test_a_template_knows_what_it_uses(template, used):
    assert compile_template(template, fields=Table(FRAME).fields).used() == used


def test_a_constant_template_is_one_request_for_all_rows():
    plan = plan_of("Say hello")
    assert plan.codes.tolist() == [0, 0, 0]
    assert len(plan.requests) == 1


@pytest.mark.parametrize("template", [3, b"raw", {"role": "user"}, object(), [], [3], [{}],
                                      [{"role": 1}], [{"role": "user", "content": 3}],
                                      [{"role": "user", "content": ["text"]}]])  # fmt: skip
def test_what_is_no_template(template):
    with pytest.raises(TemplateError):
        plan_of(template)


# Callables


def test_a_callable_reads_python_values():
    seen = []

    def template(row):
        seen.append((row["n"], row.n, row.index, row["my col"], row.get("nope", 7), "n" in row))
        return f"{row.n}"

    assert texts(template) == ["1", "2", "3"]
    assert seen[0] == (1, 1, "a", "a", 7, True)
    assert type(seen[0][0]) is int


def test_a_row_is_a_read_only_mapping_of_the_columns():
    rows = []
    plan_of(rows.append)
    row = rows[0]
    assert isinstance(row, Row)
    assert dict(row) == {"city": "Rome", "n": 1, "x": 0.5, "my col": "a"}
    assert len(row) == 4
    for change in (lambda: setattr(row, "n", 2), lambda: setattr(row, "new", 2)):
        with pytest.raises(AttributeError):
            change()
    with pytest.raises(TypeError):
        row["n"] = 2
    with pytest.raises(AttributeError, match="did you mean 'city'"):
        _ = row.citty
    assert "Rome" not in repr(row)


def test_a_row_that_is_copied_does_not_recurse():
    rows = []
    plan_of(rows.append)
    assert copy.copy(rows[0])["n"] == 1


def test_labels_that_are_no_str_are_keys():
    frame = pd.DataFrame([[1, 2]], columns=[0, ("a", "b")])
    assert texts(lambda row: f"{row[0]} {row['0']} {row[('a', 'b')]}", frame) == ["1 1 2"]


def test_only_cells_that_are_read_count_as_missing():
    def template(row):
        return row.city if row.n == 1 else str(row.n)

    assert texts(template) == ["Rome", "2", "3"]
    assert texts(lambda row: row.city) == ["Rome", None, "Oslo"]
    assert texts(lambda row: row.city, na="?") == ["Rome", "?", "Oslo"]
    assert texts(lambda row: str(row.x), na="empty") == ["0.5", "1.5", ""]
    with pytest.raises(TemplateError, match=r"row 1 \(index 'b'\), column 'city'"):
        plan_of(lambda row: row.city, na="raise")


def test_a_callable_that_catches_everything_does_not_send_a_missing_cell():
    def catches(row):
        try:
            return row.city
        except Exception:
            return "caught"

    def stumbles(row):
        try:
            city = row.city
        except Exception:
            city = None
        return city.upper()

    assert texts(catches) == ["Rome", None, "Oslo"]
    assert texts(stumbles) == ["ROME", None, "OSLO"]


def test_none_and_na_results_leave_a_row_out():
    plan = plan_of(lambda row: {1: None, 2: np.nan, 3: "text"}[row.n])
    assert plan.codes.tolist() == [-1, -1, 0]
    assert plan.skipped.tolist() == [0, 1]
    assert plan.errors == {}


def test_the_callables_error_names_the_row_and_keeps_the_original():
    def template(row):
        if row.n == 2:
            raise ValueError("hush: " + "secret")
        return "fine"

    with pytest.raises(TemplateError, match=r"row 1 \(index 'b'\).*ValueError") as caught:
        plan_of(template)
    assert isinstance(caught.value.__cause__, ValueError)
    assert "secret" not in str(caught.value)


def test_a_missing_column_in_a_callable_names_row_and_nearest():
    with pytest.raises(TemplateError, match=r"row 0 \(index 'a'\).*did you mean 'city'"):
        plan_of(lambda row: row["citty"])


@pytest.mark.parametrize(
    "result", [1, {"role": "user"}, object(), [], ["text"], [{"content": "x"}]]
)
def test_other_results_are_refused(result):
    with pytest.raises(TemplateError, match=r"row 0 \(index 'a'\)"):
        plan_of(lambda _: result)


def test_bytes_from_a_callable_are_a_row_error():
    plan = plan_of(lambda row: b"raw" if row.n == 1 else "text")
    assert list(plan.errors) == [0]
    assert isinstance(plan.errors[0], InvalidInput)
    assert plan.codes.tolist() == [-1, 0, 0]


def test_coroutine_functions_are_refused():
    async def template(row):
        return "x"

    with pytest.raises(TemplateError, match="coroutine"):
        plan_of(template)


def test_messages_from_a_callable_are_copied():
    shared = [{"role": "user", "content": ""}]

    def template(row):
        shared[0]["content"] = f"{row.n}"
        return shared

    assert texts(template) == ["1", "2", "3"]


def test_callables_are_not_asked_about_rows_that_are_out_already():
    asked = []
    plan_of(lambda row: str(asked.append(row.n)), system=col("city"))
    assert asked == [1, 3]


# Jinja


def test_jinja_sees_columns_index_and_row():
    template = jinja2.Template(
        "{{ index }}{{ row['my col'] }}{% if n > 1 %}+{{ n + 1 }}{% endif %}"
    )
    assert texts(template) == ["aa", "bb+3", "cc+4"]


def test_jinja_counts_a_cell_as_used_when_the_branch_is_taken():
    assert texts(jinja2.Template("{% if n == 1 %}{{ city }}{% else %}{{ n }}{% endif %}")) == [
        "Rome", "2", "3",
    ]  # fmt: skip
    assert texts(jinja2.Template("{{ city|upper }}")) == ["ROME", None, "OSLO"]
    assert texts(jinja2.Template("{{ city|default('?') }}")) == ["Rome", "?", "Oslo"]
    assert texts(jinja2.Template("{{ city }}"), na="-") == ["Rome", "-", "Oslo"]
    assert texts(jinja2.Template("{{ [city]|tojson }}")) == ['["Rome"]', None, '["Oslo"]']
    assert texts(jinja2.Template("{{ [city] }}")) == ["['Rome']", None, "['Oslo']"]
    with pytest.raises(TemplateError, match="column 'city'"):
        plan_of(jinja2.Template("{{ city ~ '' }}"), na="raise")


# Chat templates


def test_a_chat_template_renders_every_content():
    template = [
        {"role": "system", "content": "You know {{everything}} about {my col}"},
        {"role": "user", "content": "Where is {city}?", "name": "u{n}"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
        {"role": "tool", "content": jinja2.Template("n={{ n }}"), "tool_call_id": "1"},
        {"role": "user", "content": lambda row: f"x={row.n}"},
    ]
    before = copy.copy(template[1])
    assert chats(template)[0] == [
        {"role": "system", "content": "You know {everything} about a"},
        {"role": "user", "content": "Where is Rome?", "name": "u{n}"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
        {"role": "tool", "content": "n=1", "tool_call_id": "1"},
        {"role": "user", "content": "x=1"},
    ]
    assert chats(template)[1] is None
    assert template[1] == before


def test_parts_have_templated_texts():
    image = {"type": "image_url", "image_url": {"url": "https://example.org/{n}.png"}}
    template = [{"role": "user", "content": [{"type": "text", "text": "What is {n}?"}, image]}]
    assert chats(template)[1] == [
        {"role": "user", "content": [{"type": "text", "text": "What is 2?"}, image]}
    ]
    content = lambda row: [{"type": "text", "text": row.n}, image]  # noqa: E731
    assert chats([{"role": "user", "content": content}])[2][0]["content"][0] == {
        "type": "text", "text": 3,
    }  # fmt: skip


def test_a_chat_template_is_copied_when_it_is_compiled():
    tool = {"role": "tool", "content": "x", "meta": {"k": 1}}
    plan = plan_of([tool])
    tool["meta"]["k"] = 2
    assert plan.requests[0].messages[0]["meta"] == {"k": 1}


def test_a_chat_template_without_fields_is_one_request():
    assert len(plan_of([{"role": "user", "content": "hello"}]).requests) == 1
    assert len(plan_of([{"role": "assistant", "content": None, "tool_calls": []}]).requests) == 1


def test_a_bad_field_in_a_chat_template_names_the_message():
    with pytest.raises(TemplateError, match=r"content of message 1.*did you mean 'city'"):
        plan_of([{"role": "system", "content": "x"}, {"role": "user", "content": "{citty}"}])


# messages= and system=

CHAT = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": None}]


def test_messages_from_a_column():
    data = pd.DataFrame({"chat": [CHAT, None, np.array(CHAT), tuple(CHAT[:1])]})
    assert chats(data=data, messages="chat") == [CHAT, None, CHAT, CHAT[:1]]
    assert chats(data=data, messages=col("chat"), na="none")[1] == [
        {"role": "user", "content": "none"}
    ]
    assert chats(data=data["chat"], messages="value")[0] == CHAT
    assert len(plan_of(data=data, messages="chat").requests) == 2


def test_messages_from_a_callable():
    assert chats(messages=lambda row: [{"role": "user", "content": f"{row.n}"}])[1] == [
        {"role": "user", "content": "2"}
    ]
    with pytest.raises(TemplateError, match="gave no chat messages: a str"):
        plan_of(messages=lambda row: "text")


def test_cells_that_are_no_messages_are_row_errors():
    data = pd.Series([CHAT, "text", [], [{"content": "x"}], [{"role": "user", "content": b"x"}],
                      [{"role": "user", "content": "\ud800"}], 3])  # fmt: skip
    plan = plan_of(data=data, messages="value")
    assert sorted(plan.errors) == [1, 2, 3, 4, 5, 6]
    assert all(isinstance(error, InvalidInput) for error in plan.errors.values())
    assert "row 2" in str(plan.errors[2])


def test_messages_needs_a_column_or_a_callable():
    with pytest.raises(TemplateError, match="did you mean 'city'"):
        plan_of(messages="citty")
    with pytest.raises(TemplateError, match="goes into template="):
        plan_of(messages=CHAT)


def test_a_system_message_is_put_first():
    assert chats("{n}", system="Speak {my col}")[0] == [
        {"role": "system", "content": "Speak a"},
        {"role": "user", "content": "1"},
    ]
    assert chats("{n}", system=col("my col"))[1][0] == {"role": "system", "content": "b"}
    assert chats("{n}", system=lambda row: f"-{row.n}-")[2][0]["content"] == "-3-"
    assert chats("{n}", system=jinja2.Template("={{ n }}="))[2][0]["content"] == "=3="
    assert chats(data=pd.Series([CHAT]), messages="value", system="S")[0] == [
        {"role": "system", "content": "S"}, *CHAT,
    ]  # fmt: skip
    assert [chat is None for chat in chats("{n}", system="{city}")] == [False, True, False]


@pytest.mark.parametrize("system", [CHAT, 3, "{citty}", lambda row: CHAT, col("nope")])
def test_what_is_no_system_message(system):
    with pytest.raises(TemplateError):
        plan_of("{n}", system=system)


def test_equal_system_and_prompt_share_a_request():
    frame = pd.DataFrame({"s": list("aab"), "t": list("xxx")})
    assert plan_of("{t}", frame, system="{s}").codes.tolist() == [0, 0, 1]


def test_a_marked_column_is_a_template_of_its_cells():
    frame = pd.DataFrame([["{b}"]], columns=["{a}"])
    assert texts(col("{a}"), frame) == ["{b}"]


@given(st.lists(st.tuples(st.text(), st.none() | st.text()), max_size=8))
def test_all_kinds_of_templates_agree(cells):
    frame = pd.DataFrame(cells, columns=["a", "b"], dtype=object)
    expected = texts("{a}|{b}", frame)
    assert texts(lambda row: f"{row.a}|{row.b}", frame) == expected
    assert texts(jinja2.Template("{{ a }}|{{ b }}"), frame) == expected
    assert texts([{"role": "user", "content": "{a}|{b}"}], frame) == expected
    assert expected == [None if b is None else f"{a}|{b}" for a, b in cells]

"""Braces of a ``%%lbgpt`` prompt, the names behind them, and keys in a line."""

from __future__ import annotations

import json
import os
import types

import pandas as pd
import pytest

from lbgpt_pandas.notebook.arguments import Misuse
from lbgpt_pandas.notebook.names import MOST_ROWS, as_text, check_target, frame_of, look_up
from lbgpt_pandas.notebook.pasted_keys import refuse_keys
from lbgpt_pandas.notebook.prompt_fields import compose
from lbgpt_pandas.rows import Table

FIELDS = Table(pd.DataFrame(columns=["text", "price", "my column"])).fields


def sent(source, names=None, **keywords):
    """What a prompt without a frame becomes."""
    return compose(source, names=names or {}, fields=None, **keywords).format()


# --- braces -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        '{"answer": 42}',
        '{"a": {"b": {"c": []}}}',
        '[{}, {"x": {}}]',
        "{",
        "}",
        "}}{",
        "{{}}",
        "{{ 1 }}",
        "a set {1, 2} and \\frac{a}{b}",
        "{{{",
        "line {\n}",
        "{{{}}}",
    ],
)
def test_json_and_other_braces_are_sent_as_they_are(text):
    assert sent(text) == text


def test_compact_json_of_any_depth_survives():
    nested = json.dumps({"a": {"b": {"c": {"d": [{"e": {}}]}}}}, separators=(",", ":"))
    assert sent(f"Fill in {nested}!") == f"Fill in {nested}!"


def test_two_braces_hold_a_value_which_is_never_looked_at_again():
    names = {"who": "{{other}} {text} \\{", "other": "no"}
    assert sent("Hi {{ who }}!", names) == "Hi {{other}} {text} \\{!"


def test_a_backslash_makes_braces_literal():
    assert sent(r"\{{who\}} and \{who\}", {"who": "Ann"}) == "{{who}} and {who}"


def test_raw_leaves_everything():
    text = r"{{who}} {who} \{ }"
    assert sent(text, {"who": "Ann"}, raw=True) == text


def test_a_variable_in_single_braces_without_a_frame_is_asked_back():
    with pytest.raises(Misuse, match=r"\{who\} is no column.*no --df.*\{\{who\}\}.*\\\{who\\\}"):
        sent("Hi {who}", {"who": "Ann"})
    assert sent("Hi {print}", {"print": print}) == "Hi {print}"


@pytest.mark.parametrize(
    ("source", "template"),
    [
        ("{text}", "{text}"),
        ("{price:.2f}", "{price:.2f}"),
        ("{my column}", "{my column}"),
        ('{"text": "{text}"}', '{{"text": "{text}"}}'),
        ("{sentiment: good or bad}", "{{sentiment: good or bad}}"),
        ("{}", "{{}}"),
        ("{0}", "{{0}}"),
        ("{{who}} {text}", "Ann {text}"),
        (r"\{text\}", "{{text}}"),
        # Left for the accessor to refuse, with its suggestion:
        ("{txt}", "{txt}"),
        ("{txt:.2f}", "{txt:.2f}"),
        ("{text.real}", "{text.real}"),
        ("{text!r}", "{text!r}"),
    ],
)
def test_with_a_frame_a_field_stays_a_field(source, template):
    assert compose(source, names={"who": "Ann", "text": 1}, fields=FIELDS) == template


def test_the_value_of_a_series_is_an_empty_field():
    fields = Table(pd.Series(["a"])).fields
    assert compose("{} {value}", names={}, fields=fields) == "{} {value}"


def test_an_unknown_value_says_how_literal_braces_are_written():
    with pytest.raises(Misuse, match=r"no variable whoo; did you mean 'who'\?.*literal braces"):
        sent("{{whoo}}", {"who": "Ann"})


# --- names ------------------------------------------------------------------------------------

NAMES = {
    "rows": [{"title": "Ulysses", "year": 1922}, {"title": "Dubliners"}],
    "book": types.SimpleNamespace(title="Ulysses", parts=("a", "b", "c")),
    "df": pd.DataFrame({"text": ["x", "y"], "n": [1, 2]}),
    "os": os,
    "environ": os.environ,
    "text": "abcdef",
}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("text", "abcdef"),
        ("rows[0]['title']", "Ulysses"),
        ('rows[-1]["title"]', "Dubliners"),
        ("book.title", "Ulysses"),
        ("book.parts[1:]", ("b", "c")),
        ("text[::2]", "ace"),
        ("df['text'][1]", "y"),
        ("df.shape[0]", 2),
    ],
)
def test_a_path_is_walked(path, value):
    assert look_up(path, NAMES) == value


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("text.upper()", "no calls"),
        ("1 + 1", "is more than a name|no calls"),
        ("(lambda: 1)()", "no calls"),
        ("__import__('os')", "no calls"),
        ("text if 1 else 2", "is more than a name"),
        ("rows[len(rows)]", "an index is a number or a quoted text"),
        ("rows[0]['name']", "there is no 'name'"),
        ("rows[7]", "there is no 7"),
        ("book.name", "AttributeError"),
        ("text.__class__", "begin with _"),
        ("book.__dict__['title']", "begin with _"),
        ("os.environ", "what a module holds"),
        ("os.environ['HOME']", "what a module holds"),
        ("environ['HOME']", "the environment is not reached"),
        ("nothing", "has no variable nothing"),
        ("a b", "is no name"),
        ("", "is no name"),
        ("x" + "[0]" * 5000, "is no name|has no variable|begin"),
    ],
)
def test_anything_else_is_refused(path, message):
    with pytest.raises(Misuse, match=message):
        look_up(path, NAMES)


def test_values_as_they_stand_in_a_prompt():
    assert as_text(3, path="x") == "3"
    assert as_text(NAMES["df"], path="df").splitlines()[1].split() == ["0", "x", "1"]
    # Nothing is left out with dots, as in a frame's repr.
    assert "500" in as_text(pd.Series(range(900)), path="s")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "is None"),
        (pd.NA, "<NA>"),
        (b"x", "is a bytes"),
        (print, "is a builtin"),
        (os, "is a module"),
        (pd.Series(range(MOST_ROWS + 1)), "1,001 rows.*--df"),
    ],
)
def test_values_that_make_no_sense_in_a_prompt(value, message):
    with pytest.raises(Misuse, match=message):
        as_text(value, path="x")


def test_a_frame_that_is_none_is_refused_with_those_that_there_are():
    with pytest.raises(Misuse, match=r"no variable dff; did you mean 'df'.*the frames are df"):
        frame_of("dff", NAMES)
    with pytest.raises(Misuse, match="rows is a list; give a DataFrame or Series"):
        frame_of("rows", NAMES)


@pytest.mark.parametrize("name", ["class", "a b", "1x", "a.b", "x=1", "None"])
def test_a_result_needs_the_name_of_a_variable(name):
    with pytest.raises(Misuse):
        check_target(name)


# --- keys -------------------------------------------------------------------------------------

AZURE_OLD = "0123456789abcdef0123456789ABCDEF"
AZURE_NEW = "A1b2C3d4E5" * 8 + "JQQJ"


@pytest.mark.parametrize(
    "line",
    [
        "config api_key=abc",
        "config API_KEY = abc",
        "config openai_api_key=abc",
        "config key=abc",
        "config password=abc",
        "config client_secret: abc",
        "--api-key abc -m gpt-4o",
        "--token abc",
        "-m gpt-4o sk-proj-abcdef123456",
        "usage sk-abcdef123456",
        "-s 'Authorization: Bearer abcdef123456'",
        f"config engine={AZURE_OLD}",
        f"-s {AZURE_NEW}",
        "models gsk_abcdefghijklmnop1234",
        "models AIzaSyA1234567890abcdefghijk",
        "config cache=https://x.test/?api-key=abcdef",
    ],
)
def test_a_key_is_refused_without_being_repeated(line):
    with pytest.raises(Misuse, match=r"looks like a key.*OPENAI_API_KEY.*history") as refusal:
        refuse_keys(line)
    for secret in ("abc", "ABCDEF", AZURE_OLD, AZURE_NEW, "AIzaSy"):
        assert secret not in str(refusal.value)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "usage --by model,deployment --since '2 hours'",
        "answers << -m gpt-4o-mini -t 0 --max-tokens 100 --df df --col mood",
        "cache forget v1:" + "0123456789abcdef" * 4,
        "report 1m83hvhjke7qf --save out/report.html",
        "-m azure/my-deployment-0613 -s 'The key point: be brief. Use few tokens.'",
        "config model=openai/gpt-4o-mini budget=2 cache=~/answers",
        "-s 'You are a token counter for basic text; risk-assessment'",
        "models ft:gpt-4o-mini-2024-07-18:acme::9abCdEfG",
    ],
)
def test_a_usual_line_is_no_key(line):
    refuse_keys(line)

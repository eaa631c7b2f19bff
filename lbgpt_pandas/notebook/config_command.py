"""``%lbgpt config``: settings shown and changed."""

from __future__ import annotations

import inspect
import json
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from lbgpt_pandas.engine.caching import SUPPORTED_MODES
from lbgpt_pandas.notebook.arguments import Misuse, suggestion
from lbgpt_pandas.notebook.known_models import model_names
from lbgpt_pandas.notebook.names import look_up
from lbgpt_pandas.notebook.pasted_keys import REFUSAL, is_name_of_a_key
from lbgpt_pandas.settings import ErrorMode, EventLoop, Progress, configure, settings

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from lbgpt_pandas.notebook.arguments import Commands
    from lbgpt_pandas.notebook.names import Scope

KEYS = tuple(inspect.signature(configure).parameters)

CHOICES: Mapping[str, tuple[str, ...]] = {
    "cache_mode": SUPPORTED_MODES,
    "errors": get_args(ErrorMode),
    "progress": get_args(Progress),
    "event_loop": get_args(EventLoop),
    "semantic_cache": ("true", "none"),
}

_WORDS = {"none": None, "null": None, "true": True, "false": False}
_FROM_WORDS = frozenset({"engine", "model", "cache", "semantic_cache", "budget", "max_parallel",
                         "progress"})  # fmt: skip
_SECTION = "lbgpt"


def add_config_command(commands: Commands) -> None:
    """Add ``config``."""
    parser = commands.add("config", _config, "show settings, or change them")
    parser.epilog = (
        f"settings: {', '.join(KEYS)}\n"
        "KEY alone shows one; KEY=none takes it back. engine= takes the name of a variable with an "
        "engine.\nA file is TOML or JSON with the same keys, in TOML also below [lbgpt]. Keys of "
        "providers\nbelong into the environment or into the engine, not here."
    )
    parser.add_argument("pairs", nargs="*", metavar="KEY[=VALUE]", words=_pairs)
    parser.add_argument("--file", metavar="FILE", help="take settings from FILE first")


def _config(options: argparse.Namespace, scope: Scope) -> object:
    given: dict[str, Any] = {}
    if options.file is not None:
        given |= _read(Path(options.file).expanduser())
    asked = []
    for pair in options.pairs:
        name, is_set, text = pair.partition("=")
        _check_name(name)
        if is_set:
            given[name] = _value(name, text, scope)
        else:
            asked.append(name)
    if given:
        configure(**given)
    current = settings()
    if not asked:
        return current
    values = {name: getattr(current, name) for name in asked}
    return values[asked[0]] if len(asked) == 1 else values


def _check_name(name: str) -> None:
    if name in KEYS:
        return
    if is_name_of_a_key(name):
        raise Misuse(REFUSAL)
    raise Misuse(f"there is no setting {name!r}; {suggestion(name, KEYS)}")


def _value(name: str, text: str, scope: Scope) -> Any:
    if text == "":
        raise Misuse(f"{name}= has no value; {name}=none takes the setting back")
    if name in _FROM_WORDS and text.lower() in _WORDS:
        return _WORDS[text.lower()]
    if name == "engine":
        return look_up(text, scope.names)
    if name in {"budget", "max_parallel"}:
        try:
            return float(text) if name == "budget" else int(text)
        except ValueError:
            kind = "a number of USD" if name == "budget" else "a whole number"
            raise Misuse(f"{name}={text}: give {kind}, or none") from None
    if name == "semantic_cache":
        return look_up(text, scope.names)
    return text


def _read(place: Path) -> dict[str, Any]:
    text = place.read_text(encoding="utf-8")
    try:
        found = json.loads(text) if place.suffix.lower() == ".json" else tomllib.loads(text)
    except ValueError as error:
        kind = "JSON" if place.suffix.lower() == ".json" else "TOML"
        raise Misuse(f"{place} is no {kind}: {error}") from None
    if isinstance(found, dict) and isinstance(found.get(_SECTION), dict):
        found = found[_SECTION]
    if not isinstance(found, dict):
        raise Misuse(f"{place} holds no settings; it should say, for example, model = 'gpt-4o'")
    for name, value in found.items():
        _check_name(name)
        if name == "engine":
            raise Misuse(
                f"{place}: an engine cannot be written in a file; %lbgpt config engine=NAME"
            )
        if name in CHOICES and isinstance(value, str) and value in _WORDS:
            found[name] = _WORDS[value]
    return found


def _pairs(_scope: Scope) -> list[str]:
    found = []
    for name in KEYS:
        values = model_names() if name == "model" else CHOICES.get(name, ())
        found += [f"{name}=", *(f"{name}={value}" for value in values)]
    return found

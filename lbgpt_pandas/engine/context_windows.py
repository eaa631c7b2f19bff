"""How many tokens a request of a well-known model may have.

The table holds what the providers state, as of `WINDOWS_AS_OF`. A model that is not in it has an
unknown window, which is not an unlimited one.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

WINDOWS_AS_OF = "2026-11"
"""Month in which the table was compared with the providers' model pages."""


class ContextWindow(NamedTuple):
    """What one request may hold.

    Attributes
    ----------
    total : int
        Tokens of prompt and answer together.
    prompt : int
        Tokens of the prompt alone; often less, because room for the answer is kept free.
    """

    total: int
    prompt: int


def _whole(total: int) -> ContextWindow:
    return ContextWindow(total, total)


_GPT_41 = _whole(1_047_576)
_GPT_5 = ContextWindow(400_000, 272_000)
_GPT_6 = ContextWindow(1_050_000, 922_000)
_O_SERIES = _whole(200_000)
_CLAUDE_4, _CLAUDE_5 = _whole(200_000), _whole(1_000_000)
_GEMINI = ContextWindow(1_048_576 + 65_536, 1_048_576)

# Sources, compared with each other on 2026-11-23: the model pages of OpenAI, Anthropic and the
# Gemini API, and the list that litellm 1.106 brings. Models on which they differ are left out.
_WINDOWS: dict[str, ContextWindow] = {
    "gpt-3.5-turbo": _whole(16_385),
    "gpt-4": _whole(8_192),
    "gpt-4-turbo": _whole(128_000),
    "gpt-4o": _whole(128_000),
    "gpt-4o-mini": _whole(128_000),
    **dict.fromkeys(("gpt-4.1", "gpt-4.1-mini", "gpt-4.1-nano"), _GPT_41),
    **dict.fromkeys(("gpt-5", "gpt-5-mini", "gpt-5-nano", "gpt-5.1", "gpt-5.2"), _GPT_5),
    **dict.fromkeys(("gpt-5.4-mini", "gpt-5.4-nano"), _GPT_5),
    **dict.fromkeys(("gpt-5.6-sol", "gpt-5.6-terra", "gpt-5.6-luna"), _GPT_6),
    **dict.fromkeys(("gpt-6-astra", "gpt-6-sol", "gpt-6-luna", "gpt-6.1-sol"), _GPT_6),
    **dict.fromkeys(("o1", "o3", "o3-mini", "o3-pro", "o4-mini"), _O_SERIES),
    **dict.fromkeys(("claude-opus-4-5", "claude-sonnet-4-5", "claude-haiku-4-5"), _CLAUDE_4),
    **dict.fromkeys(("claude-opus-4-6", "claude-opus-4-7", "claude-opus-4-8"), _CLAUDE_5),
    **dict.fromkeys(("claude-opus-5", "claude-opus-5-5", "claude-haiku-5-5"), _CLAUDE_5),
    **dict.fromkeys(("claude-sonnet-4-6", "claude-sonnet-5", "claude-sonnet-5-5"), _CLAUDE_5),
    **dict.fromkeys(("gemini-2.5-pro", "gemini-2.5-flash", "gemini-2.5-flash-lite"), _GEMINI),
    **dict.fromkeys(("gemini-3-flash-preview", "gemini-3.1-pro-preview"), _GEMINI),
    **dict.fromkeys(("gemini-3.1-flash-lite", "gemini-3.5-flash"), _GEMINI),
    "gemini-3.5-flash-lite": _GEMINI,
}

_PROVIDER = re.compile(r"\A(?:openai|azure|anthropic|gemini)/")
# "-2024-07-18" (OpenAI), "-0613" (older ones), "-20250929" (Anthropic), "-001" (Gemini).
_SNAPSHOT = re.compile(r"-(?:20\d{2}-\d{2}-\d{2}|20\d{6}|[01]\d{3}|00\d)\Z", re.ASCII)


def context_window(model: str) -> ContextWindow | None:
    """Context window of a model.

    Parameters
    ----------
    model : str
        Name as the provider writes it, or as ``provider/name``. A dated snapshot has the
        window of its model.

    Returns
    -------
    ContextWindow or None
        None if it is unknown.

    Examples
    --------
    >>> context_window("openai/gpt-4o-mini-2024-07-18")
    ContextWindow(total=128000, prompt=128000)
    >>> context_window("my-own-model") is None
    True
    """
    for name in _spellings(model):
        if name in _WINDOWS:
            return _WINDOWS[name]
    return None


def bare_model(model: str) -> str:
    """Name of a model without its provider and the date of its snapshot.

    Examples
    --------
    >>> bare_model("openai/gpt-4o-mini-2024-07-18")
    'gpt-4o-mini'
    """
    return _SNAPSHOT.sub("", _PROVIDER.sub("", model))


def _spellings(model: str) -> Iterator[str]:
    yield model
    yield _PROVIDER.sub("", model)
    yield bare_model(model)

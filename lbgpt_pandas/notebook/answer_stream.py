"""One question to a model, and its answer on the screen while it comes."""

from __future__ import annotations

import time
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from lbgpt_pandas.engine.accounts import SESSION_BOOK
from lbgpt_pandas.engine.batch import Batch
from lbgpt_pandas.engine.lookups import Lookups
from lbgpt_pandas.engine.portal import run_sync
from lbgpt_pandas.engine.run_state import RunState
from lbgpt_pandas.notebook.answer_forms import MOST_SHOWN, bundle_of, printable
from lbgpt_pandas.notebook.surroundings import in_kernel

if TYPE_CHECKING:
    from IPython.display import DisplayHandle

    from lbgpt_pandas.engine.base import _BaseGPT
    from lbgpt_pandas.engine.budget import Budget
    from lbgpt_pandas.engine.caching import Caching
    from lbgpt_pandas.engine.types import Completion, Request
    from lbgpt_pandas.notebook.answer_forms import Form

TICK_S = 0.1
SHARE = 0.1
"""Part of the time that drawing an answer may take; long ones are drawn less often."""

EMPTY = "the answer is empty"
BROKEN_OFF = "the answer broke off; what had come is in _lbgpt"
TRUNCATED = "the answer stopped at the token limit"
INTERRUPTED = "interrupted; what had come so far is in _lbgpt"


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, of whom, and under which rules.

    Attributes
    ----------
    request : Request
        The question.
    engine : engine
        Who answers.
    caching : Caching
        Where the answer is looked for and kept.
    budget : Budget or None
        What it may cost.
    """

    request: Request
    engine: _BaseGPT
    caching: Caching
    budget: Budget | None


@dataclass(slots=True)
class Answer:
    """What has come so far; written by the engine's thread, read by the cell's.

    Attributes
    ----------
    pieces : list of str
        The text.
    finish_reason : str or None
        Why it ended; None before that.
    """

    pieces: list[str] = field(default_factory=list)
    finish_reason: str | None = None

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self.pieces)

    @property
    def note(self) -> str:
        """What is to be said about its end."""
        if not self.pieces:
            return EMPTY
        return TRUNCATED if self.finish_reason == "length" else ""

    def take(self, completion: Completion) -> None:
        """Take an answer that came whole."""
        if completion.text:
            self.pieces.append(completion.text)
        self.finish_reason = completion.finish_reason


def ask(question: Question, answer: Answer, *, streams: bool, screen: Screen | None) -> None:
    """Ask, wait in this thread, and draw what has come; `answer` keeps it also if this raises.

    Parameters
    ----------
    question : Question
        What is asked.
    answer : Answer
        Where the answer goes.
    streams : bool
        Ask for the answer in parts.
    screen : Screen or None
        Where it is drawn; None for nowhere.

    Raises
    ------
    KeyboardInterrupt
        If the cell was interrupted; the text so far is drawn.
    LbgptError
        If there is no answer.
    """
    streams = streams and question.caching.recording is None
    tick = None if screen is None else lambda: screen.update(answer.text)
    note = INTERRUPTED
    try:
        run_sync((_stream if streams else _fetch)(question, answer), tick=tick, interval=TICK_S)
        note = answer.note
    except Exception:
        note = BROKEN_OFF
        raise
    finally:
        if screen is not None and (answer.pieces or note == EMPTY):
            screen.close(answer.text, note)


async def _fetch(question: Question, answer: Answer) -> None:
    engine, caching = question.engine, question.caching
    batch = Batch(
        engine,
        [question.request],
        caching=caching,
        stop_on_error=True,
        budget=question.budget,
        clock=engine.clock,
    )
    outcome = (await batch.arun())[0]
    if outcome is not None and outcome.error is not None:
        raise outcome.error
    if outcome is not None and outcome.completion is not None:
        answer.take(outcome.completion)


async def _stream(question: Question, answer: Answer) -> None:
    engine, caching, request = question.engine, question.caching, question.request
    caching.reset()
    found = (await Lookups(engine, [request], caching, keep_payloads=False).find([0])).get(0)
    if found is not None and found.error is not None:
        raise found.error
    if found is not None and found.completion is not None:
        SESSION_BOOK.spared([(found, 1)], engine=engine.name, at=engine.clock.wall())
        answer.take(found.completion)
        return
    chunks = engine.stream_request(
        request, caching=replace(caching, reads=False), run=RunState(budget=question.budget)
    )
    async with aclosing(chunks):
        async for chunk in chunks:
            _take_chunk(answer, chunk)
    await caching.flush()


def _take_chunk(answer: Answer, chunk: Any) -> None:
    for choice in chunk.choices[:1]:
        text = getattr(choice.delta, "content", None)
        if isinstance(text, str) and text:
            answer.pieces.append(text)
        if choice.finish_reason:
            answer.finish_reason = str(choice.finish_reason)


class Screen:
    """The place of an answer in the cell's output: one display, replaced as the text grows.

    In a terminal, where nothing can be replaced, what is new is printed.

    Parameters
    ----------
    form : {"text", "markdown", "json", "code"}
        How the answer is shown.
    """

    def __init__(self, form: Form) -> None:
        self._form: Form = form
        self._handle: DisplayHandle | None = None
        self._is_kernel = in_kernel()
        self._drawn = ""
        self._next_s = 0.0

    def update(self, text: str) -> None:
        """Draw the text so far, if there is more of it and it is time to."""
        # What lies beyond the part that is shown changes no more than a number.
        if text == self._drawn or len(self._drawn) > MOST_SHOWN:
            return
        began = time.monotonic()
        if began < self._next_s:
            return
        self._put(text)
        self._next_s = began + (time.monotonic() - began) / SHARE

    def close(self, text: str, note: str = "") -> None:
        """Draw the last state, with a note below."""
        if self._is_kernel:
            if note or text != self._drawn:
                self._publish(bundle_of(text, self._form, note=note))
            return
        self._put(text)
        tail = f"\n[{note}]" if note else ""
        print(tail, flush=True)  # noqa: T201  # a terminal has no other output

    def _put(self, text: str) -> None:
        if self._is_kernel:
            self._publish(bundle_of(text, self._form))
        else:
            print(printable(text[len(self._drawn) :]), end="", flush=True)  # noqa: T201  # see close
        self._drawn = text

    def _publish(self, bundle: dict[str, object]) -> None:
        if self._handle is None:
            from IPython.display import display  # noqa: PLC0415  # only a notebook has it

            self._handle = display(  # type: ignore[no-untyped-call]  # IPython's have no types
                bundle, raw=True, display_id=True
            )
        else:
            self._handle.update(bundle, raw=True)  # type: ignore[no-untyped-call]  # the same

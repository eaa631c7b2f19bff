"""Rendered prompts: which of them are equal, and the requests that they stand for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from lbgpt_pandas.engine.types import Request

if TYPE_CHECKING:
    from collections.abc import Hashable

    from numpy.typing import NDArray

    from lbgpt_pandas.rendering import Template

NO_REQUEST, UNSENDABLE = -1, -2

Templates = tuple["Template", "Template | None"]
"""Template of the prompt, and of the system message before it."""


class Numbering(dict["Hashable", int]):
    """Numbers of different prompts in the order of first use; None has no request.

    A dict that numbers what it has not seen, so that looking up a block of prompts is one
    ``map`` in C.
    """

    def __init__(self) -> None:
        super().__init__({None: NO_REQUEST})
        self._next = 0

    def __missing__(self, prompt: Hashable) -> int:
        number = self[prompt] = self._next if _is_sendable(prompt) else UNSENDABLE
        self._next = max(self._next, number + 1)
        return number


class Requests(Sequence[Request]):
    """Requests that are made when they are asked for.

    Only their prompts are held. Message lists, dicts and requests for a million rows take
    400 MB, and the garbage collector goes through all of them again and again.

    Parameters
    ----------
    prompts : sequence of length n
        What the rows were rendered to.
    samples : sequence of int, of length n or 0
        Number of the sample; 0 where it is empty.
    templates : tuple
        Templates of the prompt and of the system message, which make messages.
    params, options : dict
        Of every request.
    """

    __slots__ = ("_body", "_options", "_params", "_prompts", "_samples", "_system")

    def __init__(
        self,
        prompts: Sequence[Any],
        samples: Sequence[int],
        templates: Templates,
        *,
        params: dict[str, object],
        options: dict[str, object],
    ) -> None:
        self._prompts, self._samples = prompts, samples
        self._body, self._system = templates
        self._params, self._options = params, options

    def __len__(self) -> int:
        return len(self._prompts)

    @overload
    def __getitem__(self, number: int) -> Request: ...

    @overload
    def __getitem__(self, number: slice) -> list[Request]: ...

    def __getitem__(self, number: int | slice) -> Request | list[Request]:
        if isinstance(number, slice):
            return [self[each] for each in range(*number.indices(len(self)))]
        prompt = self._prompts[number]
        if self._system is None:
            messages = self._body.messages(prompt)
        else:
            opening, prompt = prompt
            messages = [{"role": "system", "content": opening}, *self._body.messages(prompt)]
        sample = self._samples[number] if self._samples else 0
        return Request(messages, self._params, self._options, sample)


def separate(codes: NDArray[np.int64]) -> tuple[list[int], list[int]]:
    """Number each row's request anew, in place.

    Returns
    -------
    prompts : list of int
        Number of the prompt of each request.
    samples : list of int
        How often the prompt has stood before.
    """
    asked = codes >= 0
    prompts: list[int] = codes[asked].tolist()
    seen: dict[int, int] = {}
    samples = []
    for number in prompts:
        sample = seen.get(number, 0)
        seen[number] = sample + 1
        samples.append(sample)
    codes[asked] = np.arange(len(prompts))
    return prompts, samples


def _is_sendable(prompt: Hashable) -> bool:
    if isinstance(prompt, str):
        if prompt.isascii():
            return True
        try:
            prompt.encode()
        except UnicodeEncodeError:
            return False
        return True
    return not isinstance(prompt, tuple) or all(map(_is_sendable, prompt))

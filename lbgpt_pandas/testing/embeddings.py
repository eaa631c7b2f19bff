"""Embeddings that follow from the text alone: texts that share words are close."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DIMENSIONS = {"text-embedding-3-large": 3_072}
DEFAULT_DIMENSIONS = 1_536

_WORD = re.compile(r"\w+")
_WEIGHT_OF_WHOLE_TEXT = 0.25


def embed(text: str, dimensions: int) -> NDArray[np.float32]:
    """Embed a text.

    Every word has a pseudo-random direction of its own; the vector is their sum, and a part
    that belongs to the exact text keeps texts with the same words apart.

    Parameters
    ----------
    text : str
        Any text.
    dimensions : int
        Length of the vector.

    Returns
    -------
    numpy.ndarray
        1-D float32 of length 1, the same on every machine.

    Examples
    --------
    >>> near = embed("a red car", 64) @ embed("the red car", 64)
    >>> far = embed("a red car", 64) @ embed("two green pears", 64)
    >>> bool(near > 0.4 > far)
    True
    """
    import numpy as np  # noqa: PLC0415  # only for embeddings

    total = _WEIGHT_OF_WHOLE_TEXT * _direction(f"text:{text}", dimensions)
    for word in _WORD.findall(text.lower()):
        total += _direction(f"word:{word}", dimensions)
    return (total / np.linalg.norm(total)).astype(np.float32)


def encode(vector: NDArray[np.float32], encoding_format: str) -> str | list[float]:
    """Write a vector as ``"base64"`` (little-endian float32) or as a ``"float"`` list."""
    if encoding_format == "base64":
        return base64.b64encode(vector.astype("<f4").tobytes()).decode()
    numbers: list[float] = vector.tolist()
    return numbers


@lru_cache(maxsize=4_096)
def _direction(seed: str, dimensions: int) -> NDArray[Any]:
    import numpy as np  # noqa: PLC0415  # only for embeddings

    raw = hashlib.shake_256(seed.encode("utf-8", "surrogatepass")).digest(2 * dimensions)
    vector = np.frombuffer(raw, dtype="<i2").astype(np.float64) + 0.5
    direction: NDArray[Any] = vector / np.linalg.norm(vector)
    direction.setflags(write=False)
    return direction

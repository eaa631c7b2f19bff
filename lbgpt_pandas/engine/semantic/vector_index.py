"""The vectors of a `FaissSemanticCache` in memory, one FAISS index a scope, exact search.

An index that is not exact (IVF) answers a single search among 100,000 vectors ten times as fast,
but must be trained, and passes over a neighbour now and then. Flat, with what is asked at the
same time searched together, takes less time than making the vectors does.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from lbgpt_pandas.engine.errors import MissingExtraError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from lbgpt_pandas.engine.semantic.base import Vectors
    from lbgpt_pandas.engine.semantic.entry_database import EntryDatabase

INSTALL_LINE = "pip install 'lbgpt-pandas[faiss]'"

_BLAS_FROM = 20


class VectorIndex:
    """The vectors of one scope, in the order of their ids; used by one thread at a time.

    That thread must be none that forks: FAISS starts helpers that a child of it would wait for
    for ever, since they do not exist there.

    Parameters
    ----------
    scope : str
        Whose vectors these are.
    dimension : int
        How long they are.

    Raises
    ------
    MissingExtraError
        If FAISS is not installed.
    """

    def __init__(self, scope: str, dimension: int) -> None:
        faiss = _load_faiss()
        self.scope = scope
        self.dimension = dimension
        self._faiss = faiss
        self._index = faiss.IndexIDMap2(faiss.IndexFlatIP(dimension))
        self._last = 0

    def refresh(self, database: EntryDatabase) -> None:
        """Take in what was added to the database since, by this process or another."""
        import numpy as np  # noqa: PLC0415  # with FAISS only

        pages = database.vectors(self.scope, after=self._last, dimension=self.dimension)
        for ids, raw in pages:
            vectors = np.frombuffer(raw, dtype="<f4").reshape(len(ids), self.dimension)
            self._index.add_with_ids(
                np.ascontiguousarray(vectors, dtype=np.float32), np.array(ids, dtype=np.int64)
            )
            self._last = ids[-1]

    def sweep(self, database: EntryDatabase) -> None:
        """Drop what was removed from the database, by this process or another."""
        import numpy as np  # noqa: PLC0415  # with FAISS only

        held = self._faiss.vector_to_array(self._index.id_map)
        gone = np.setdiff1d(held, np.array(database.ids(self.scope), dtype=np.int64))
        if gone.size:
            self._index.remove_ids(gone)

    def nearest(self, queries: Vectors, limit: int) -> tuple[Vectors, NDArray[np.int64]]:
        """Return similarities and ids of the nearest, nearest first; id -1 where there are less."""
        # For this thread alone. Helpers that find no free processor hold up all others: with one
        # for each processor a busy machine takes four times as long.
        self._faiss.omp_set_num_threads(max(1, (os.cpu_count() or 1) // 2))
        similarities, ids = self._index.search(queries, limit)
        return similarities, ids


def _load_faiss() -> Any:
    try:
        import faiss  # noqa: PLC0415  # an extra
    except ImportError as error:
        raise MissingExtraError(
            f"FaissSemanticCache needs FAISS, which cannot be imported ({error}): {INSTALL_LINE}"
        ) from error
    # Recent releases multiply matrices from some 300 queries on only, and are five times as
    # slow below; older ones did from here on.
    faiss.cvar.distance_compute_blas_threshold = _BLAS_FROM
    return faiss

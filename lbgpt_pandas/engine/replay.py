"""Replay: answers from an archive, and an engine that makes keys and no calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from lbgpt_pandas.engine.archive import open_archive
from lbgpt_pandas.engine.base import _BaseGPT
from lbgpt_pandas.engine.caches.recorded import RecordedCache
from lbgpt_pandas.engine.caches.standard import StandardTier
from lbgpt_pandas.engine.errors import CacheCorrupt, CacheMiss
from lbgpt_pandas.engine.recording import Recording

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from os import PathLike
    from pathlib import Path

    from lbgpt_pandas.engine.types import TokenCount


class ReplayGPT(_BaseGPT):
    """Makes the keys of the engine that once answered, and calls nobody.

    Parameters
    ----------
    family : str
        Whose models they were.
    model : str or None
        Model of requests that name none.
    tools : sequence of dict, optional
        What that engine sent with requests that had no tools of their own.
    name : str, optional
        Name in reports.

    Examples
    --------
    >>> ReplayGPT(family="openai").family
    'openai'
    """

    def __init__(
        self,
        *,
        family: str,
        model: str | None = None,
        tools: Sequence[Mapping[str, object]] | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(1, auto_cache=False, tools=tools, name=name)
        self._family = family
        self.default_model = model

    @property
    def family(self) -> str:
        """That of the recorded engine."""
        return self._family

    def price_of_tokens(self, model: str, tokens: TokenCount) -> float | None:
        """List price of tokens; nothing for the embedded model, as when it answered."""
        return 0.0 if self._family.startswith("local/") else super().price_of_tokens(model, tokens)

    def _new_transport(self) -> NoReturn:
        raise CacheMiss(
            "replay answers from what is recorded and calls nobody; ask outside of it, with an "
            "engine that has a key"
        )


@dataclass(frozen=True, slots=True)
class Replay:
    """An archive as it is replayed.

    Attributes
    ----------
    tier : StandardTier
        Its answers.
    recording : Recording
        Its failures and requests.
    engine : ReplayGPT or None
        Makes its keys; None for an archive that is not of a run.
    """

    tier: StandardTier
    recording: Recording
    engine: ReplayGPT | None

    def __repr__(self) -> str:
        return f"Replay({self.recording.where!r})"


def load_replay(path: str | PathLike[str]) -> Replay:
    """Read an archive into memory.

    Raises
    ------
    CacheCorrupt, ConfigurationError, OSError
        See `open_archive`.
    """
    with open_archive(path) as archive:
        envelopes = {entry.key: entry.envelope for entry in archive.entries()}
        manifest, place = archive.manifest, archive.path
    recording = Recording(
        where=place.name,
        keys=manifest.get("keys") or [],
        failures=manifest.get("failures"),
        near=manifest.get("near"),
        load_requests=lambda: _requests(place),
    )
    cache = RecordedCache(envelopes, location=place.name)
    return Replay(StandardTier(cache), recording, _engine(manifest))


def _engine(manifest: Mapping[str, Any]) -> ReplayGPT | None:
    about = manifest.get("engine")
    if not about:
        return None
    return ReplayGPT(
        family=about["family"],
        model=manifest.get("model"),
        tools=about.get("tools"),
        name=about.get("name"),
    )


def _requests(path: Path) -> dict[str, dict[str, object]]:
    """Read the requests, which are only wanted to explain a miss; none if the file has changed."""
    try:
        with open_archive(path) as archive:
            return {each.key: each.request for each in archive.entries() if each.request}
    except (OSError, CacheCorrupt):
        return {}

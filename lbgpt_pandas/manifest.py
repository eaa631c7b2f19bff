"""What identifies a run, as JSON data without secrets, and its answers out of the cache."""

from __future__ import annotations

import asyncio
import hashlib
import platform
import secrets
import sys
from collections import Counter
from contextlib import suppress
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Protocol

from lbgpt_pandas.engine.archive import Entry
from lbgpt_pandas.engine.caches.envelope import CorruptEntry, unseal
from lbgpt_pandas.engine.completions import read_completion
from lbgpt_pandas.engine.errors import CacheCorrupt, ConfigurationError, RequestError
from lbgpt_pandas.engine.inventory import pages, store_errors
from lbgpt_pandas.engine.recording import failure_of, record_of, without_secrets
from lbgpt_pandas.engine.types import Source
from lbgpt_pandas.engine.vectors import read_embedding
from lbgpt_pandas.version import __version__

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Mapping, Sequence
    from datetime import datetime

    from lbgpt_pandas.engine.base import _BaseGPT
    from lbgpt_pandas.engine.batch import Batch
    from lbgpt_pandas.engine.budget import Budget
    from lbgpt_pandas.engine.caching import Caching
    from lbgpt_pandas.engine.report import RunSummary
    from lbgpt_pandas.engine.types import Completion, Outcome
    from lbgpt_pandas.frames import RowPlan
    from lbgpt_pandas.resumption import Resumed

_PACKAGES = ("pandas", "numpy", "openai", "litellm", "xllamacpp", "jinja2")
_DIGITS = "0123456789abcdefghjkmnpqrstvwxyz"
_DIGITS_OF_TIME, _DIGITS_OF_CHANCE = 9, 4


class Ended(Protocol):
    """A run that is over."""

    id: str
    started: datetime
    status: str
    resumed: Resumed | None
    plan: RowPlan
    engine: _BaseGPT
    caching: Caching
    batch: Batch
    model: str
    name: Hashable | None
    budget: Budget | None


def new_id(at: datetime) -> str:
    """Return a short name for a run; names sort by time.

    Examples
    --------
    >>> from datetime import UTC, datetime
    >>> new_id(datetime(2026, 11, 1, tzinfo=UTC))[:9]
    '1m6a6ft00'
    """
    number = int(at.timestamp() * 1_000)
    digits = []
    for _ in range(_DIGITS_OF_TIME):
        number, rest = divmod(number, len(_DIGITS))
        digits.append(_DIGITS[rest])
    chance = [secrets.choice(_DIGITS) for _ in range(_DIGITS_OF_CHANCE)]
    return "".join([*reversed(digits), *chance])


def manifest_of(
    run: Ended, outcomes: Sequence[Outcome | None], summary: RunSummary
) -> dict[str, Any]:
    """Describe a run, without its keys; see `row_details` for these.

    Parameters
    ----------
    run : Ended
        The run.
    outcomes : sequence of Outcome or None
        By request.
    summary : RunSummary
        Its figures.
    """
    origin, shot = run.plan.provenance, summary.snapshot
    return {
        "kind": "run",
        "id": run.id,
        "started": run.started.isoformat(),
        "wall_s": shot.elapsed_s,
        "status": run.status,
        "resumed_from": run.resumed.id if run.resumed else None,
        "template": without_secrets(origin.template),
        "system": without_secrets(origin.system),
        "template_sha256": origin.sha256,
        "columns": None if origin.columns is None else list(origin.columns),
        "na": origin.na,
        "duplicates": origin.duplicates,
        "model": run.model,
        "params": _params(run),
        "engine": _about_engine(run),
        "deployments": _counts([outcome.deployment for outcome in outcomes if outcome]),
        "cache_mode": run.caching.mode,
        "versions": versions(),
        "counts": {
            "rows": shot.rows,
            "done": shot.done,
            "failed": shot.failed,
            "skipped": shot.skipped,
            "cached": shot.cached,
            "semantic": shot.semantic,
            "shared": shot.shared,
            "requests": summary.requests,
            "calls": summary.calls,
        },
        "tokens": {"prompt": shot.prompt_tokens, "completion": shot.completion_tokens},
        "cost_usd": shot.cost_usd,
        "saved_usd": summary.saved_usd,
    }


def identity_of(run: Ended) -> dict[str, object]:
    """What a run has in common with another one of the same rows that needs no call."""
    origin = run.plan.provenance
    return {
        "family": _about_engine(run)["family"],
        "model": run.model,
        "params": _params(run),
        "system": without_secrets(origin.system),
        "template": without_secrets(origin.template),
    }


def row_details(run: Ended, outcomes: Sequence[Outcome | None]) -> dict[str, Any]:
    """Return the rest of a manifest.

    Returns
    -------
    dict
        ``keys`` in row order and a fingerprint of them, ``failures`` by key, ``near`` (the first
        row and the similarity, by the key of each request that got the answer to nearly the same
        question), models that answered, and rows that could not be sent.
    """
    by_code = run.batch.keys
    keys = [by_code[code] or None if code >= 0 else None for code in run.plan.codes.tolist()]
    # Also of what was asked again, whose row may have an answer all the same.
    asked = [outcome for _, outcome in run.batch.rounds.asked.values()]
    return {
        "keys": keys,
        "row_fingerprint": hashlib.sha256(
            "\n".join(key or "" for key in keys).encode()
        ).hexdigest(),
        "failures": {
            outcome.key: failure_of(outcome.error)
            for outcome in (*asked, *outcomes)
            if outcome and outcome.error and outcome.key
        },
        "near": _near(keys, outcomes),
        "asked_again": {key: later for key, later in run.batch.rounds.later.items() if later},
        "answered_by": _counts(
            [outcome.completion.model for outcome in outcomes if outcome and outcome.completion]
        ),
        "unsendable": {
            str(position): failure_of(error) for position, error in run.plan.errors.items()
        },
    }


def _near(keys: list[str | None], outcomes: Sequence[Outcome | None]) -> dict[str, Any]:
    taken = {outcome.key: outcome for outcome in outcomes if outcome and _is_near(outcome)}
    rows = {key: row for row, key in reversed(list(enumerate(keys))) if key in taken}
    return {
        key: {"row": rows[key], "similarity": outcome.similarity} for key, outcome in taken.items()
    }


def _is_near(outcome: Outcome) -> bool:
    return outcome.source is Source.SEMANTIC_CACHE


@lru_cache(maxsize=1)
def _installed() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def versions() -> dict[str, str]:
    """Versions of this package, Python and the packages that are loaded."""
    loaded = {name: number for name, number in _installed().items() if name in sys.modules}
    return {"lbgpt-pandas": __version__, "python": platform.python_version(), **loaded}


def _params(run: Ended) -> object:
    if not len(run.plan.requests):
        return {}
    request = run.engine.prepare(run.plan.requests[0])
    return record_of(request, family="")["params"]


def _about_engine(run: Ended) -> dict[str, object]:
    family, requests = "", run.plan.requests
    # Nobody knows it where the embedded model is not installed; then nothing was answered.
    with suppress(ConfigurationError):
        family = run.engine.family_of(requests[0]) if len(requests) else ""
    return {
        "class": type(run.engine).__name__,
        "name": run.engine.name,
        "family": family,
        "tools": without_secrets(run.engine.tools),
    }


def _counts(names: Sequence[str]) -> dict[str, int]:
    return {name: count for name, count in sorted(Counter(names).items()) if name}


async def recorded_answers(run: Ended, outcomes: Sequence[Outcome | None]) -> dict[str, str]:
    """Read the sealed answers of a run from its caches, by key, in the order of its requests.

    Answers to other, nearly the same questions are left out: they are not stored for these.

    Raises
    ------
    ConfigurationError
        If an answer is not stored, or another one is by now, or a cache cannot be read; says
        what to do.
    CacheCorrupt
        If a stored answer is damaged.
    """
    answered = {
        outcome.key: outcome
        for outcome in outcomes
        if outcome and outcome.completion and not _is_near(outcome)
    }
    # Under a row's own key lies its first reply, also where it was asked again.
    rounds = run.batch.rounds.asked.items()
    answered |= {key: outcome for key, (_, outcome) in rounds if outcome.completion}
    await run.caching.flush()
    envelopes = await _envelopes(run.caching, list(answered))
    _check_stored(answered, envelopes)
    # In a thread, because the loop has other runs to look after.
    changed = await asyncio.to_thread(_count_changed, answered, envelopes)
    if changed:
        raise ConfigurationError(
            f"{_answers(changed)} in the cache {_are(changed)} not as in this run any more: "
            'another run has stored its own. Run it again with cache_mode="use", and export that'
        )
    return {key: envelopes[key] for key in answered}


def entries_of(run: Ended, envelopes: Mapping[str, str]) -> Iterator[Entry]:
    """Put each sealed answer beside its request."""
    numbers = {key: number for number, key in enumerate(run.batch.keys)}
    asked_again = run.batch.rounds.asked
    for key, envelope in envelopes.items():
        asked = asked_again[key][0] if key in asked_again else run.plan.requests[numbers[key]]
        request = run.engine.prepare(asked)
        yield Entry(key, envelope, record_of(request, family=run.engine.family_of(request)))


async def _envelopes(caching: Caching, keys: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    if caching.tier is not None:
        with store_errors(caching.tier.cache, "read"):
            found |= await caching.tier.envelopes(keys)
    if caching.semantic is not None:
        missing = [key for key in keys if key not in found]
        async for texts in pages(caching.semantic.cache, missing):
            found |= texts
    return found


def _check_stored(answered: Mapping[str, Outcome], envelopes: Mapping[str, str]) -> None:
    missing = len(answered.keys() - envelopes.keys())
    if missing:
        raise ConfigurationError(
            f"{missing:,} of {_answers(len(answered))} of this run {_are(missing)} not in its "
            'cache, so that it cannot be exported. Run it again with cache_mode="use" and a cache '
            "that keeps all of them, such as the default one, and export that"
        )


def _answers(number: int) -> str:
    return f"{number:,} answer{'' if number == 1 else 's'}"


def _are(number: int) -> str:
    return "is" if number == 1 else "are"


def _count_changed(answered: Mapping[str, Outcome], envelopes: Mapping[str, str]) -> int:
    return sum(
        outcome.completion is None
        or not _stored(key, envelopes[key]).is_same_answer(outcome.completion)
        for key, outcome in answered.items()
    )


def _stored(key: str, envelope: str) -> Completion:
    try:
        if (vector := read_embedding(key, envelope)) is not None:
            return vector
        payload = unseal(key, envelope)
        return read_completion(payload, messages=(), deployment="", keep_payload=False)
    except (CorruptEntry, RequestError) as error:
        raise CacheCorrupt(
            f"the stored answer under {key} is damaged ({error}); run it again, which asks for "
            "it anew, and export that"
        ) from error

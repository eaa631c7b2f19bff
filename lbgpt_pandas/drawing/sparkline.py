"""A line of the last minutes, as an image that no notebook takes out of an output."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from lbgpt_pandas.engine.markup import inert_attribute

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

WIDTH, HEIGHT = 240, 24
_IMG = (
    "display:block;width:100%;height:24px;margin:2px 0;border-radius:2px;"
    "background:rgba(128,128,128,.14)"
)


def sparkline(shares: Sequence[float | None], text: str, *, colour: str) -> str:
    """Draw shares from 0 to 1 as an area, the newest at the right.

    Parameters
    ----------
    shares : sequence of float or None
        One for each step of time; None where nothing is known, which leaves a gap.
    text : str
        What the line shows, in words; stands in its place where images are not shown.
    colour : str
        Of the line.
    """
    areas = "".join(_area(run, len(shares)) for run in _runs(shares))
    lines = "".join(_line(run, len(shares)) for run in _runs(shares))
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
        f'viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none">'
        f'<path d="{areas}" fill="{colour}" fill-opacity=".3"/>'
        f'<path d="{lines}" fill="none" stroke="{colour}" stroke-width="1.5" '
        'vector-effect="non-scaling-stroke"/></svg>'
    )
    data = base64.b64encode(svg.encode()).decode()
    said = inert_attribute(text)
    return (
        f'<img alt="{said}" title="{said}" style="{_IMG}" src="data:image/svg+xml;base64,{data}">'
    )


def _runs(shares: Sequence[float | None]) -> Iterator[list[tuple[int, float]]]:
    """Stretches without a gap, each with its place."""
    run: list[tuple[int, float]] = []
    for place, share in enumerate(shares):
        if share is not None:
            run.append((place, min(1.0, max(0.0, share))))
        elif run:
            yield run
            run = []
    if run:
        yield run


def _points(run: list[tuple[int, float]], places: int) -> list[str]:
    """Coordinates of a stretch; a single one becomes as wide as a step."""
    step = WIDTH / max(1, places - 1)
    if len(run) == 1:
        place, share = run[0]
        run = [(place, share), (place + 1, share)] if place == 0 else [(place - 1, share), run[0]]
    return [f"{place * step:.1f} {_height(share)}" for place, share in run]


def _height(share: float) -> str:
    """Distance from the top, a line's width inside."""
    return f"{1 + (1 - share) * (HEIGHT - 2):.1f}"


def _line(run: list[tuple[int, float]], places: int) -> str:
    return "M" + "L".join(_points(run, places))


def _area(run: list[tuple[int, float]], places: int) -> str:
    points = _points(run, places)
    first, last = points[0].split()[0], points[-1].split()[0]
    return f"M{first} {HEIGHT}L{'L'.join(points)}L{last} {HEIGHT}Z"

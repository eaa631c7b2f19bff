"""Outputs of a cell: the place where one stands, and what stays there in the saved notebook."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

WIDGET = "application/vnd.jupyter.widget-view+json"
"""Media type of a live widget; beside it stand HTML and text for when there is no kernel."""


@dataclass(frozen=True, slots=True)
class StaticReport:
    """HTML for a notebook and text for everything else; what replaces a live view at its end.

    Attributes
    ----------
    html, text : str
        The same figures twice.
    """

    html: str
    text: str

    def mimebundle(self) -> dict[str, object]:
        """Return both by media type, as an output of a cell holds them."""
        return {"text/html": self.html, "text/plain": self.text}

    def __repr__(self) -> str:
        return self.text

    def _repr_mimebundle_(
        self,
        include: object = None,  # noqa: ARG002  # IPython's protocol; it leaves out by itself
        exclude: object = None,  # noqa: ARG002  # the same
    ) -> dict[str, object]:
        return self.mimebundle()


class Place:
    """An output of the present cell that can be replaced later, from any thread and cell.

    Parameters
    ----------
    bundle : mapping
        What is shown first, by media type.
    """

    def __init__(self, bundle: Mapping[str, object]) -> None:
        from IPython.display import display  # noqa: PLC0415  # only a notebook has it

        show: Any = display  # which has no types
        self._handle = show(dict(bundle), raw=True, display_id=True)

    def put(self, bundle: Mapping[str, object]) -> None:
        """Replace what is shown."""
        self._handle.update(dict(bundle), raw=True)

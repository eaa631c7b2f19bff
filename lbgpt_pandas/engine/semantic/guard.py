"""Facts that two texts must have in common before one may be answered with the other's answer."""

from __future__ import annotations


def same_facts(a: str, b: str) -> bool:
    """Tell whether two texts agree in numbers, negations, names and the like."""
    return bool(a) and a == b

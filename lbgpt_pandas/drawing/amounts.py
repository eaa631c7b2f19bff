"""Numbers as a person reads them; odd ones too."""

from __future__ import annotations

import math

PRICE_UNKNOWN = "price unknown"
NO_NUMBER = "?"

_UNITS = ("", " k", " M", " G", " T", " P")
_THOUSAND = 1_000
_WRITTEN_OUT = 10_000
_ONE_DECIMAL = 100
_MINUTE_S, _HOUR_S, _DAY_S = 60, 3_600, 86_400
_FEW_S = 10
_CENTS, _LEAST_USD = 0.1, 0.0001
_MOST = 1e15
"""No count is larger; what is, stands for no limit at all."""


def count(number: float) -> str:
    """Write a whole number with its thousands; what is left of a fraction does not count.

    Examples
    --------
    >>> count(12480), count(311.9), count(float("nan")), count(float("inf"))
    ('12,480', '311', '?', '∞')
    """
    return _odd(number) or f"{math.floor(number):,}"


def short(number: float) -> str:
    """Write a number in three or four digits.

    Examples
    --------
    >>> short(9_999), short(12_500), short(199_990), short(999_999), short(2.1e6)
    ('9,999', '12.5 k', '200 k', '1 M', '2.1 M')
    """
    if _odd(number) or abs(number) < _WRITTEN_OUT:
        return count(number)
    power, text = 0, _digits(number)
    while abs(float(text)) >= _THOUSAND and power < len(_UNITS) - 1:
        power, number = power + 1, number / _THOUSAND
        text = _digits(number)
    return f"{text}{_UNITS[power]}"


def money(usd: float | None) -> str:
    """Write dollars with as many decimals as there is something to tell.

    Examples
    --------
    >>> money(1.266), money(0.0123), money(0.00001), money(0.0), money(None)
    ('$1.27', '$0.0123', '<$0.0001', '$0.00', 'price unknown')
    """
    if usd is None or not math.isfinite(usd):
        return PRICE_UNKNOWN
    if 0 < usd < _LEAST_USD:
        return f"<${_LEAST_USD}"
    return f"${usd:,.{4 if 0 < usd < _CENTS else 2}f}"


def duration(seconds: float | None) -> str:
    """Write a span of time.

    Examples
    --------
    >>> duration(1.24), duration(72), duration(7_500), duration(180_000), duration(None)
    ('1.2 s', '1m 12s', '2h 05m', '2d 2h', '?')
    """
    if seconds is None or not math.isfinite(seconds):
        return NO_NUMBER
    seconds = max(0.0, seconds)
    whole = round(seconds)
    if whole < _FEW_S:
        return f"{seconds:.1f} s"
    if whole < _MINUTE_S:
        return f"{whole} s"
    if whole < _HOUR_S:
        return f"{whole // _MINUTE_S}m {whole % _MINUTE_S:02}s"
    if whole < _DAY_S:
        return f"{whole // _HOUR_S}h {whole % _HOUR_S // _MINUTE_S:02}m"
    return f"{count(whole // _DAY_S)}d {whole % _DAY_S // _HOUR_S}h"


def wait(seconds: float) -> str:
    """Write how long to wait, in full seconds; empty where nobody knows.

    Examples
    --------
    >>> wait(2.1), wait(90), wait(float("inf"))
    ('3 s', '1m 30s', '')
    """
    if not math.isfinite(seconds):
        return ""
    whole = max(1, math.ceil(seconds))
    return f"{whole} s" if whole < _MINUTE_S else duration(whole)


def rate(per_second: float | None) -> str:
    """Write rows a second.

    Examples
    --------
    >>> rate(38.44), rate(1523.7), rate(0.04), rate(0.0), rate(None)
    ('38.4/s', '1,523/s', '2.4/min', '0/s', '?')
    """
    if per_second is None or not math.isfinite(per_second):
        return NO_NUMBER
    if 0 < per_second < 1:
        return f"{per_second * _MINUTE_S:.1f}/min"
    if per_second >= _ONE_DECIMAL or not per_second:
        return f"{count(per_second)}/s"
    return f"{per_second:.1f}/s"


def percent(part: float, whole: float) -> str:
    """Write a share; 100 % and 0 % only of all and of none.

    Examples
    --------
    >>> percent(778, 1000), percent(9999, 10000), percent(1, 10000), percent(0, 0)
    ('77.8 %', '99.9 %', '<0.1 %', '0 %')
    """
    share = fraction(part, whole)
    if share in {0.0, 1.0}:
        return f"{share * 100:.0f} %"
    tenths = math.floor(share * 1000 + 1e-6)
    return "<0.1 %" if not tenths else f"{min(tenths, 999) / 10:.1f} %"


def fraction(part: float, whole: float) -> float:
    """Share from 0 to 1; 0 of nothing, and of what is no number."""
    if not (math.isfinite(part) and math.isfinite(whole)) or whole <= 0:
        return 0.0
    return min(1.0, max(0.0, part / whole))


def several(number: int, noun: str) -> str:
    """Write a number and its noun.

    Examples
    --------
    >>> several(1, "row"), several(1200, "row")
    ('1 row', '1,200 rows')
    """
    return f"{count(number)} {noun}{'' if number == 1 else 's'}"


def _digits(number: float) -> str:
    decimals = 1 if abs(number) < _ONE_DECIMAL else 0
    return f"{number:.{decimals}f}".removesuffix(".0")


def _odd(number: float) -> str:
    """What stands for a number whose digits say nothing; empty for all others."""
    if math.isnan(number):
        return NO_NUMBER
    if abs(number) > _MOST:
        return "∞" if number > 0 else "-∞"
    return ""

"""Which addresses of images may be given to a provider: those that everybody reaches.

Nothing is resolved or fetched here. An address is judged by what it says, and read strictly: where
two readers could take it for different hosts, it is refused.
"""

from __future__ import annotations

import re
import unicodedata
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import urlsplit

from lbgpt_pandas.engine.errors import InvalidInput

REMEDY = "give the image itself, as bytes"

_SHOWN = 60
_PRIVATE_ENDINGS = ("localhost", "localdomain", "local", "internal", "intranet", "lan", "home.arpa")
_UNFIT = re.compile(r"[\x00-\x20\x7f-\xa0\\\u2028\u2029\ud800-\udfff]")
_NUMERIC = re.compile(r"\d+|0x[0-9a-f]*")
_LABEL = re.compile(r"(?!-)[\w-]{1,63}(?<!-)")


def check_address(address: str) -> None:
    """Check that an address is one of the public web.

    Parameters
    ----------
    address : str
        Begins with ``http://`` or ``https://``, in any case.

    Raises
    ------
    InvalidInput
        If it names this machine or a private network, holds a user's name, or is no address. What
        stands behind the host is not repeated: it may be a key.

    Examples
    --------
    >>> check_address("https://example.com/cat.png")
    >>> check_address("http://127.0.0.1/cat.png")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    lbgpt_pandas.engine.errors.InvalidInput: 127.0.0.1 is not on the public internet, ...
    """
    if _UNFIT.search(address):
        raise InvalidInput(
            "the address has a space, a backslash or a control character; quote it with "
            "urllib.parse.quote, or take it away"
        )
    try:
        parts = urlsplit(address)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise InvalidInput(f"the address is none: {error}") from error
    if "@" in parts.netloc:
        raise InvalidInput(
            f"the address has a user name or password, which the provider would see; {REMEDY}"
        )
    host = _plain(host or "")
    if not host:
        raise InvalidInput("the address names no host")
    if _is_private(host):
        raise InvalidInput(
            f"{host[:_SHOWN]} is not on the public internet, where the provider could fetch it; "
            f"{REMEDY}"
        )


def _plain(host: str) -> str:
    """Return a host as resolvers read it: full-width letters are letters, ``。`` is a dot."""
    return unicodedata.normalize("NFKC", host).replace("\u3002", ".").casefold().removesuffix(".")


def _is_private(host: str) -> bool:
    if ":" in host:
        return _is_private_number(host)
    labels = host.split(".")
    # Also 127.1, 0x7f000001 and 0177.0.0.1, which some readers take for numbers.
    if _NUMERIC.fullmatch(labels[-1]):
        return _is_private_number(host)
    if len(labels) == 1 or not all(map(_LABEL.fullmatch, labels)):
        return True
    return host.endswith(tuple(f".{ending}" for ending in _PRIVATE_ENDINGS))


def _is_private_number(host: str) -> bool:
    try:
        number = ip_address(host)
    except ValueError:
        return True
    inner = number.sixtofour if isinstance(number, IPv6Address) else None
    return not all(map(_is_public, (number, inner or number)))


def _is_public(number: IPv4Address | IPv6Address) -> bool:
    # What is reserved includes IPv4 addresses in other guises.
    return number.is_global and not number.is_multicast and not number.is_reserved

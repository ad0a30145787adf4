"""What a caller's network signed of a call: the `Identity` header (RFC 8224), its PASSporT (RFC 8225).

Read as SHAKEN has it (RFC 8588), and no wider: one in a request, in full form, ES256, nothing said twice. The
compact form cannot be read, since what it leaves out is what SHAKEN adds.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

LONGEST_IDENTITY: Final = 4_096
"""Characters of one header."""
MOST_IDENTITIES: Final = 4
"""Headers of a request; those of other extensions (`div`, `rph`) stand beside SHAKEN's."""
MOST_CALLED: Final = 8
LONGEST_URL: Final = 512
_TOKEN: Final = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]{86})")
_COMPACT: Final = re.compile(r"[A-Za-z0-9_-]*\.\.[A-Za-z0-9_-]+")
_PARAMETER: Final = re.compile(r'[ \t]*([A-Za-z]+)[ \t]*=[ \t]*(<[^<>"]*>|"[^<>"]*"|[A-Za-z0-9_.-]+)[ \t]*')
_NUMBER: Final = re.compile(r"\+?([0-9]{1,15})")
_URL: Final = re.compile(
    r"https://([a-z0-9](?:[a-z0-9.-]{0,252}[a-z0-9])?)(?::([1-9][0-9]{0,4}))?"
    r"(?:/[A-Za-z0-9._~!$&'()*+,;=:@/%-]*)(?:\?[A-Za-z0-9._~!$&'()*+,;=:@/?%-]*)?"
)
"""Narrower than RFC 3986, so that nobody who reads it sees another host: no user, no fragment."""


class NoPassport(ValueError):
    """A request has none that can be believed; the text says why, in words of ours alone."""


@dataclass(frozen=True, slots=True)
class Passport:
    """What was signed. Nothing of it is true until the signature is."""

    attest: Literal["A", "B", "C"]
    caller: str
    """`orig.tn`: digits"""
    called: tuple[str, ...]
    """`dest.tn`"""
    at: int
    """`iat`: seconds since 1970"""
    url: str
    """`x5u`: where its certificate is"""
    host: str
    """that URL's, with a port where it is not 443"""
    signed: bytes
    signature: bytes
    """r and s, 32 octets each"""


def read_passport(identities: Sequence[str]) -> Passport:
    """SHAKEN's of a request's `Identity` headers. Raises `NoPassport`."""
    if len(identities) > MOST_IDENTITIES or any(len(one) > LONGEST_IDENTITY for one in identities):
        raise NoPassport("too much Identity")
    shaken = [one for one in identities if _is_shaken(one)]
    if not shaken:
        raise NoPassport("compact form" if any(map(_COMPACT.match, identities)) else "not signed")
    if len(shaken) > 1:
        raise NoPassport("signed twice")
    text, *parameters = shaken[0].split(";")
    return _read(text.strip(" \t"), _parameters(parameters))


def digits(number: str) -> str | None:
    """A number as it is compared (RFC 8224 §8.3), its separators gone before; None for anything else."""
    found = _NUMBER.fullmatch(number)
    return None if found is None else found[1]


def host_of(url: str) -> str | None:
    """An https URL's host, with a port where it is not 443; None for what is not a plain URL."""
    found = _URL.fullmatch(url) if len(url) <= LONGEST_URL else None
    if found is None or ".." in found[1]:
        return None
    return found[1] if found[2] in (None, "443") else f"{found[1]}:{found[2]}"


def _is_shaken(identity: str) -> bool:
    """Whether it is SHAKEN's, or says so anywhere."""
    text = identity.partition(";")[0].strip(" \t")
    found = _TOKEN.fullmatch(text)
    if found is None:
        return "shaken" in identity.lower() and _COMPACT.match(text) is None
    return "shaken" in identity.lower() or _json(found[1]).get("ppt") == "shaken"


def _parameters(written: Sequence[str]) -> dict[str, str]:
    known: dict[str, str] = {}
    for one in written:
        found = _PARAMETER.fullmatch(one)
        if found is None or found[1].lower() in known:
            raise NoPassport("Identity cannot be read")
        known[found[1].lower()] = found[2].strip('<>"')
    return known


def _read(text: str, parameters: dict[str, str]) -> Passport:
    found = _TOKEN.fullmatch(text)
    if found is None:
        raise NoPassport("Identity cannot be read")
    header, claims = _json(found[1]), _json(found[2])
    algorithm, extension, url = header.get("alg"), header.get("ppt"), header.get("x5u")
    if algorithm != "ES256" or parameters.get("alg", "ES256") != "ES256":
        raise NoPassport("another algorithm")
    if extension != "shaken" or parameters.get("ppt", "shaken") != "shaken":
        raise NoPassport("another extension")
    if header.get("typ") != "passport" or "crit" in header:
        raise NoPassport("not a PASSporT")
    host = host_of(url) if isinstance(url, str) else None
    if not isinstance(url, str) or host is None:
        raise NoPassport("certificate's URL is not a plain one of https")
    if parameters.get("info") != url:
        raise NoPassport("two URLs of its certificate")
    at, attest, origin = claims.get("iat"), claims.get("attest"), claims.get("origid")
    if type(at) is not int or attest not in ("A", "B", "C") or not isinstance(origin, str):
        raise NoPassport("claims cannot be read")
    caller, called = _numbers(claims.get("orig"), 1), _numbers(claims.get("dest"), MOST_CALLED)
    raw = _octets(found[3])
    return Passport(attest, caller[0], called, at, url, host, f"{found[1]}.{found[2]}".encode(), raw)


def _numbers(claim: object, most: int) -> tuple[str, ...]:
    """Those of `{"tn": …}`: of a caller one as text, of the called a list."""
    said = claim.get("tn") if isinstance(claim, dict) else None
    if most == 1:
        said = [said]
    if not isinstance(said, list) or not 1 <= len(said) <= most:
        raise NoPassport("claims cannot be read")
    found = [digits(one) if isinstance(one, str) else None for one in said]
    if None in found:
        raise NoPassport("claims name no telephone number")
    return tuple(one for one in found if one is not None)


def _json(text: str) -> dict[str, Any]:
    """An object in which nothing stands twice. Raises `NoPassport`."""
    try:
        found = json.loads(_octets(text), object_pairs_hook=_once, parse_constant=_never)
    except (ValueError, RecursionError):
        raise NoPassport("Identity cannot be read") from None
    if not isinstance(found, dict):
        raise NoPassport("Identity cannot be read")
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a name stands twice")
    return table


def _never(constant: str) -> None:
    raise ValueError(constant)


def _octets(text: str) -> bytes:
    """Base64url without padding (RFC 7515 §2). Raises `NoPassport`."""
    try:
        found = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        raise NoPassport("Identity cannot be read") from None
    if base64.urlsafe_b64encode(found).rstrip(b"=").decode() != text:
        raise NoPassport("Identity cannot be read")  # two texts of one meaning
    return found

"""Digest authentication of callers (RFC 7616, RFC 8760): MD5 and SHA-256, `qop=auth`, our own nonces.

A nonce is a time and its HMAC for this source: nothing is stored until it is used, then only its last count.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from enum import Enum
from typing import Final, Literal

from sipmessage import AuthCredentials, AuthParameters

REALM: Final = "voicegate"
NONCE_S: Final = 120
MAX_NONCES: Final = 10_000
ALGORITHMS: Final = ("SHA-256", "MD5")

Algorithm = Literal["MD5", "SHA-256"]
HashOf = Callable[[str, Algorithm], str | None]
"""(user, algorithm) -> HA1 in hex, or None for nobody."""


class Verdict(Enum):
    OK = "ok"
    STALE = "stale"
    WRONG = "wrong"


class Digest:
    """Challenges and checks."""

    def __init__(self, ha1: HashOf) -> None:
        self._ha1 = ha1
        self._key = secrets.token_bytes(32)
        self._counts: OrderedDict[str, int] = OrderedDict()

    def challenges(self, host: str, *, stale: bool = False) -> list[str]:
        """`WWW-Authenticate` values, the stronger first."""
        nonce = self._nonce(int(time.time()), host)
        tail = ", stale=true" if stale else ""
        return [
            f'Digest realm="{REALM}", nonce="{nonce}", qop="auth", algorithm={algorithm}{tail}'
            for algorithm in ALGORITHMS
        ]

    def _nonce(self, at: int, host: str) -> str:
        mac = hmac.new(self._key, f"{at}|{host}".encode(), hashlib.sha256).hexdigest()[:32]
        return f"{at:x}-{mac}"

    def check(self, credentials: AuthCredentials, method: str, host: str) -> tuple[Verdict, str]:
        """(verdict, user) of an `Authorization` header."""
        given = credentials.parameters or AuthParameters()
        user = given.get("username") or ""
        nonce = given.get("nonce") or ""
        named = (given.get("algorithm") or "MD5").upper()
        if credentials.scheme.lower() != "digest" or named not in ALGORITHMS or given.get("qop") != "auth":
            return Verdict.WRONG, user
        algorithm: Algorithm = "SHA-256" if named == "SHA-256" else "MD5"
        try:
            at = int(nonce.partition("-")[0], 16)
            count = int(given.get("nc") or "", 16)
        except ValueError:
            return Verdict.WRONG, user
        if not hmac.compare_digest(nonce, self._nonce(at, host)):
            return Verdict.STALE, user
        ha1 = self._ha1(user, algorithm)
        if ha1 is None:
            return Verdict.WRONG, user
        make = hashlib.sha256 if algorithm == "SHA-256" else hashlib.md5
        ha2 = make(f"{method}:{given.get('uri') or ''}".encode()).hexdigest()
        parts = (ha1, nonce, given.get("nc") or "", given.get("cnonce") or "", "auth", ha2)
        expected = make(":".join(parts).encode()).hexdigest()
        if not hmac.compare_digest(expected, (given.get("response") or "").lower()):
            return Verdict.WRONG, user
        if not 0 <= time.time() - at <= NONCE_S or count <= self._counts.get(nonce, 0):
            return Verdict.STALE, user
        self._counts[nonce] = count
        if len(self._counts) > MAX_NONCES:
            self._counts.popitem(last=False)
        return Verdict.OK, user

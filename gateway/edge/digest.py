"""Digest authentication of callers (RFC 7616, RFC 8760): MD5 and SHA-256, `qop=auth`, our own nonces.

A nonce is a time and its HMAC for this source: nothing is stored until it is used, then only its last count.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Final, Literal

from sipmessage import AuthCredentials, AuthParameters

REALM: Final = "voicegate"
NONCE_S: Final = 120
MAX_NONCES: Final = 10_000

Algorithm = Literal["MD5", "SHA-256"]
ALGORITHMS: Final[Mapping[str, tuple[Algorithm, ...]]] = {
    "md5": ("MD5",),
    "sha-256": ("SHA-256",),
    "both": ("SHA-256", "MD5"),
}
"""What may be offered, the stronger first (RFC 8760 §2.4)."""
HashOf = Callable[[str, Algorithm], str | None]
"""(user, algorithm) -> HA1 in hex, or None for nobody."""


class DigestVerdict(Enum):
    """What a caller's credentials are worth."""

    OK = "ok"
    STALE = "stale"
    """the nonce is old, used, or another boot's; the password may be right"""
    WRONG = "wrong"


class Digest:
    """Challenges and checks. `offer` is a key of `ALGORITHMS`; what is not offered is not taken either."""

    def __init__(self, ha1: HashOf, offer: str = "md5") -> None:
        self._ha1 = ha1
        self._algorithms = ALGORITHMS[offer]
        self._key = secrets.token_bytes(32)
        self._nobody = secrets.token_hex(16)
        self._counts: OrderedDict[str, int] = OrderedDict()

    def challenges(self, host: str, *, stale: bool = False) -> list[str]:
        """`WWW-Authenticate` values, one for each algorithm."""
        nonce = self._nonce(int(time.time()), host)
        tail = ", stale=true" if stale else ""
        return [
            f'Digest realm="{REALM}", nonce="{nonce}", qop="auth", algorithm={algorithm}{tail}'
            for algorithm in self._algorithms
        ]

    def _nonce(self, at: int, host: str) -> str:
        mac = hmac.new(self._key, f"{at}|{host}".encode(), hashlib.sha256).hexdigest()[:32]
        return f"{at:x}-{mac}"

    def check(self, written: Sequence[str], method: str, host: str) -> tuple[DigestVerdict, str]:
        """(verdict, user) of the `Authorization` headers of a request; the first one for our realm counts."""
        for value in written:
            try:
                given = AuthCredentials.parse(value)
            except (ValueError, TypeError):
                continue
            parameters = given.parameters or AuthParameters()
            if given.scheme.lower() == "digest" and parameters.get("realm") == REALM:
                return self._check(parameters, method, host)
        return DigestVerdict.WRONG, ""

    def _check(self, given: AuthParameters, method: str, host: str) -> tuple[DigestVerdict, str]:
        user = given.get("username") or ""
        nonce, nc = given.get("nonce") or "", given.get("nc") or ""
        named = (given.get("algorithm") or "MD5").upper()
        if named not in self._algorithms or given.get("qop") != "auth" or len(nc) != 8 or len(nonce) > 64:
            return DigestVerdict.WRONG, user
        algorithm: Algorithm = "SHA-256" if named == "SHA-256" else "MD5"
        try:
            at = int(nonce.partition("-")[0], 16)
            count = int(nc, 16)
        except ValueError:
            return DigestVerdict.WRONG, user
        if not hmac.compare_digest(nonce.encode(), self._nonce(at, host).encode()):
            return DigestVerdict.STALE, user
        ha1 = self._ha1(user, algorithm)
        make = hashlib.sha256 if algorithm == "SHA-256" else hashlib.md5
        ha2 = make(f"{method}:{given.get('uri') or ''}".encode()).hexdigest()
        # an unknown user takes the same steps, so that the time does not tell who exists
        parts = (ha1 or self._nobody, nonce, nc, given.get("cnonce") or "", "auth", ha2)
        expected = make(":".join(parts).encode()).hexdigest()
        right = hmac.compare_digest(expected.encode(), (given.get("response") or "").lower().encode())
        if not right or ha1 is None:
            return DigestVerdict.WRONG, user
        if not 0 <= time.time() - at <= NONCE_S or count <= self._counts.get(nonce, 0):
            return DigestVerdict.STALE, user
        self._counts[nonce] = count
        self._counts.move_to_end(nonce)
        if len(self._counts) > MAX_NONCES:
            self._counts.popitem(last=False)
        return DigestVerdict.OK, user

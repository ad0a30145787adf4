"""Digest authentication of callers (RFC 7616, RFC 8760; RFC 2069 for who must), with our own nonces.

A nonce is a time, a number, chance and the HMAC of all for this source: nothing is stored until it has opened
a door, then only which of its counts are used. What is offered is MD5, SHA-256 or both, with `qop=auth`;
session variants and `auth-int` are taken from who prefers them, since nothing gets weaker by them. The `uri`
of the credentials need not be the Request-URI: proxies on the way change that (RFC 3261 §22.4), and a copy of
the credentials opens nothing, whatever it asks for, since a count is good once.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
import unicodedata
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal
from urllib.parse import unquote

REALM: Final = "voicegate"
NONCE_S: Final = 120
MAX_NONCES: Final = 10_000
WINDOW: Final = 64
"""Counts of one nonce below its highest that are still told apart: requests overtake each other."""
MAX_NONCE: Final = 96
MAX_CNONCE: Final = 128
ONCE: Final = 1 << 33
"""The count of credentials that have none: far above all others, so that it ends its nonce."""

Algorithm = Literal["MD5", "SHA-256"]
ALGORITHMS: Final[Mapping[str, tuple[Algorithm, ...]]] = {
    "md5": ("MD5",),
    "sha-256": ("SHA-256",),
    "both": ("SHA-256", "MD5"),
}
"""What may be offered, the stronger first (RFC 8760 §2.4)."""
NAMED: Final[Mapping[str, tuple[Algorithm, bool]]] = {
    "MD5": ("MD5", False),
    "MD5-SESS": ("MD5", True),
    "SHA-256": ("SHA-256", False),
    "SHA-256-SESS": ("SHA-256", True),
}
"""What credentials may name, in capitals: the algorithm, and whether its key is the session's."""
HASH: Final = {"MD5": hashlib.md5, "SHA-256": hashlib.sha256}
HashOf = Callable[[str, Algorithm], str | None]
"""(user, algorithm) -> HA1 in hex, or None for nobody."""
MayOmitQop = Callable[[str], bool]
"""Whether a user's telephone speaks RFC 2069."""
_NC: Final = re.compile(r"[0-9a-fA-F]{1,8}")
_EXTENDED: Final = re.compile(
    r"utf-8'[A-Za-z0-9-]*'((?:%[0-9A-Fa-f]{2}|[A-Za-z0-9!#$&+.^_`|~-])*)", re.IGNORECASE
)


class DigestVerdict(Enum):
    """What a caller's credentials are worth."""

    OK = "ok"
    STALE = "stale"
    """the password is right; the nonce is old, used, or another boot's"""
    WRONG = "wrong"


@dataclass(slots=True)
class _Used:
    """What was seen of a nonce."""

    number: int
    highest: int = 0
    seen: int = 0
    """bit n: the count `highest - n` is used"""
    cnonce: str = ""
    """the first one, with which a session's key is made (RFC 2617 §3.2.2.2)"""

    def takes(self, count: int) -> bool:
        """Whether a count is new; it is used then."""
        ahead = count - self.highest
        if ahead > 0:
            self.seen = ((self.seen << min(ahead, WINDOW)) | 1) & ((1 << WINDOW) - 1)
            self.highest = count
            return True
        bit = 1 << -ahead
        if -ahead >= WINDOW or self.seen & bit:
            return False
        self.seen |= bit
        return True


@dataclass(frozen=True, slots=True)
class _Given:
    """Credentials as they were written."""

    user: str
    nonce: str
    cnonce: str
    nc: str
    qop: str
    """"" without one: RFC 2069"""
    uri: str
    response: str
    algorithm: Algorithm
    session: bool


class Digest:
    """Challenges and checks. `offer` is a key of `ALGORITHMS`; what is not offered is not taken either."""

    def __init__(self, ha1: HashOf, offer: str = "md5", may_omit_qop: MayOmitQop | None = None) -> None:
        self._ha1 = ha1
        self._algorithms = ALGORITHMS[offer]
        self._may_omit_qop = may_omit_qop or (lambda user: False)
        self._key = secrets.token_bytes(32)
        self._nobody = secrets.token_hex(16)
        self._counts: OrderedDict[str, _Used] = OrderedDict()
        self._made = 0
        self._forgotten = 0
        """nonces up to this number may be used up without our knowing it"""

    def challenges(self, host: str, *, stale: bool = False) -> list[str]:
        """`WWW-Authenticate` values, one for each algorithm."""
        self._made += 1
        nonce = self._nonce(f"{int(time.time()):x}-{self._made:x}-{secrets.token_hex(8)}", host)
        tail = ", stale=true" if stale else ""
        return [
            f'Digest realm="{REALM}", nonce="{nonce}", qop="auth", algorithm={algorithm}, charset=UTF-8{tail}'
            for algorithm in self._algorithms
        ]

    def _nonce(self, made: str, host: str) -> str:
        """`made` is a time, a number and chance, in hex."""
        mac = hmac.new(self._key, f"{made}|{host}".encode(), hashlib.sha256).hexdigest()[:32]
        return f"{made}-{mac}"

    def check(
        self, written: Sequence[str], method: str, host: str, body: bytes = b""
    ) -> tuple[DigestVerdict, str]:
        """(verdict, user) of the `Authorization` headers of a request.

        The first one counts that is for our realm and of an algorithm that we offer.
        """
        user = ""
        for value in written:
            try:
                scheme, parameters = credentials(value)
                if scheme != "digest" or parameters.get("realm") != REALM:
                    continue
                user = _user(parameters)
                given = self._read(parameters, user)
            except ValueError:
                continue
            return self._check(given, method, host, body), plain_name(user)
        return DigestVerdict.WRONG, plain_name(user)

    def _read(self, parameters: Mapping[str, str], user: str) -> _Given:
        """Raises `ValueError` for what cannot be right, whatever the password is."""
        named = NAMED.get(parameters.get("algorithm", "MD5").upper())
        if named is None or named[0] not in self._algorithms:
            raise ValueError("that algorithm is not offered")
        given = _Given(
            user=user,
            nonce=parameters.get("nonce", ""),
            cnonce=parameters.get("cnonce", ""),
            nc=parameters.get("nc", ""),
            qop=parameters.get("qop", ""),
            uri=parameters.get("uri", ""),
            response=parameters.get("response", "").lower(),
            algorithm=named[0],
            session=named[1],
        )
        if not given.uri or len(given.nonce) > MAX_NONCE or len(given.cnonce) > MAX_CNONCE:
            raise ValueError("its uri, nonce or cnonce is missing or too long")
        if "qop" not in parameters:
            if given.session or not self._may_omit_qop(user):
                raise ValueError("it has no qop")
        elif (
            given.qop.lower() not in ("auth", "auth-int")
            or not _NC.fullmatch(given.nc)
            or not int(given.nc, 16)
        ):
            raise ValueError("its qop or nc cannot be right")
        return given

    def _check(self, given: _Given, method: str, host: str, body: bytes) -> DigestVerdict:
        used = self._counts.get(given.nonce)
        ha1 = self._ha1(given.user, given.algorithm)
        # an unknown user takes the same steps, so that the time does not tell who exists
        right = _is_right(given, ha1 or self._nobody, given.cnonce, method, body)
        if given.session and used is not None and used.cnonce != given.cnonce:
            right |= _is_right(given, ha1 or self._nobody, used.cnonce, method, body)
        if not right or ha1 is None:
            return DigestVerdict.WRONG
        return DigestVerdict.OK if self._is_fresh(given, used, host) else DigestVerdict.STALE

    def _is_fresh(self, given: _Given, used: _Used | None, host: str) -> bool:
        """Whether the nonce is ours, for that source, of now, and its count new, which is used up then."""
        made = given.nonce.rpartition("-")[0]
        if not hmac.compare_digest(given.nonce.encode(), self._nonce(made, host).encode()):
            return False
        at, number = (int(part, 16) for part in made.split("-")[:2])  # ours, so it has them
        if not 0 <= time.time() - at <= NONCE_S or (used is None and number <= self._forgotten):
            return False
        if used is None:
            used = self._counts[given.nonce] = _Used(number, cnonce=given.cnonce)
            if len(self._counts) > MAX_NONCES:
                self._forgotten = max(self._forgotten, self._counts.popitem(last=False)[1].number)
        return used.takes(int(given.nc, 16) if given.qop else ONCE)


def _is_right(given: _Given, ha1: str, cnonce: str, method: str, body: bytes) -> bool:
    """RFC 7616 §3.4.1; `cnonce` is the one that a session's key is made with."""
    make = HASH[given.algorithm]

    def h(*parts: str) -> str:
        return make(":".join(parts).encode()).hexdigest()

    if given.session:
        ha1 = h(ha1, given.nonce, cnonce)
    whole = given.qop.lower() == "auth-int"
    ha2 = h(method, given.uri, *([make(body).hexdigest()] if whole else []))
    middle = (given.nc, given.cnonce, given.qop) if given.qop else ()
    return hmac.compare_digest(h(ha1, given.nonce, *middle, ha2).encode(), given.response.encode())


def plain_name(user: str) -> str:
    """A user's name as we list it: some telephones send it with the realm behind, as in a SIP address."""
    return unicodedata.normalize("NFC", user).removesuffix(f"@{REALM}")


def _user(parameters: Mapping[str, str]) -> str:
    """The name in `username` or, beyond ASCII, in `username*` (RFC 7616 §3.4). Raises `ValueError`."""
    plain, extended = parameters.get("username"), parameters.get("username*")
    if extended is None:
        return plain or ""
    found = _EXTENDED.fullmatch(extended)
    if found is None or plain is not None:
        raise ValueError("its username* cannot be read, or is not the only name")
    return unquote(found[1], errors="strict")


_CREDENTIAL: Final = re.compile(
    r"[ \t]*+([A-Za-z0-9.!%*_+`'~-]++)[ \t]*+=[ \t]*+"
    r"(?:\"((?:[^\"\\]++|\\.)*+)\"|([^\s\",]*+))[ \t]*+(?:,|\Z)",
    re.DOTALL,
)


def credentials(text: str) -> tuple[str, dict[str, str]]:
    """(scheme in small letters, parameters by name in small letters, unquoted). Raises `ValueError`."""
    scheme, _, rest = text.strip().partition(" ")
    found: dict[str, str] = {}
    at = 0
    while at < len(rest):
        if rest[at] in " \t,":
            at += 1
            continue
        piece = _CREDENTIAL.match(rest, at)
        if piece is None or piece[1].lower() in found:
            raise ValueError("its credentials cannot be read")
        found[piece[1].lower()] = piece[3] if piece[2] is None else re.sub(r"\\(.)", r"\1", piece[2])
        at = piece.end()
    return scheme.lower(), found

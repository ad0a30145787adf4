"""Answers to a trunk's challenge (RFC 7616, RFC 8760, RFC 3261 §22): what our request needs to be taken.

The password stays here and in the `Trunk`: what is made of it is good for one nonce.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Final

from gateway.edge.doors.digest import HASH, NAMED, Algorithm, credentials
from gateway.edge.grammar.sip_message import Request, Response
from gateway.edge.trunks.trunk import Trunk

HEADERS: Final = {
    401: ("WWW-Authenticate", "Authorization"),
    407: ("Proxy-Authenticate", "Proxy-Authorization"),
}
MOST: Final = 3
"""Challenges of one request that are answered: a proxy's, the server's, and one whose nonce got old."""
LONGEST: Final = 1024
"""Characters of what a challenge says that we repeat."""


@dataclass(slots=True)
class DigestChallenge:
    """One realm's, and how often its nonce was used."""

    header: str
    realm: str
    nonce: str
    algorithm: Algorithm
    written: str
    """the algorithm as it was written; empty: it was not"""
    qop: bool
    opaque: str | None
    count: int = 0

    def answer(self, trunk: Trunk, method: str, uri: str) -> str:
        """The credentials for one request."""
        make = HASH[self.algorithm]

        def h(*parts: str) -> str:
            return make(":".join(parts).encode()).hexdigest()

        ha1, ha2 = h(trunk.user, self.realm, trunk.password), h(method, uri)
        self.count += 1
        parts = {"username": trunk.user, "realm": self.realm, "nonce": self.nonce, "uri": uri}
        bare = {}
        if self.qop:
            count, cnonce = f"{self.count:08x}", secrets.token_hex(8)
            parts["response"] = h(ha1, self.nonce, count, cnonce, "auth", ha2)
            parts["cnonce"] = cnonce
            bare = {"qop": "auth", "nc": count}
        else:
            parts["response"] = h(ha1, self.nonce, ha2)
        if self.opaque is not None:
            parts["opaque"] = self.opaque
        if self.written:
            bare["algorithm"] = self.written
        quoted = [f'{name}="{_escaped(value)}"' for name, value in parts.items()]
        return "Digest " + ", ".join([*quoted, *(f"{name}={value}" for name, value in bare.items())])


@dataclass(slots=True)
class Credentials:
    """What a trunk has asked of us so far, by header and realm."""

    trunk: Trunk
    answered: int = 0
    _known: dict[tuple[str, str], DigestChallenge] = field(default_factory=dict, repr=False)

    def learn(self, answer: Response) -> str | None:
        """A 401 or 407 came. Returns why it is not answered; None: `put` answers it."""
        trunk = self.trunk
        if not trunk.user or not trunk.password:
            return "the trunk asks for a password, and the file has no user and password_file for it"
        asked, header = HEADERS[answer.code]
        found = [one for text in answer.headers.getlist(asked) if (one := _read(text, header)) is not None]
        found = [one for one in found if not trunk.realm or one.realm == trunk.realm]
        if not found:
            return "the trunk's challenge cannot be answered (Digest with MD5 or SHA-256, and its realm)"
        best = max(found, key=lambda one: one.algorithm == "SHA-256")
        before = self._known.get((header, best.realm))
        if before is not None and before.count and not _is_stale(answer, asked):
            return "the trunk refuses the user or the password"
        if self.answered >= MOST:
            return "the trunk asks for the password again and again"
        self.answered += 1
        self._known[header, best.realm] = best
        return None

    def renew(self) -> None:
        """Another request begins: its first challenge is not yet a refusal."""
        self.answered = 0

    def put(self, request: Request) -> None:
        """Adds to a request what was asked for so far."""
        by_header: dict[str, list[str]] = {}
        for challenge in self._known.values():
            said = challenge.answer(self.trunk, request.method, str(request.uri))
            by_header.setdefault(challenge.header, []).append(said)
        for header, values in by_header.items():
            request.headers.setlist(header, values)

    def forget(self) -> None:
        """Another server: what the last one asked for says nothing to it."""
        self._known.clear()
        self.answered = 0


def _read(text: str, header: str) -> DigestChallenge | None:
    """None for what we cannot answer."""
    try:
        scheme, said = credentials(text)
    except ValueError:
        return None
    written = said.get("algorithm", "")
    named = NAMED.get((written or "MD5").upper())
    if scheme != "digest" or named is None or named[1] or not said.get("nonce") or len(text) > LONGEST:
        return None
    offered = [one.strip().lower() for one in said.get("qop", "").split(",") if one.strip()]
    if offered and "auth" not in offered:
        return None
    return DigestChallenge(
        header, said.get("realm", ""), said["nonce"], named[0], written, bool(offered), said.get("opaque")
    )


def _is_stale(answer: Response, asked: str) -> bool:
    """Whether it says that the nonce was old and the password right."""
    for text in answer.headers.getlist(asked):
        try:
            if credentials(text)[1].get("stale", "").lower() == "true":
                return True
        except ValueError:
            continue
    return False


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"')

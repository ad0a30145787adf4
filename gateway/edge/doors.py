"""The doors a request passes before anything is done for it: network, scanner, rate, fitness, password.

What is turned away here costs no memory: it is dropped, or answered without state (RFC 3261 §8.2.7).
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from sipmessage import Request

from gateway.edge.digest import Digest, DigestVerdict
from gateway.edge.edge_config import EdgeConfig
from gateway.edge.limits import Networks, SourceRates, block_of, is_scanner
from gateway.edge.responses import ALLOW, Extra
from gateway.edge.transport import Flow

SUPPORTED: Final = frozenset({"100rel", "timer"})
SCHEMES: Final = ("sip", "sips", "tel")
KNOWN_ELSEWHERE: Final = ("REGISTER", "SUBSCRIBE", "PUBLISH", "MESSAGE", "NOTIFY")
"""Methods out of a dialog that SIP has and we do not; the registrar's door is here."""
WITHIN_ONLY: Final = ("BYE", "INFO", "UPDATE", "PRACK")
WRONG_PASSWORD_COSTS: Final = 5.0
"""Requests' worth: guessing is slower than calling."""
DIALOG_PER_S: Final = 20.0
"""Requests within one call; keys pressed as INFO come at most that fast."""


@dataclass(frozen=True, slots=True)
class Turned:
    """Turned away, with this answer."""

    status: int
    reason: str = ""
    extra: Extra = field(default_factory=dict)


class Doors:
    """Raises `ValueError` when a network of the config is none."""

    def __init__(self, config: EdgeConfig) -> None:
        self.dropped: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        self._allow = Networks(config.allow)
        self._deny = Networks(config.deny)
        self._trusted = Networks(config.trusted_proxies)
        self._rate = SourceRates(config.invites_per_s)
        self._within = SourceRates(DIALOG_PER_S)
        self._digest = Digest(config.ha1, config.digest) if config.ha1 is not None else None

    def trusts(self, flow: Flow) -> bool:
        return flow.host in self._trusted

    def source(self, request: Request, flow: Flow) -> str:
        """The caller's address; behind a trusted proxy the one that it saw (`received` of the next Via)."""
        if not self.trusts(flow):
            return flow.host
        vias = request.via
        if len(vias) < 2:
            return flow.host
        seen = vias[1].parameters.get("received") or vias[1].host
        try:
            return str(ipaddress.ip_address(seen.strip("[]")))
        except ValueError:
            return flow.host

    def admits(self, request: Request, source: str) -> bool:
        """Whether anything is said to that source at all."""
        if not self.admits_from(source):
            return False
        if is_scanner(request.user_agent):
            self.dropped["scanner"] += 1
            return False
        return True

    def admits_from(self, source: str) -> bool:
        if source in self._deny or (self._allow and source not in self._allow):
            self.dropped["acl"] += 1
            return False
        return True

    def in_time(self, source: str) -> bool:
        """One more request that no call of ours vouches for."""
        if self._rate.takes(block_of(source)):
            return True
        self.dropped["rate"] += 1
        return False

    def in_time_within(self, call_id: str) -> bool:
        """One more request within a call."""
        if self._within.takes(call_id):
            return True
        self.dropped["rate"] += 1
        return False

    def unfit(self, request: Request, *, within: bool) -> Turned | None:
        """Why a request is not taken at all; `within`: it belongs to a call of ours."""
        if request.uri.scheme not in SCHEMES:
            return Turned(416)
        if request.max_forwards is not None and request.max_forwards <= 0:
            return Turned(483)
        if request.method == "REFER" or request.headers.get("Replaces") is not None:
            self.counts["transfers_refused"] += 1
            return Turned(403, "no transfers by callers")
        if unknown := {*request.require, *request.proxy_require} - SUPPORTED:
            return Turned(420, extra={"Unsupported": ", ".join(sorted(unknown))})
        if request.method == "INVITE" and request.body:
            kind = request.headers.get("Content-Type") or ""
            if kind.partition(";")[0].strip().lower() != "application/sdp":
                return Turned(415, extra={"Accept": "application/sdp"})
        if within or request.method in ("INVITE", "OPTIONS"):
            return None
        if request.method in WITHIN_ONLY:
            return Turned(481)
        return Turned(405 if request.method in KNOWN_ELSEWHERE else 501, extra={"Allow": ALLOW})

    def authenticate(self, request: Request, flow: Flow, source: str) -> str | Turned:
        """The user's name, "" where none is needed, or the challenge."""
        if self._digest is None or self.trusts(flow):
            return ""
        written = request.headers.getlist("Authorization")
        verdict, user = self._digest.check(written, request.method, flow.host) if written else (None, "")
        if verdict is DigestVerdict.OK:
            return user
        if verdict is DigestVerdict.WRONG:
            self.counts["digest_wrong"] += 1
            self._rate.takes(block_of(source), WRONG_PASSWORD_COSTS)
        challenges = self._digest.challenges(flow.host, stale=verdict is DigestVerdict.STALE)
        return Turned(401, extra={"WWW-Authenticate": challenges})

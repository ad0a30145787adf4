"""The doors a request passes before anything is done for it: network, scanner, rate, fitness, password.

What is turned away here costs no memory: it is dropped, or answered without state (RFC 3261 §8.2.7).
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Final

from gateway.config.emergency import is_emergency
from gateway.edge.doors.digest import Digest, DigestVerdict
from gateway.edge.doors.edge_config import EdgeConfig
from gateway.edge.doors.limits import Networks, SourceRates, block_of, is_scanner
from gateway.edge.flows.transport import Flow
from gateway.edge.grammar.responses import ALLOW, Turned
from gateway.edge.grammar.session_part import SDP, session_part
from gateway.edge.grammar.sip_message import Request
from gateway.edge.grammar.sips import in_the_clear, wants_sips

SUPPORTED: Final = frozenset({"100rel", "timer"})
REGISTRAR_SUPPORTED: Final = frozenset({"path", "outbound"})
SCHEMES: Final = ("sip", "sips", "tel")
KNOWN_ELSEWHERE: Final = ("REGISTER", "SUBSCRIBE", "PUBLISH", "MESSAGE", "NOTIFY")
"""Methods that SIP has and we do not; REGISTER where nobody may register."""
EVENT_METHODS: Final = ("SUBSCRIBE", "NOTIFY")
"""Within a call these may concern it; which, is for the call to say."""
OFFERING: Final = ("INVITE", "UPDATE", "PRACK")
"""Methods whose body is SDP, if there is one."""
WITHIN_ONLY: Final = ("BYE", "INFO", "UPDATE", "PRACK")
_NOT_AT_ALL: Final = re.compile(r";\s*q\s*=\s*0(?:\.0*)?\s*(?:;|$)")
WRONG_PASSWORD_COSTS: Final = 5.0
"""Requests' worth: guessing is slower than calling."""
DIALOG_PER_S: Final = 20.0
"""Requests within one call; keys pressed as INFO come at most that fast."""
REFUSED_PER_REQUEST: Final = 10.0
"""So many times as often as a source may ask it may hear that it asks too often."""
SLOWER_S: Final = 2
"""When who asked too often may ask again."""
MAX_KNOWN: Final = 10_000


class Doors:
    """Raises `ValueError` when a network of the config is none."""

    def __init__(
        self, config: EdgeConfig, is_trunk: Callable[[Flow, str], bool] = lambda flow, host: False
    ) -> None:
        """`is_trunk`: whether somebody with that address is a trunk, which is asked for no password."""
        self._is_trunk = is_trunk
        self.dropped: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        self._allow = Networks(config.allow)
        self._deny = Networks(config.deny)
        self._trusted = Networks(config.trusted_proxies)
        self._rate = SourceRates(config.invites_per_s)
        self._emergency = config.emergency
        self._speaks_tls = config.tls is not None
        self._within = SourceRates(DIALOG_PER_S)
        self._refused = SourceRates(REFUSED_PER_REQUEST * config.invites_per_s)
        self._logged_in: OrderedDict[str, None] = OrderedDict()
        self._digest: Digest | None = None
        self._phones: Digest | None = None
        if config.ha1 is not None:
            self._digest = Digest(config.ha1, config.digest, config.may_omit_qop)
        if config.phones is not None:
            self._phones = Digest(config.phones, config.digest, config.may_omit_qop)

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

    def admits(self, request: Request, source: str, flow: Flow) -> bool:
        """Whether anything is said to that source at all."""
        if not self.admits_from(source, flow):
            return False
        if is_scanner(request.user_agent):
            self.dropped["scanner"] += 1
            return False
        return True

    def admits_from(self, source: str, flow: Flow) -> bool:
        unnamed = self._allow and source not in self._allow and not self._is_trunk(flow, source)
        if source in self._deny or unnamed:
            self.dropped["acl"] += 1
            return False
        return True

    def in_time(self, source: str) -> bool:
        """One more request that no call of ours vouches for."""
        return self._rate.takes(block_of(source))

    def in_time_within(self, call_id: str) -> bool:
        """One more request within a call."""
        return self._within.takes(call_id)

    def too_fast(self, source: str, flow: Flow) -> Turned | None:
        """What a request hears that was not in time; None: nothing, as a flood and a scanner should.

        A peer that the operator named, or that has logged in from there before, is told when to come back; it
        would call again at once otherwise, or take us for dead.
        """
        if (self.named(source, flow) or block_of(source) in self._logged_in) and self._refused.takes(
            block_of(source)
        ):
            return Turned(503, "too many requests at once", retry_after_s=SLOWER_S)
        self.dropped["rate"] += 1
        return None

    def named(self, source: str, flow: Flow) -> bool:
        """Whether the operator named that peer as one that may call."""
        allowed = bool(self._allow) and source in self._allow
        return self.trusts(flow) or allowed or self._is_trunk(flow, flow.host)

    def _has_logged_in(self, source: str) -> None:
        who = block_of(source)
        self._logged_in[who] = None
        self._logged_in.move_to_end(who)
        if len(self._logged_in) > MAX_KNOWN:
            self._logged_in.popitem(last=False)

    def is_emergency(self, request: Request) -> bool:
        """Whether somebody calls for help, by a number of the config or by RFC 5031."""
        return request.method == "INVITE" and is_emergency(request.uri.plain, self._emergency)

    def unfit(self, request: Request, flow: Flow, *, within: bool) -> Turned | None:
        """Why a request is not taken at all; `within`: it belongs to a call of ours."""
        if request.uri.scheme not in SCHEMES and not self.is_emergency(request):
            return Turned(416)
        if not flow.secure and wants_sips(request):
            return in_the_clear(spoken=self._speaks_tls)
        if request.max_forwards is not None and request.max_forwards <= 0:
            return Turned(483)
        if request.method == "REFER" or request.headers.get("Replaces") is not None:
            self.counts["transfers_refused"] += 1
            return Turned(403, "no transfers by callers")
        registers = request.method == "REGISTER" and self._phones is not None and not within
        known = REGISTRAR_SUPPORTED if registers else SUPPORTED
        if unknown := {*request.require, *request.proxy_require} - known:
            return Turned(420, extra={"Unsupported": ", ".join(sorted(unknown))})
        if request.body and (request.headers.get("Content-Encoding") or "identity").lower() != "identity":
            return Turned(415, "a body in its own octets, please", extra={"Accept-Encoding": "identity"})
        if request.method in OFFERING and request.body and session_part(request) is None:
            return Turned(
                415,
                "a session description, please, and nothing that must be understood beside it",
                extra={"Accept": f"{SDP}, multipart/mixed"},
            )
        if request.method == "INVITE" and not _takes_sdp(request):
            return Turned(406, "our answer is application/sdp, which Accept leaves out")
        if request.method in ("INVITE", "OPTIONS") or registers:
            return None
        if request.method in WITHIN_ONLY:
            return None if within else Turned(481)
        if within and request.method in EVENT_METHODS:
            return None
        return Turned(405 if request.method in KNOWN_ELSEWHERE else 501, extra={"Allow": ALLOW})

    def authenticate(self, request: Request, flow: Flow, source: str) -> str | Turned:
        """The user's name, "" where none is needed, or the challenge.

        Who registers a telephone needs a name where callers need none: calls for that name will go there.
        """
        digest = self._phones if request.method == "REGISTER" else self._digest
        known = self.trusts(flow) or (request.method != "REGISTER" and self._is_trunk(flow, flow.host))
        if digest is None or known:
            return ""
        written = request.headers.getlist("Authorization")
        verdict, user = None, ""
        if written:
            verdict, user = digest.check(written, request.method, flow.host, request.body)
        if verdict is DigestVerdict.OK:
            self._has_logged_in(source)
            return user
        if verdict is DigestVerdict.WRONG:
            self.counts["digest_wrong"] += 1
            self._rate.takes(block_of(source), WRONG_PASSWORD_COSTS)
        challenges = digest.challenges(flow.host, stale=verdict is DigestVerdict.STALE)
        return Turned(401, extra={"WWW-Authenticate": challenges})


def _takes_sdp(request: Request) -> bool:
    """Whether its Accept has a place for our answer; without one it has (RFC 3261 §20.1)."""
    ranges = [one for value in request.headers.getlist("Accept") for one in value.lower().split(",")]
    named = (one.partition(";")[0].strip() for one in ranges if _NOT_AT_ALL.search(one) is None)
    return not ranges or any(one in (SDP, "application/*", "*/*") for one in named)

"""Responses that the edge gives in its own name."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from gateway.edge.flows.transport import Flow
from gateway.edge.grammar.header import reason
from gateway.edge.grammar.message import branch_of, stamped, to_tag
from gateway.edge.grammar.sip_message import Request, Response

PHRASES: Final = {
    100: "Trying", 180: "Ringing", 183: "Session Progress", 200: "OK", 380: "Alternative Service",
    400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found",
    405: "Method Not Allowed", 406: "Not Acceptable", 408: "Request Timeout", 415: "Unsupported Media Type",
    416: "Unsupported URI Scheme", 420: "Bad Extension", 423: "Interval Too Brief",
    439: "First Hop Lacks Outbound Support", 469: "Bad Info Package",
    480: "Temporarily Unavailable", 481: "Call/Transaction Does Not Exist", 482: "Loop Detected",
    483: "Too Many Hops", 486: "Busy Here", 487: "Request Terminated", 488: "Not Acceptable Here",
    489: "Bad Event", 491: "Request Pending", 500: "Server Internal Error", 501: "Not Implemented",
    503: "Service Unavailable", 504: "Server Time-out", 505: "Version Not Supported",
    513: "Message Too Large", 603: "Decline",
}  # fmt: skip
ALLOW_OUT: Final = "INVITE, ACK, CANCEL, BYE, OPTIONS, INFO, UPDATE"
"""In a call of ours."""
ALLOW: Final = f"{ALLOW_OUT}, PRACK"
SIP_PORT: Final = 5060
_FIRST_VIA: Final = re.compile(r'(?:[^",]|"[^"]*")*')
_SENT_BY: Final = re.compile(
    r"\s*[^\s/]+\s*/\s*[^\s/]+\s*/\s*[^\s/]+\s+(?:\[[^\]]*\]|[^\s:;,\[]+)\s*(?::\s*(\d{1,5})\s*)?(?:;|$)"
)
_RPORT: Final = re.compile(r";\s*rport\s*(?:[=;]|$)", re.IGNORECASE)

Extra = Mapping[str, str | Sequence[str]]


@dataclass(frozen=True, slots=True)
class Turned:
    """A request that is turned away, with this answer."""

    status: int
    reason: str = ""
    extra: Extra = field(default_factory=dict)
    """further headers"""
    retry_after_s: int | None = None


def way_back(via: str, flow: Flow) -> Flow:
    """Where answers to a request with this topmost Via go, and requests of ours to its sender.

    To the port that it came from if the sender says `rport` (RFC 3581 §4), else to the port in its Via, 5060
    when there is none (RFC 3261 §18.2.2): desk telephones send from one port and listen at another. The
    address is always the packet's own, whatever Via's host, `maddr` or `received` say, so that nobody can
    have us send to somebody else. A connection has one way back.
    """
    if flow.reliable:
        return flow
    match = _FIRST_VIA.match(via)
    first = match[0] if match else ""
    sent_by = _SENT_BY.match(first)
    if sent_by is None or _RPORT.search(first):
        return flow
    port = int(sent_by[1] or SIP_PORT)
    return flow.toward_port(port) if 0 < port < 65536 else flow


def response(request: Request, flow: Flow, status: int, extra: Extra | None = None) -> Response:
    """`extra` are further headers. The To tag is the same for every repeat of a request, so that a refusal
    needs no state (RFC 3261 §8.2.7)."""
    answer = Response(status, PHRASES.get(status, "Refused"))
    answer.headers.setlist("Via", stamped(request.headers.getlist("Via"), flow))
    for name in ("From", "To", "Call-ID", "CSeq"):
        answer.headers.set(name, request.headers[name])
    if status > 100 and not to_tag(request):
        tag = hashlib.sha256((request.call_id + branch_of(request)).encode()).hexdigest()[:12]
        answer.headers.set("To", tagged(request, tag))
    for name, value in (extra or {}).items():
        answer.headers.setlist(name, [value] if isinstance(value, str) else list(value))
    answer.headers.set("Content-Length", "0")
    return answer


def told(request: Request, flow: Flow, status: int, reason: str) -> Response:
    """A refusal whose phrase is its reason: printable ASCII, 100 characters at most."""
    answer = response(request, flow, status)
    answer.phrase = "".join(c for c in reason if " " <= c < "\x7f")[:100] or answer.phrase
    return answer


def tagged(request: Request, tag: str) -> str:
    """The To of a response: the request's, with our tag where it has none."""
    to = request.headers["To"]
    return to if not tag or to_tag(request) else f"{to.rstrip('; ')};tag={tag}"


def refusal(request: Request, flow: Flow, turned: Turned) -> Response:
    """A response that says why (RFC 3326) and, if known, when to try again."""
    headers: dict[str, str | Sequence[str]] = dict(turned.extra)
    if turned.retry_after_s is not None:
        headers["Retry-After"] = str(turned.retry_after_s)
    if turned.reason:
        headers["Reason"] = reason(turned.status, turned.reason)
    return response(request, flow, turned.status, headers)

"""Responses that the edge gives in its own name."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Final

from sipmessage import Request, Response

from gateway.edge.message import branch_of, stamped, to_tag
from gateway.edge.transport import Flow

PHRASES: Final = {
    100: "Trying", 200: "OK", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found",
    405: "Method Not Allowed", 408: "Request Timeout", 415: "Unsupported Media Type",
    416: "Unsupported URI Scheme", 420: "Bad Extension", 480: "Temporarily Unavailable",
    481: "Call/Transaction Does Not Exist", 482: "Loop Detected", 483: "Too Many Hops",
    487: "Request Terminated", 488: "Not Acceptable Here", 500: "Server Internal Error",
    501: "Not Implemented", 503: "Service Unavailable", 513: "Message Too Large",
}  # fmt: skip
ALLOW: Final = "INVITE, ACK, CANCEL, BYE, OPTIONS, INFO, UPDATE, PRACK"

Extra = Mapping[str, str | Sequence[str]]


def response(request: Request, flow: Flow, status: int, extra: Extra | None = None) -> Response:
    """`extra` are further headers. The To tag is the same for every repeat of a request, so that a refusal
    needs no state (RFC 3261 §8.2.7)."""
    answer = Response(status, PHRASES.get(status, "Refused"))
    answer.headers.setlist("Via", stamped(request.headers.getlist("Via"), flow))
    for name in ("From", "To", "Call-ID", "CSeq"):
        answer.headers.set(name, request.headers[name])
    if status > 100 and not to_tag(request):
        tag = hashlib.sha256((request.call_id + branch_of(request)).encode()).hexdigest()[:12]
        answer.headers.set("To", f"{request.headers['To']};tag={tag}")
    for name, value in (extra or {}).items():
        answer.headers.setlist(name, [value] if isinstance(value, str) else list(value))
    answer.headers.set("Content-Length", "0")
    return answer


def refusal(
    request: Request,
    flow: Flow,
    status: int,
    reason: str = "",
    *,
    retry_after_s: int | None = None,
    extra: Extra | None = None,
) -> Response:
    """A response that says why (RFC 3326) and, if known, when to try again."""
    headers: dict[str, str | Sequence[str]] = dict(extra or {})
    if retry_after_s is not None:
        headers["Retry-After"] = str(retry_after_s)
    if reason:
        said = "".join(c if c.isprintable() and c not in '"\\' else " " for c in reason[:100])
        headers["Reason"] = f'SIP;cause={status};text="{said}"'
    return response(request, flow, status, headers)

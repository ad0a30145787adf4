"""How the API says that something is wrong: `application/problem+json` (RFC 9457)."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final

from starlette.responses import JSONResponse, Response

from gateway.errors import CallRefused
from gateway.front.admission.rights import Right

PROBLEM: Final = "application/problem+json"
HTTP_STATUS: Final = {
    380: 403, 400: 400, 401: 401, 403: 403, 404: 404, 409: 409, 410: 404, 415: 415, 429: 429, 480: 503,
    481: 404, 486: 503, 488: 400, 500: 500, 503: 503, 600: 503, 603: 403, 606: 400,
}  # fmt: skip
"""What a refusal's SIP status is in HTTP; others are 502."""


def refusal(
    status: int,
    detail: str,
    retry_after_s: int | None = None,
    *,
    right: Right | None = None,
    more: Mapping[str, Any] | None = None,
) -> Response:
    """A problem: `type`, `title`, `status`, `detail`; if any, `retry_after_s`, and the `right` missing.

    `more` are members of its own. The type is `about:blank`: the status says what kind of problem it is.
    """
    headers = {} if retry_after_s is None else {"Retry-After": str(retry_after_s)}
    if status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="voicegate"'
    body: dict[str, Any] = {
        "type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail,
    }  # fmt: skip
    if retry_after_s is not None:
        body["retry_after_s"] = retry_after_s
    if right is not None:
        body["right"] = right
    body |= more or {}
    return JSONResponse(body, status, headers, PROBLEM)


def refused_call(refused: CallRefused) -> Response:
    """Why a call was not taken, or what was asked of it not done."""
    return refusal(HTTP_STATUS.get(refused.status, 502), refused.reason, refused.retry_after_s)

"""Session timers (RFC 4028): whether the other side is still there.

As the one who was called: who refreshes is what the caller's request says, else the caller where it can, else
we do. As the one who calls: what the answer says, and where that says nothing there is no timer. Without a
`Session-Expires` in a request of theirs there is none either.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

from gateway.edge.dialogs.transaction import Served, Timer
from gateway.edge.grammar.responses import response
from gateway.edge.grammar.sip_message import Request, Response

LEAST_S: Final = 90
"""The shortest that we take (§4)."""
USUAL_S: Final = 1800
"""What we ask for when we call (§4 recommends it)."""
_EXPIRES: Final = re.compile(r"(\d{1,9})\s*(?:;\s*refresher\s*=\s*(ua[cs]))?", re.IGNORECASE)


class SessionTimer:
    """One call's. `refresh` is called when it is our turn, `expired` when the other side has not come."""

    __slots__ = ("_expired", "_refresh", "_timer")

    def __init__(self, refresh: Callable[[], None], expired: Callable[[], None]) -> None:
        self._refresh = refresh
        self._expired = expired
        self._timer = Timer()

    @staticmethod
    def too_short(request: Request) -> bool:
        """Whether the request wants shorter refreshes than we take: 422, with our `Min-SE`."""
        wanted = _EXPIRES.match(request.headers.get("Session-Expires") or "")
        return wanted is not None and int(wanted[1]) < LEAST_S and "timer" in request.supported

    def agree(self, request: Request) -> Mapping[str, str]:
        """What the 2xx to this INVITE or UPDATE says; the time begins anew."""
        wanted = _EXPIRES.match(request.headers.get("Session-Expires") or "")
        if wanted is None:
            self._timer.cancel()
            return {}
        expires_s = max(LEAST_S, int(wanted[1]))
        knows = "timer" in request.supported
        refresher = (wanted[2] or ("uac" if knows else "uas")).lower() if knows else "uas"
        self.start(expires_s, ours=refresher == "uas")
        said = {"Session-Expires": f"{expires_s};refresher={refresher}"}
        return said | {"Require": "timer"} if refresher == "uac" else said

    def agreed(self, answer: Response) -> None:
        """What the 2xx to an INVITE of ours says; the time begins anew."""
        said = _EXPIRES.match(answer.headers.get("Session-Expires") or "")
        if said is None:
            self._timer.cancel()
        else:
            self.start(max(LEAST_S, int(said[1])), ours=(said[2] or "uac").lower() == "uac")

    def start(self, expires_s: int, *, ours: bool) -> None:
        """The session lasts so long from now. `ours`: we refresh, half-way (§10)."""
        if ours:
            self._timer.start(expires_s / 2, self._refresh)
        else:
            self._timer.start(expires_s - min(32, expires_s / 3), self._expired)

    def again(self, after_s: float) -> None:
        """Our refresh crossed an offer of the caller's: once more, so long from now."""
        self._timer.start(after_s, self._refresh)

    def stop(self) -> None:
        """The call is over."""
        self._timer.cancel()


def too_short(served: Served) -> Response:
    """To who wants shorter sessions than we take (RFC 4028 §6)."""
    answer = response(served.request, served.flow, 422, {"Min-SE": str(LEAST_S)})
    answer.phrase = "Session Interval Too Small"
    return answer

"""Callers' INVITEs that were refused, whoever refused them: the router is told of each call once.

All final answers to them pass by here. A repeat of an INVITE, or another try of the same call at the same
hurdle, is not a second call; a challenge to log in is not a refusal, and one who gave up was not refused.
"""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from gateway.edge.dialogs.wire_tap import WireTap, tag_in
from gateway.edge.flows.transport import Flow
from gateway.edge.grammar.header import reason_text
from gateway.edge.grammar.message import from_tag, to_tag
from gateway.edge.grammar.sip_message import Request, Response
from gateway.edge.router import RefusedInvite, Router
from gateway.ipc.call_facts import CallFacts

SAME_CALL_S: Final = 64.0
"""How long a refused call is remembered: twice as long as an INVITE is repeated (RFC 3261 §17.1.1.2)."""
REMEMBERED: Final = 4096
NOT_REFUSED: Final = frozenset({482, 487})
"""Merged: the call is here by another way. Cancelled: the caller gave up."""
_HEADER: Final = re.compile(r"^(from|f|call-id|i)[ \t]*:[ \t]*(.*)$", re.IGNORECASE | re.MULTILINE)


class RefusedInvites:
    """See the module. `source` finds the address of a request's caller, also behind a trusted proxy."""

    def __init__(self, router: Router, source: Callable[[Request, Flow], str], tap: WireTap) -> None:
        self._router = router
        self._tap = tap
        self._source = source
        self._told: OrderedDict[tuple[str, str, int], float] = OrderedDict()

    def note(self, request: Request, flow: Flow, answer: Response, call_id: str | None = None) -> None:
        """A final answer goes to a request of a caller's; `call_id` is the call's, if it has one."""
        if request.method != "INVITE" or answer.code < 300 or answer.code in NOT_REFUSED or to_tag(request):
            return
        reason = _reason(answer)
        if answer.code == 401:
            challenge = "".join(answer.headers.getlist("WWW-Authenticate")).lower().replace(" ", "")
            if request.headers.get("Authorization") is None or "stale=true" in challenge:
                return
            reason = "wrong name or password"
        if not self._is_new(request.call_id, from_tag(request), answer.code):
            return
        facts = CallFacts(
            caller=request.from_address.uri.plain,
            called=request.uri.plain,
            display=request.from_address.name,
            source=self._source(request, flow),
            transport=flow.transport,
        )
        self._tell(RefusedInvite(facts, answer.code, reason, request.call_id, call_id), from_tag(request))

    def note_unreadable(self, data: bytes, flow: Flow, status: int, why: str) -> None:
        """An answer goes to what cannot be read; it may have been an INVITE."""
        text = data[:4096].decode("utf-8", "replace").replace("\r", "")
        method, _, rest = text.partition(" ")
        if method != "INVITE":
            return
        found = {name.lower()[0]: value.strip() for name, value in reversed(_HEADER.findall(text))}
        caller, sip_call_id = found.get("f", ""), found.get("i") or found.get("c", "")
        called = rest.partition("\n")[0].rpartition(" ")[0]
        if self._is_new(sip_call_id, f"{flow.host} {caller}", status):
            facts = CallFacts(caller, called, display="", source=flow.host, transport=flow.transport)
            tag = tag_in(caller)
            self._tap.came_unreadable(sip_call_id, tag, data, flow)
            self._tell(RefusedInvite(facts, status, why, sip_call_id), tag)

    def _tell(self, call: RefusedInvite, tag: str) -> None:
        kept_as = self._router.refused(call)
        if kept_as is not None:
            self._tap.known(call.sip_call_id, tag, kept_as, standing="refused")

    def _is_new(self, sip_call_id: str, caller: str, status: int) -> bool:
        key, now = (sip_call_id, caller, status), time.monotonic()
        told_at = self._told.get(key)
        if told_at is not None and now - told_at < SAME_CALL_S:
            return False
        self._told[key] = now
        self._told.move_to_end(key)
        while len(self._told) > REMEMBERED or now - next(iter(self._told.values())) >= SAME_CALL_S:
            self._told.popitem(last=False)
        return True


def _reason(answer: Response) -> str:
    """What the answer says: its Reason (RFC 3326), else its phrase."""
    return reason_text(answer.headers.get("Reason") or "") or answer.phrase

"""The calls that leave by a trunk: who may, by which, and which of them a message belongs to.

Only a line of ours can have a call leave, by an INVITE that it signs, for a call that it has, to a target
that the router finds in the dialplan. No number, header or Request-URI of a caller's gets here.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import structlog

from gateway.dialplan.target_address import TrunkTarget, UserTarget, target_address
from gateway.edge.dialogs.transaction import Served
from gateway.edge.flows.transport import Flow
from gateway.edge.grammar.header import Address
from gateway.edge.grammar.message import from_tag
from gateway.edge.grammar.responses import response, told
from gateway.edge.grammar.sip_message import Request
from gateway.edge.grammar.token import RouteToken
from gateway.edge.proxy.switchboard import LOOPBACK, Switchboard
from gateway.edge.registrar.registrar import Reached
from gateway.edge.router import Refuse
from gateway.edge.trunks.left_calls import LeftCalls
from gateway.edge.trunks.out_call import OutCall
from gateway.edge.trunks.outlets import Outlet, PhoneOutlet, TrunkOutlet, TrunkPeer
from gateway.edge.trunks.trunk_use import TrunkUse
from gateway.ipc.line_signature import target_signature

_NAME: Final = re.compile(r"[a-z0-9_-]{1,80}")
_SHOWN: Final = re.compile(r"[A-Za-z0-9_.+*#-]{1,64}")
"""Of a caller's user what a telephone of ours is shown."""

Phones = Callable[[str], Sequence[Reached]]
FlowFailed = Callable[[Reached, int], None]

log = structlog.get_logger("edge")


class OutCalls:
    """See the module."""

    def __init__(
        self,
        board: Switchboard,
        trunks: Mapping[str, TrunkPeer],
        use: Mapping[str, TrunkUse],
        phones: Phones,
        flow_failed: FlowFailed,
    ) -> None:
        """`phones` finds the telephones of a user; `flow_failed` hears which of them were not there."""
        self._phones = phones
        self._flow_failed = flow_failed
        self._board = board
        self._trunks = trunks
        self._use = use
        self.left = LeftCalls()

    # ── from a line ──────────────────────────────────────────────────────────────────────────────────

    def invited(self, served: Served) -> None:
        """An INVITE of a line's that opens a dialog."""
        request, board = served.request, self._board
        call_id = request.headers.get("X-VG-Call") or ""
        target = request.headers.get("X-VG-Target") or ""
        said = request.headers.get("X-VG-Auth") or ""
        right = target_signature(board.config.boot_token, call_id, target, request.call_id)
        caller = board.dialogs.of_call(call_id)
        signed = hmac.compare_digest(said.encode(), right.encode()) and _NAME.fullmatch(target) is not None
        token = caller.token if caller is not None else self._bridged(served, call_id) if signed else None
        if not signed or token is None or token.line_port != served.flow.port:
            log.warning("trunk.unsigned", port=served.flow.port)
            board.refuse(served, 403, "not the target of a call of this line")
            return
        served.answer(response(request, served.flow, 100))
        shown = "" if caller is None else _user_of(caller.caller_from)
        where = board.router.target_of(call_id, target)
        if isinstance(where, Refuse):
            self._refused(served, call_id, target, where.status, where.reason)
            return
        address = target_address(where)
        if isinstance(address, TrunkTarget):
            self._by_trunk(served, token, address, shown)
        elif isinstance(address, UserTarget):
            self._to_phone(served, token, address.user, shown)
        else:
            self._refused(served, call_id, target, 480, f"{target} is to be referred to, not called")

    def _bridged(self, served: Served, call_id: str) -> RouteToken | None:
        """Of a caller on a browser's line, for whom a line for telephones calls: that line's."""
        line = self._board.lines.at_port(served.flow.port)
        if line is None or not self._board.router.on_web_line(call_id):
            return None
        line.calls.add(call_id)  # it has a slot there
        port = line.info.sip_port
        return RouteToken(call_id, line.info.name, port, "udp", LOOPBACK, port)

    def _free_bridge(self, token: RouteToken) -> None:
        if self._board.dialogs.of_call(token.call_id) is None:
            self._board.lines.release(token.line, token.call_id)

    def _to_phone(self, served: Served, token: RouteToken, user: str, caller: str) -> None:
        policy, target = self._board.config.srtp, served.request.headers["X-VG-Target"]
        rule = policy.rule(user=user)
        reached = [one for one in self._phones(user) if not policy.barred(rule, one.flow)]
        if not reached:
            self._refused(served, token.call_id, target, 480, f"no telephone of {user} is registered")
            return
        if rule == "optional" and not all(policy.takes_keys(one.flow) for one in reached):
            rule = "off"
        shown = caller if _SHOWN.fullmatch(caller) else "anonymous"
        self._leaves(served, token, PhoneOutlet(user, reached, shown, rule, self._flow_failed))

    def _leaves(self, served: Served, token: RouteToken, outlet: Outlet) -> None:
        said = served.request.headers.get("X-VG-SRTP") or "off"
        if said != outlet.srtp:  # the line offers again, as it is told here
            answer = response(served.request, served.flow, 488, {"X-VG-SRTP": outlet.srtp})
            served.answer(answer)
            if (use := self._use.get(outlet.name)) is not None:
                use.forget()
            return
        call = OutCall(self._board, self, served, token, outlet)
        asked = served.request
        self._board.tap.known(asked.call_id, from_tag(asked), token.call_id, outlet.name)
        log.info("target.tried", by=outlet.name, call_id=token.call_id)
        self.left.begin(call)

    def _refused(self, served: Served, call_id: str, target: str, status: int, reason: str) -> None:
        log.warning("trunk.refused", call_id=call_id, target=target, status=status, why=reason)
        served.answer(told(served.request, served.flow, status, reason))

    def _by_trunk(self, served: Served, token: RouteToken, address: TrunkTarget, caller: str) -> None:
        peer, use = self._trunks.get(address.trunk), self._use.get(address.trunk)
        target = served.request.headers["X-VG-Target"]
        if peer is None or use is None:
            why = f"there is no trunk {address.trunk} in trunks.toml"
            self._refused(served, token.call_id, target, 503, why)
            return
        if self._board.draining:
            self._refused(served, token.call_id, target, 503, "going down")
            return
        if (why_not := use.take(address.number)) is not None:
            self._refused(served, token.call_id, target, 403, why_not)
            return
        shown = peer.ways.trunk.shown_as(caller)
        self._leaves(served, token, TrunkOutlet(peer, address.number, shown))

    def over(self, call: OutCall, status: int) -> None:
        """See `OutOwner`."""
        name = call.outlet.name
        self.left.over(call)
        if (use := self._use.get(name)) is not None:
            use.give()
            use.outcomes[status or 200] += 1
        self._free_bridge(call.token)
        if status:
            log.info("target.refused_by", by=name, call_id=call.token.call_id, status=status)

    def cancel(self, invite: Served) -> bool:
        """A line's CANCEL; False when the INVITE is not one that left."""
        return self.left.cancel(invite)

    def within(self, request: Request, served: Served | None) -> bool:
        """A request of a line's within a dialog, `served` None for an ACK; False when it is none of these."""
        call = self.left.asked(request)
        if call is None:
            return False
        if served is None:
            call.acknowledge(request)
        else:
            call.ask(served)
        return True

    # ── from a trunk ─────────────────────────────────────────────────────────────────────────────────

    def of(self, request: Request, flow: Flow) -> OutCall | None:
        """The call that a trunk's request within a dialog belongs to; only from the trunk itself."""
        call = self.left.told(request)
        return call if call is not None and call.outlet.owns(flow) else None

    def leave_by(self, peer: TrunkPeer) -> bool:
        """Whether some call left by a trunk as it was then."""
        outlets = (call.outlet for call in self.left)
        return any(isinstance(one, TrunkOutlet) and one.peer is peer for one in outlets)

    def line_died(self, port: int) -> None:
        """A line is gone, with all its calls."""
        for call in self.left:
            if call.token.line_port == port:
                call.line_died()


def _user_of(text: str) -> str:
    """The user of a From, for the comparison with a trunk's numbers."""
    try:
        return Address.read(text).uri.user or ""
    except ValueError:
        return ""

"""What both sides of the edge share: lines, dialogs, transactions; and how a call ends when we end it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from gateway.edge.dialogs.dialog import Dialog, Dialogs
from gateway.edge.dialogs.identity import Identity
from gateway.edge.dialogs.transaction import Served, Transactions
from gateway.edge.dialogs.web_dialog import WebDialogs
from gateway.edge.dialogs.wire_tap import WireTap
from gateway.edge.doors.edge_config import EdgeConfig
from gateway.edge.doors.limits import Share
from gateway.edge.doors.refused import RefusedInvites
from gateway.edge.flows.peer_ports import PeerPorts
from gateway.edge.flows.transport import Flow, Receive, UdpPort
from gateway.edge.grammar.responses import Turned, refusal
from gateway.edge.grammar.sdes import SrtpRule
from gateway.edge.grammar.sip_message import Request, Response
from gateway.edge.grammar.token import RouteToken
from gateway.edge.proxy.lines import Lines
from gateway.edge.router import Router
from gateway.ipc.ending import CallEnding, End

ACK_WITHIN_S: Final = 32.0
"""64 * T1 (RFC 3261 §13.3.1.4): who dials for somebody else acknowledges once that one has picked up."""
OVERDUE_S: Final = 1.0
"""After it an unacknowledged answer is no longer a slow network's."""
OVERDUE_SHARE: Final = 0.25
"""Of all slots; when strangers hold more that are overdue, their oldest end at once."""
LINE_SAYS_SO_WITHIN_S: Final = 0.5
LOOPBACK: Final = "127.0.0.1"


class Switchboard:
    """One edge's state. Its ports open when the edge starts; they give what comes to `from_caller` and
    `from_line`. `source` finds a caller's address, `trunk_of` the trunk that somebody is, and
    `trusts_trunk` says whether what that says of who calls is believed; `lost` is
    told of each connection that ended."""

    def __init__(
        self,
        config: EdgeConfig,
        router: Router,
        spawn: Callable[[Any], None],
        *,
        from_caller: Receive,
        from_line: Receive,
        source: Callable[[Request, Flow], str],
        lost: Callable[[Flow], None],
        trunk_of: Callable[[Flow], str | None],
        trusts_trunk: Callable[[Flow], bool],
    ) -> None:
        self.tap = WireTap(config.on_wire, config.route_key)
        self.ports = PeerPorts(
            from_caller,
            self.connection_lost,
            lambda: config.trust(None, None),
            config.web_ports,
            self.tap.sent,
        )
        self.loopback = UdpPort(from_line)
        self.toward_callers = Identity(self.ports.udp, config.public_address, self.ports.port)
        self.toward_lines = Identity(self.loopback, None)
        self.config = config
        self.router = router
        self._lost = lost
        self.spawn = spawn
        self.trunk_of = trunk_of
        self.trusts_trunk = trusts_trunk
        self.lines = Lines()
        self.dialogs = Dialogs()
        self.web_dialogs = WebDialogs()
        self.refused_invites = RefusedInvites(router, source, self.tap)
        self.transactions = Transactions(self._answered_finally)
        self.share = Share()
        self.counts: Counter[str] = Counter()
        self.refused: Counter[int] = Counter()
        self.draining = False
        self._overdue: dict[Dialog, None] = {}

    def drain(self) -> None:
        """No new calls; what runs goes on."""
        self.draining = True

    def _answered_finally(self, served: Served, answer: Response) -> None:
        if self.lines.at_port(served.flow.port) is not None and served.flow.host == LOOPBACK:
            return  # a line's, of a call that we know
        self.refused_invites.note(served.request, served.flow, answer, served.call_id)

    # ── flows ────────────────────────────────────────────────────────────────────────────────────────

    def line_flow(self, token: RouteToken) -> Flow:
        return self.loopback.flow(LOOPBACK, token.line_port)

    def caller_flow(self, token: RouteToken, dialog: Dialog | None) -> Flow | None:
        """Where the caller was last heard, else where its INVITE came from; None: its connection ended."""
        if dialog is not None and dialog.flow.open:
            return dialog.flow
        return self.ports.flow(token.transport, token.host, token.port)

    def refuse(self, served: Served, status: int, reason: str = "", retry_after_s: int | None = None) -> None:
        """The final answer to a request that we hold."""
        self.turn(served, Turned(status, reason, retry_after_s=retry_after_s))

    def turn(self, served: Served, turned: Turned) -> None:
        """The same, with more to say."""
        if not served.final:
            self.refused[turned.status] += 1
            served.answer(refusal(served.request, served.flow, turned))

    def turn_away(self, request: Request, flow: Flow, turned: Turned) -> None:
        """An answer without state: a repeat gets the same one again, its ACK is nobody's."""
        self.refused[turned.status] += 1
        answer = refusal(request, flow, turned)
        self.refused_invites.note(request, flow, answer)
        flow.send(bytes(answer))

    def srtp(self, dialog: Dialog | None, flow: Flow) -> SrtpRule:
        """Whether a call's sound may be encrypted by what comes or goes this way. Of a call from before our
        restart the line knows what is wanted."""
        return self.config.srtp.over("optional" if dialog is None else dialog.srtp, flow)

    # ── acknowledgement ──────────────────────────────────────────────────────────────────────────────

    @property
    def unacknowledged(self) -> int:
        return sum(1 for dialog in self.dialogs if dialog.answered and not dialog.acknowledged)

    def answered(self, dialog: Dialog) -> None:
        """The line's first 2xx went by: the caller owes an ACK."""
        dialog.patience.start(OVERDUE_S, partial(self._now_overdue, dialog))

    def acknowledged(self, dialog: Dialog) -> None:
        if not dialog.acknowledged:
            dialog.acknowledged = True
            self._at_rest(dialog)

    def _now_overdue(self, dialog: Dialog) -> None:
        self._overdue[dialog] = None
        dialog.patience.start(ACK_WITHIN_S - OVERDUE_S, partial(self._never_acknowledged, dialog))
        strangers = [one for one in self._overdue if not one.vouched_for]
        while len(strangers) > max(1, OVERDUE_SHARE * self.lines.slots):
            self._never_acknowledged(strangers.pop(0))

    def end_oldest_overdue(self) -> bool:
        """Makes room; False when nobody is overdue."""
        oldest = next(iter(self._overdue), None)
        if oldest is not None:
            self._never_acknowledged(oldest)
        return oldest is not None

    def _never_acknowledged(self, dialog: Dialog) -> None:
        """ACK and BYE in the caller's name, which frees the line's slot at once; the caller hears it too."""
        flow = self.line_flow(dialog.token)
        flow.send(bytes(dialog.toward_line("ACK", self.line_via())))
        self.transactions.send(dialog.toward_line("BYE", self.line_via()), flow, _whatever, 5.0)
        self._bye_caller(dialog, within_s=1.0)  # it may be nobody: few repeats
        self.unheard(dialog)

    def unheard(self, dialog: Dialog) -> None:
        """Nobody ever acknowledged the answer."""
        self.counts["never_acknowledged"] += 1
        self.over(dialog, CallEnding(End.UNACKNOWLEDGED))

    def _at_rest(self, dialog: Dialog) -> None:
        dialog.patience.cancel()
        self._overdue.pop(dialog, None)
        self.share.give(dialog.source)

    # ── ends ─────────────────────────────────────────────────────────────────────────────────────────

    def over(self, dialog: Dialog, how: CallEnding, told_after_s: float = 0.0) -> None:
        """The call ended; whoever says so first is believed."""

        async def tell() -> None:
            await asyncio.sleep(told_after_s)
            await self.router.ended(dialog.token.call_id, how)

        if self.forget(dialog):
            self.spawn(tell())

    def caller_hung_up(self, dialog: Dialog) -> None:
        """Its line has the BYE too and says so itself; if it does not, we do. At once, the order to hang up
        could reach the line before the BYE, and the caller would be sent another one."""
        self.over(dialog, CallEnding(End.CALLER), told_after_s=LINE_SAYS_SO_WITHIN_S)

    def line_hung_up(self, dialog: Dialog) -> None:
        """The line knows why, or its hall: what we say holds only when neither says anything."""
        self.over(dialog, CallEnding(End.VOICE), told_after_s=LINE_SAYS_SO_WITHIN_S)

    def forget(self, dialog: Dialog) -> bool:
        """Its slot is free; False when that was known."""
        if not self.dialogs.remove(dialog):
            return False
        if not dialog.acknowledged:
            self._at_rest(dialog)
        self.lines.release(dialog.token.line, dialog.token.call_id)
        return True

    def line_died(self, name: str) -> None:
        """Unanswered requests to it fail at once, callers in its dialogs get a BYE."""
        line = self.lines.down(name)
        if line is None:
            return
        for sent in self.transactions.toward("udp", LOOPBACK, line.info.sip_port):
            sent.fail()
        for dialog in self.dialogs:
            if dialog.token.line == name:
                if dialog.answered:
                    self._bye_caller(dialog)
                self.over(dialog, CallEnding(End.LINE_DIED))

    def connection_lost(self, flow: Flow) -> None:
        """What waits for an answer on it waits in vain (RFC 3261 §17.1.4); calls go on."""
        for sent in self.transactions.toward(flow.transport, flow.host, flow.port):
            sent.fail()
        self._lost(flow)

    def _bye_caller(self, dialog: Dialog, within_s: float = 32.0) -> None:
        flow = self.caller_flow(dialog.token, dialog)
        if flow is not None:
            bye = dialog.toward_caller("BYE", self.toward_callers.via(flow, self.transactions.branch()))
            self.transactions.send(bye, flow, _whatever, within_s)

    def line_via(self) -> Any:
        """A fresh Via for a request to a line."""
        flow = self.loopback.flow(LOOPBACK, 0)
        return self.toward_lines.via(flow, self.transactions.branch())

    def token_of(self, request: Request) -> RouteToken | None:
        return RouteToken.of(request, self.config.route_key)


def _whatever(_: object) -> None:
    """The answer to a BYE of ours changes nothing."""

"""The edge: a transaction-stateful SIP proxy between callers and this host's lines that watches dialogs too.

Callers reach us over UDP, TCP, TLS and WebSocket; lines are loopback UDP and speak only to us. In-dialog
requests find their way by the signed word in our Record-Route and Contact (`token`), also after a restart.
Here the parts meet: `callers` and `lineside` take what comes, `switchboard` holds what both know.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

import structlog

from gateway.edge.doors.digest import HashOf
from gateway.edge.doors.doors import Doors
from gateway.edge.doors.edge_config import EdgeConfig
from gateway.edge.flows import web_socket
from gateway.edge.flows.stun import binding_answer, is_stun
from gateway.edge.flows.tls_door import TlsDoor
from gateway.edge.flows.transport import Flow
from gateway.edge.grammar.message import Unreadable, bare_answer, read
from gateway.edge.grammar.responses import PHRASES, response, way_back
from gateway.edge.grammar.sip_message import Request, Response
from gateway.edge.proxy.callers import CallersSide
from gateway.edge.proxy.forwarding import Forwarding
from gateway.edge.proxy.lines import LineInfo
from gateway.edge.proxy.lineside import LinesSide
from gateway.edge.proxy.switchboard import LOOPBACK, Switchboard
from gateway.edge.registrar.contacts import Expiry
from gateway.edge.registrar.qualify import Qualify
from gateway.edge.registrar.registrar import BindingShelf, Reached, SipRegistrar
from gateway.edge.router import Router
from gateway.edge.trunks.trunk import Trunk
from gateway.edge.trunks.trunk_desk import TrunkDesk
from gateway.errors import VoicegateError

log = structlog.get_logger("edge")


class Edge:
    """See the module. All methods belong to one event loop."""

    def __init__(
        self,
        config: EdgeConfig,
        router: Router,
        spawn: Callable[[Any], None],
        shelf: BindingShelf | None = None,
        trunks: Sequence[Trunk] = (),
    ) -> None:
        """`shelf` keeps where telephones are; it is needed where they may register (`config.phones`).

        Raises `ValueError` when a network in the config is none, or the shelf is missing; `SettingsError`
        when a trunk's files cannot be read.
        """
        self.config = config
        self._doors = Doors(config, lambda flow, host: self.trunks.of(flow, host) is not None)
        self.registrar: SipRegistrar | None = None
        """None: nobody may register."""
        if config.phones is not None:
            if shelf is None:
                raise ValueError("telephones may register, and nobody keeps where they are")
            expiry = Expiry(config.least_registered_s, config.most_registered_s, config.most_registered_s)
            self.registrar = SipRegistrar(shelf, partial(_is_user, config.phones), self._udp_flow, expiry)
        self._board = Switchboard(
            config,
            router,
            spawn,
            from_caller=self._from_caller,
            from_line=self._from_line,
            source=self._doors.source,
            lost=self._connection_lost,
            trunk_of=lambda flow: self.trunks.of(flow),
            trusts_trunk=lambda flow: self.trunks.trusts(flow),
        )
        if self.registrar is not None:
            self._board.ports.udp.blank = self.registrar.heard
        self.qualify: Qualify | None = None
        if self.registrar is not None:
            board = self._board
            self.qualify = Qualify(self.registrar, board.transactions, board.toward_callers, config.qualify_s)
        forwarding = Forwarding(self._board)
        self.trunks = TrunkDesk(trunks, self._board, self._phones_of, self._flow_failed)
        left = self.trunks.calls
        self._callers = CallersSide(self._board, self._doors, forwarding, self.registrar, left.of)
        self._lines = LinesSide(self._board, forwarding, left)

    def _phones_of(self, user: str) -> list[Reached]:
        return [] if self.registrar is None else self.registrar.reach(user)

    def _flow_failed(self, one: Reached, status: int) -> None:
        if self.registrar is not None:
            self.registrar.failed(one, status)

    def _udp_flow(self, host: str, port: int) -> Flow:
        return self._board.ports.udp.flow(host, port)

    def _connection_lost(self, flow: Flow) -> None:
        if self.registrar is not None and self.registrar.reaches_by(flow):
            self._board.spawn(self.registrar.lost(flow))

    # ── life ─────────────────────────────────────────────────────────────────────────────────────────

    async def start(self) -> None:
        """Raises `OSError` when a port is taken."""
        board, config = self._board, self.config
        await self._open_loopback()
        await board.ports.open(config.host, config.port)
        if config.tls is not None:
            door = TlsDoor(
                config.tls,
                config.tls_asking,
                self.trunks.authorities,
                config.client_authorities,
                lambda flow: self.trunks.of(flow) is not None,
            )
            await board.ports.open_tls(config.host, config.tls_port, door)

    async def _open_loopback(self) -> None:
        """The port that lines know from the Record-Route of their calls: the last edge's, if we know it."""
        kept, loopback = self.config.loopback_port_file, self._board.loopback
        last = 0
        if kept is not None:
            with contextlib.suppress(OSError, ValueError):  # there is no file
                last = int(kept.read_text())
        try:
            await loopback.open(LOOPBACK, last)
        except OSError:  # somebody has the port now
            await loopback.open(LOOPBACK, 0)
        if kept is not None:
            kept.write_text(str(loopback.address[1]))

    async def stop(self) -> None:
        """Says nothing to anybody: running calls outlive an edge."""
        board = self._board
        board.transactions.close()
        for dialog in board.dialogs:
            dialog.patience.cancel()
        for web in board.web_dialogs:
            web.rest()
        await board.ports.close()
        await board.loopback.close()

    @property
    def port(self) -> int:
        """The SIP port, bound for UDP and TCP."""
        return self._board.toward_callers.port

    @property
    def tls_port(self) -> int:
        """Where SIP over TLS is taken; the SIP port where it is not."""
        return self._board.ports.port("tls")

    def own_end(self, transport: str, peer: str) -> tuple[str, int]:
        """Our address and port, as a peer at that address reaches us by that transport."""
        return self._board.toward_callers.address(peer), self._board.ports.port(transport)

    def drain(self) -> None:
        """No new calls; what runs goes on."""
        self._board.drain()

    def line_up(self, info: LineInfo) -> None:
        known = self._board.lines.named(info.name)
        if known is not None and known.info.sip_port != info.sip_port:
            self._line_died(info.name, known.info.sip_port)  # another process now, and nobody said so
        self._board.lines.up(info)

    def line_down(self, name: str) -> None:
        """Its callers get a BYE, its unanswered INVITEs a 503."""
        known = self._board.lines.named(name)
        if known is not None:
            self._line_died(name, known.info.sip_port)

    def _line_died(self, name: str, port: int) -> None:
        self._board.line_died(name)
        self.trunks.calls.line_died(port)

    async def web_socket(
        self,
        transport: str,
        host: str,
        port: int,
        receive: Callable[[], Awaitable[bytes | None]],
        send: Callable[[bytes], Awaitable[None]],
    ) -> None:
        """A browser's connection, for as long as it lasts: see `web_socket.serve`."""
        await web_socket.serve(self._board.ports.connections, transport, host, port, receive, send)

    def web_over(self, call_id: str) -> None:
        """A web line's call is over: its caller gets a BYE, if it came by SIP and has not said one."""
        self._callers.web.hang_up(call_id)

    def slot_free(self, name: str, call_id: str) -> None:
        """A line says that a call of its is over."""
        dialog = self._board.dialogs.of_call(call_id)
        if dialog is not None and dialog.answered:
            self._board.forget(dialog)  # its hall knows how it ended
        self._board.lines.release(name, call_id)

    def held_by_halls(self) -> Mapping[str, int]:
        """How many calls the lines of each hall hold."""
        return self._board.lines.held_by_halls()

    def stats(self) -> dict[str, Any]:
        """Counts for the metrics."""
        board, connections = self._board, self._board.ports.connections
        return {
            "dialogs": len(board.dialogs) + len(board.web_dialogs),
            "transactions": len(board.transactions),
            "slots": board.lines.slots,
            "slots_free": board.lines.free,
            "unacknowledged": board.unacknowledged,
            "refused": {str(status): count for status, count in board.refused.items()},
            "dropped": {**self._doors.dropped, "connection": connections.turned_away},
            "connections": len(connections),
            "failed_handshakes": connections.failed_handshakes,
            **board.counts,
            **self._doors.counts,
            **({} if self.registrar is None else self.registrar.stats()),
        }

    # ── what comes in ────────────────────────────────────────────────────────────────────────────────

    def _from_caller(self, data: bytes, flow: Flow) -> bool:
        if self.registrar is not None and not flow.reliable:
            self.registrar.heard(flow)
        if is_stun(data):
            self._keep_alive(data, flow)
            return False  # over a connection it is no SIP
        try:
            message = read(data)
        except Unreadable as why:
            self._doors.dropped["size" if why.status == 513 else "malformed"] += 1
            log.debug("edge.unreadable", source=flow.host, why=str(why))
            if self._doors.admits_from(flow.host, flow) and self._in_time(flow.host):
                answer = bare_answer(data, why.status, PHRASES[why.status], flow, str(why))
                if answer is not None:
                    self._board.refused_invites.note_unreadable(data, flow, why.status, str(why))
                    via = answer.partition(b"Via:")[2].partition(b"\r\n")[0].decode()
                    way_back(via, flow).send(answer)
                    return True
            return False
        if isinstance(message, Request):
            flow = way_back(message.headers["Via"], flow)
        try:
            self._callers.take(message, flow, data)
        except Exception:  # no message may end the edge
            self._doors.dropped["malformed"] += 1
            log.exception("edge.message_failed", source=flow.host, **self._about(message))
            if isinstance(message, Request) and message.method != "ACK":
                answer_500 = response(message, flow, 500)
                self._board.refused_invites.note(message, flow, answer_500)
                flow.send(bytes(answer_500))
        return True

    def _keep_alive(self, data: bytes, flow: Flow) -> None:
        """A telephone's STUN over UDP; one source may ask as often as it may call."""
        if flow.reliable or not self._doors.admits_from(flow.host, flow) or not self._in_time(flow.host):
            return
        answer = binding_answer(data, flow.host, flow.port)
        if answer is not None:
            self._board.counts["keep_alives"] += 1
            flow.send(answer)

    def _in_time(self, host: str) -> bool:
        in_time = self._doors.in_time(host)
        self._doors.dropped["rate"] += not in_time
        return in_time

    def _from_line(self, data: bytes, flow: Flow) -> bool:
        if flow.host != LOOPBACK or self._board.lines.at_port(flow.port) is None:
            self._doors.dropped["not_a_line"] += 1
            return False
        try:
            message = read(data)
        except Unreadable as why:
            log.warning("edge.line_unreadable", port=flow.port, why=str(why))
            return True
        try:
            self._lines.take(message, flow)
        except Exception:
            log.exception("edge.line_message_failed", port=flow.port, **self._about(message))
        return True

    def _about(self, message: Request | Response) -> dict[str, str]:
        """Which call a message belongs to, for the log."""
        named = {"sip_call_id": message.call_id}
        token = self._board.token_of(message) if isinstance(message, Request) else None
        return named if token is None else {"call_id": token.call_id, **named}


def _is_user(hash_of_user: HashOf, name: str) -> bool:
    try:
        return hash_of_user(name, "MD5") is not None
    except VoicegateError:  # the list of users cannot be read: nobody is on it
        return False

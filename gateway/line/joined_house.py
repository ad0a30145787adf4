"""A line's front and its hall, whom it joins and joins again, and its way to the hall's ticks.

When the front goes, nothing happens to calls. When the hall goes, they wait `HALL_BACK_WITHIN_S` for it, in
silence; then the line gives it up.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Iterable
from typing import Final, Protocol

import structlog

from gateway.config.runtime import Runtime
from gateway.ipc.envelope import Handled, Tell, told
from gateway.ipc.hello import Hello, LineFacts, TickHello
from gateway.ipc.line_messages import AskFailures, StopLine
from gateway.ipc.rpc import Peer, connect, stay_joined
from model.tasks import failures

HALL_BACK_WITHIN_S: Final = 5.0
Handling = Iterable[Handled[Peer, Awaitable[object]]]

log = structlog.get_logger("line")


class JoiningLine(Protocol):
    """A line, as the house that it joins sees it."""

    def facts(self) -> LineFacts:
        """What it says of itself."""

    def from_front(self) -> Handling:
        """What it does for its front, but for stopping and counting failures."""

    def from_hall(self) -> Handling:
        """What it does for its hall."""

    def hall_joined(self, ticks: socket.socket) -> None:
        """A hall is there, and `ticks`, which does not block: it must hear of the calls that it has."""

    def ticks_lost(self, ticks: socket.socket) -> None:
        """Just before they are closed."""

    def hall_given_up(self) -> None:
        """The hall did not come back in time."""


class JoinedHouse:
    """One line's. `stop_asked` is set by `stop`, which the front may ask for."""

    def __init__(self, line: JoiningLine, runtime: Runtime, name: str, token: str) -> None:
        """`token` is this boot's."""
        self.ticks: socket.socket | None = None
        """to the hall, while it is there"""
        self.stop_asked = asyncio.Event()
        self._line = line
        self._runtime = runtime
        self._name = name
        self._token = token
        self._front: Peer | None = None
        self._hall: Peer | None = None
        self._hall_gone: asyncio.TimerHandle | None = None

    @property
    def has_hall(self) -> bool:
        """Whether calls can be taken."""
        return self._hall is not None

    async def keep_front(self) -> None:
        """Joins the front, again and again."""
        await stay_joined(self._join_front)

    async def keep_hall(self) -> None:
        """Joins the hall, again and again."""
        await stay_joined(self._join_hall)

    def stop(self) -> None:
        """No hall is waited for any more."""
        self.stop_asked.set()

    def close(self) -> None:
        """After the last word; `keep_front` and `keep_hall` have ended."""
        if self._hall_gone is not None:
            self._hall_gone.cancel()
        for peer in (self._front, self._hall):
            if peer is not None:
                peer.close()
        self._lose_ticks()

    # ── what is told ─────────────────────────────────────────────────────────────────────────────────

    def tell_hall(self, message: Tell) -> None:
        """Tells the hall, if it is there."""
        if self._hall is not None:
            self._hall.tell(message)

    def tell_both(self, message: Tell) -> None:
        """Tells the hall and the front, as far as they are there."""
        for peer in (self._hall, self._front):
            if peer is not None:
                peer.tell(message)

    def expect_hall(self) -> None:
        """There are calls, perhaps: if there is no hall, it has only so long to come."""
        if self._hall is None and self._hall_gone is None and not self.stop_asked.is_set():
            log.warning("hall.lost", calls=len(self._line.facts().calls))
            loop = asyncio.get_running_loop()
            self._hall_gone = loop.call_later(HALL_BACK_WITHIN_S, self._give_hall_up)

    def break_with_hall(self) -> None:
        """Its ticks are broken: it is joined anew."""
        self._lose_ticks()
        if self._hall is not None:
            self._hall.close()

    # ── connections ──────────────────────────────────────────────────────────────────────────────────

    def _hello(self, facts: LineFacts) -> Hello:
        return Hello("line", self._name, self._token, line=facts)

    async def _join_front(self) -> None:
        handlers = [
            *self._line.from_front(),
            StopLine.handled_by(self._stop),
            AskFailures.handled_by(self._failures),
        ]
        self._front = front = await connect(self._runtime.front, self._hello(self._line.facts()), handlers)
        await front.closed.wait()
        log.warning("front.lost")

    async def _join_hall(self) -> None:
        facts = self._line.facts()
        hall = await connect(self._runtime.hall(facts.hall), self._hello(facts), self._line.from_hall())
        try:
            ticks = self._connect_ticks(facts)
            self._hall = hall
            if self._hall_gone is not None:
                self._hall_gone.cancel()
                self._hall_gone = None
            self._line.hall_joined(ticks)
            await hall.closed.wait()
        finally:
            hall.close()
            self._hall = None
            self._lose_ticks()
            self.expect_hall()

    def _connect_ticks(self, facts: LineFacts) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            sock.setblocking(False)
            sock.connect(str(self._runtime.ticks(facts.hall)))
            sock.send(told(TickHello(self._name, facts.rate_hz, self._token)))
        except OSError:
            sock.close()
            raise
        self.ticks = sock
        return sock

    def _lose_ticks(self) -> None:
        if (ticks := self.ticks) is not None:
            self.ticks = None
            self._line.ticks_lost(ticks)
            ticks.close()

    def _give_hall_up(self) -> None:
        self._hall_gone = None
        self._line.hall_given_up()

    async def _stop(self, _: Peer, __: StopLine) -> None:
        self.stop()

    async def _failures(self, _: Peer, __: AskFailures) -> dict[str, int]:
        return dict(failures)

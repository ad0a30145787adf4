"""The test phone's end of the wire: when packets came, and what a rough line does to those that go.

Each call's media transport gets a table of ours (`transport_table`), whose attach2 puts `PhoneWires` between
the socket and the stream, and whose send_rtp, where the line is rough, decides what becomes of a packet.

A packet that is held back is sent by the phone's loop. pjmedia's own send_rtp is called with the
interpreter's lock held: a call cannot end under it, since `WireEnd.close` needs the lock too, and runs before
pjmedia lets go of the transport.
"""

from __future__ import annotations

import ctypes
import time
from collections import deque
from typing import Any, Final

from gateway.phone.phone_loop import Loop
from gateway.phone.rough_line import PacketFates, RoughLine
from gateway.phone.transport_table import (
    ADDRESS_SIZE,
    ATTACH2,
    AUDIO,
    NOT_THERE,
    PACKET,
    PARAM,
    RTP_CB2_AT,
    SEND_RTP,
    Attach,
    Settled,
    Take,
    TransportTables,
    address_of,
    in_library,
    word_at,
)

HOLE_S: Final = 0.04
"""Packets that come further apart than this leave a hole: the next one was due after 20 ms."""
_HEADER: Final = 12
"""Bytes of an RTP header (RFC 3550 §5.1)."""

_Sends = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_SendNow = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t)


class Arrivals:
    """When a call's packets came, and the holes between them. Times are `time.monotonic()`."""

    __slots__ = ("_last", "holes", "longest_s", "packets")

    def __init__(self) -> None:
        self._last: float | None = None
        self.packets = 0
        self.holes = 0
        """apart by more than `HOLE_S`"""
        self.longest_s = 0.0
        """between two packets"""

    def came(self, at: float) -> None:
        if self._last is not None:
            apart_s = at - self._last
            self.longest_s = max(self.longest_s, apart_s)
            self.holes += apart_s > HOLE_S
        self._last = at
        self.packets += 1

    def pause(self) -> None:
        """Nothing is awaited until the next packet: a hold."""
        self._last = None


class WireEnd:
    """One call's media transport."""

    def __init__(self, transport: int, own: int, line: RoughLine, call: int) -> None:
        self.transport = transport
        self.own = own
        """where pjmedia's own table is"""
        self.fates = PacketFates(line, call)
        self.heard = PacketFates(line.heard, call) if line.heard_loss_percent else None
        self.arrivals = Arrivals()
        self.dropped = 0
        """packets that the rough line lost"""
        self.closed = True
        self.take: Any = None
        """the stream's own function"""
        self.overtaken: bytes | None = None
        """goes after the next packet"""
        self.due_at = 0.0
        """of the last packet that was held back"""
        self.held: deque[bytes] = deque()
        """packets that are held back now, in their order"""

    def open(self, take: Any) -> None:
        """A stream has attached, and takes packets by this function of its."""
        self.take, self.closed = take, False
        self.arrivals.pause()

    def close(self) -> None:
        """The stream is over, and the transport may go."""
        self.closed, self.overtaken = True, None


class PhoneWires:
    """All transports of a phone. pjmedia keeps pointers into it, so it lives as long as the process does."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._own: dict[int, tuple[Any, Any]] = {}
        """attach2 and send_rtp by the address of pjmedia's own table"""
        self._ends: dict[int, WireEnd] = {}
        """by transport"""
        self._streams: dict[int, WireEnd] = {}
        self._settled = Settled()
        self._attach = Attach(self._attached)
        self._send = _Sends(self._sent)
        self._rx = Take(self._took)
        self._rx_at = address_of(self._rx)
        attach, send = address_of(self._attach), address_of(self._send)
        self._smooth = TransportTables({ATTACH2: attach})
        self._rough = TransportTables({ATTACH2: attach, SEND_RTP: send})

    def connect(self, transport: int, line: RoughLine, call: int) -> WireEnd:
        """Takes a transport, before a stream attaches to it, for the phone's `call`-th call.

        Raises `LineError` when we do not know such a transport.
        """
        own = (self._smooth if line.smooth else self._rough).exchange(transport)
        if own not in self._own:
            self._own[own] = (
                Attach(word_at(own + 8 * ATTACH2)),
                _SendNow(word_at(own + 8 * SEND_RTP)),
            )
        end = self._ends[transport] = WireEnd(transport, own, line, call)
        return end

    # ── what comes ───────────────────────────────────────────────────────────────────────────────────────

    def _attached(self, transport: int, param: int) -> int:
        """pjmedia_transport_op.attach2."""
        end = self._ends.get(transport)
        if end is None:
            return NOT_THERE
        stream, kind, size, user, _, _, take = PARAM.unpack(ctypes.string_at(param, PARAM.size))
        if (stream, kind, size) == (user, AUDIO, ADDRESS_SIZE) and in_library(take):
            end.open(Take(take))
            self._streams[user] = end
            ctypes.c_uint64.from_address(param + RTP_CB2_AT).value = self._rx_at
        status: int = self._own[end.own][0](transport, param)
        return status

    def _took(self, param: int) -> None:
        """A stream's rtp_cb2."""
        at = time.monotonic()
        self._settled.settle()
        user, _, size = PACKET.unpack(ctypes.string_at(param, PACKET.size))
        end = self._streams.get(user)
        if end is None:
            return
        if size > _HEADER:  # else it is an error's number, or carries no sound
            if end.heard is not None and end.heard.next().lost:
                return
            end.arrivals.came(at)
        end.take(param)

    # ── what goes ────────────────────────────────────────────────────────────────────────────────────────

    def _sent(self, transport: int, packet: int, size: int) -> int:
        """pjmedia_transport_op.send_rtp of a rough line."""
        self._settled.settle()
        end = self._ends.get(transport)
        if end is None:
            return NOT_THERE
        data = ctypes.string_at(packet, size)
        lost, held_s, overtaken = end.fates.next()
        if lost:
            end.dropped += 1
            return 0
        if overtaken and end.overtaken is None:
            end.overtaken = data
            return 0
        now = time.monotonic()
        going = [data] if end.overtaken is None else [data, end.overtaken]
        end.overtaken = None
        end.due_at = max(end.due_at, now + held_s)
        if end.due_at > now or end.held:
            for one in going:
                end.held.append(one)
                self._loop.call(self._hold, end, end.due_at)
        else:
            for one in going:
                self._go(end, one)
        return 0

    def _hold(self, end: WireEnd, due_at: float) -> None:
        self._loop.later(max(0.0, due_at - time.monotonic()), self._let_go, end)

    def _let_go(self, end: WireEnd) -> None:
        """One packet, the first of those that are held: clocks that differ by a little change no order."""
        if not end.closed:
            self._go(end, end.held[0])
        end.held.popleft()

    def _go(self, end: WireEnd, data: bytes) -> int:
        status: int = self._own[end.own][1](end.transport, data, len(data))
        return status

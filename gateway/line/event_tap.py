"""Keys on payload types that pjmedia drops: a tap on the RTP of a stream, for the calls that need one.

pjmedia takes events (RFC 4733) on the one payload type of our own SDP. Phones also send them on the type of
theirs, and on 101 though nobody agreed on any. pjsua2 shows no RTP, but it shows each call's media transport,
whose table of functions may be exchanged (`transport_table`): attach2 is given the function that takes the
packets. A transport that is tapped gets a table with our attach2. When the stream that attaches has types to
listen for, it puts itself between; other streams are attached as they were, and pay nothing.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Set
from typing import Any, Final

from gateway.config.notes import note
from gateway.line.telephone_event import TelephoneEvents
from gateway.line.transport_table import (
    ADDRESS_SIZE,
    ATTACH2,
    AUDIO,
    NOT_THERE,
    PACKET,
    PARAM,
    RTP_CB2_AT,
    Attach,
    Settled,
    Take,
    TransportTables,
    address_of,
    in_library,
    word_at,
)

_LONGEST: Final = 80
"""Bytes; no event packet is longer, and 10 ms of sound are."""


class Tap:
    """One transport's tap. `pressed` is told each key, in pjmedia's thread."""

    __slots__ = ("events", "own", "pressed", "take", "transport", "types")

    def __init__(self, transport: int, own: int, pressed: Callable[[str], None]) -> None:
        self.transport = transport
        self.own = own
        """where pjmedia's own table is"""
        self.pressed = pressed
        self.events = TelephoneEvents()
        self.types: Set[int] = frozenset()
        """payload types to listen for"""
        self.take: Any = None
        """the stream's own function"""

    def listen_for(self, types: Set[int]) -> None:
        """The next stream that attaches may send keys on these payload types too."""
        self.types = types


class EventTap:
    """All taps of a process. pjmedia keeps pointers into it, so it lives as long as the process does."""

    def __init__(self) -> None:
        self._own_attach: dict[int, Any] = {}
        """attach2 by the address of pjmedia's own table"""
        self._taps: dict[int, Tap] = {}
        """by transport"""
        self._streams: dict[int, Tap] = {}
        """those that are listened to, by stream"""
        self._settled = Settled()
        self._attach = Attach(self._attached)
        self._rx = Take(self._took)
        self._rx_at = address_of(self._rx)
        self._tables = TransportTables({ATTACH2: address_of(self._attach)})

    def tap(self, transport: int, pressed: Callable[[str], None]) -> Tap:
        """Taps a transport before a stream attaches to it. Raises `LineError` when we do not know such."""
        own = self._tables.exchange(transport)
        if own not in self._own_attach:
            self._own_attach[own] = Attach(word_at(own + 8 * ATTACH2))
        tap = self._taps[transport] = Tap(transport, own, pressed)
        return tap

    def forget(self, tap: Tap) -> None:
        """pjmedia has let go of the transport; another one may be at its address by now."""
        if self._taps.get(tap.transport) is tap:
            del self._taps[tap.transport]
        for stream in [stream for stream, other in self._streams.items() if other is tap]:
            del self._streams[stream]

    def _attached(self, transport: int, param: int) -> int:
        """pjmedia_transport_op.attach2."""
        tap = self._taps.get(transport)
        if tap is None:
            return NOT_THERE
        if tap.types:
            stream, kind, size, user, _, _, take = PARAM.unpack(ctypes.string_at(param, PARAM.size))
            if (stream, kind, size) == (user, AUDIO, ADDRESS_SIZE) and in_library(take):
                tap.take = Take(take)
                self._streams[user] = tap
                ctypes.c_uint64.from_address(param + RTP_CB2_AT).value = self._rx_at
            else:
                note("error", "line.not_tapped", types=sorted(tap.types))
        status: int = self._own_attach[tap.own](transport, param)
        return status

    def _took(self, param: int) -> None:
        """A stream's rtp_cb2."""
        self._settled.settle()
        user, packet, size = PACKET.unpack(ctypes.string_at(param, PACKET.size))
        tap = self._streams.get(user)
        if tap is None:  # its call is over
            return
        if 12 <= size <= _LONGEST:
            head = ctypes.string_at(packet, size)
            if head[1] & 0x7F in tap.types and (digit := tap.events.pressed(head)) is not None:
                tap.pressed(digit)
        tap.take(param)

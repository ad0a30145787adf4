"""Keys on payload types that pjmedia drops: a tap on the RTP of a stream, for the calls that need one.

pjmedia takes events (RFC 4733) on the one payload type of our own SDP. Phones also send them on the type of
theirs, and on 101 though nobody agreed on any. pjsua2 shows no RTP, but it shows each call's media transport:
a pjmedia_transport is a name, a type and a table of functions, of which attach2 is given the function
that takes the packets. A transport that is tapped gets a table with our attach2. When the stream that
attaches has types to listen for, it puts itself between; other streams are attached as they were, and pay
nothing.

`check_transport_layout` says whether this build's structures lie where we expect them.
"""

from __future__ import annotations

import ctypes
import struct
import threading
from collections.abc import Callable, Set
from typing import Any, Final

import pjsua2._pjsua2

from gateway.config.notes import note
from gateway.errors import LineError
from gateway.line.telephone_event import TelephoneEvents

_TABLE_AT: Final = 40
"""In pjmedia_transport: after 32 bytes of name and the type."""
_FUNCTIONS: Final = 13
_ATTACH2: Final = 12
_PARAM: Final = struct.Struct("<Qi28x28xIQQQQ")
"""pjmedia_transport_attach_param: stream, media type, two addresses, their length, user data, rtp_cb,
rtcp_cb, rtp_cb2."""
_RTP_CB2_AT: Final = _PARAM.size - 8
_AUDIO: Final = 1
_ADDRESS_SIZE: Final = 16
"""sizeof(sockaddr_in)."""
_PACKET: Final = struct.Struct("<QQq")
"""pjmedia_tp_cb_param begins with user data, the packet and its size."""
_LONGEST: Final = 80
"""Bytes; no event packet is longer, and 10 ms of sound are."""
_NOT_THERE: Final = 70006
"""PJ_ENOTFOUND."""

_Attach = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
_Take = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_WORD: Final = struct.Struct("<Q")


def _word_at(address: int) -> int:
    value: int = _WORD.unpack(ctypes.string_at(address, 8))[0]
    return value


class _Info(ctypes.Structure):
    _fields_ = (
        ("file", ctypes.c_char_p),
        ("base", ctypes.c_void_p),
        ("name", ctypes.c_char_p),
        ("at", ctypes.c_void_p),
    )


_dladdr = ctypes.CDLL(None).dladdr
_dladdr.argtypes = (ctypes.c_void_p, ctypes.POINTER(_Info))
_library = ctypes.CDLL(pjsua2._pjsua2.__file__)


def _in_library(address: int) -> bool:
    """Whether pjsua2's own code or data is there."""
    here, theirs = _Info(), _Info()
    known = ctypes.cast(_library.pjmedia_stream_create, ctypes.c_void_p).value
    return bool(
        address
        and _dladdr(known, ctypes.byref(theirs))
        and _dladdr(address, ctypes.byref(here))
        and here.base == theirs.base
    )


def check_transport_layout(transport: int) -> None:
    """Raises `LineError` unless the pjmedia_transport at this address has the table that we know."""
    name = ctypes.string_at(transport, 4)
    table = _word_at(transport + _TABLE_AT)
    if name not in (b"srtp", b"udp0") or not _in_library(table):
        raise LineError("this pjsua2 build lays out its transports differently; voicegate knows 2.15.1")
    if not all(_in_library(_word_at(table + 8 * n)) for n in (0, _ATTACH2)):
        raise LineError("this pjsua2 build's transports have other functions; voicegate knows 2.15.1")


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
        self._tables: dict[int, tuple[Any, Any]] = {}
        """by the address of pjmedia's own table: ours, and its attach2"""
        self._taps: dict[int, Tap] = {}
        """by transport"""
        self._streams: dict[int, Tap] = {}
        """those that are listened to, by stream"""
        self._settled: set[int] = set()
        """pjmedia's threads that have called us"""
        self._attach = _Attach(self._attached)
        self._rx = _Take(self._took)
        self._attach_at = ctypes.cast(self._attach, ctypes.c_void_p).value or 0
        self._rx_at = ctypes.cast(self._rx, ctypes.c_void_p).value or 0

    def tap(self, transport: int, pressed: Callable[[str], None]) -> Tap:
        """Taps a transport before a stream attaches to it. Raises `LineError` when we do not know such."""
        check_transport_layout(transport)
        own = _word_at(transport + _TABLE_AT)
        if own not in self._tables:
            functions = ctypes.string_at(own, 8 * _FUNCTIONS)
            ours = ctypes.create_string_buffer(functions, len(functions))
            _WORD.pack_into(ours, 8 * _ATTACH2, self._attach_at)
            self._tables[own] = ours, _Attach(_word_at(own + 8 * _ATTACH2))
        tap = self._taps[transport] = Tap(transport, own, pressed)
        table = ctypes.addressof(self._tables[own][0])
        ctypes.c_uint64.from_address(transport + _TABLE_AT).value = table
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
            return _NOT_THERE
        if tap.types:
            stream, kind, size, user, _, _, take = _PARAM.unpack(ctypes.string_at(param, _PARAM.size))
            if (stream, kind, size) == (user, _AUDIO, _ADDRESS_SIZE) and _in_library(take):
                tap.take = _Take(take)
                self._streams[user] = tap
                ctypes.c_uint64.from_address(param + _RTP_CB2_AT).value = self._rx_at
            else:
                note("error", "line.not_tapped", types=sorted(tap.types))
        status: int = self._tables[tap.own][1](transport, param)
        return status

    def _took(self, param: int) -> None:
        """A stream's rtp_cb2."""
        if (thread := threading.get_ident()) not in self._settled:
            # Keep this C thread's Python state from one packet to the next, instead of a new one each time.
            ctypes.pythonapi.PyGILState_Ensure()
            self._settled.add(thread)
        user, packet, size = _PACKET.unpack(ctypes.string_at(param, _PACKET.size))
        tap = self._streams.get(user)
        if tap is None:  # its call is over
            return
        if 12 <= size <= _LONGEST:
            head = ctypes.string_at(packet, size)
            if head[1] & 0x7F in tap.types and (digit := tap.events.pressed(head)) is not None:
                tap.pressed(digit)
        tap.take(param)

"""How a pjmedia_transport lies in memory: a name, a type, and a table of functions that may be exchanged.

pjsua2 shows no RTP, but it shows each call's media transport. One that gets a table of ours calls us where
the table says so: `phone_wire` does that. `check_transport_layout` says whether this build's
structures lie where we expect them.
"""

from __future__ import annotations

import ctypes
import struct
import threading
from typing import Any, Final

import pjsua2._pjsua2

from gateway.errors import LineError

TABLE_AT: Final = 40
"""In pjmedia_transport: after 32 bytes of name and the type."""
FUNCTIONS: Final = 13
SEND_RTP: Final = 3
ATTACH2: Final = 12
"""Places in the table: who sends, and who is given the function that takes the packets."""
PARAM: Final = struct.Struct("<Qi28x28xIQQQQ")
"""pjmedia_transport_attach_param: stream, media type, two addresses, their length, user data, rtp_cb,
rtcp_cb, rtp_cb2."""
RTP_CB2_AT: Final = PARAM.size - 8
AUDIO: Final = 1
ADDRESS_SIZE: Final = 16
"""sizeof(sockaddr_in)."""
PACKET: Final = struct.Struct("<QQq")
"""pjmedia_tp_cb_param begins with user data, the packet and its size."""
NOT_THERE: Final = 70006
"""PJ_ENOTFOUND."""

Attach: Final = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
Take: Final = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
WORD: Final = struct.Struct("<Q")


def word_at(address: int) -> int:
    value: int = WORD.unpack(ctypes.string_at(address, 8))[0]
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


def in_library(address: int) -> bool:
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
    table = word_at(transport + TABLE_AT)
    if name not in (b"srtp", b"udp0") or not in_library(table):
        raise LineError("this pjsua2 build lays out its transports differently; voicegate knows 2.15.1")
    if not all(in_library(word_at(table + 8 * n)) for n in (0, SEND_RTP, ATTACH2)):
        raise LineError("this pjsua2 build's transports have other functions; voicegate knows 2.15.1")


def address_of(function: Any) -> int:
    """Of a C function that ctypes made."""
    return ctypes.cast(function, ctypes.c_void_p).value or 0


class TransportTables:
    """Tables of ours in the place of pjmedia's. pjmedia keeps pointers into them: they live as long as the
    process does."""

    def __init__(self, exchanged: dict[int, int]) -> None:
        """`exchanged`: the address of our function, by its place in the table."""
        self._exchanged = exchanged
        self._tables: dict[int, Any] = {}
        """ours, by the address of pjmedia's own"""

    def exchange(self, transport: int) -> int:
        """Gives a transport our table; the address of pjmedia's own. Raises `LineError` when we do not know
        such a transport."""
        check_transport_layout(transport)
        own = word_at(transport + TABLE_AT)
        if own not in self._tables:
            functions = ctypes.string_at(own, 8 * FUNCTIONS)
            ours = self._tables[own] = ctypes.create_string_buffer(functions, len(functions))
            for place, function in self._exchanged.items():
                WORD.pack_into(ours, 8 * place, function)
        ctypes.c_uint64.from_address(transport + TABLE_AT).value = ctypes.addressof(self._tables[own])
        return own


class Settled:
    """pjmedia's threads that have called us: each keeps its Python state from one packet to the next, instead
    of a new one each time."""

    def __init__(self) -> None:
        self._threads: set[int] = set()

    def settle(self) -> None:
        if (thread := threading.get_ident()) not in self._threads:
            ctypes.pythonapi.PyGILState_Ensure()
            self._threads.add(thread)

"""A call's two UDP sockets, RTP on an even port and RTCP on the next, and the times at which packets came.

The kernel notes when a packet came (SO_TIMESTAMPNS), so it may wait in its socket until the clock's next
turn: nobody is woken for it, and jitter is still measured to the microsecond.
"""

from __future__ import annotations

import errno
import socket
import struct
import time
from collections.abc import Iterator
from typing import Final

from gateway.errors import LineError
from gateway.rtp.agreement import EVERYWHERE
from gateway.rtp.payloads.packet import LONGEST

SO_TIMESTAMPNS: Final = 35
"""On Linux; Python's socket module does not name it. Its control message has the same number."""
_TIME: Final = struct.Struct("qq")
_ROOM: Final = socket.CMSG_SPACE(_TIME.size)
RECEIVE_BUFFER: Final = 1 << 16
"""Bytes the kernel keeps of a call: some 80 packets, more than a stalled turn can miss."""

Source = tuple[str, int]


class Arrival:
    """The monotonic time of what the kernel timed by the wall clock, whose steps do not matter."""

    __slots__ = ("_ahead_s", "now", "wall_s")

    def __init__(self) -> None:
        self.now = 0.0
        """`time.monotonic()` of the turn"""
        self.wall_s = 0.0
        self._ahead_s = 0.0
        self.turn()

    def turn(self) -> None:
        """A turn begins: looks at both clocks."""
        self.now, self.wall_s = time.monotonic(), time.time()
        self._ahead_s = self.wall_s - self.now

    def of(self, seconds: int, nanoseconds: int) -> float:
        """When a packet came; the turn's own time for a stamp from before the wall clock was set."""
        at = seconds + nanoseconds / 1e9 - self._ahead_s
        return at if self.now - 10.0 < at <= self.now else self.now


class SocketPair:
    """Bound to two ports of one address; neither blocks."""

    __slots__ = ("port", "rtcp", "rtp")

    def __init__(self, rtp: socket.socket, rtcp: socket.socket, port: int) -> None:
        self.rtp = rtp
        self.rtcp = rtcp
        self.port = port

    @classmethod
    def open(cls, address: str, ports: Iterator[int]) -> SocketPair:
        """The first pair of `ports` (even ones) that is free. Raises `LineError` when none is."""
        tried = 0
        for port in ports:
            tried += 1
            rtp = _bound(address, port)
            if rtp is None:
                continue
            try:
                rtcp = _bound(address, port + 1)
            except LineError:
                rtp.close()
                raise
            if rtcp is not None:
                return cls(rtp, rtcp, port)
            rtp.close()
        raise LineError(f"none of {tried} pairs of UDP ports is free on {address or 'any address'} for RTP")

    def close(self) -> None:
        """The ports are free again."""
        self.rtp.close()
        self.rtcp.close()


def _bound(address: str, port: int) -> socket.socket | None:
    """None: the port is somebody else's."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    except OSError as error:  # no descriptor is left, or no memory
        raise LineError(f"there is no socket for RTP: {error.strerror}") from None
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(address != EVERYWHERE))
        sock.bind((address, port))
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            return None
        raise LineError(f"cannot have RTP at {address or 'any address'}: {error.strerror}") from None
    sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
    return sock


def receive(sock: socket.socket, arrival: Arrival) -> tuple[bytes, float, Source] | None:
    """The next packet, when it came, and from where; None when there is none."""
    try:
        data, control, _, source = sock.recvmsg(LONGEST, _ROOM)
    except BlockingIOError:
        return None
    except OSError:  # an ICMP error for something that we sent
        return b"", arrival.now, ("", 0)
    at = arrival.of(*_TIME.unpack_from(control[0][2])) if control else arrival.now
    return data, at, source if len(source) == 2 else source[:2]

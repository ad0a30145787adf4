"""The way of a browser's sound to a target, and back: Opus in RTP between two sockets of this host.

    browser ──→ web line ──→ a line for telephones ──→ target

The other end joins it to the target's sound once that is there. From its first packet on the hall neither
hears the caller nor is heard: what goes to the target is what came from the browser, and nothing else has a
way in. The socket takes packets of that one port alone.

Hot path: never blocks, never logs.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import struct
from collections.abc import Callable
from typing import Final

from gateway.line.opus import FRAME, OpusDecoder, OpusEncoder, OpusError

LOOPBACK: Final = "127.0.0.1"
PAYLOAD_TYPE: Final = 96
GONE_S: Final = 3.0
"""Without a packet for so long the other end is gone: it sends one each 20 ms."""
SILENCE: Final = bytes(2 * FRAME)
_HEAD: Final = struct.Struct(">BBHII")
_AT_ONCE: Final = 8
"""Packets that are read in one go."""


class TargetBridge:
    """One call's. `take` gets 20 ms of the target, int16 at 48 kHz."""

    def __init__(self, take: Callable[[bytes], None]) -> None:
        """Raises `OSError` when there is no socket."""
        self.joined = False
        """the target's sound is there, and the caller's goes there"""
        self._take = take
        self._encoder, self._decoder = OpusEncoder(), OpusDecoder()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind((LOOPBACK, 0))
        self._sequence, self._stamp = secrets.randbits(15), secrets.randbits(31)
        self._source = secrets.randbits(32)
        self._last = 0.0

    @property
    def port(self) -> int:
        """Where the other end sends to."""
        return int(self._socket.getsockname()[1])

    def join(self, port: int) -> None:
        """The other end's port; until now packets of nobody count."""
        self._socket.connect((LOOPBACK, port))
        self._last = asyncio.get_running_loop().time()
        asyncio.get_running_loop().add_reader(self._socket, self._came)

    def close(self) -> None:
        """The way is no more; the caller is the hall's again."""
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()
        self.joined = False

    def silent_s(self) -> float:
        """Seconds since the last packet."""
        return asyncio.get_running_loop().time() - self._last

    def send(self, sound: bytes) -> None:
        """20 ms of the caller; empty: silence."""
        self._sequence, self._stamp = (self._sequence + 1) & 0xFFFF, (self._stamp + FRAME) & 0xFFFFFFFF
        head = _HEAD.pack(0x80, PAYLOAD_TYPE, self._sequence, self._stamp, self._source)
        try:
            self._socket.send(head + self._encoder.encode(sound or SILENCE))
        except OSError:  # nobody listens there, or the way is full: as if lost
            return

    def _came(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                packet = self._socket.recv(2048)
            except OSError:
                return
            if len(packet) <= _HEAD.size or packet[0] != 0x80 or packet[1] & 0x7F != PAYLOAD_TYPE:
                continue  # a report, or none of ours
            self._last, self.joined = asyncio.get_running_loop().time(), True
            try:
                sound = self._decoder.decode(packet[_HEAD.size :])
            except OpusError:
                sound = SILENCE
            self._take(sound if len(sound) == 2 * FRAME else SILENCE)


def offered_by(port: int) -> str:
    """The description of a bridge's end at that port, by which the other end comes to the same."""
    return (
        f"v=0\r\no=- 1 1 IN IP4 {LOOPBACK}\r\ns=-\r\nc=IN IP4 {LOOPBACK}\r\nt=0 0\r\n"
        f"m=audio {port} RTP/AVP {PAYLOAD_TYPE}\r\na=rtpmap:{PAYLOAD_TYPE} opus/48000/2\r\n"
        f"a=rtcp-mux\r\na=ptime:20\r\na=sendrecv\r\n"
    )

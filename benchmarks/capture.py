"""What was on the wire: a capture of loopback, read back as calls with their sound. For benches and tests.

`tshark` (Debian: tshark) writes the capture, so the times are the kernel's; reading it is ours: SIP by its
text, RTP by the ports that the SDP of offer and answer named.
"""

from __future__ import annotations

import re
import struct
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from watermark.sound import A_LAW_TABLE, MU_LAW_TABLE

FRAME_S = 0.02
PCMU, PCMA, G722 = 0, 8, 9
TABLES = {PCMU: MU_LAW_TABLE, PCMA: A_LAW_TABLE}


@dataclass(slots=True)
class CapturedPacket:
    """One RTP packet; `at` is the capture's clock in seconds."""

    at: float
    sequence: int
    timestamp: int
    payload_type: int
    payload: bytes


@dataclass(slots=True)
class WireCall:
    """One call between a caller and the gateway; times in seconds of the capture's clock."""

    sip_call_id: str
    answered_at: float | None = None
    """the first 200 OK of the INVITE"""
    acknowledged_at: float | None = None
    ended_at: float | None = None
    caller_port: int = 0
    our_port: int = 0
    heard: list[CapturedPacket] = field(default_factory=list)
    """from the caller"""
    sent: list[CapturedPacket] = field(default_factory=list)
    """from the gateway"""


class Capture:
    """`with Capture(path): …` captures UDP on loopback."""

    def __init__(self, path: Path, interface: str = "lo") -> None:
        self.path = path
        self._interface = interface
        self._tshark: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self._tshark = subprocess.Popen(
            ["tshark", "-q", "-i", self._interface, "-f", "udp", "-F", "pcap", "-B", "64", "-w", self.path],
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        assert self._tshark.stderr is not None
        for line in self._tshark.stderr:
            if "Capturing on" in line:
                break
        deadline = time.monotonic() + 10
        while not (self.path.exists() and self.path.stat().st_size):  # its header: it captures from now on
            if time.monotonic() > deadline or self._tshark.poll() is not None:
                raise RuntimeError("tshark does not capture; may this user? (it needs CAP_NET_RAW)")
            time.sleep(0.05)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._tshark is not None
        time.sleep(0.3)  # the last packets are on their way to the file
        self._tshark.terminate()
        self._tshark.communicate(timeout=20)


def calls(path: Path, sip_port: int) -> list[WireCall]:
    """The calls that a gateway on `sip_port` had, with their RTP, in the order of their answers."""
    found: dict[str, WireCall] = {}
    rtp: dict[tuple[int, int], list[CapturedPacket]] = {}
    for at, source, target, data in datagrams(path):
        if sip_port in (source, target):
            _note(found, at, data.decode(errors="replace"))
        elif len(data) > 12 and data[0] >> 6 == 2 and not 64 <= data[1] & 0x7F <= 95:
            kind, sequence, timestamp = struct.unpack_from(">xBHI", data)
            packet = CapturedPacket(at, sequence, timestamp, kind & 0x7F, data[12:])
            rtp.setdefault((source, target), []).append(packet)
    for call in found.values():
        call.heard = rtp.get((call.caller_port, call.our_port), [])
        call.sent = rtp.get((call.our_port, call.caller_port), [])
    return sorted((c for c in found.values() if c.answered_at is not None), key=lambda c: c.answered_at or 0)


def datagrams(path: Path) -> Iterator[tuple[float, int, int, bytes]]:
    """(time, source port, destination port, payload) of each IPv4 UDP packet of a pcap file."""
    raw = path.read_bytes()
    magic, link = struct.unpack_from("<I", raw)[0], struct.unpack_from("<I", raw, 20)[0]
    if magic not in (0xA1B2C3D4, 0xA1B23C4D) or link != 1:
        raise ValueError(f"{path} is no little-endian Ethernet pcap")
    unit = 1e-9 if magic == 0xA1B23C4D else 1e-6
    position = 24
    while position + 16 <= len(raw):
        seconds, fraction, size, _ = struct.unpack_from("<IIII", raw, position)
        frame = raw[position + 16 : position + 16 + size]
        position += 16 + size
        if len(frame) < 42 or frame[12:14] != b"\x08\x00" or frame[23] != 17:
            continue
        head = 14 + (frame[14] & 15) * 4
        source, target, length = struct.unpack_from(">HHH", frame, head)
        yield seconds + fraction * unit, source, target, frame[head + 8 : head + length]


def _note(found: dict[str, WireCall], at: float, text: str) -> None:
    call_id = re.search(r"^(?:Call-ID|i)\s*:\s*(\S+)", text, re.MULTILINE | re.IGNORECASE)
    if call_id is None:
        return
    call = found.setdefault(call_id[1], WireCall(call_id[1]))
    media = re.search(r"^m=audio (\d+)", text, re.MULTILINE)
    of_invite = re.search(r"^CSeq\s*:\s*\d+ INVITE", text, re.MULTILINE | re.IGNORECASE)
    if text.startswith("INVITE") and media and not call.caller_port:
        call.caller_port = int(media[1])
    elif text.startswith("SIP/2.0 200") and of_invite and media and call.answered_at is None:
        call.answered_at, call.our_port = at, int(media[1])
    elif text.startswith("ACK") and call.acknowledged_at is None:
        call.acknowledged_at = at
    elif text.startswith("BYE") and call.ended_at is None:
        call.ended_at = at


def pcm(packet: CapturedPacket) -> NDArray[np.float32]:
    """The sound of a G.711 packet, float32 in [-1, 1] at 8 kHz."""
    codes = np.frombuffer(packet.payload, np.uint8)
    return TABLES[packet.payload_type][codes]


def loudness(packets: list[CapturedPacket]) -> NDArray[np.float32]:
    """RMS of each G.711 packet."""
    return np.array([np.sqrt(np.mean(pcm(packet) ** 2)) for packet in packets], np.float32)

"""What tshark sees on the loopback, and what somebody who listens there would have of it."""

from __future__ import annotations

import asyncio
import subprocess
import wave
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from gateway.rtp.payloads import g711
from tests.gateway.line.line_harness import Sound
from tests.gateway.line.rawphone import RawPhone
from tests.needs import HANGS_S, need_program

Way = tuple[str, str]
"""From whom to whom: "address:port" twice."""
_FIELDS = [
    *("ip.src", "ip.dst", "tcp.srcport", "tcp.dstport", "tcp.seq", "tcp.payload"),
    *("udp.srcport", "udp.dstport", "udp.payload"),
]
HEARD = 0.6
"""So much of a sentence is found again (`alike`) where somebody hears it."""
TLS_RECORDS = range(20, 24)
"""What a record may be (RFC 8446 §5.1)."""


@contextmanager
def captured(file: Path, what: str = "udp") -> Iterator[None]:
    """What passes the loopback meanwhile, by a filter of pcap's."""
    command = [need_program("tshark"), "-i", "lo", "-f", what, "-w", file]
    tshark = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert tshark.stderr is not None
        while "Capturing on" not in (line := tshark.stderr.readline()):
            assert line, "tshark captures nothing"
        yield
    finally:
        tshark.terminate()
        tshark.wait(HANGS_S)


def entropy(sound: bytes) -> float:
    """Bits a byte."""
    share = np.bincount(np.frombuffer(sound, np.uint8), minlength=256) / len(sound)
    some = share[share > 0]
    return float(-(some * np.log2(some)).sum())


def sound_bits(file: Path) -> tuple[int, float]:
    """(packets, entropy in bits a byte) of 20 ms of G.711 in RTP, whatever encrypts it."""
    sound = [data[12:172] for data in Seen.read(file).packets() if is_rtp(data) and data[1] & 0x7F in (0, 8)]
    return len(sound), entropy(b"".join(sound))


def is_rtp(data: bytes) -> bool:
    """20 ms of G.711, encrypted or not."""
    return len(data) >= 172 and data[0] == 0x80


@dataclass
class Seen:
    """A capture. Made by `read`."""

    streams: dict[Way, bytes] = field(default_factory=dict)
    """what each TCP connection carried, each way for itself"""
    datagrams: dict[Way, list[bytes]] = field(default_factory=dict)

    @classmethod
    def read(cls, file: Path) -> Seen:
        asked = [word for name in _FIELDS for word in ("-e", name)]
        shows = ["-Y", "not icmp", "-T", "fields", "-E", "occurrence=f", *asked]
        command = [need_program("tshark"), "-r", file, *shows]
        shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=HANGS_S).stdout
        segments: dict[Way, dict[int, bytes]] = defaultdict(dict)
        datagrams: dict[Way, list[bytes]] = defaultdict(list)
        for line in shown.splitlines():
            source, target, tcp, to_tcp, seq, stream, udp, to_udp, datagram = line.split("\t")
            if stream:
                segments[f"{source}:{tcp}", f"{target}:{to_tcp}"][int(seq)] = bytes.fromhex(stream)
            if datagram:
                datagrams[f"{source}:{udp}", f"{target}:{to_udp}"].append(bytes.fromhex(datagram))
        joined = {way: b"".join(each[seq] for seq in sorted(each)) for way, each in segments.items()}
        return cls(joined, dict(datagrams))

    def packets(self) -> Iterator[bytes]:
        """Of UDP, all of them."""
        for each in self.datagrams.values():
            yield from each

    def everything(self) -> bytes:
        """All that was carried, to be searched for words."""
        return b"\n".join([*self.streams.values(), *self.packets()])

    def sounds(self) -> dict[Way, bytes]:
        """What went by RTP each way, in the order that its writer gave it: 160 bytes a packet."""
        kept = {way: [data for data in each if is_rtp(data)] for way, each in self.datagrams.items()}
        return {
            way: b"".join(data[12:172] for data in sorted(each, key=lambda data: data[2:8]))
            for way, each in kept.items()
            if each
        }


def is_tls(stream: bytes) -> bool:
    """Whether it is records of TLS from its first byte to its last."""
    at = 0
    while at + 5 <= len(stream):
        if stream[at] not in TLS_RECORDS or stream[at + 1] != 3:
            return False
        at += 5 + int.from_bytes(stream[at + 3 : at + 5], "big")
    return at == len(stream)


def spoken(path: Path) -> np.ndarray:
    """A mono 16-bit wav at 8 kHz."""
    with wave.open(str(path)) as file:
        assert file.getframerate() == 8000
        return np.frombuffer(file.readframes(1 << 24), "<i2").astype(float)


def sentence(sound: np.ndarray) -> Sound:
    """Said over and over, 20 ms a time."""
    frames = [sound[at : at + 160] for at in range(0, len(sound) - 160, 160)]
    return lambda n: frames[n % len(frames)].astype("<i2").tobytes()


def alike(heard: bytes, said: np.ndarray) -> float:
    """How much of a second of `said` is somewhere in `heard` (int16 at 8 kHz): 1 is all, 0 nothing.

    Each half second of what was said is looked for in all that was heard; the best fit counts.
    """
    ear = np.frombuffer(heard, "<i2").astype(float)
    size = 8000
    if len(ear) < size:
        return 0.0
    power = np.sqrt(np.convolve(ear**2, np.ones(size), "valid").clip(1.0))
    length = 1 << (len(ear) + size).bit_length()
    spectrum = np.fft.rfft(ear, length)
    best = 0.0
    for at in range(0, len(said) - size, size // 2):
        piece = said[at : at + size]
        norm = float(np.sqrt((piece**2).sum()))
        if norm < 1e4:
            continue  # a pause
        fits = np.fft.irfft(spectrum * np.conj(np.fft.rfft(piece, length)), length)[: len(power)]
        best = max(best, float((fits / power).max() / norm))
    return best


def as_g711(sound: bytes) -> bytes:
    """What a listener who takes it for PCMU hears (int16)."""
    return g711.decode("PCMU", sound).tobytes()


async def comes_to_hear(phone: RawPhone, said: np.ndarray) -> None:
    """Waits until a telephone with a codec of 8 kHz has heard some of it."""
    async with asyncio.timeout(HANGS_S):
        while alike(bytes(phone.pcm[-64_000:]), said) < HEARD:
            await phone.hears(1.0, HANGS_S)

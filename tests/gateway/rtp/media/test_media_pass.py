"""The pass over real sockets: two passes that call each other. The test is their clock; nothing is timed."""

from __future__ import annotations

import itertools
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from gateway.errors import LineError
from gateway.ipc import tick
from gateway.rtp.described_audio import CodecName
from gateway.rtp.media.call_media import CallMedia
from gateway.rtp.media.media_pass import PACKETS_A_TURN, MediaPass
from gateway.rtp.media.socket_pair import Arrival, SocketPair
from gateway.rtp.media.source_latch import Stream
from tests.few_descriptors import spare_descriptors
from tests.gateway.line.line_harness import is_tone, tone
from tests.gateway.rtp.rtp_script import agreed

KINDS: dict[CodecName, int] = {"PCMU": 0, "PCMA": 8, "G722": 9}
PORTS = itertools.cycle(range(21_000, 23_000, 2))


def with_codec(codec: CodecName, address: str, pair: SocketPair, **more: Any) -> Any:
    return agreed(
        codec=codec,
        sent_as=KINDS[codec],
        takes={KINDS[codec]: codec},
        peer=(address, pair.port),
        peer_rtcp=(address, pair.port + 1),
        **more,
    )


@dataclass
class End:
    """One pass with its calls, and the hall behind it."""

    rate_hz: int = 8_000
    keys: list[tuple[int, str]] = field(default_factory=list)
    moves: list[tuple[Stream, Stream]] = field(default_factory=list)
    broken: list[tuple[int, str]] = field(default_factory=list)
    heard: dict[int, bytearray] = field(default_factory=dict)
    flags: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.arrival = Arrival()
        self.media_pass = MediaPass(self.rate_hz, 8, self.arrival)
        self.ticks = 0

    def pressed(self, media: CallMedia, digit: str) -> None:
        self.keys.append((media.number, digit))

    def moved(self, media: CallMedia, was: Stream, now: Stream) -> None:
        self.moves.append((was, now))

    def broke(self, media: CallMedia, error: Exception) -> None:
        self.broken.append((media.number, str(error)))
        self.media_pass.remove(media)

    def add(self, slot: int, pair: SocketPair, agreement: Any) -> CallMedia:
        media = CallMedia(100 + slot, slot, pair, agreement, self.rate_hz, self.arrival, self)
        self.media_pass.add(media)
        return media

    def turn(self, says: dict[int, bytes]) -> None:
        """A tick; the hall says these frames by slot."""
        packet = self.media_pass.hear()
        assert packet is not None
        answer = []
        for slot in tick.unpack(packet).slots:
            self.heard.setdefault(slot.slot, bytearray()).extend(slot.pcm)
            self.flags[slot.slot] = slot.flags
            if slot.slot in says:
                answer.append(tick.SlotAudio(slot.call, slot.slot, 0, 0, says[slot.slot]))
        self.media_pass.note_ticked()
        self.media_pass.take(tick.pack(0, answer))
        self.media_pass.owe(range(self.ticks, self.ticks + 1), answered=True)
        self.ticks += 1

    def close(self) -> None:
        for media in list(self.media_pass.calls.values()):
            self.media_pass.remove(media)
        self.media_pass.close()


@pytest.fixture
def ends() -> Iterator[tuple[End, End]]:
    near, far = End(), End()
    yield near, far
    near.close()
    far.close()


def joined(near: End, far: End, slot: int, codec: CodecName, address: str = "127.0.0.1") -> None:
    """A call from one to the other."""
    ours, theirs = SocketPair.open(address, PORTS), SocketPair.open(address, PORTS)
    near.add(slot, ours, with_codec(codec, address, theirs))
    far.add(slot, theirs, with_codec(codec, address, ours))


def talk(near: End, far: End, frames: int, hz: dict[int, float]) -> None:
    """Each call says its own tone, both ways, 100 Hz apart."""
    ours = {slot: tone(each, rate_hz=near.rate_hz) for slot, each in hz.items()}
    theirs = {slot: tone(each + 100, rate_hz=far.rate_hz) for slot, each in hz.items()}
    for n in range(frames):
        near.turn({slot: sound(n) for slot, sound in ours.items()})
        far.turn({slot: sound(n) for slot, sound in theirs.items()})


def test_calls_of_both_laws_hear_each_their_own(ends: tuple[End, End]) -> None:
    near, far = ends
    codecs: list[CodecName] = ["PCMU", "PCMA", "PCMU", "PCMA"]
    for slot, codec in enumerate(codecs):
        joined(near, far, slot, codec)
    hz = {slot: 500.0 + 300 * slot for slot in range(4)}
    talk(near, far, 60, hz)
    for slot in range(4):
        assert is_tone(bytes(far.heard[slot][6400:]), hz[slot], 8_000)
        assert is_tone(bytes(near.heard[slot][6400:]), hz[slot] + 100, 8_000)
        assert near.flags[slot] & (tick.SENDING | tick.RECEIVING) == tick.SENDING | tick.RECEIVING


def test_a_wide_line_has_both_kinds_of_codec_at_its_own_rate() -> None:
    near, far = End(16_000), End(16_000)
    for slot, codec in enumerate(KINDS):
        joined(near, far, slot, codec)
    hz = {slot: 500.0 + 300 * slot for slot in range(3)}
    talk(near, far, 60, hz)
    for slot in range(3):
        assert is_tone(bytes(far.heard[slot][12_800:]), hz[slot], 16_000)
    near.close()
    far.close()


def test_reports_tell_both_sides_what_came(ends: tuple[End, End]) -> None:
    near, far = ends
    joined(near, far, 0, "PCMU")
    talk(near, far, 40, {0: 500.0})
    ours, theirs = near.media_pass.calls[0], far.media_pass.calls[0]
    ours.report(40, bye=True)  # now, and not when it is due
    talk(near, far, 1, {0: 500.0})
    theirs.report(41, bye=True)
    talk(near, far, 1, {0: 500.0})
    assert theirs.rtcp.left
    told = ours.rtcp.told
    assert told is not None
    assert (told.share_lost, told.lost) == (0.0, 0)
    assert told.round_trip_s is not None
    assert 0 <= told.round_trip_s < 60


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
def test_a_call_over_ipv6(ends: tuple[End, End]) -> None:
    near, far = ends
    try:
        joined(near, far, 0, "PCMU", "::1")
    except LineError as error:
        pytest.skip(str(error))
    talk(near, far, 60, {0: 700.0})
    assert is_tone(bytes(far.heard[0][6400:]), 700, 8_000)


def test_a_flood_is_read_a_little_at_a_time(ends: tuple[End, End]) -> None:
    near, far = ends
    joined(near, far, 0, "PCMU")
    media = near.media_pass.calls[0]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        for _ in range(10 * PACKETS_A_TURN):
            stranger.sendto(b"\x80\x00" + bytes(170), ("127.0.0.1", media.sockets.port))
        near.turn({})
    assert media.latch.strangers <= PACKETS_A_TURN
    assert media.source == media.agreed.peer


def test_what_comes_after_a_call_is_nobodys(ends: tuple[End, End]) -> None:
    near, far = ends
    joined(near, far, 0, "PCMU")
    joined(near, far, 1, "PCMU")
    talk(near, far, 10, {0: 500.0, 1: 800.0})
    near.media_pass.remove(near.media_pass.calls[0])
    talk(near, far, 10, {1: 800.0})
    assert set(near.media_pass.calls) == {1}


@pytest.mark.parametrize("where", ["frame", "take"])
def test_an_error_in_one_call_ends_that_call_and_no_other(ends: tuple[End, End], where: str) -> None:
    near, far = ends
    joined(near, far, 0, "PCMU")
    joined(near, far, 1, "PCMU")
    talk(near, far, 20, {0: 500.0, 1: 800.0})

    def breaks(*_: Any) -> None:
        raise KeyError("ours")

    setattr(near.media_pass.calls[0].receiver, where, breaks)
    talk(near, far, 40, {0: 500.0, 1: 800.0})
    assert near.broken == [(100, "'ours'")]
    assert set(near.media_pass.calls) == {1}
    assert is_tone(bytes(near.heard[1][-3200:]), 900, 8_000)


def test_a_port_that_is_taken_is_passed_over() -> None:
    first = SocketPair.open("127.0.0.1", PORTS)
    second = SocketPair.open("127.0.0.1", iter([first.port, first.port + 2, first.port + 4]))
    assert second.port > first.port
    with pytest.raises(LineError, match=r"none of 1 pairs of UDP ports is free on 127\.0\.0\.1"):
        SocketPair.open("127.0.0.1", iter([first.port]))
    first.close()
    second.close()


def test_without_a_descriptor_there_is_no_pair_and_nothing_is_kept() -> None:
    with spare_descriptors(1):
        for _ in range(3):
            with pytest.raises(LineError, match="there is no socket for RTP: Too many open files"):
                SocketPair.open("127.0.0.1", PORTS)
        os.close(os.open(os.devnull, os.O_RDONLY))
    SocketPair.open("127.0.0.1", PORTS).close()


def test_an_address_that_is_not_ours_is_said_to_be_so() -> None:
    with pytest.raises(LineError, match=r"cannot have RTP at 192\.0\.2\.1"):
        SocketPair.open("192.0.2.1", PORTS)


def test_the_kernels_time_is_the_monotonic_one() -> None:
    arrival = Arrival()
    before = arrival.now
    stamp_ns = round((arrival.wall_s - 0.005) * 1e9)
    at = arrival.of(stamp_ns // 10**9, stamp_ns % 10**9)
    assert at == pytest.approx(before - 0.005, abs=0.001)
    assert arrival.of(0, 0) == before  # from before the wall clock was set
    assert arrival.of(round(arrival.wall_s) + 3600, 0) == before


def test_frames_are_as_long_as_the_rate_says() -> None:
    for rate_hz in (8_000, 16_000):
        near, far = End(rate_hz), End(rate_hz)
        joined(near, far, 0, "PCMU")
        talk(near, far, 20, {0: 500.0})
        assert len(near.heard[0]) % (rate_hz // 50 * 2) == 0
        assert np.frombuffer(bytes(near.heard[0]), np.int16).any()
        near.close()
        far.close()

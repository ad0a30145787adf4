"""What leaves for a caller, packet by packet. No real time passes, and no socket is opened."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.line.telephone_event import TelephoneEvents
from gateway.rtp.media.key_sender import ENDS, PRESSED
from gateway.rtp.media.rtp_sender import LATE, STEP, WAITING, RtpSender
from gateway.rtp.payloads.packet import RtpPacket, read_rtp
from tests.gateway.rtp.rtp_script import agreed

SILENCE = bytes([0xFF]) * STEP


def frame(n: int) -> bytes:
    return bytes([n % 200]) * STEP


@dataclass
class Far:
    """The other end: what came, in order."""

    changed: dict[str, Any] = field(default_factory=dict)
    came: list[RtpPacket] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.sender = RtpSender(agreed(**self.changed), self._take, lambda: SILENCE)

    def _take(self, data: bytes) -> None:
        packet = read_rtp(data)
        assert packet is not None
        self.came.append(packet)
        self.raw.append(data)

    def says(self, first: int, count: int) -> None:
        """So many ticks whose frames come in time."""
        for tick in range(first, first + count):
            self.sender.take(frame(tick))
            self.owe(tick)

    def owe(self, first: int, count: int = 1) -> None:
        self.sender.owe(range(first, first + count))

    @property
    def kinds(self) -> list[int]:
        return [packet.payload_type for packet in self.came]

    @property
    def sound(self) -> list[bytes]:
        return [packet.payload[1:] for packet in self.came]

    def numbers_are_whole(self) -> bool:
        first = self.came[0].sequence_number
        return [packet.sequence_number for packet in self.came] == [
            (first + n) & 0xFFFF for n in range(len(self.came))
        ]


def test_each_tick_is_one_packet_with_its_own_time() -> None:
    far = Far()
    far.says(100, 5)
    assert far.sound == [frame(tick) for tick in range(100, 105)]
    assert far.numbers_are_whole()
    first = far.came[0].timestamp
    assert [packet.timestamp for packet in far.came] == [(first + n * STEP) & 0xFFFFFFFF for n in range(5)]
    assert [packet.payload[0] >> 7 for packet in far.came] == [1, 0, 0, 0, 0]
    assert far.sender.played == 5


def test_a_late_frame_leaves_when_it_comes_in_its_own_place() -> None:
    far = Far()
    far.says(1, 2)
    far.owe(3)
    assert len(far.came) == 2
    far.sender.take(frame(3))
    assert far.sound[-1] == frame(3)
    assert (far.came[2].timestamp - far.came[1].timestamp) & 0xFFFFFFFF == STEP


def test_what_is_too_late_is_silence_and_an_underrun() -> None:
    far = Far()
    far.says(1, 1)
    for tick in range(2, 6):
        far.owe(tick)
    assert far.sound[1:] == [SILENCE] * (4 - LATE)
    assert far.sender.underrun
    assert far.sender.played == 1


@pytest.mark.parametrize("stalled", [2, 3, 5])
@pytest.mark.parametrize("answered", ["before", "after"])
def test_a_stall_of_ours_leaves_no_delay_and_no_hole(stalled: int, answered: str) -> None:
    """The ticks are made up for together, and so are the hall's answers: each frame in its own place."""
    far = Far()
    far.says(1, 2)
    if answered == "after":
        far.owe(3, stalled)
    for tick in range(3, 3 + stalled):
        far.sender.take(frame(tick))
    if answered == "before":
        far.owe(3, stalled)
    far.says(3 + stalled, 2)
    assert far.sound == [frame(tick) for tick in range(1, 5 + stalled)]
    assert {(b.timestamp - a.timestamp) & 0xFFFFFFFF for a, b in pairwise(far.came)} == {STEP}
    assert not far.sender.underrun


def test_a_pause_during_a_stall_stays_in_its_place() -> None:
    far = Far()
    for codes in (None, frame(1)):
        far.sender.take(codes)
    far.owe(0, 2)
    assert far.sound == [SILENCE, frame(1)]


def test_the_halls_pause_makes_up_for_its_lateness() -> None:
    far = Far()
    for tick in (1, 2):
        far.owe(tick)
    far.sender.take(None)
    far.says(3, 1)
    assert far.sound == [SILENCE, frame(3)]
    assert (far.came[1].timestamp - far.came[0].timestamp) & 0xFFFFFFFF == STEP


def test_no_more_than_a_few_frames_wait() -> None:
    far = Far()
    for n in range(20):
        far.sender.take(frame(n))
    for tick in range(10):
        far.owe(tick)
    assert far.sound[:WAITING] == [frame(n) for n in range(20 - WAITING, 20)]


@pytest.mark.parametrize("packet_ms", [10, 20, 30, 40, 60, 120])
def test_packets_are_as_long_as_the_caller_wants(packet_ms: int) -> None:
    far = Far({"packet_ms": packet_ms})
    far.says(0, 24)
    whole = b"".join(frame(tick) for tick in range(24))
    size = packet_ms * 8
    assert far.sound == [whole[at : at + size] for at in range(0, len(whole), size)]
    steps = {(b.timestamp - a.timestamp) & 0xFFFFFFFF for a, b in pairwise(far.came)}
    assert steps <= {size}


def test_nothing_is_sent_on_hold_and_a_marker_begins_what_follows() -> None:
    far = Far()
    far.says(0, 2)
    far.sender.agree(agreed(sending=False))
    far.says(2, 10)
    assert len(far.came) == 2
    assert far.sender.played == 2
    far.sender.agree(agreed())
    far.says(12, 2)
    assert [packet.payload[0] >> 7 for packet in far.came] == [1, 0, 1, 0]
    assert far.numbers_are_whole()
    assert (far.came[2].timestamp - far.came[1].timestamp) & 0xFFFFFFFF == 11 * STEP


def test_another_codec_is_another_payload_type() -> None:
    far = Far()
    far.says(0, 2)
    far.sender.agree(agreed(codec="PCMA", sent_as=8))
    far.says(2, 2)
    assert far.kinds == [0, 0, 8, 8]
    assert len({packet.ssrc for packet in far.came}) == 1


def test_keys_are_heard_as_the_digits_that_were_dialled() -> None:
    far = Far({"event": 96})
    far.says(0, 3)
    far.sender.keys.dial("15#")
    far.says(3, 80)
    events = TelephoneEvents()
    heard = [events.pressed(data) for data in far.raw if data[1] & 0x7F == 96]
    assert "".join(filter(None, heard)) == "15#"
    assert len(heard) == 3 * (PRESSED + ENDS)
    assert far.numbers_are_whole()
    assert far.kinds[-1] == 0


def test_a_press_keeps_its_time_and_its_ends_say_the_same() -> None:
    far = Far()
    far.sender.keys.dial("7")
    far.says(0, 12)
    press = [data for data in far.raw if data[1] & 0x7F == 101]
    assert len({data[4:8] for data in press}) == 1
    assert [data[1] >> 7 for data in press] == [1] + [0] * (len(press) - 1)
    assert [data[13] >> 7 for data in press] == [0] * PRESSED + [1] * ENDS
    lengths = [int.from_bytes(data[14:16], "big") for data in press]
    assert lengths == sorted(lengths)
    assert len(set(lengths[-ENDS:])) == 1


@pytest.mark.parametrize("digits", ["", "x", "1 2", "ü"])
def test_what_is_no_key_cannot_be_dialled(digits: str) -> None:
    with pytest.raises(ValueError, match="cannot be dialled"):
        Far().sender.keys.dial(digits)


@given(
    st.lists(st.sampled_from(["owe 1", "owe 4", "take", "silent", "rest", "forget"]), max_size=200),
    st.sampled_from([10, 20, 30, 60]),
)
@settings(max_examples=100, deadline=None)
def test_numbers_are_whole_and_time_never_goes_back(steps: list[str], packet_ms: int) -> None:
    """Whatever the hall and the clock do."""
    far, tick = Far({"packet_ms": packet_ms}), 0
    for step in steps:
        if step.startswith("owe"):
            count = int(step[4:])
            far.owe(tick, count)
            tick += count
        elif step == "rest":
            far.sender.rest(range(tick, tick + 1))
            tick += 1
        elif step == "forget":
            far.sender.forget_hall()
        else:
            far.sender.take(frame(tick) if step == "take" else None)
    if not far.came:
        return
    assert far.numbers_are_whole()
    first = far.came[0].timestamp
    times = [(packet.timestamp - first) & 0xFFFFFFFF for packet in far.came]
    assert all(a < b for a, b in pairwise(times))
    assert all(len(sound) == packet_ms * 8 for sound in far.sound)
    assert times[-1] <= tick * STEP

"""RTCP: what is counted, what is said, and what the other side's words mean."""

from __future__ import annotations

import random
import struct
from itertools import pairwise

import pytest
from aiortc.rtp import RtcpByePacket, RtcpPacket, RtcpRrPacket, RtcpSdesPacket, RtcpSrPacket
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.rtp.media.rtcp import EVERY_S, Reception, Rtcp

US, THEM = 0x11111111, 0x22222222
WALL_S = 1_790_000_000.25


def received(numbers: list[int], spacing_s: float = 0.02, jitter_s: float = 0.0) -> Reception:
    count = Reception(THEM)
    for n, number in enumerate(numbers):
        at = n * spacing_s + (jitter_s if n % 2 else 0.0)
        count.take(number & 0xFFFF, n * 160, at, sounds=True)
    return count


def test_what_was_lost_is_what_is_missing_between_the_first_and_the_last() -> None:
    count = received([10, 11, 13, 14, 17])
    assert (count.expected, count.received, count.lost) == (8, 5, 3)


@pytest.mark.parametrize("first", [0, 65_533])
def test_numbers_wrap(first: int) -> None:
    count = received([first + n for n in range(10) if n != 4])
    assert (count.expected, count.lost) == (10, 1)
    assert count.highest == first + 9


def test_reordering_is_no_loss_and_duplicates_hide_none_below_zero() -> None:
    assert received([5, 7, 6, 8]).lost == 0
    assert received([5, 6, 6, 6, 7]).lost == 0


@pytest.mark.parametrize("first", [0, 65_500])
def test_what_comes_twice_hides_nothing_of_what_is_missing(first: int) -> None:
    kept = [first + n for n in range(200) if n % 10]
    count = received([number for n, number in enumerate(kept) for number in (number, kept[max(0, n - 3)])])
    assert (count.duplicates, count.missing) == (180, 200 - 180 - 1)  # the first number is not known of
    assert count.lost == 0, "which is how RFC 3550 has it (A.3)"
    assert [count.take(number, 0, 9.0, sounds=True) for number in (kept[-1], kept[-1] + 1)] == [False, True]


def test_a_duplicate_is_no_jitter() -> None:
    count = Reception(THEM)
    for n in range(100):
        count.take(n, n * 160, n * 0.02, sounds=True)
        count.take(n, n * 160, n * 0.02 + 0.015, sounds=True)
    assert count.jitter == pytest.approx(0.0, abs=0.01)


def test_a_source_that_counts_anew_has_lost_nothing() -> None:
    count = received([100, 101, 102, 40_000, 40_001])
    assert (count.expected, count.lost) == (5, 0)


def test_loss_of_an_interval_is_of_that_interval() -> None:
    count = received([n for n in range(100) if n % 10])
    assert count.interval_loss() == pytest.approx(0.09, abs=0.02)
    for n in range(100, 200):
        count.take(n, n * 160, n * 0.02, sounds=True)
    assert count.interval_loss() == 0.0


def test_jitter_is_rfc_3550s() -> None:
    """Packets that are late by 10 ms in turn: each transit differs by 10 ms from the one before (§A.8)."""
    assert received(list(range(500)), jitter_s=0.01).jitter / 8000 == pytest.approx(0.01, rel=0.01)
    assert received(list(range(500))).jitter == pytest.approx(0.0, abs=0.01)


def test_keys_do_not_count_as_jitter() -> None:
    count = received(list(range(100)))
    for n in range(10):
        count.take(100 + n, 100 * 160, 2.0 + n * 0.02, sounds=False)
    assert count.jitter == pytest.approx(0.0, abs=0.01)
    assert count.received == 110


@given(st.integers(0, 65_535), st.integers(1, 400), st.floats(0, 0.5), st.integers(0, 2**32))
@settings(max_examples=100, deadline=None)
def test_lost_is_exact_whatever_is_lost_and_reordered(
    first: int, count: int, share: float, seed: int
) -> None:
    chance = random.Random(seed)
    kept = [n for n in range(count) if chance.random() >= share] or [0]
    numbers = [first + n for n in kept]
    middle = numbers[1:-1]
    for at in range(0, len(middle) - 1, 3):  # neighbours overtake each other
        middle[at], middle[at + 1] = middle[at + 1], middle[at]
    numbers[1:-1] = middle
    found = received(numbers)
    assert found.lost == kept[-1] - kept[0] + 1 - len(kept)


# ── reports ──────────────────────────────────────────────────────────────────────────────────────────


def test_another_program_reads_our_sender_report() -> None:
    data = Rtcp(US, 0.0).write(1.0, WALL_S, received([1, 2, 4]), (160 * 77, 77, 12_320))
    report, names = RtcpPacket.parse(data)
    assert isinstance(report, RtcpSrPacket)
    assert report.ssrc == US
    info = report.sender_info
    assert (info.rtp_timestamp, info.packet_count, info.octet_count) == (160 * 77, 77, 12_320)
    assert info.ntp_timestamp / (1 << 32) - 2_208_988_800 == pytest.approx(WALL_S)
    (block,) = report.reports
    assert (block.ssrc, block.packets_lost, block.highest_sequence) == (THEM, 1, 4)
    assert block.fraction_lost == 64
    assert (block.lsr, block.dlsr) == (0, 0)
    assert isinstance(names, RtcpSdesPacket)
    assert names.chunks[0].ssrc == US
    assert len(dict(names.chunks[0].items)[1]) == 16


def test_who_does_not_send_reports_as_a_receiver_and_who_leaves_says_so() -> None:
    report, _, bye = RtcpPacket.parse(Rtcp(US, 0.0).write(1.0, WALL_S, None, None, bye=True))
    assert isinstance(report, RtcpRrPacket)
    assert not report.reports
    assert isinstance(bye, RtcpByePacket)
    assert bye.sources == [US]


def sender_report(blocks: bytes = b"", count: int = 0, wall_s: float = WALL_S) -> bytes:
    """Theirs."""
    seconds, fraction = divmod(wall_s + 2_208_988_800, 1.0)
    body = struct.pack(">IIIIII", THEM, int(seconds), int(fraction * 2**32), 0, 5, 800) + blocks
    return struct.pack(">BBH", 0x80 | count, 200, len(body) // 4) + body


def block(ssrc: int, lost: int, share: int, jitter: int, last: int, since: int) -> bytes:
    return struct.pack(">IIIIII", ssrc, share << 24 | lost & 0xFFFFFF, 0, jitter, last, since)


def middle(wall_s: float) -> int:
    return int((wall_s + 2_208_988_800) * 65536) & 0xFFFFFFFF


def test_the_round_trip_is_what_is_left_when_their_wait_is_taken_off() -> None:
    rtcp = Rtcp(US, 0.0)
    # our report left at WALL_S, they held it for 2 s, and all came back 2.15 s later
    told = block(US, 3, 26, 80, middle(WALL_S), 2 * 65536)
    assert rtcp.take(sender_report(told, 1), 100.0, WALL_S + 2.15)
    assert rtcp.told is not None
    assert rtcp.told.round_trip_s == pytest.approx(0.15, abs=0.001)
    assert rtcp.told.share_lost == pytest.approx(0.1, abs=0.01)
    assert (rtcp.told.lost, rtcp.told.jitter_s) == (3, 0.01)


def test_our_next_report_says_when_theirs_came() -> None:
    rtcp = Rtcp(US, 0.0)
    rtcp.take(sender_report(), 100.0, WALL_S)
    report, _ = RtcpPacket.parse(rtcp.write(101.5, WALL_S, received([1]), (0, 0, 0)))
    assert isinstance(report, RtcpSrPacket)
    assert report.reports[0].lsr == middle(WALL_S)
    assert report.reports[0].dlsr == pytest.approx(1.5 * 65536, abs=2)


def test_what_they_say_of_others_and_of_no_report_of_ours_is_no_round_trip() -> None:
    rtcp = Rtcp(US, 0.0)
    rtcp.take(sender_report(block(THEM, 9, 9, 9, 9, 9), 1), 1.0, WALL_S)
    assert rtcp.told is None
    rtcp.take(sender_report(block(US, 0xFFFFFF, 0, 0, 0, 0), 1), 1.0, WALL_S)  # -1: duplicates
    assert rtcp.told is not None
    assert (rtcp.told.round_trip_s, rtcp.told.lost) == (None, 0)


def test_bye_is_noticed() -> None:
    rtcp = Rtcp(US, 0.0)
    bye = struct.pack(">BBHI", 0x81, 203, 1, THEM)
    assert rtcp.take(sender_report() + bye, 1.0, WALL_S)
    assert rtcp.left


@pytest.mark.parametrize(
    "rubbish", [b"", b"\x80", bytes(40), b"\x80\xc8\x00\xff" + bytes(20), b"\x81\xcb\x00\x01" + bytes(4)]
)
def test_rubbish_is_no_report(rubbish: bytes) -> None:
    rtcp = Rtcp(US, 0.0)
    assert not rtcp.take(rubbish, 1.0, WALL_S)
    assert rtcp.reports == 0


@given(st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_no_bytes_break_it(data: bytes) -> None:
    Rtcp(US, 0.0).take(data, 1.0, WALL_S)
    Rtcp(US, 0.0).take(sender_report() + data, 1.0, WALL_S)


def test_reports_are_five_seconds_apart_and_not_in_step() -> None:
    rtcp = Rtcp(US, 0.0, chance=random.Random(1))
    times = [at / 10 for at in range(5000) if rtcp.due(at / 10)]
    gaps = [b - a for a, b in pairwise(times)]
    assert 0.45 * EVERY_S <= min(gaps) <= max(gaps) <= 1.55 * EVERY_S
    assert sum(gaps) / len(gaps) == pytest.approx(EVERY_S, rel=0.1)
    assert len({round(gap, 1) for gap in gaps}) > 10

"""Whose packets are believed, and where ours go."""

from __future__ import annotations

from gateway.rtp.media.source_latch import SILENT_S, SourceLatch

DESCRIBED = ("10.0.0.5", 4000)
BEHIND_NAT = ("203.0.113.7", 61_000)
ELSEWHERE = ("198.51.100.9", 5_555)


def comes(
    latch: SourceLatch, source: tuple[str, int], first: int, count: int, at: float = 0.0, ssrc: int = 1
) -> list[bool]:
    return [latch.believes(source, ssrc, (first + n) & 0xFFFF, at + n * 0.02) for n in range(count)]


def test_until_something_comes_ours_go_where_the_description_says() -> None:
    assert SourceLatch(DESCRIBED).to == DESCRIBED


def test_the_described_address_is_believed_at_once() -> None:
    latch = SourceLatch(DESCRIBED)
    assert comes(latch, DESCRIBED, 10, 3) == [True] * 3
    assert latch.to == DESCRIBED


def test_behind_a_nat_two_packets_in_a_row_are_enough() -> None:
    latch = SourceLatch(DESCRIBED)
    assert comes(latch, BEHIND_NAT, 10, 3) == [False, True, True]
    assert latch.to == BEHIND_NAT
    assert latch.strangers == 1


def test_single_packets_from_here_and_there_are_not() -> None:
    latch = SourceLatch(DESCRIBED)
    for n in range(20):
        assert comes(latch, ("198.51.100.9", 1000 + n), 10 * n, 1) == [False]
    assert latch.to == DESCRIBED


def test_a_stranger_cannot_take_over_a_call_that_is_heard() -> None:
    latch = SourceLatch(DESCRIBED)
    for n in range(100):
        assert comes(latch, DESCRIBED, n, 1, n * 0.02) == [True]
        assert comes(latch, ELSEWHERE, 500 + n, 1, n * 0.02, ssrc=666) == [False]
    assert latch.to == DESCRIBED


def test_a_stranger_who_does_not_know_the_numbers_cannot_go_on_with_the_stream() -> None:
    latch = SourceLatch(DESCRIBED)
    comes(latch, DESCRIBED, 10, 5)
    assert comes(latch, ELSEWHERE, 30_000, 5, 0.1) == [False] * 5
    assert latch.to == DESCRIBED


def test_a_nat_that_gave_out_another_port_is_followed_at_once() -> None:
    latch = SourceLatch(DESCRIBED)
    comes(latch, BEHIND_NAT, 65_530, 5)
    moved = ("203.0.113.7", 61_001)
    assert comes(latch, moved, 65_535, 3, 0.1) == [False, True, True]
    assert latch.to == moved


def test_another_stream_is_believed_once_the_old_one_is_silent() -> None:
    latch = SourceLatch(DESCRIBED)
    comes(latch, DESCRIBED, 10, 5)
    assert comes(latch, ELSEWHERE, 7, 2, SILENT_S / 2, ssrc=9) == [False, False]
    assert comes(latch, ELSEWHERE, 90, 2, 0.08 + SILENT_S + 0.01, ssrc=9) == [False, True]
    assert latch.to == ELSEWHERE


def test_who_is_described_anew_is_believed_there_and_what_comes_is_learnt_again() -> None:
    latch = SourceLatch(DESCRIBED)
    comes(latch, DESCRIBED, 10, 5)
    latch.describe(("10.0.0.6", 4002))
    assert latch.to == ("10.0.0.6", 4002)
    assert comes(latch, BEHIND_NAT, 40, 2, 0.1, ssrc=3) == [False, True]
    assert latch.to == BEHIND_NAT


def test_the_same_description_again_changes_nothing() -> None:
    latch = SourceLatch(DESCRIBED)
    comes(latch, BEHIND_NAT, 10, 3)
    latch.describe(DESCRIBED)
    assert latch.to == BEHIND_NAT

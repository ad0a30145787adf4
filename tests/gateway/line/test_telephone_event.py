"""One digit a press, whatever the network and the phone make of its packets."""

from __future__ import annotations

import struct

import pytest

from gateway.line.telephone_event import KEYS, TelephoneEvents


def packet(
    digit: str, timestamp: int, duration: int, *, end: bool = False, source: int = 7, marker: bool = False,
    first: int = 0x80, more: bytes = b"",
) -> bytes:  # fmt: skip
    head = struct.pack(">BBHII", first, 101 | 0x80 * marker, 1, timestamp, source)
    return head + more + struct.pack(">BBH", KEYS.index(digit), 0x80 * end | 10, duration)


def press(digit: str, timestamp: int, *, source: int = 7, ends: int = 3) -> list[bytes]:
    """A press of 100 ms."""
    parts = [packet(digit, timestamp, 160 * n, source=source, marker=n == 1) for n in range(1, 6)]
    return parts + [packet(digit, timestamp, 800, end=True, source=source)] * ends


def told(packets: list[bytes]) -> str:
    events = TelephoneEvents()
    return "".join(digit for each in packets if (digit := events.pressed(each)) is not None)


def test_a_press_is_one_digit_and_every_key_is_known() -> None:
    assert told([part for n, key in enumerate(KEYS) for part in press(key, 8000 * n)]) == KEYS


def test_the_same_key_twice_is_two() -> None:
    assert told(press("5", 0) + press("5", 1600)) == "55"


@pytest.mark.parametrize("lost", [{0}, {0, 1, 2, 3, 4}, {5, 6, 7}, {1, 2, 3, 4, 5, 6, 7}, {0, 5, 6}])
def test_any_packet_may_be_lost(lost: set[int]) -> None:
    one, two = ([part for n, part in enumerate(press("5", at)) if n not in lost] for at in (0, 1600))
    assert told(one + two + press("6", 3200)) == "556"


def test_packets_come_twice_late_and_after_the_next_press() -> None:
    one, two, three = press("5", 0), press("6", 1600), press("5", 3200)
    assert told([*one[:-1], *one, two[0], one[-1], *two, *two[::-1], three[0], one[-1], *three]) == "565"


def test_a_press_longer_than_a_duration_can_say_goes_on_under_another_timestamp() -> None:
    """RFC 4733 §2.5.1.3."""
    long = [packet("5", 0, 32_000), packet("5", 0, 0xFFFF), packet("5", 0xFFFF, 160)]
    assert told([*long, packet("5", 0xFFFF, 400, end=True), *press("5", 90_000)]) == "55"


def test_a_phone_whose_timestamps_run_on_within_a_press_presses_once() -> None:
    runs = [packet("5", 160 * n, 160 * n) for n in range(1, 6)]
    end = [packet("5", 800, 800, end=True)] * 3
    assert told([*runs, *end, *press("5", 3200)]) == "55"


def test_another_source_presses_its_own_keys() -> None:
    assert told(press("5", 0) + press("5", 0, source=8) + press("6", 0, source=9)) == "556"


def test_headers_with_contributors_and_extensions_are_read() -> None:
    contributed = packet("5", 0, 160, first=0x82, more=bytes(8))
    extended = packet("6", 160, 160, first=0x90, more=struct.pack(">HHI", 0xBEDE, 1, 0))
    assert told([contributed, extended]) == "56"


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        bytes(11),
        packet("5", 0, 160)[:-1],
        packet("5", 0, 160)[:12],
        b"\x00" + packet("5", 0, 160)[1:],
        b"\x8f" + packet("5", 0, 160)[1:],
        packet("5", 0, 160, first=0x90),
        packet("5", 0, 160, first=0x90, more=b"\xbe\xde\xff\xff"),
        packet("5", 0, 160)[:12] + b"\x10\x0a\x00\xa0",  # a hook flash
        packet("5", 0, 160)[:12] + b"\xff\x0a\x00\xa0",
    ],
)
def test_what_is_no_key_is_nothing(bad: bytes) -> None:
    assert told([bad, *press("5", 0), bad]) == "5"

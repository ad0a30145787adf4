"""Keys by INFO: every form that phones use becomes the one that lines read; nothing else reaches a line."""

from __future__ import annotations

import struct

import pytest

from gateway.edge.grammar.dtmf_info import DTMF_TYPES, EVENT, KEYS, RELAY, media_type, pressed

PLAIN = "application/dtmf"


@pytest.mark.parametrize(
    ("body", "key"),
    [
        (b"Signal=5\r\nDuration=100", "5"),
        (b"Signal=5\r\nDuration=100\r\n", "5"),
        (b"Signal= *\r\nDuration= 100\r\n", "*"),
        (b"Signal=5", "5"),
        (b"Signal=5\n", "5"),
        (b"signal = #\nduration = 250\n", "#"),
        (b"Duration=100\r\nSignal=5", "5"),
        (b"Signal=10\r\nDuration=100\r\n", "*"),
        (b"Signal=11\r\n", "#"),
        (b"Signal=a\r\nDuration=100\r\n", "A"),
        (b"Signal=15\r\n", "D"),
        (b"Signal=5 \r\nDuration=99999999999999", "5"),
        (b"d=5\r\nv=10\r\nt=800\r\n", "5"),
        (b"5", "5"),
        (b" 5\r\n", "5"),
        (b"*", "*"),
        (b"11", "#"),
        (b"Signal=hf\r\n", ""),
        (b"Signal=16\r\n", ""),
        (b"!", ""),
    ],
)
def test_every_form_says_its_key_under_every_type(body: bytes, key: str) -> None:
    for kind in DTMF_TYPES:
        assert pressed(kind, body) == key


def test_the_four_bytes_of_an_event_are_a_key_only_where_they_are_announced() -> None:
    for code, key in enumerate(KEYS):
        assert pressed(EVENT, struct.pack(">BBH", code, 10, 160)) == key
    assert pressed(EVENT, struct.pack(">BBH", 16, 10, 160)) == ""
    with pytest.raises(ValueError, match="says no key"):
        pressed(EVENT, struct.pack(">BBH", 17, 10, 160))
    with pytest.raises(ValueError, match="says no key"):
        pressed(PLAIN, struct.pack(">BBH", 5, 10, 160))


@pytest.mark.parametrize(
    "body",
    [
        b"", b" ", b"\r\n", b"Signal=", b"Signal=\r\nDuration=100", b"Signal=x", b"Signal=55", b"55", b"17",
        b"nonsense", b"Signal=5\r\nSignal=6", b"Signal=5\r\nd=5", b"Duration=100", b"Signal", b"=5",
        b"\xff\xfe", b"Signal=\xff", b"\x00", b"Signal=\xd9\xa5", "Signal=５".encode(), "１１".encode(),
        b"x" * 2000 + b"\nSignal=5",
    ],
)  # fmt: skip
def test_what_says_no_key_or_two_is_wrong(body: bytes) -> None:
    for kind in DTMF_TYPES:
        with pytest.raises(ValueError, match="key"):
            pressed(kind, body)


def test_the_type_is_read_without_its_parameters() -> None:
    assert media_type("Application/DTMF-Relay ; charset=utf-8") == RELAY
    assert media_type(None) == media_type("") == ""

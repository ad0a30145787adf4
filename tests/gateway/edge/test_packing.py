"""How long packets are and whether silence may be left out: as the caller asks, as far as lines can."""

from __future__ import annotations

import pytest

from gateway.edge.packing import for_caller, for_line, packet_ms

HEAD = b"v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n"
AUDIO = b"m=audio 40000 RTP/AVP 0 101\r\na=rtpmap:101 telephone-event/8000\r\n"
ANSWER = HEAD + b"m=audio 4000 RTP/AVP 0 101\r\na=sendrecv\r\na=rtpmap:0 PCMU/8000\r\n"


@pytest.mark.parametrize(
    ("asked", "length"),
    [
        (b"", 0),
        (b"a=ptime:10\r\n", 10),
        (b"a=ptime:30\r\n", 30),
        (b"a=ptime: 40 \r\n", 40),
        (b"a=PTIME:60\r\n", 60),
        (b"a=ptime:60\n", 60),
        (b"a=ptime:33.3\r\n", 30),
        (b"a=maxptime:10\r\n", 10),
        (b"a=maxptime:150\r\n", 20),
        (b"a=ptime:40\r\na=maxptime:30\r\n", 30),
        (b"a=maxptime:30\r\na=ptime:20\r\n", 20),
        (b"a=maxptime:15\r\n", 10),
        (b"a=maxptime:5\r\n", 10),
        (b"a=maxptime:0\r\n", 20),
        (b"a=ptime:0\r\n", 20),
        (b"a=ptime:4\r\n", 10),
        (b"a=ptime:25\r\n", 20),
        (b"a=ptime:200\r\n", 120),
        (b"a=ptime:65535\r\n", 120),
        (b"a=ptime:999999999\r\n", 120),
        (b"a=ptime:20\r\na=ptime:40\r\n", 20),
    ],
)
def test_packets_are_as_long_as_was_asked_and_a_line_is_told_so(asked: bytes, length: int) -> None:
    assert packet_ms(AUDIO + asked) == length
    lean = for_line(HEAD + AUDIO + asked)
    assert lean.count(b"a=ptime:") == bool(length)
    if length:
        assert b"a=ptime:%d" % length in lean.splitlines()
        assert b"a=ptime:%d" % length in for_caller(HEAD + AUDIO + asked, ANSWER).splitlines()
    else:
        assert lean == HEAD + AUDIO
        assert for_caller(HEAD + AUDIO, ANSWER) == ANSWER
    assert for_line(lean) == lean or b"maxptime" in lean


@pytest.mark.parametrize(
    "asked", [b"a=ptime:\r\n", b"a=ptime:x\r\n", b"a=ptime:-20\r\n", b"a=ptime:9999999999\r\n"]
)
def test_nonsense_is_20_ms(asked: bytes) -> None:
    assert for_line(HEAD + AUDIO + asked) == HEAD + AUDIO + b"a=ptime:20\r\n"
    assert for_caller(HEAD + AUDIO + asked, ANSWER) == ANSWER


def test_only_audio_is_asked_and_each_section_for_itself() -> None:
    video = b"m=video 40002 RTP/AVP 96\r\na=ptime:40\r\n"
    offer = HEAD + video + AUDIO + b"a=ptime:30\r\n" + video
    assert for_line(offer) == offer
    refused = b"m=video 0 RTP/AVP 96\r\n"
    answer = for_caller(offer, HEAD + refused + AUDIO + refused)
    assert answer == HEAD + refused + AUDIO + b"a=ptime:30\r\n" + refused


def test_sdp_without_a_last_line_break_and_with_bare_ones_is_kept_whole() -> None:
    assert for_line(HEAD + b"m=audio 4 RTP/AVP 0\r\na=maxptime:10").endswith(
        b"\r\na=maxptime:10\r\na=ptime:10\r\n"
    )
    bare = (HEAD + AUDIO + b"a=ptime:30\r\n").replace(b"\r\n", b"\n")
    assert for_line(bare) == bare


@pytest.mark.parametrize(
    ("offered", "kind"),
    [
        (b"m=audio 40000 RTP/AVP 0 13\r\n", b"13"),
        (b"m=audio 40000 RTP/AVP 0 8 13 101\r\na=rtpmap:13 CN/8000\r\n", b"13"),
        (b"m=audio 40000 RTP/AVP 0 98\r\na=rtpmap:98 CN/8000\r\n", b"98"),
        (b"m=audio 40000 RTP/AVP 0 98 13\r\na=rtpmap:98 CN/16000\r\na=rtpmap:13 CN/8000\r\n", b"13"),
    ],
)
def test_comfort_noise_that_is_offered_is_taken(offered: bytes, kind: bytes) -> None:
    answer = for_caller(HEAD + offered, ANSWER)
    assert b"m=audio 4000 RTP/AVP 0 101 " + kind in answer.splitlines()
    assert b"a=rtpmap:" + kind + b" CN/8000" in answer.splitlines()
    assert for_caller(HEAD + offered, answer) == answer


@pytest.mark.parametrize(
    "offered",
    [
        b"m=audio 40000 RTP/AVP 0 8 101\r\n",
        b"m=audio 40000 RTP/AVP 0\r\na=rtpmap:13 CN/8000\r\n",
        b"m=audio 40000 RTP/AVP 0 98\r\na=rtpmap:98 CN/16000\r\n",
        b"m=audio 0 RTP/AVP 0 13\r\n",
        b"",
    ],
)
def test_what_was_not_offered_is_not_answered(offered: bytes) -> None:
    assert for_caller(HEAD + offered if offered else b"", ANSWER) == ANSWER


def test_a_refused_stream_says_nothing_more() -> None:
    refused = HEAD + b"m=audio 0 RTP/AVP 0\r\n"
    assert for_caller(HEAD + b"m=audio 4 RTP/AVP 0 13\r\na=ptime:30\r\n", refused) == refused

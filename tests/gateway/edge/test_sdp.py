"""What the edge reads in an offer and writes into an answer."""

from __future__ import annotations

import pytest

from gateway.edge.identity import Identity
from gateway.edge.limits import MAX_SOURCES, SourceRates, block_of
from gateway.edge.message import stamped
from gateway.edge.sdp import at_address, offered_codecs
from gateway.edge.transport import Flow


def offer(media: str, *lines: str) -> bytes:
    return "\r\n".join(["v=0", "o=- 1 1 IN IP4 192.0.2.1", "s=-", "t=0 0", f"m={media}", *lines, ""]).encode()


@pytest.mark.parametrize(
    ("body", "codecs"),
    [
        (b"", ("PCMU", "PCMA")),
        (offer("audio 4000 RTP/AVP 9 0 101"), ("G722", "PCMU")),
        (offer("audio 4000/2 RTP/AVPF 8"), ("PCMA",)),
        (offer("audio 4000 RTP/AVP 96 0", "a=rtpmap:96 g722/8000/1"), ("G722", "PCMU")),
        (offer("audio 4000 RTP/AVP 96 97", "a=rtpmap:96 opus/48000/2", "a=rtpmap:97 PCMA/8000"), ("PCMA",)),
        (offer("audio 4000 RTP/AVP 96", "a=rtpmap:96 opus/48000/2"), ()),
        (offer("video 4000 RTP/AVP 0"), ()),
        (offer("video 4000 RTP/AVP 31", "m=audio 4002 RTP/AVP 0"), ("PCMU",)),
        (offer("audio 0 RTP/AVP 0"), ()),
        (offer("audio 4000 RTP/SAVP 0"), ()),
        (b"\xff\xfe", ()),
    ],
)
def test_codecs_come_in_the_callers_order(body: bytes, codecs: tuple[str, ...]) -> None:
    assert offered_codecs(body) == codecs


def test_our_address_is_written_wherever_the_lines_stands() -> None:
    body = (
        b"v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\nc=IN IP4 127.0.0.1\r\nm=audio 4000 RTP/AVP 0\r\n"
        b"c=IN IP4 0.0.0.0\r\na=rtcp:4001 IN IP4 127.0.0.1\r\n"
    )
    assert at_address(body, "192.0.2.9") == (
        b"v=0\r\no=- 1 2 IN IP4 192.0.2.9\r\nc=IN IP4 192.0.2.9\r\nm=audio 4000 RTP/AVP 0\r\n"
        b"c=IN IP4 0.0.0.0\r\na=rtcp:4001 IN IP4 192.0.2.9\r\n"
    )


class Bound:
    """A port of ours."""

    def __init__(self, host: str) -> None:
        self.address = (host, 5060)


def test_the_public_address_is_for_peers_outside() -> None:
    ours = Identity(Bound("10.1.1.1"), "198.51.100.7")
    assert ours.address("8.8.8.8") == "198.51.100.7"
    assert ours.address("192.168.1.4") == "10.1.1.1"
    assert Identity(Bound("0.0.0.0"), None).address("127.0.0.1") == "127.0.0.1"
    flow = Flow("tcp", "8.8.8.8", 1, None)
    assert ours.contact(flow, "w") == "<sip:198.51.100.7:5060;transport=tcp;vg=w>"
    assert Identity(Bound("::1"), None).contact(Flow("udp", "::1", 1, None), "w") == "<sip:[::1]:5060;vg=w>"


@pytest.mark.parametrize(
    ("via", "expected"),
    [
        ("SIP/2.0/UDP 10.0.0.1:5060;branch=z9hG4bK+!x", ";branch=z9hG4bK+!x;received=192.0.2.1"),
        ("SIP/2.0/UDP 192.0.2.1;branch=a", ";branch=a"),
        ("SIP/2.0/UDP 192.0.2.1;rport;branch=a", ";rport=777;branch=a;received=192.0.2.1"),
        ("SIP/2.0/UDP h;received=6.6.6.6;rport=9;branch=a", ";rport=777;branch=a;received=192.0.2.1"),
        ("SIP/2.0/UDP h;branch=a, SIP/2.0/UDP k;rport", ";branch=a;received=192.0.2.1, SIP/2.0/UDP k;rport"),
        ("SIP/2.0/UDP [::1]:5060;branch=a", ";branch=a;received=192.0.2.1"),
    ],
)
def test_a_via_goes_back_as_it_came_but_for_where_it_came_from(via: str, expected: str) -> None:
    flow = Flow("udp", "192.0.2.1", 777, None)
    first, second = stamped([via, "SIP/2.0/UDP z"], flow)
    assert first == via.partition(";")[0] + expected
    assert second == "SIP/2.0/UDP z"


def test_rates_are_kept_for_the_latest_sources_only() -> None:
    rate = SourceRates(1.0)
    for n in range(MAX_SOURCES + 10):
        assert rate.takes(str(n))
    assert len(rate._buckets) == MAX_SOURCES
    assert block_of("2001:db8::1") == block_of("2001:db8::ffff") != block_of("2001:db8:0:1::1")

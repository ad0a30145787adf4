"""What the edge reads in an offer and writes into an answer."""

from __future__ import annotations

from collections.abc import Set

import pytest

from gateway.edge.dialogs.identity import Identity
from gateway.edge.doors.edge_config import EdgeConfig
from gateway.edge.doors.limits import MAX_SOURCES, SourceRates, block_of
from gateway.edge.flows.transport import Flow
from gateway.edge.grammar.message import stamped
from gateway.edge.grammar.sdp import FOUR, SIX, at_address, lean, offered_codecs, offered_host, why_none


def offer(media: str, *lines: str) -> bytes:
    return "\r\n".join(["v=0", "o=- 1 1 IN IP4 192.0.2.1", "s=-", "t=0 0", f"m={media}", *lines, ""]).encode()


@pytest.mark.parametrize(
    ("body", "codecs"),
    [
        (b"", ("PCMU", "PCMA")),
        (offer("audio 4000 RTP/AVP 9 0 101"), ("G722", "PCMU")),
        (offer("audio 4000/2 RTP/AVPF 8"), ("PCMA",)),
        (offer("audio 4000 RTP/AVP 96 0", "a=rtpmap:96 g722/8000/1"), ("G722", "PCMU")),
        (
            offer("audio 4000 RTP/AVP 96 97", "a=rtpmap:96 opus/48000/2", "a=rtpmap:97 PCMA/8000"),
            ("OPUS", "PCMA"),
        ),
        (offer("audio 4000 RTP/AVP 96", "a=rtpmap:96 opus/48000/2"), ("OPUS",)),
        (offer("audio 4000 RTP/AVP 96 0", "a=rtpmap:96 opus/8000"), ("PCMU",)),
        (offer("video 4000 RTP/AVP 0"), ()),
        (offer("video 4000 RTP/AVP 31", "m=audio 4002 RTP/AVP 0"), ("PCMU",)),
        (offer("audio 0 RTP/AVP 0"), ()),
        (offer("Audio 4000 rtp/avp 0"), ("PCMU",)),
        (
            offer("audio 4000 RTP/AVP 8", "c=IN IP6 ::1", "m=audio 4002 RTP/AVP 0", "c=IN IP4 192.0.2.1"),
            ("PCMU",),
        ),
        (offer("audio 4000 RTP/SAVP 0"), ()),
        (offer("audio 0 RTP/AVP 0", "m=audio 4000 RTP/AVP 8"), ("PCMA",)),
        (offer("audio 4000 RTP/SAVP 0", "m=audio 4000 RTP/AVP 8"), ("PCMA",)),
        (offer("audio 4000 RTP/AVP 96", "a=rtpmap:96 opus/48000/2", "m=audio 4002 RTP/AVP 9"), ("OPUS",)),
        (offer("video 4000 RTP/AVP 96", "a=rtpmap:96 PCMU/8000", "m=audio 4002 RTP/AVP 96 8"), ("PCMA",)),
        (offer("audio 4000 RTP/AVP 0", *["m=video 0 RTP/AVP 96"] * 16), ()),
        (b"\xff\xfe", ()),
    ],
)
def test_codecs_come_in_the_callers_order(body: bytes, codecs: tuple[str, ...]) -> None:
    assert offered_codecs(body) == codecs


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"this is no sdp", "the offer has no audio"),
        (offer("video 4000 RTP/AVP 31"), "the offer has no audio"),
        (offer("audio 0 RTP/AVP 0", "m=audio 0 RTP/SAVP 8"), "every audio section of the offer is off"),
        (offer("audio 4000 RTP/SAVP 0"), "the offer is encrypted only"),
        (offer("audio 4000 UDP/TLS/RTP/SAVPF 0", "m=audio 0 RTP/AVP 0"), "the offer is a browser's"),
        (offer("audio 4000 RTP/AVP 4", "m=audio 4002 RTP/SAVP 0"), "none of the offered codecs is known"),
        (offer("audio 4000 RTP/AVP 0", "c=IN IP6 ::1"), "the offer's address is of IPv6"),
        (offer("audio 4000 TCP/RTP/AVP 0"), "the audio is offered over TCP/RTP/AVP"),
        (
            offer("audio 4000 RTP/AVP 0", *["m=video 0 RTP/AVP 96"] * 16),
            "the offer has more than 16",
        ),
        (offer("audio 4000 RTP/AVP 0", *["a=x"] * 1000), "the offer has more than 16 sections or 1000 lines"),
    ],
)
def test_what_is_wrong_with_an_offer_is_said(body: bytes, why: str) -> None:
    assert offered_codecs(body) == ()
    assert why_none(body).startswith(why)
    assert len(why_none(body)) <= 100, "no more goes into a Reason"


SIXTH = offer("audio 4000 RTP/AVP 8", "c=IN IP6 2001:db8::7", "m=audio 4002 RTP/AVP 0", "c=IN IP4 192.0.2.1")


@pytest.mark.parametrize(
    ("families", "codecs", "host", "first"),
    [
        (FOUR, ("PCMU",), "192.0.2.1", "m=audio 0 RTP/AVP 8"),
        (SIX, ("PCMA",), "2001:db8::7", "m=audio 4000 RTP/AVP 8"),
        (FOUR | SIX, ("PCMA",), "2001:db8::7", "m=audio 4000 RTP/AVP 8"),
    ],
)
def test_sound_goes_by_the_families_that_the_gateway_is_bound_to(
    families: Set[str], codecs: tuple[str, ...], host: str, first: str
) -> None:
    assert offered_codecs(SIXTH, families) == codecs
    assert offered_host(SIXTH, families) == host
    assert first in lean(SIXTH, families).decode().split("\r\n")
    assert EdgeConfig("0.0.0.0", 0, "", b"").families == FOUR
    assert EdgeConfig("::1", 0, "", b"").families == SIX
    assert EdgeConfig("::", 0, "", b"").families == FOUR | SIX


def test_an_offer_over_ipv4_is_none_where_all_is_ipv6() -> None:
    body = offer("audio 4000 RTP/AVP 0", "c=IN IP4 192.0.2.1")
    assert offered_codecs(body, SIX) == ()
    assert why_none(body, SIX).startswith("the offer's address is of IPv4")


@pytest.mark.parametrize("said", ["c=IN IP4 pbx.example.org", "c=IN IP4 " + "x" * 300, "c=IN IP4", "a=x"])
def test_a_name_is_no_address(said: str) -> None:
    body = offer("audio 4000 RTP/AVP 0", said)
    assert offered_codecs(body) == ("PCMU",)
    assert offered_host(body) == ""


def test_a_line_gets_what_it_can_use_of_an_offer() -> None:
    body = offer(
        "video 4000 RTP/AVP 96 97", "a=rtpmap:96 H264/90000", "a=rtpmap:97 VP8/90000", "a=ssrc:1 cname:x",
        "m=audio 5000 RTP/AVP 111 9 0 101 13", "c=IN IP4 192.0.2.3", "b=AS:80",
        "a=rtpmap:111 opus/48000/2", "a=fmtp:111 useinbandfec=1", "a=rtcp-fb:111 nack",
        "a=rtpmap:9 G722/8000", "a=rtpmap:101 telephone-event/8000", "a=fmtp:101 0-16", "a=ptime:20",
        "a=sendonly", "a=rtcp:5001", "a=candidate:1 1 UDP 1 10.0.0.1 5000 typ host", "a=ice-ufrag:x",
        "a=mid:1", "a=rtcp-mux", "a=x-own:1", "m=audio 6000 RTP/SAVP 0",
        "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:x",
    )  # fmt: skip
    body = body.replace(b"t=0 0\r\n", b"i=me\r\nt=0 0\r\na=group:BUNDLE 0 1\r\n")
    assert lean(body) == offer(
        "video 0 RTP/AVP 96", "m=audio 5000 RTP/AVP 111 9 0 101 13", "c=IN IP4 192.0.2.3",
        "a=rtpmap:111 opus/48000/2", "a=fmtp:111 useinbandfec=1", "a=rtpmap:9 G722/8000",
        "a=rtpmap:101 telephone-event/8000", "a=fmtp:101 0-16", "a=ptime:20", "a=sendonly", "a=rtcp:5001",
        "a=rtcp-mux", "m=audio 0 RTP/SAVP 0",
    )  # fmt: skip


def test_a_plain_offer_and_one_that_no_line_can_use_stay_as_they_are() -> None:
    for body in (offer("audio 5000 RTP/AVP 0"), offer("audio 5000 RTP/AVP 4", "a=x"), b"no sdp", b""):
        assert lean(body) == body


def test_what_a_line_cannot_read_of_a_description_is_put_right() -> None:
    body = offer("Audio 5000 rtp/avp 0", "c=IN IP4 192.0.2.3/127", "a=", "garbage", "x=", "a=sendonly")
    wrong = body.replace(b"o=- 1 1", b"o=my phone 1 99999999999999999999999").replace(b"s=-", b"s=")
    right = offer("audio 5000 RTP/AVP 0", "c=IN IP4 192.0.2.3", "a=sendonly")
    assert lean(wrong) == right.replace(b"o=- 1 1 IN IP4 192.0.2.1", b"o=- 0 0 IN IP4 127.0.0.1")
    assert lean(wrong.replace(b"v=0\r\n", b"").replace(b"s=\r\n", b"")) == lean(wrong)
    assert lean(right.replace(b"\r\n", b"\n")) == right


def test_a_format_that_its_offer_does_not_name_is_left_out() -> None:
    assert lean(offer("audio 5000 RTP/AVP 0 101")) == offer("audio 5000 RTP/AVP 0")


def test_our_address_is_written_wherever_the_lines_stands() -> None:
    body = (
        b"v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\nc=IN IP4 127.0.0.1\r\nm=audio 4000 RTP/AVP 0\r\n"
        b"c=IN IP4 0.0.0.0\r\na=rtcp:4001 IN IP4 127.0.0.1\r\n"
    )
    assert at_address(body, "192.0.2.9") == (
        b"v=0\r\no=- 1 2 IN IP4 192.0.2.9\r\nc=IN IP4 192.0.2.9\r\nm=audio 4000 RTP/AVP 0\r\n"
        b"c=IN IP4 0.0.0.0\r\na=rtcp:4001 IN IP4 192.0.2.9\r\n"
    )
    assert at_address(b"c=IN IP4 127.0.0.1\r\n", "2001:db8::9") == b"c=IN IP6 2001:db8::9\r\n"
    assert at_address(b"c=IN IP6 ::\r\n", "192.0.2.9") == b"c=IN IP4 192.0.2.9\r\n"


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
    assert Identity(Bound("2001:db8::1"), "198.51.100.7").address("2001:4860:4860::8888") == "2001:db8::1"
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

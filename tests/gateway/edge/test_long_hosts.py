"""An address that is longer than any host's reaches no line, by whatever message it comes."""

from __future__ import annotations

import pytest

from gateway.edge.long_hosts import without_long_hosts

SDP = b"v=0\r\no=- 1 1 IN IP4 %s\r\ns=-\r\nc=IN IP4 %s\r\nt=0 0\r\nm=audio 4 RTP/AVP 0\r\n%sa=sendrecv\r\n"
HOST = b"phone.example.com"


@pytest.mark.parametrize("length", [250, 254, 300, 4000])
def test_a_host_that_is_too_long_is_nowhere(length: int) -> None:
    long = b"x" * length
    rtcp = b"a=rtcp:5 IN IP4 " + long + b"\r\n"
    assert without_long_hosts(SDP % (HOST, long, rtcp)) == SDP % (HOST, b"0.0.0.0", b"")
    assert without_long_hosts(SDP.replace(b"\r\n", b"\n") % (HOST, HOST, rtcp)) == SDP.replace(
        b"\r\n", b"\n"
    ) % (HOST, HOST, b"")
    assert without_long_hosts(b"v=0\r\nC=IN IP4\t" + long) == b"v=0\r\nc=IN IP4 0.0.0.0"


def test_what_a_host_can_have_stays() -> None:
    name = b".".join([b"x" * 60] * 3)
    sdp = SDP % (name, name, b"a=rtcp:5 IN IP4 " + name + b"\r\na=x:" + b"y" * 1000 + b"\r\n")
    assert without_long_hosts(sdp) == sdp

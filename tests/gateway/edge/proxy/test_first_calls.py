"""What newcomers' telephones and PBXes send first, message by message: a call, or an answer that helps."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from tests.gateway.edge.conftest import Exchange
from tests.gateway.edge.peers import ANSWER, OFFER

HOUSE_TIME = True
FORWARDED = 200


@dataclass(frozen=True)
class First:
    """Headers that a telephone sends instead of the usual ones, and what becomes of it."""

    what: int = FORWARDED
    headers: dict[str, str] = field(default_factory=dict)
    uri: str = ""
    offer: str = OFFER
    says: str = ""
    """in the Reason of a refusal"""
    called: str = ""
    """what the router is told"""


INSTANCE = '"Bob" <sip:p@{own}>;+sip.instance="<urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6>"'
VIDEO = "m=video 40400 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n"
CANDIDATES = "".join(f"a=candidate:{n} 1 UDP 2130706431 10.0.{n}.1 {n} typ host\r\n" for n in range(45))
KEY = "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz\r\n"
MANY = (
    f"--b1\r\nContent-Type: application/sdp\r\n\r\n{OFFER}\r\n"
    "--b1\r\nContent-Type: application/isup;version=itu-t92+\r\n"
    "Content-Disposition: signal;handling=optional\r\n\r\nxx\r\n--b1--\r\n"
)

FIRST = {
    "a phone that registered by RFC 5626": First(headers={"Contact": INSTANCE}),
    "a dial code": First(uri="sip:*21#@127.0.0.1", called="sip:*21#@127.0.0.1"),
    "an escaped dial code": First(uri="sip:*21%23@127.0.0.1", called="sip:*21#@127.0.0.1"),
    "Asterisk in a container": First(
        headers={
            "From": '"phone" <sip:webrtc_client2@1af019b2ba08>;tag=1', "Contact": "<sip:a@1af019b2ba08:45999>"
        }
    ),
    "a PBX with a number": First(headers={"From": "<sip:p@pbx1>;tag=1", "To": "<sip:demo@pbx.lan2>"}),
    "a PBX on Windows": First(headers={"From": "<sip:p@my_pbx>;tag=1"}),
    "a trunk of SIP-I": First(headers={"Content-Type": "multipart/mixed;boundary=b1"}, offer=MANY),
    "a ported number": First(
        uri="sip:+49301234567;npdi;rn=+4930@127.0.0.1;user=phone",
        called="sip:+49301234567;npdi;rn=+4930@127.0.0.1;user=phone",
    ),
    "a local number": First(
        uri="TEL:1234567;phone-context=+4930", called="tel:1234567;phone-context=+4930"
    ),
    "a browser's many addresses": First(offer=OFFER + CANDIDATES),
    "an old stack": First(headers={"From": "<SIP:p@127.0.0.1>;TAG=1"}, uri="SIP:demo@127.0.0.1"),
    "a name that is not English": First(headers={"From": "Jürgen Müller <sip:p@127.0.0.1>;tag=1"}),
    "a softphone with a camera": First(offer=OFFER.replace("m=audio", f"{VIDEO}m=audio")),
    "a phone that has music off": First(offer=OFFER.replace("m=audio", "m=audio 0 RTP/AVP 0\r\nm=audio")),
    "a phone with SRTP only": First(
        488, offer=OFFER.replace("RTP/AVP", "RTP/SAVP") + KEY, says="the offer is encrypted only"
    ),
    "a phone with IPv6 only": First(
        488, offer=OFFER.replace("c=IN IP4 127.0.0.1", "c=IN IP6 ::1"), says="the offer's address is of IPv6"
    ),
    "a gateway's Contact": First(400, headers={"Contact": "<tel:+4930123>"}, says="not a SIP URI"),
}  # fmt: skip


@pytest.mark.parametrize("transport", ["udp", "tcp"])
@pytest.mark.parametrize("name", FIRST)
async def test_a_first_call(exchange: Exchange, name: str, transport: str) -> None:
    first = FIRST[name]
    line, caller = await exchange.line(), await exchange.caller(transport)
    lines = caller.text("INVITE", first.offer, uri=first.uri).split("\r\n\r\n", 1)[0].split("\r\n")
    given = {key: value.format(own=f"127.0.0.1:{caller.port}") for key, value in first.headers.items()}
    lines = [f"{key}: {given.pop(key)}" if (key := one.partition(":")[0]) in given else one for one in lines]
    caller.write("\r\n".join([*lines, "", first.offer]))
    if first.what != FORWARDED:
        assert first.says in (await caller.next(first.what))["reason"]
        await line.nothing()
        return
    invite = await line.invited()
    assert "m=audio 40000 RTP/AVP 0 8 101\r\n" in invite.body
    line.reply(invite, 200, body=ANSWER)
    answer = await caller.next(200)
    assert answer["from"] in [one.partition(": ")[2] for one in lines]
    assert exchange.desk.calls[0].facts.called == (first.called or exchange.desk.calls[0].facts.called)
    caller.own_tag = answer.tag("from") or "1"
    caller.learn(answer)
    mine = f"From: <sip:alice@127.0.0.1>;tag={caller.own_tag}"
    caller.write(caller.text("BYE").replace(mine, f"From: {answer['from']}"))
    line.reply(await line.next(method="BYE"), 200)
    await caller.next(200, "BYE")
    assert exchange.edges[0].stats()["slots_free"] == 4


async def test_a_phone_that_would_register_is_told_that_there_is_no_registrar(exchange: Exchange) -> None:
    caller = await exchange.caller()
    caller.send("REGISTER", "", "Expires: 3600")
    await caller.next(405)

"""What comes in the body of a caller's message, and what of it comes to a line."""

from __future__ import annotations

import base64

import pytest

from gateway.edge.grammar.session_part import MAX_PARTS
from gateway.edge.proxy.forwarding import MAX_TO_LINE
from tests.gateway.edge.conftest import Exchange
from tests.gateway.edge.peers import ANSWER, OFFER, reply

HOUSE_TIME = True

ISUP = (
    "Content-Type: application/isup;version=itu-t92+\r\nContent-Disposition: signal;handling={}\r\n\r\n\1\0{}"
)
PLACE = "Content-Type: application/pidf+xml\r\nContent-ID: <a@b>\r\n\r\n<presence/>"
SDP_PART = f"Content-Type: application/sdp\r\n\r\n{OFFER}"
TEXT = "\r\nhello"
MIXED = "Content-Type: multipart/mixed;boundary=b1"


def parts(*each: str, boundary: str = "b1", before: str = "", end: str = "--") -> str:
    return before + "".join(f"--{boundary}\r\n{one}\r\n" for one in each) + f"--{boundary}{end}\r\n"


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (MIXED, parts(SDP_PART, ISUP.format("optional", "xx"))),
        (MIXED, parts(ISUP.format("optional", "--b"), SDP_PART)),
        (MIXED, parts(SDP_PART, PLACE, TEXT)),
        (MIXED, parts(PLACE, SDP_PART, before="This is a preamble.\r\n") + "This is an epilogue."),
        ('Content-Type: Multipart/Mixed ; boundary = "b 1"', parts(SDP_PART, PLACE, boundary="b 1")),
        ("Content-Type: multipart/related;boundary=b1;type=x", parts(SDP_PART, PLACE)),
        ("Content-Type: multipart/alternative;boundary=b1", parts(TEXT, SDP_PART)),
        (MIXED, parts(f"content-type: Application/SDP; charset=utf-8\r\n\r\n{OFFER}", PLACE)),
        (MIXED, parts(f"Content-Disposition: session;handling=required\r\n{SDP_PART}")),
        (MIXED, parts(SDP_PART, end="").removesuffix("--b1\r\n") + "--b1--"),
        (MIXED, parts(SDP_PART).replace("\r\n--b1", "\n--b1")),
        (
            MIXED,
            parts(
                "Content-Type: application/sdp\r\nContent-Transfer-Encoding: base64\r\n\r\n"
                + base64.encodebytes(OFFER.encode()).decode()
            ),
        ),
        (
            MIXED,
            parts(
                "Content-Type: multipart/mixed;boundary=b11\r\n\r\n" + parts(PLACE, SDP_PART, boundary="b11"),
                PLACE,
            ),
        ),
    ],
)
async def test_a_line_gets_the_description_out_of_many_parts(
    exchange: Exchange, kind: str, body: str
) -> None:
    line, caller = await exchange.line(), await exchange.caller()
    caller.send("INVITE", body, kind)
    invite = await line.invited()
    assert invite["content-type"] == "application/sdp"
    assert invite.body == OFFER
    assert int(invite["content-length"]) == len(OFFER)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (MIXED, parts(SDP_PART, ISUP.format("required", "xx"))),
        (MIXED, parts(PLACE, TEXT)),
        (MIXED, ""),
        (MIXED, OFFER),
        (MIXED, parts(SDP_PART, boundary="b2")),
        (MIXED, parts(*[PLACE] * (MAX_PARTS + 1), SDP_PART)),
        ("Content-Type: multipart/mixed", parts(SDP_PART)),
        ('Content-Type: multipart/mixed;boundary="b1', parts(SDP_PART)),
        ("Content-Type: multipart/mixed;boundary=" + "b" * 71, parts(SDP_PART, boundary="b" * 71)),
        ("Content-Type: text/plain", OFFER),
        ("Content-Type: message/sip", OFFER),
        (MIXED, parts("Content-Type: application/sdp\r\nContent-Transfer-Encoding: base64\r\n\r\n=")),
    ],
)
async def test_a_body_without_a_description_that_we_may_take_is_refused(
    exchange: Exchange, kind: str, body: str
) -> None:
    line, caller = await exchange.line(), await exchange.caller()
    caller.send("INVITE", body or "x", kind)
    refusal = await caller.next(415)
    assert refusal["accept"] == "application/sdp, multipart/mixed"
    await line.nothing()


async def test_a_packed_body_is_told_so(exchange: Exchange) -> None:
    line, caller = await exchange.line(), await exchange.caller()
    caller.send("INVITE", OFFER, "e: gzip")
    assert (await caller.next(415))["accept-encoding"] == "identity"
    caller.send("INVITE", OFFER, "Content-Encoding: Identity")
    await line.invited()


async def test_the_other_ways_of_a_description_to_a_line_take_many_parts_too(exchange: Exchange) -> None:
    line, caller = await exchange.line(), await exchange.caller()
    await exchange.call(caller, line)
    body = parts(SDP_PART, PLACE)
    caller.send("INVITE", body, MIXED)
    again = await line.next(method="INVITE")
    assert again.body == OFFER
    line.reply(again, 200)
    caller.send("ACK", body, MIXED)
    ack = await line.next(method="ACK")
    assert (ack.body, ack["content-type"]) == (OFFER, "application/sdp")
    line.send("INVITE", ANSWER)
    asked, contact = await caller.next(method="INVITE"), f"Contact: <sip:a@127.0.0.1:{caller.port}>"
    caller.write(reply(asked, 200, contact, body=body).replace("Content-Type: application/sdp", MIXED, 1))
    assert (await line.next(200, "INVITE")).body == OFFER


CANDIDATES = "".join(f"a=candidate:{n} 1 UDP 2130706431 10.0.0.1 {n} typ host tcp\r\n" for n in range(300))
NUMBERS = range(102, 128)
NAMES = "".join(f"a=rtpmap:{n} codec{n}/48000/2\r\na=fmtp:{n} {'x=y;' * 150}\r\n" for n in NUMBERS)
LARGE = {
    "candidates": OFFER + CANDIDATES,
    "codecs": OFFER.replace("0 8 101", f"{' '.join(map(str, NUMBERS))} 0 8 101") + NAMES,
    "video": OFFER + "m=video 40010 RTP/AVP 96\r\n" + "a=rtpmap:96 H264/90000\r\na=anything:at all\r\n" * 400,
}  # fmt: skip


@pytest.mark.parametrize("transport", ["udp", "tcp"])
@pytest.mark.parametrize("what", LARGE)
async def test_a_description_of_16_kb_comes_to_a_line_without_what_it_cannot_use(
    exchange: Exchange, what: str, transport: str
) -> None:
    line, caller = await exchange.line(), await exchange.caller(transport)
    assert len(LARGE[what]) > 16_000
    caller.send("INVITE", LARGE[what])
    invite = await line.invited()
    assert len(invite.body) < 400
    assert invite.body.count("m=") == LARGE[what].count("m=")
    assert len(str(invite)) < MAX_TO_LINE
    line.reply(invite, 200, body=ANSWER)
    await caller.next(200)


@pytest.mark.parametrize(
    ("accept", "status"),
    [
        ("text/plain", 406),
        ("text/plain, application/xml;q=0.5", 406),
        ("", 406),
        ("application/sdp;q=0", 406),
        ("text/plain, Application/SDP;level=1", 200),
        ("application/*", 200),
        ("*/*;q=0.1", 200),
        ("multipart/mixed, application/sdp", 200),
    ],
)
async def test_a_caller_who_takes_no_description_as_an_answer_is_told_so(
    exchange: Exchange, accept: str, status: int
) -> None:
    line, caller = await exchange.line(), await exchange.caller()
    caller.send("INVITE", OFFER, f"Accept: {accept}")
    if status == 200:
        line.reply(await line.invited(), 200, body=ANSWER)
    await caller.next(status)


@pytest.mark.parametrize(
    ("offer", "why"),
    [
        (OFFER.replace("RTP/AVP", "RTP/SAVP"), "encrypted only"),
        (OFFER.replace("RTP/AVP 0 8 101", "RTP/AVP 4 101"), "codecs"),
        (OFFER.replace("m=audio", "m=video"), "no audio"),
        (OFFER.replace("m=audio 40000", "m=audio 0"), "off"),
    ],
)
async def test_a_refused_offer_hears_what_is_wrong_with_it(exchange: Exchange, offer: str, why: str) -> None:
    await exchange.line()
    caller = await exchange.caller()
    caller.send("INVITE", offer)
    assert why in (await caller.next(488))["reason"]


@pytest.mark.parametrize(
    ("contact", "why"),
    [("<tel:+4930>", "not a SIP URI"), ("*", "* names nobody"), ("<sip:a", "closed"), ("", "missing")],
)
async def test_a_refused_message_hears_what_is_wrong_with_it(
    exchange: Exchange, contact: str, why: str
) -> None:
    caller = await exchange.caller()
    caller.write(caller.text("INVITE", OFFER, contact="x").replace("Contact: x", f"Contact: {contact}"))
    assert why in (await caller.next(400))["reason"]

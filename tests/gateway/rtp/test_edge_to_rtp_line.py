"""What callers really write, by the real edge to a real line: the line reads it, and the call has sound."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import pytest_asyncio

from gateway.edge.doors.edge_config import EdgeConfig
from gateway.edge.proxy.lines import LineInfo
from gateway.edge.sip_proxy import Edge
from gateway.ipc.line_messages import AnswerCall, CallConfirmed, CallStarted, ProgressCall
from tests.gateway.edge.peers import KEY, Caller, Desk, Said
from tests.gateway.line.line_harness import TOKEN, is_tone, tone
from tests.gateway.line.rawphone import RawPhone
from tests.gateway.rtp.rtp_exchange import RtpExchange
from tests.needs import HANGS_S, need_ipv6

pytestmark = pytest.mark.asyncio(loop_scope="module")


@dataclass
class Door:
    """An edge before one of the exchange's narrow lines."""

    edge: Edge
    desk: Desk
    tasks: set[asyncio.Task[Any]] = field(default_factory=set)

    @classmethod
    @asynccontextmanager
    async def opened(
        cls, exchange: RtpExchange, line: str = "n0", host: str = "127.0.0.1", **rules: Any
    ) -> AsyncIterator[Door]:
        """Closed when its test is over."""
        desk, tasks = Desk(), set[asyncio.Task[Any]]()

        def spawn(work: Any) -> None:
            task = asyncio.ensure_future(work)
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        facts = await exchange.front.hears_hello(line)
        assert facts.sip_port is not None
        while True:
            config = EdgeConfig(host=host, port=0, boot_token=TOKEN, route_key=KEY, **rules)
            edge = Edge(config, desk, spawn)
            try:
                await edge.start()
            except OSError:  # what is free for UDP is somebody's by TCP
                await edge.stop()
                continue
            break
        edge.line_up(LineInfo(line, "narrow", facts.sip_port, facts.capacity))
        yield cls(edge, desk, tasks)
        for dialog in edge._board.dialogs:
            await exchange.front.hang_up(dialog.token.call_id, line)
            await exchange.front.hears_end(dialog.token.call_id)
        await edge.stop()
        for task in tasks:
            task.cancel()


@pytest_asyncio.fixture(loop_scope="module")
async def door(exchange: RtpExchange) -> AsyncIterator[Door]:
    async with Door.opened(exchange) as door:
        yield door


OFFER = (
    "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
    "m=audio 40000 RTP/AVP 0 101\r\na=rtpmap:101 telephone-event/8000\r\n"
)
TO_CALLER = "sip:alice@127.0.0.1:40001"


def _as_written(text: str) -> str:
    return text


async def _call(
    exchange: RtpExchange, door: Door, caller: Caller, text: str, spoken: Callable[[str], str] = _as_written
) -> Said:
    """The 200 to an INVITE; the call is up. `spoken` makes the caller's ACK what the caller would write."""
    caller.write(text)
    started = await exchange.hall.hears(CallStarted, within_s=HANGS_S)
    await exchange.hall.ask(AnswerCall(started.call_id))
    answer = await caller.next(200, "INVITE", HANGS_S)
    caller.learn(answer)
    caller.write(spoken(caller.text("ACK")))
    await exchange.hall.hears(CallConfirmed, started.call_id, HANGS_S)
    door.desk.endings.clear()
    return answer


WRITTEN = {
    "a host that ends with a digit": ("From: ", "<sip:alice@pbx1>"),
    "a container's id": ("From: ", "<sip:alice@1af019b2ba08>"),
    "a host with an underscore": ("From: ", "<sip:alice@my_pbx>"),
    "IPv6 with a zone": ("From: ", "<sip:alice@[fe80::1%eth0]>"),
    "a name in UTF-8 without quotes": ("From: ", "Jürgen Müller <sip:alice@127.0.0.1>"),
    "a name with punctuation": ("From: ", "A & B / C @home: (x), y; z? <sip:alice@127.0.0.1>"),
    "a name half in quotes": ("From: ", '"Al" Ice <sip:alice@127.0.0.1>'),
    "quotes in quotes": ("From: ", '"a \\" b \\\\" <sip:alice@127.0.0.1>'),
    "a bell and a NUL in quotes": ("From: ", '"a \\\a \\\0 b" <sip:alice@127.0.0.1>'),
    "no name in quotes": ("From: ", '"" <sip:alice@127.0.0.1>'),
    "a long name": ("From: ", '"' + "long " * 150 + '" <sip:alice@127.0.0.1>'),
    "a dial code": ("From: ", "<sip:*21#@127.0.0.1>"),
    "anything in a user": ("From: ", "<sip:a|b[c]{d}^ü%@127.0.0.1>"),
    "capitals": ("From: ", "<SIP:alice@127.0.0.1>"),
    "a number in capitals": ("From: ", "<TEL:+49-30-123>"),
    "a number with everything": ("From: ", "<tel:+4930123;isub=1;x=VG8+PoI=>"),
    "number portability": ("From: ", "<sip:+4930123;npdi;rn=+4930@127.0.0.1;user=phone>"),
    "a value that ends with =": ("From: ", "<sip:alice@127.0.0.1;thinfo=VG8+PoI=>"),
    "a semicolon too many": ("From: ", "<sip:alice@127.0.0.1;>"),
    "an address of nobody's kind": ("From: ", "<isbn:2983792873>"),
    "a To of nobody's kind": ("To: ", "<http://example.com/?a=b|c>"),
    "a To with a name": ("To: ", 'Dr. Müller, (x) <sip:demo@127.0.0.1>'),
    "a name and an instance": (
        "Contact: ", f'"Al" <{TO_CALLER}>;+sip.instance="<urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6>"',
    ),
    "a Contact whose name has a comma": ("Contact: ", f"Bell, Al (x) <{TO_CALLER}>"),
    "two Contacts": ("Contact: ", f"<{TO_CALLER}>, <sip:b@127.0.0.1>"),
    "a Contact without brackets": ("Contact: ", TO_CALLER),
    "a Contact with parameters": ("Contact: ", f"<{TO_CALLER};thinfo=VG8+PoI=;x|y=z>;+u.x=ü;expires=3600;"),
    "a browser's Contact": ("Contact: ", "<sip:1a2b@3c4d.invalid;transport=ws;ob>"),
    "a Contact at an IPv6 address": ("Contact: ", "<sip:alice@[2001:db8::1]:40001>"),
    "words that are none": ("Supported: ", ';;,,",timer'),
    "a refresh that is none": ("Session-Expires: ", "many"),
    "a least refresh that is none": ("Min-SE: ", "x;y"),
    "a refresh with more": ("Session-Expires: ", "1800 ; refresher = UAS ; x=ü"),
    "an Allow that is none": ("Allow: ", 'INVITE, "'),
    "an event that is none": ("Event: ", ";;"),
    "a Record-Route without brackets": ("Record-Route: ", "sip:127.0.0.9;lr;x=VG8="),
    "many names in a Record-Route": ("Record-Route: ", "A, b <sip:127.0.0.9;lr>, <sip:127.0.0.8;lr;x=a|b>"),
}  # fmt: skip


@pytest.mark.parametrize("written", WRITTEN)
async def test_a_line_reads_what_a_caller_writes(exchange: RtpExchange, door: Door, written: str) -> None:
    header, value = WRITTEN[written]
    caller = await Caller(door.edge.port).open()
    try:
        lines = caller.text("INVITE", OFFER, contact=f"<{TO_CALLER}>").split("\r\n")
        whole = value + (f";tag={caller.own_tag}" if header == "From: " else "")
        lines = [line for line in lines if not line.startswith(header)]
        lines.insert(3, header + whole)
        answer = await _call(exchange, door, caller, "\r\n".join(lines))
        asked = Said.parse("\r\n".join(lines).encode())
        assert answer["from"] == asked["from"]
        assert answer["to"].startswith(asked["to"])
        await exchange.front.hang_up(door_call(door), "n0")
        bye = await caller.next(method="BYE", within_s=HANGS_S)
        caller.reply(bye, 200)
        assert bye["to"] == asked["from"]
        assert bye.uri == (_between(asked["contact"]) or TO_CALLER)
    finally:
        caller.close()


def door_call(door: Door) -> str:
    """The id of the one call that is up."""
    (dialog,) = door.edge._board.dialogs
    return dialog.token.call_id


def _between(text: str) -> str:
    return text.partition("<")[2].partition(">")[0]


async def test_a_caller_of_before_rfc_3261_calls_and_is_hung_up(exchange: RtpExchange, door: Door) -> None:
    caller = await Caller(door.edge.port).open()
    try:

        def old(text: str) -> str:
            text = re.sub(";branch=[^;]*;rport", "", text).replace(f";tag={caller.own_tag}", "")
            return text.replace("Contact: ", "X-None: ")

        answer = await _call(exchange, door, caller, old(caller.text("INVITE", OFFER)), old)
        assert "tag" not in answer["from"]
        await exchange.front.hang_up(door_call(door), "n0")
        bye = await caller.next(method="BYE", within_s=HANGS_S)
        assert (bye.uri, bye["to"]) == ("sip:alice@127.0.0.1", "<sip:alice@127.0.0.1>")
        caller.reply(bye, 200)
    finally:
        caller.close()


VIDEO = "m=video 40010 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=fmtp:96 profile-level-id=42e01f\r\n"
BEFORE = {
    "video": (VIDEO, ["m=video 0 RTP/AVP 96"]),
    "video that is off": ("m=video 0 RTP/AVP 96 97\r\n", ["m=video 0 RTP/AVP 96"]),
    "audio that is off": ("m=audio 0 RTP/AVP 0\r\n", ["m=audio 0 RTP/AVP 0"]),
    "audio in codecs of nobody": (
        "m=audio 40020 RTP/AVP 96\r\na=rtpmap:96 iLBC/8000\r\n", ["m=audio 0 RTP/AVP 96"],
    ),
    "audio in SRTP": (
        "m=audio 40020 RTP/SAVP 0\r\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:"
        "WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz\r\n", ["m=audio 0 RTP/SAVP 0"],
    ),
    "everything": (
        VIDEO + "m=image 40030 udptl t38\r\nm=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n",
        ["m=video 0 RTP/AVP 96", "m=image 0 udptl t38", "m=application 0 UDP/DTLS/SCTP webrtc-datachannel"],
    ),
}  # fmt: skip


async def _hears_and_is_heard(exchange: RtpExchange, phone: RawPhone, number: int) -> None:
    exchange.hall.sounds[number] = tone(600, rate_hz=8000)
    phone.talk(tone(440, rate_hz=8000))
    assert is_tone(await phone.hears(1.0, HANGS_S), 600, 8000)
    await exchange.hall.hears_bytes(number, 8000, HANGS_S)
    assert is_tone(await exchange.hall.hears_bytes(number, 8000, HANGS_S), 440, 8000)


@pytest.mark.parametrize("before", BEFORE)
async def test_audio_that_is_not_first_is_heard(exchange: RtpExchange, door: Door, before: str) -> None:
    sections, answered = BEFORE[before]
    phone = await exchange.phone()
    phone.line = ("127.0.0.1", door.edge.port)
    phone.send("INVITE", phone.offer().replace("m=audio", f"{sections}m=audio"))
    started = await exchange.hall.hears(CallStarted, within_s=HANGS_S)
    phone.call_id = started.call_id
    await exchange.hall.ask(AnswerCall(started.call_id))
    answer = await phone.final()
    media = [line for line in answer.body.split("\r\n") if line.startswith("m=")]
    assert media[:-1] == answered
    phone.media = ("127.0.0.1", int(media[-1].split()[1]))
    phone.send("ACK", "", f"Route: {answer.headers['record-route']}\r\n", same=True)
    await exchange.hall.hears(CallConfirmed, started.call_id, HANGS_S)
    await _hears_and_is_heard(exchange, phone, started.call)


@pytest.mark.parametrize("before", ["video", "audio that is off", "everything"])
async def test_a_line_finds_the_audio_by_itself(exchange: RtpExchange, before: str) -> None:
    """Also where no edge turned the other sections off."""
    phone = await exchange.phone()
    phone.send("INVITE", phone.offer().replace("m=audio", f"{BEFORE[before][0]}m=audio"), phone.signed())
    started = await exchange.hall.hears(CallStarted, phone.call_id, HANGS_S)
    await exchange.hall.ask(AnswerCall(phone.call_id))
    answer = await phone.final()
    media = [line for line in answer.body.split("\r\n") if line.startswith("m=")]
    phone.media = ("127.0.0.1", int(media[-1].split()[1]))
    phone.acknowledge()
    assert (await exchange.hall.hears(CallConfirmed, phone.call_id, HANGS_S)).codec == "PCMU"
    await _hears_and_is_heard(exchange, phone, started.call)


@pytest.mark.parametrize("offers", [True, False])
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_who_is_bound_everywhere_talks_over_ipv4_and_ipv6(
    exchange: RtpExchange, host: str, offers: bool
) -> None:
    need_ipv6()
    if "e0" not in exchange.rtp_lines:
        await exchange.line("e0", media_address="::")
    async with Door.opened(exchange, "e0", "::") as door:
        phone = await RawPhone((host, door.edge.port), host=host).open()
        try:
            phone.invite("", offers=offers)
            started = await exchange.hall.hears(CallStarted, within_s=HANGS_S)
            await exchange.hall.ask(AnswerCall(started.call_id))
            answer = await phone.final()
            family = "IP6" if ":" in host else "IP4"
            assert f"c=IN {family} {host}\r\n" in answer.body
            route = f"Route: {answer.headers['record-route']}\r\n"
            phone.send("ACK", "" if offers else phone.offer(), route, same=True)
            await exchange.hall.hears(CallConfirmed, started.call_id, HANGS_S)
            await _hears_and_is_heard(exchange, phone, started.call)
        finally:
            phone.close()


async def test_sound_may_be_of_another_family_than_its_signalling(exchange: RtpExchange) -> None:
    need_ipv6()
    if "e0" not in exchange.rtp_lines:
        await exchange.line("e0", media_address="::")
    async with Door.opened(exchange, "e0", "::") as door:
        phone, ear = RawPhone(("127.0.0.1", door.edge.port)), await RawPhone(host="::1").open()
        await phone.open()
        try:
            phone.send("INVITE", ear.offer())
            started = await exchange.hall.hears(CallStarted, within_s=HANGS_S)
            await exchange.hall.ask(AnswerCall(started.call_id))
            answer = await phone.final()
            assert "c=IN IP6 ::1\r\n" in answer.body
            ear.media = ("::1", phone.media[1]) if phone.media else None
            phone.send("ACK", "", f"Route: {answer.headers['record-route']}\r\n", same=True)
            await exchange.hall.hears(CallConfirmed, started.call_id, HANGS_S)
            await _hears_and_is_heard(exchange, ear, started.call)
        finally:
            phone.close()
            ear.close()


async def test_rtp_and_rtcp_share_a_port_where_the_caller_offers_it(
    exchange: RtpExchange, door: Door
) -> None:
    phone = await exchange.phone()
    phone.line = ("127.0.0.1", door.edge.port)
    phone.send("INVITE", phone.offer() + "a=rtcp-mux\r\n")
    started = await exchange.hall.hears(CallStarted, within_s=HANGS_S)
    phone.call_id = started.call_id
    await exchange.hall.ask(AnswerCall(started.call_id))
    answer = await phone.final()
    assert "a=rtcp-mux\r\n" in answer.body
    phone.send("ACK", "", f"Route: {answer.headers['record-route']}\r\n", same=True)
    await exchange.hall.hears(CallConfirmed, started.call_id, HANGS_S)
    await _hears_and_is_heard(exchange, phone, started.call)


@pytest.mark.parametrize("word", ["", "Supported: 100rel", "Require: 100rel"])
async def test_a_caller_hears_something_before_the_answer(
    exchange: RtpExchange, door: Door, word: str
) -> None:
    """183 with our address comes through, and PRACK goes to the line by our signed word (RFC 3262)."""
    caller, ear = await Caller(door.edge.port).open(), await exchange.phone()
    exchange.hall.sound = tone(440, rate_hz=8_000)
    try:
        caller.send("INVITE", ear.offer(), *([word] if word else []))
        started = await exchange.hall.hears(CallStarted, within_s=HANGS_S)
        assert await exchange.hall.ask(ProgressCall(started.call_id))
        early = await caller.next(183, "INVITE", HANGS_S)
        assert "c=IN IP4 127.0.0.1\r\n" in early.body
        await ear.hears_loud(HANGS_S)
        caller.learn(early)
        number = int(early["cseq"].split()[0])
        await exchange.hall.ask(AnswerCall(started.call_id))
        if word:
            assert early["require"] == "100rel"
            caller.send("PRACK", "", f"RAck: {early['rseq']} {number} INVITE")
            await caller.next(200, "PRACK", HANGS_S)
        answer = await caller.next(200, "INVITE", HANGS_S)
        assert answer.body == early.body
        caller.send("ACK", cseq=number)
        await exchange.hall.hears(CallConfirmed, started.call_id, HANGS_S)
    finally:
        caller.close()

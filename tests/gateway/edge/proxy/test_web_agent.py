"""Calls by SIP whose sound a web line has: the edge is their user agent, over whatever transport."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from gateway.edge.flows import web_socket
from gateway.edge.flows.transport import MAX_UNSENT, Flow
from gateway.edge.grammar import sdp
from gateway.edge.router import Refuse, WebAnswer
from gateway.ipc.ending import CallEnding, End
from tests.gateway.edge.conftest import Exchange
from tests.gateway.edge.peers import DTMF, KEY_5, OFFER, WEB_ANSWER, WEB_OFFER, Caller, Said

HOUSE_TIME = True


class SocketCaller(Caller):
    """A browser: a message is a frame, and it has no address. `gone` says that its connection was closed."""

    via_transport = "WS"

    def __init__(self, exchange: Exchange) -> None:
        super().__init__(exchange.edges[-1].port, host="xyz.invalid")
        self._exchange = exchange
        self.port = 40_000
        self.frames: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.pongs = 0

    async def open(self) -> SocketCaller:
        async def send(frame: bytes) -> None:
            if frame == b"\r\n":
                self.pongs += 1
            self.datagram_received(frame, None)

        edge = self._exchange.edges[-1]
        self.gone = asyncio.create_task(edge.web_socket("ws", "127.0.0.1", self.port, self.frames.get, send))
        return self

    def write(self, text: str | bytes) -> None:
        self.frames.put_nowait(text.encode() if isinstance(text, str) else text)

    def close(self) -> None:
        self.gone.cancel()


async def _caller(exchange: Exchange, transport: str) -> Caller:
    if transport != "ws":
        return await exchange.caller(transport)
    caller = await SocketCaller(exchange).open()
    exchange.peers.append(caller)
    return caller


async def web_call(exchange: Exchange, caller: Caller) -> Said:
    caller.send("INVITE", WEB_OFFER)
    answer = await caller.next(200)
    await caller.next(100)
    caller.learn(answer)
    caller.send("ACK")
    return answer


@pytest.mark.parametrize("transport", ["udp", "ws"])
async def test_a_call_is_answered_held_and_hung_up(exchange: Exchange, transport: str) -> None:
    await whole_call(exchange, transport)


async def whole_call(exchange: Exchange, transport: str) -> None:
    """A browser's offer over `transport`, and all that its caller may do."""
    await exchange.line()  # for telephones: it hears nothing of this
    caller = await _caller(exchange, transport)
    called = caller.target
    answer = await web_call(exchange, caller)
    assert answer.body == WEB_ANSWER
    assert answer["content-type"] == "application/sdp"
    assert (exchange.desk.web_calls[0].transport, exchange.desk.web_calls[0].called) == (transport, called)
    assert exchange.desk.web_calls[0].called == caller.target.replace(
        caller.target, "sip:demo@127.0.0.1:"
    ) + str(caller.edge[1])
    exchange.desk.web_verdict = WebAnswer("w1", WEB_ANSWER + "a=recvonly\r\n")
    caller.send("INVITE", WEB_OFFER + "a=sendonly\r\n")
    held = await caller.next(200, "INVITE")
    assert held.body.endswith("a=recvonly\r\n")
    assert exchange.desk.web_offers == [("w1", WEB_OFFER + "a=sendonly\r\n")]
    caller.send("ACK")
    caller.send("INFO", KEY_5, DTMF)
    await caller.next(200, "INFO")
    assert exchange.desk.keys == [("w1", "5")]
    caller.send("BYE")
    await caller.next(200, "BYE")
    assert await exchange.desk.ending() == CallEnding(End.CALLER)
    exchange.edges[0].web_over("w1")  # its line says so too
    await caller.next(100, "INVITE")
    await caller.nothing()
    assert exchange.edges[0].stats()["dialogs"] == 0


@pytest.mark.parametrize("transport", ["udp", "ws"])
async def test_we_hang_up(exchange: Exchange, transport: str) -> None:
    caller = await _caller(exchange, transport)
    answer = await web_call(exchange, caller)
    exchange.edges[0].web_over("w1")
    bye = await caller.next(method="BYE")
    assert bye.tag("from") == answer.tag("to")
    assert bye.tag("to") == caller.own_tag
    caller.reply(bye, 200)
    await caller.nothing(2.0)
    caller.send("INFO", KEY_5, DTMF)
    await caller.next(481)


async def test_an_answer_is_repeated_until_its_ack_and_then_given_up(exchange: Exchange) -> None:
    caller = await exchange.caller()
    caller.send("INVITE", WEB_OFFER)
    times = [(await caller.next(200)).at for _ in range(4)]
    assert [round(b - a, 1) for a, b in pairwise(times)] == [0.5, 1.0, 2.0]
    await caller.next(method="BYE", within_s=40)
    assert await exchange.desk.ending(within_s=40) == CallEnding(End.UNACKNOWLEDGED)


async def test_a_caller_that_gives_up_in_time_is_not_answered(exchange: Exchange) -> None:
    exchange.desk.hold()
    caller = await exchange.caller()
    caller.send("INVITE", WEB_OFFER)
    await exchange.desk.asked.wait()
    caller.send("CANCEL", branch=caller.branch)
    await caller.next(200, "CANCEL")
    await caller.next(487)
    exchange.desk.thinking.set()
    assert await exchange.desk.ending() == CallEnding(End.CANCELLED)


async def test_no_web_line_is_a_refusal(exchange: Exchange) -> None:
    exchange.desk.web_verdict = Refuse(503, "all web lines are busy", 10, "w1")
    caller = await exchange.caller()
    caller.send("INVITE", WEB_OFFER)
    answer = await caller.next(503)
    assert answer["retry-after"] == "10"
    assert exchange.desk.refusals[0].call_id == "w1"


async def test_a_change_that_cannot_be_leaves_the_call(exchange: Exchange) -> None:
    caller = await exchange.caller()
    await web_call(exchange, caller)
    caller.send("INVITE", OFFER)  # plain RTP
    assert "SAVPF" in (await caller.next(488))["reason"]
    caller.send("ACK")
    exchange.desk.web_verdict = Refuse(488, "it has other sections than the call has")
    caller.send("INVITE", WEB_OFFER)
    await caller.next(488)
    caller.send("ACK")
    exchange.desk.hold()
    caller.send("INVITE", WEB_OFFER)
    caller.send("UPDATE", WEB_OFFER)
    assert (await caller.next(500, "UPDATE"))["retry-after"] == "1"
    exchange.desk.thinking.set()
    await caller.next(488)
    caller.send("BYE")
    await caller.next(200, "BYE")


async def test_a_stranger_ends_nobodys_call(exchange: Exchange) -> None:
    """Neither by what a log knows (Call-ID and tags), nor by a word for another call."""
    caller, other = await exchange.caller(), await exchange.caller()
    await web_call(exchange, caller)
    exchange.desk.web_verdict = WebAnswer("w2", WEB_ANSWER)
    await web_call(exchange, other)
    thief = await exchange.caller()
    thief.call_id, thief.own_tag, thief.to, thief.cseq = caller.call_id, caller.own_tag, caller.to, 50
    for target in (f"sip:demo@127.0.0.1:{thief.edge[1]}", other.target):
        thief.send("BYE", uri=target)
        await thief.next(481)
    assert not exchange.desk.endings
    thief.to = f"{caller.to}x"
    thief.send("BYE", uri=caller.target)
    await thief.next(481)
    assert not exchange.desk.endings


async def test_after_a_restart_a_caller_can_still_hang_up(exchange: Exchange) -> None:
    caller = await exchange.caller()
    await web_call(exchange, caller)
    old = exchange.edges[0]
    await old.stop()
    await exchange.edge(port=old.port)
    caller.send("INFO", KEY_5, DTMF)
    await caller.next(481)
    caller.send("BYE")
    await caller.next(200, "BYE")
    assert await exchange.desk.ending() == CallEnding(End.CALLER)


async def test_pings_are_answered_and_what_is_not_sip_ends_a_connection(exchange: Exchange) -> None:
    caller = await SocketCaller(exchange).open()
    for _ in range(3):
        caller.write("\r\n\r\n")
    caller.send("OPTIONS")
    await caller.next(503)
    assert caller.pongs == 3
    caller.write("GET / HTTP/1.1\r\n\r\n")
    await caller.gone
    assert exchange.edges[0].stats()["connections"] == 0


@pytest.mark.parametrize("frame", ["x" * (web_socket.MAX_FRAME + 1), None])
async def test_too_much_or_nothing_ends_it_too(exchange: Exchange, frame: str | None) -> None:
    caller = await SocketCaller(exchange).open()
    caller.frames.put_nowait(None if frame is None else frame.encode())
    await caller.gone


async def test_who_says_nothing_is_gone_after_ten_seconds(exchange: Exchange) -> None:
    caller = await SocketCaller(exchange).open()
    async with asyncio.timeout(12):
        await caller.gone


async def test_what_waits_for_a_browser_is_bounded(exchange: Exchange) -> None:
    frames = web_socket.Frames()
    flow = Flow("ws", "127.0.0.1", 1, frames)
    for _ in range(MAX_UNSENT // 1000 + 2):
        flow.send(bytes(1000))
    assert not flow.open
    assert await frames.next() is None


@pytest.mark.parametrize(
    ("body", "is_one"),
    [
        (WEB_OFFER, True),
        (OFFER, False),
        ("", False),
        (WEB_OFFER.replace("UDP/TLS/RTP/SAVPF", "RTP/SAVPF"), True),
        (OFFER.replace("RTP/AVP", "RTP/SAVP"), False),
        (WEB_OFFER.replace("m=audio 9", "m=audio 0"), False),
    ],
)
def test_which_offers_are_webrtcs(body: str, is_one: bool) -> None:
    assert sdp.is_webrtc(body.encode()) is is_one

"""The web line against a hall and a front of this test's, called by aiortc in this process."""

from __future__ import annotations

import asyncio
import itertools
import random
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiortc import RTCSessionDescription

from gateway.config.runtime import Runtime
from gateway.errors import RpcError
from gateway.ipc.ending import CallEnding, End
from gateway.ipc.hello import LineCall, LineFacts
from gateway.ipc.line_messages import (
    AnswerCall,
    AskFailures,
    CallConfirmed,
    CallLeft,
    CallStarted,
    DialDigits,
    DropCall,
    IceReply,
    KeyPressed,
    MediaTurned,
    PressKey,
    ProgressCall,
    ReferCall,
    RenewOffer,
    RingCall,
    ShowCaller,
    ShownState,
    ShownWords,
    StopLine,
    TrickleIce,
)
from gateway.ipc.tick import RECEIVING, SENDING, UNDERRUN
from gateway.line import ice, joined_house, trickle, webcall
from gateway.line.jitter import JitterBuffer, PullKind
from gateway.line.web import CAPACITY, WebLine
from gateway.line.web_stream import WebStream
from gateway.line.webcall import WebCall
from model.tasks import failures
from tests.gateway.line.line_harness import FRAME, TOKEN, FakeFront, FakeHall, Sound, power_at, silence, tone
from tests.gateway.line.rawbrowser import Browser
from tests.house_time import HouseLoop

HOUSE_TIME = True


class House:
    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.hall = FakeHall(runtime)
        self.front = FakeFront(runtime)
        self.line = WebLine("web0", "hall0", runtime, TOKEN)
        self.browsers: list[Browser] = []

    async def call(
        self, call_id: str = "c1", sound: Sound = silence, statement: str | None = None
    ) -> tuple[Browser, int]:
        """A call that is up; its browser and its number."""
        browser = Browser(sound)
        self.browsers.append(browser)
        answer = await self.front.offer(call_id, await browser.offer(), statement)
        started = await self.hall.hears(CallStarted)
        assert started.call_id == call_id
        assert not started.resumed
        await browser.accept(answer)
        confirmed = await self.hall.hears(CallConfirmed)
        assert confirmed.codec == "opus/48000"
        return browser, started.call


@pytest_asyncio.fixture
async def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[House]:
    webcall.prepare("127.0.0.1")
    clock = asyncio.get_running_loop().time
    usual = JitterBuffer.__init__.__kwdefaults__ or {}
    monkeypatch.setattr(JitterBuffer.__init__, "__kwdefaults__", {**usual, "clock": clock})
    house = House(Runtime(tmp_path))
    await house.hall.start()
    await house.front.start()
    running = asyncio.create_task(house.line.run())
    async with asyncio.timeout(5):
        await house.front.line_up.wait()
        await house.hall.line_up.wait()
    yield house
    for browser in house.browsers:
        await browser.connection.close()
    house.line.stop()
    async with asyncio.timeout(5):
        await running
    await house.front.stop()
    await house.hall.stop()


async def test_sound_goes_both_ways(house: House) -> None:
    house.hall.sound = tone(440)
    browser, number = await house.call(sound=tone(1000))
    heard = await browser.hears(1.0)
    assert power_at(heard[-48_000:], 440) > 0.9
    await house.hall.hears_sound(number, 0.5)
    assert power_at(bytes(house.hall.heard[number][-48_000:]), 1000) > 0.9
    assert house.hall.flags[number][-1] & SENDING
    assert house.hall.flags[number][-1] & RECEIVING
    assert house.hall.played[number] >= 48_000
    assert house.hall.played[number] % FRAME == 0


async def test_silence_is_not_counted_as_played(house: House) -> None:
    _, number = await house.call()
    await house.hall.hears_sound(number, 0.5)
    assert house.hall.played[number] == 0
    assert not any(flags & UNDERRUN for flags in house.hall.flags[number][5:])


async def test_a_hall_that_does_not_answer_is_an_underrun(house: House) -> None:
    house.hall.sound = tone(440)
    browser, number = await house.call()
    await house.hall.hears_sound(number, 0.3)
    house.hall.silent = True
    await house.hall.hears_sound(number, 0.3)
    assert house.hall.flags[number][-1] & UNDERRUN
    played = house.hall.played[number]
    await house.hall.hears_sound(number, 0.2)
    assert house.hall.played[number] == played
    assert max(memoryview((await browser.hears(1.0))[-9600:]).cast("h")) < 50


class Sent:
    """A call's outgoing side without a browser: notes (timestamp, whether the hall's)."""

    def __init__(self) -> None:
        self.call = WebCall("c", 1, 0, lambda *_: None)
        self.call.sending = True
        self.frames: list[tuple[int, bool]] = []
        self._played = 0
        self.call._voice.put = self._put  # type: ignore[method-assign]

    def _put(self, payload: bytes, timestamp: int) -> None:
        self.frames.append((timestamp // FRAME, self.call.played > self._played))
        self._played = self.call.played


SOUND = tone(440)(0)


async def test_a_hall_in_time_is_heard_at_once() -> None:
    sent = Sent()
    for n in range(3):
        sent.call.owe(n * FRAME)
        assert len(sent.frames) == n
        sent.call.take(SOUND)
    assert sent.frames == [(0, True), (1, True), (2, True)]


async def test_a_late_hall_makes_no_hole_and_its_pause_makes_up_for_it() -> None:
    sent = Sent()
    sent.call.owe(0 * FRAME)
    sent.call.owe(1 * FRAME)  # the first answer is not there yet
    assert not sent.call.underrun
    sent.call.take(SOUND)  # one answer for both ticks, as the hall does
    sent.call.owe(2 * FRAME)
    sent.call.take(SOUND)
    assert sent.frames == [(0, True), (1, True)]
    sent.call.owe(3 * FRAME)
    sent.call.take(b"")
    assert sent.frames[2:] == [(3, False)]
    sent.call.owe(4 * FRAME)
    sent.call.take(SOUND)
    assert sent.frames[3:] == [(4, True)]


async def test_a_hall_that_stays_away_is_silence_and_said_to_be() -> None:
    sent = Sent()
    underruns = []
    for n in range(5):
        sent.call.owe(n * FRAME)
        underruns.append(sent.call.underrun)
    assert underruns == [False, False, True, True, True]
    assert sent.frames == [(0, False), (1, False), (2, False)]
    assert sent.call.played == 0


async def test_a_hall_ahead_of_time_waits_and_is_bounded() -> None:
    sent = Sent()
    sent.call.owe(0)
    for _ in range(webcall.CUSHION + 20):
        sent.call.take(SOUND)
    for n in range(1, webcall.CUSHION + 2):
        sent.call.owe(n * FRAME)
    assert [hall for _, hall in sent.frames] == [True] * (webcall.CUSHION + 1)


async def test_frames_are_20_ms_apart_by_timestamp(house: House) -> None:
    house.hall.sound = tone(440)
    browser, _ = await house.call()
    stamps = arriving(browser)
    await browser.hears(1.5)
    assert len(stamps) > 60
    assert all(step % FRAME == 0 for step in steps(stamps))
    assert sum(step == FRAME for step in steps(stamps)) > 0.9 * len(stamps)


def arriving(browser: Browser) -> list[int]:
    """RTP timestamps of what comes to the browser from now on."""
    stamps: list[int] = []
    receiver = browser.connection.getReceivers()[0]
    jitter = receiver._RTCRtpReceiver__jitter_buffer  # type: ignore[attr-defined]
    add = jitter.add

    def noting(packet: Any) -> Any:
        stamps.append(packet.timestamp)
        return add(packet)

    jitter.add = noting
    return stamps


def steps(stamps: list[int]) -> list[int]:
    return [(after - before) % 2**32 for before, after in pairwise(stamps)]


async def test_a_machine_that_stalls_costs_what_lies_beyond_five_ticks(house: House) -> None:
    """Up to 100 ms are made up for; the browser gets nothing for the rest, and the call goes on in time."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, HouseLoop)
    house.hall.sound = tone(440)
    browser, number = await house.call(sound=tone(1000))
    stamps = arriving(browser)
    await house.hall.hears_sound(number, 0.5)
    for stalled_frames, lost_frames in ((5, 0), (30, 25)):
        await house.hall.hears_sound(number, 0.5)
        stamps.clear()
        before, late = loop.time(), house.line.ticks_late
        loop.clock.now += stalled_frames * 0.02
        await house.hall.hears_sound(number, 0.5)
        assert house.line.ticks_late - late == 4
        gaps = [step // FRAME - 1 for step in steps(stamps) if step != FRAME]
        assert sum(gaps) == lost_frames
        took = loop.time() - before
        assert took == pytest.approx(0.5 + 0.02 * lost_frames, abs=0.045), "a frame each 20 ms again"
    assert power_at((await browser.hears(1.0))[-48_000:], 440) > 0.9
    assert power_at(bytes(house.hall.heard[number][-24_000:]), 1000) > 0.9


async def test_a_lossy_way_gets_fec_copies(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webcall, "LOOK_EVERY_S", 0.2)
    house.hall.sound = tone(440)
    browser, number = await house.call()
    call = house.line.calls["c1"]
    receiver: Any = browser.connection.getReceivers()[0]
    await house.hall.hears_sound(number, 0.5)
    assert call.fec_percent == 0
    handle = receiver._handle_rtp_packet
    lossy = random.Random(1)

    modes: list[int] = []

    async def lose(packet: Any, arrival_time_ms: int) -> None:
        modes.append(packet.payload[0] >> 3)
        if lossy.random() > 0.1:
            await handle(packet, arrival_time_ms)

    receiver._handle_rtp_packet = lose
    async with asyncio.timeout(10):
        while not call.fec_percent:
            await house.hall.hears_sound(number, 0.1)
    assert 10 <= call.fec_percent <= 40
    before = len(modes)
    await house.hall.hears_sound(number, 0.5)
    assert set(modes[: before // 2]) <= set(range(16, 32))  # the transform half
    assert set(modes[before + 5 :]) <= set(range(16))  # the speech model, which has FEC


async def test_what_rtcp_says_of_a_browsers_call_reaches_the_hall(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webcall, "LOOK_EVERY_S", 0.2)
    monkeypatch.setattr(webcall, "TELL_EVERY", 1)
    house.hall.sound = tone(440)
    browser, _ = await house.call(sound=tone(1000))
    receiver: Any = browser.connection.getReceivers()[0]
    handle, count = receiver._handle_rtp_packet, itertools.count()

    async def lose_each_fifth(packet: Any, arrival_time_ms: int) -> None:
        if next(count) % 5:
            await handle(packet, arrival_time_ms)

    receiver._handle_rtp_packet = lose_each_fifth
    told = await house.hall.hears_quality("c1", lambda one: one.far is not None and one.far.sent > 100)
    assert told.far is not None
    assert told.far.lost / told.far.sent == pytest.approx(0.2, abs=0.03)
    assert told.far.jitter_ms >= 0
    assert (told.codec, told.lost, told.last) == ("opus/48000", 0, False)
    assert told.received > 50
    assert told.jitter_ms is not None
    assert told.buffer_ms is not None
    assert told.buffer_ms > 0
    told = await house.hall.hears_quality("c1", lambda one: one.round_trip_ms is not None)
    assert told.round_trip_ms is not None
    assert 0 <= told.round_trip_ms < 10_000
    await browser.says(bye=True)
    told = await house.hall.hears_quality("c1", lambda one: one.last)
    assert told.far is not None


async def test_keys_reach_the_hall(house: House) -> None:
    browser, _ = await house.call()
    for digit in ("5", "#", "d"):
        await browser.says(dtmf=digit)
        told = await house.hall.hears(KeyPressed)
        assert told == KeyPressed("c1", digit.upper(), "page")


@pytest.mark.parametrize(
    "message",
    ["", "nonsense", "[]", "5", '{"dtmf": 5}', '{"dtmf": "55"}', '{"bye": 1}', "x" * 5000, b"\x00\xff"],
)
async def test_a_page_that_talks_nonsense_is_not_listened_to(house: House, message: str | bytes) -> None:
    browser, _ = await house.call()
    await browser.says(dtmf="1")
    browser.channel.send(message)
    await browser.says(dtmf="2")
    assert (await house.hall.hears(KeyPressed)).digit == "1"
    assert (await house.hall.hears(KeyPressed)).digit == "2"
    assert "c1" in house.line.calls


async def test_the_signed_statement_is_the_first_thing_that_a_page_is_told(house: House) -> None:
    browser, _ = await house.call("c1", statement="head.body.signature")
    told = await browser.shown.get()
    assert told == {"kind": "synthetic-speech", "statement": "head.body.signature"}


async def test_events_are_shown_also_those_from_before_the_channel_opened(house: House) -> None:
    browser = Browser()
    house.browsers.append(browser)
    answer = await house.front.offer("c1", await browser.offer())
    await house.hall.hears(CallStarted)
    await house.hall.ask(ShowCaller("c1", ShownWords("i", "grüß Gott", final=True)))
    await browser.accept(answer)
    assert (await browser.is_shown("said"))["text"] == "grüß Gott"
    await house.hall.ask(ShowCaller("c1", ShownState("listening")))
    assert await browser.is_shown("state") == {"kind": "state", "state": "listening"}
    await house.hall.ask(ShowCaller("nobody", ShownState("listening")))


async def test_the_page_says_bye(house: House) -> None:
    browser, _ = await house.call()
    await browser.says(bye=True)
    assert await house.hall.hears(CallLeft) == CallLeft("c1", CallEnding(End.CALLER))
    assert await house.front.ended.get() == ("c1", "caller hung up")
    assert not house.line.calls


async def test_the_browser_closes(house: House) -> None:
    browser, _ = await house.call()
    await browser.connection.close()
    assert (await house.hall.hears(CallLeft)).how == "caller hung up"


async def test_a_browser_that_vanishes_did_not_hang_up(house: House) -> None:
    browser, _ = await house.call()
    browser.vanish()
    left = await house.hall.hears(CallLeft, within_s=30)
    assert left.how == "failed: the connection to the browser was lost"
    assert await house.front.hears_end() == ("c1", left.how)


@pytest.mark.parametrize("end", [End.CONSOLE, End.ENGINE_LOST, End.LIMIT])
async def test_the_page_and_the_stores_are_told_the_same_end(house: House, end: End) -> None:
    browser, _ = await house.call()
    async with asyncio.timeout(5):
        await browser.opened.wait()
    await house.hall.ask(DropCall("c1", how=CallEnding(end)))
    assert (await house.hall.hears(CallLeft)).how == end.value
    assert await house.front.ended.get() == ("c1", end.value)
    assert await browser.is_shown("state") == {"kind": "state", "state": "ended", "how": end.value}


@pytest.mark.parametrize("who", ["hall", "front"])
async def test_we_hang_up(house: House, who: str) -> None:
    browser, _ = await house.call()
    async with asyncio.timeout(5):
        await browser.opened.wait()
    await (house.hall.ask(DropCall("c1")) if who == "hall" else house.front.hang_up("c1"))
    assert (await house.hall.hears(CallLeft)).how == "hung up"
    assert await browser.is_shown("state") == {"kind": "state", "state": "ended", "how": "hung up"}
    async with asyncio.timeout(5):
        await browser.closed.wait()
    with pytest.raises(RpcError, match="has no call"):
        await house.hall.ask(DropCall("c1"))


async def test_a_browser_that_never_comes_is_given_up(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webcall, "CONNECT_WITHIN_S", 0.3)
    browser = Browser()
    house.browsers.append(browser)
    await house.front.offer("c1", await browser.offer())
    assert (await house.hall.hears(CallLeft)).how == "failed: no media path to the browser"


async def test_the_ninth_call_is_refused_and_a_place_comes_back(house: House) -> None:
    for k in range(CAPACITY):
        await house.call(f"c{k}")
    browser = Browser()
    house.browsers.append(browser)
    offer = await browser.offer()
    with pytest.raises(RpcError, match="web0 is full"):
        await house.front.offer("c8", offer)
    assert sorted(call.slot for call in house.line.calls.values()) == list(range(CAPACITY))
    await house.front.hang_up("c3")
    await house.hall.hears(CallLeft)
    await house.front.offer("c8", offer)
    assert house.line.calls["c8"].slot == 3


async def test_all_eight_are_heard(house: House) -> None:
    house.hall.sound = tone(440)
    calls = [await house.call(f"c{k}", tone(300 + 100 * k)) for k in range(CAPACITY)]
    for k, (_, number) in enumerate(calls):
        await house.hall.hears_sound(number, 0.5)
        assert power_at(bytes(house.hall.heard[number][-24_000:]), 300 + 100 * k) > 0.8
        assert house.hall.played[number] > 0


@pytest.mark.parametrize(
    "change",
    [
        lambda sdp: "",
        lambda sdp: "v=0",
        lambda sdp: "v=0\r\nm=audio x y z\r\n",
        lambda sdp: sdp.replace("opus/48000/2", "AMR-WB/16000"),
        lambda sdp: sdp.replace("a=fingerprint", "a=finger"),
        lambda sdp: sdp.replace("a=ice-pwd", "a=ice-nothing"),
        lambda sdp: sdp.replace("m=audio", "m=video"),
        lambda sdp: sdp[: sdp.index("m=audio")] + sdp[sdp.index("m=application") :],
        lambda sdp: sdp.replace("a=rtcp-mux\r\n", ""),
    ],
)
async def test_an_offer_that_cannot_be_answered_takes_no_place(house: House, change: Any) -> None:
    browser = Browser()
    house.browsers.append(browser)
    with pytest.raises(RpcError, match="cannot be answered"):
        await house.front.offer("c1", change(await browser.offer()))
    assert not house.line.calls
    assert house.hall.told.empty()


async def test_names_and_ends_of_candidates_are_left_out_of_an_offer() -> None:
    offer = "\r\n".join(
        [
            "v=0",
            "c=IN IP4 7ac1-4b.local",
            "a=rtcp:9 IN IP4 7ac1-4b.local",
            "a=candidate:1 1 udp 2122 192.0.2.7 5000 typ host",
            "a=candidate:2 1 udp 2122 7ac1-4b.local 5001 typ host",
            "a=candidate:3 1 tcp 2122 192.0.2.7 9 typ host tcptype active",
            "a=candidate:4 1 udp 2122 224.0.0.1 5001 typ host",
            "a=candidate:garbage",
            *(f"a=candidate:{k} 1 udp 1 192.0.2.{k} 5000 typ host" for k in range(40)),
            "a=end-of-candidates",
        ]
    )
    kept = ice.offered(offer)
    assert kept.startswith("v=0\r\nc=IN IP4 0.0.0.0\r\na=rtcp:9 IN IP4 0.0.0.0\r\n")
    assert "192.0.2.7 5000" in kept
    assert not any(word in kept for word in ("local", " tcp ", "224.", "garbage", "end-of"))
    assert kept.count("a=candidate") == ice.MOST_CANDIDATES


async def test_an_answer_names_the_public_address_too() -> None:
    outside = "a=candidate:ab 1 udp 2130706431 10.0.0.5 6000 typ host"
    answer = f"{outside}\r\na=candidate:cd 1 udp 1 127.0.0.1 6001 typ host"
    assert ice.answered(answer, None) == answer
    added = ice.answered(answer, "198.51.100.9").split("\r\n")
    assert (
        added[1] == "a=candidate:pab 1 udp 2130706431 198.51.100.9 6000 typ srflx raddr 10.0.0.5 rport 6000"
    )
    assert len(added) == 3


# ── who may go and come back ─────────────────────────────────────────────────────────────────────────


async def test_a_hall_that_comes_back_gets_its_calls(house: House) -> None:
    house.hall.sound = tone(440)
    browser, number = await house.call(sound=tone(1000))
    await house.hall.stop()
    house.hall = await FakeHall(house.runtime, sound=tone(700)).start()
    started = await house.hall.hears(CallStarted)
    assert started.resumed
    assert started.call_id == "c1"
    assert started.call == number
    await house.hall.hears_sound(number, 0.6)
    assert power_at(bytes(house.hall.heard[number][-24_000:]), 1000) > 0.8
    heard = await browser.hears(1.0)
    assert power_at(heard[-24_000:], 700) > 0.9


async def test_a_hall_that_stays_away_ends_the_calls(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joined_house, "HALL_BACK_WITHIN_S", 0.5)
    browser, _ = await house.call()
    await house.hall.stop()
    async with asyncio.timeout(5):
        call_id, how = await house.front.ended.get()
        await browser.closed.wait()
    assert (call_id, how) == ("c1", "failed: its hall died")
    with pytest.raises(RpcError, match="has no hall"):
        await house.front.offer("c2", await Browser().offer())


async def test_without_a_front_calls_go_on(house: House) -> None:
    _, number = await house.call()
    await house.front.stop()
    await house.hall.hears_sound(number, 0.3)
    house.front = await FakeFront(house.runtime).start()
    async with asyncio.timeout(5):
        await house.front.line_up.wait()
    assert house.front.line is not None
    assert house.front.line.hello.line == LineFacts(
        "web", 48_000, "hall0", 8, (LineCall("c1", number, 0),), sip_port=None
    )
    await house.front.hang_up("c1")
    assert (await house.hall.hears(CallLeft)).how == "hung up"


async def test_a_line_that_stops_ends_its_calls(house: House) -> None:
    browser, _ = await house.call()
    assert house.front.line is not None
    await house.front.line.ask(StopLine())
    assert (await house.hall.hears(CallLeft)).how == "failed: the gateway was stopped"
    async with asyncio.timeout(5):
        await browser.closed.wait()


async def test_a_line_tells_the_front_what_failed(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    await house.call()
    assert house.front.line is not None
    monkeypatch.setitem(failures, "web.losses", 2)
    told = await house.front.line.ask(AskFailures())
    assert told["web.losses"] == 2


async def test_what_a_browser_cannot_do_is_refused(house: House) -> None:
    await house.call()
    await house.hall.ask(AnswerCall("c1"))
    await house.hall.ask(RingCall("c1"))
    assert not await house.hall.ask(ProgressCall("c1")), "there is no sound before a browser's answer"
    with pytest.raises(RpcError, match="cannot be transferred"):
        await house.hall.ask(ReferCall("c1", "sip:a@example.com"))
    with pytest.raises(RpcError, match="digits"):
        await house.hall.ask(DialDigits("c1", "1"))


# ── calls that came by SIP: held, taken up, keys beside the sound ────────────────────────────────────


async def _renewed(house: House, browser: Browser, direction: str) -> str:
    """The line's answer to a later offer of that direction, which the browser took."""
    browser.connection.getTransceivers()[0].direction = direction
    offer = await browser.offer()
    assert house.front.line is not None
    answered = await house.front.line.ask(RenewOffer("c1", offer))
    assert answered.sdp is not None
    await browser.connection.setRemoteDescription(RTCSessionDescription(answered.sdp, "answer"))
    return answered.sdp


async def test_a_caller_holds_and_comes_back(house: House) -> None:
    browser, number = await house.call(sound=tone(440))
    house.hall.sound = tone(1000)
    assert power_at(await browser.hears(0.5), 1000) > 0.5
    assert "a=recvonly" in await _renewed(house, browser, "sendonly")
    turned = await house.hall.hears(MediaTurned)
    assert (turned.sending, turned.receiving) == (False, False)
    del house.hall.heard[number][:]
    await asyncio.sleep(1.0)
    assert not any(house.hall.heard[number]), "whoever holds may go on sending: nobody hears it"
    assert "a=sendrecv" in await _renewed(house, browser, "sendrecv")
    turned = await house.hall.hears(MediaTurned)
    assert (turned.sending, turned.receiving) == (True, True)
    assert power_at(await browser.hears(1.0), 1000) > 0.3
    del house.hall.heard[number][:]
    async with asyncio.timeout(5):
        while len(house.hall.heard[number]) < 48_000:  # noqa: ASYNC110  # ticks have no event
            await asyncio.sleep(0.02)
    assert power_at(bytes(house.hall.heard[number]), 440) > 0.5


async def test_a_caller_whose_offers_hide_its_address_holds(house: House) -> None:
    """Firefox names its host in the default address too, and for RTCP."""

    def hidden(offer: str) -> str:
        name = "c2ea9ef9-2759-444c-8679-b7d6afb2b781.local"
        return re.sub(r"IN IP4 \d+\.\d+\.\d+\.\d+(?=\r\na)", f"IN IP4 {name}", offer)

    browser = Browser()
    house.browsers.append(browser)
    offer = hidden(await browser.offer())
    assert ".local\r\n" in offer
    await browser.accept(await house.front.offer("c1", offer))
    await house.hall.hears(CallConfirmed)
    browser.connection.getTransceivers()[0].direction = "sendonly"
    assert house.front.line is not None
    answered = await house.front.line.ask(RenewOffer("c1", hidden(await browser.offer())))
    assert answered.wrong is None
    assert "a=recvonly" in str(answered.sdp)


async def test_a_later_offer_that_cannot_be_leaves_the_call(house: House) -> None:
    browser, _ = await house.call()
    house.hall.sound = tone(1000)
    offer = await browser.offer()
    assert house.front.line is not None
    for wrong in ("v=0", offer.replace("a=mid:0", "a=mid:7"), offer.replace("opus", "speex")):
        answered = await house.front.line.ask(RenewOffer("c1", wrong))
        assert answered.sdp is None
    with pytest.raises(RpcError, match="has no call c2"):
        await house.front.line.ask(RenewOffer("c2", offer))
    assert power_at(await browser.hears(0.5), 1000) > 0.5


async def test_a_key_by_sip_info_reaches_the_hall(house: House) -> None:
    await house.call()
    assert house.front.line is not None
    await house.front.line.ask(PressKey("c1", "7"))
    pressed = await house.hall.hears(KeyPressed)
    assert (pressed.digit, pressed.way) == ("7", "info")


async def test_an_offer_of_keys_alone_is_none(house: House) -> None:
    browser = Browser()
    offer = (await browser.offer()).replace("opus/48000/2", "telephone-event/48000")
    with pytest.raises(RpcError, match="it offers no Opus"):
        await house.front.offer("c1", offer)


def test_keys_stand_in_the_order_of_the_sound_whatever_their_clock_says() -> None:
    now = 0.0
    stream, pressed = WebStream(), []
    stream._clock = lambda: now
    stream.key_types, stream.pressed = frozenset({126}), pressed.append
    for number in range(12):
        now = number * 0.02
        key = 4 <= number < 8
        payload = bytes([5, 0x80 if number >= 6 else 0, number, 0]) if key else b"sound"
        stream.add(Arrived(126 if key else 111, number, 77 if key else number * 960, 1, payload))
    assert pressed == ["5"]
    kinds = []
    for _ in range(40):
        now += 0.02
        kinds.append(stream.pull().kind)
    assert (kinds.count(PullKind.PLAY), kinds.count(PullKind.REST)) == (8, 4)
    assert stream.stats.lost == 0


@dataclass
class Arrived:
    payload_type: int
    sequence_number: int
    timestamp: int
    ssrc: int
    payload: bytes


# ── candidates that come later, and another network (RFC 9725 §4.3) ──────────────────────────────────


def _ice_lines(sdp: str, *kinds: str) -> str:
    found = [line for line in sdp.split("\r\n") if line.startswith(tuple(f"a={kind}" for kind in kinds))]
    return "\r\n".join(dict.fromkeys(found))  # bundled sections say the same


async def _trickled(house: House, fragment: str, etag: str) -> IceReply:
    assert house.front.line is not None
    return await house.front.line.ask(TrickleIce("c1", fragment, etag))


async def test_later_candidates_are_taken_for_their_session_alone(house: House) -> None:
    browser = Browser()
    house.browsers.append(browser)
    offer = await browser.offer()
    later = _ice_lines(offer, "candidate")
    without = "\r\n".join(line for line in offer.split("\r\n") if not line.startswith("a=candidate"))
    answer = await house.front.offer("c1", without)
    etag = '"' + _ice_lines(answer, "ice-ufrag").removeprefix("a=ice-ufrag:") + '"'
    assert (await _trickled(house, later, '"other"')).status == 412
    assert (await _trickled(house, later, etag)).status == 204
    assert (await _trickled(house, "a=candidate:x", etag)).status == 204, "it is worth no check"
    assert (await _trickled(house, "a=ice-ufrag:abcd", etag)).status == 400
    assert (await _trickled(house, "a=ice-ufrag:ab cd\r\na=ice-pwd:x", etag)).status == 400
    many = "\r\n".join(f"a=candidate:1 1 udp 1 192.0.2.{k} 9 typ host" for k in range(99))
    for _ in range(5):
        assert (await _trickled(house, many, etag)).status == 204
    agent = trickle.agent_of(house.line.calls["c1"]._connection)
    assert len(agent.remote_candidates) <= 2 * ice.MOST_CANDIDATES
    await browser.accept(answer)
    await house.hall.hears(CallStarted)
    await house.hall.hears(CallConfirmed)


async def test_ice_begins_anew_and_sound_goes_on(house: House) -> None:
    browser, _ = await house.call()
    house.hall.sound = tone(1000)
    theirs = trickle.agent_of(browser.connection)
    mine = "a=ice-ufrag:newname\r\na=ice-pwd:0123456789012345678901"
    assert (await _trickled(house, mine, '"any"')).status == 412
    reply = await _trickled(house, mine, "*")
    assert (reply.status, reply.etag != "", "a=candidate:" in reply.fragment) == (200, True, True)
    names = trickle.Fragment.read(reply.fragment)
    assert reply.etag == f'"{names.ufrag}"'
    theirs._local_username, theirs._local_password = "newname", "0123456789012345678901"
    theirs.remote_username, theirs.remote_password = names.ufrag, names.password
    await asyncio.sleep(60)  # by the old names either side would have given the other up
    assert not browser.closed.is_set()
    assert house.hall.told.empty()
    assert power_at(await browser.hears(0.5), 1000) > 0.5


async def test_by_old_names_nobody_stays(house: House) -> None:
    """What the test before tells apart: a restart that the browser does not follow ends the call."""
    await house.call()
    reply = await _trickled(house, "a=ice-ufrag:newname\r\na=ice-pwd:0123456789012345678901", "*")
    assert reply.status == 200
    left = await house.hall.hears(CallLeft, within_s=60)
    assert left.how == CallEnding(End.BROWSER_LOST)


async def test_another_offer_with_other_names_begins_ice_anew(house: House) -> None:
    browser, _ = await house.call()
    assert house.front.line is not None
    offer = await browser.offer()
    other = re.sub("a=ice-ufrag:.*", "a=ice-ufrag:newname\r", offer)
    other = re.sub("a=ice-pwd:.*", "a=ice-pwd:0123456789012345678901\r", other)
    kept = await house.front.line.ask(RenewOffer("c1", offer))
    anew = await house.front.line.ask(RenewOffer("c1", other))
    assert kept.sdp is not None
    assert anew.sdp is not None
    assert _ice_lines(kept.sdp, "ice-ufrag:") != _ice_lines(anew.sdp, "ice-ufrag:")


async def test_a_browser_is_heard_over_ipv6_alone(house: House) -> None:
    if not any(":" in address for address in ice.bind("::")):
        pytest.skip("this machine has no address of IPv6 beyond one link")
    browser = Browser(tone(440))
    house.browsers.append(browser)
    house.hall.sound = tone(1000)

    def six(sdp: str) -> str:
        return "\r\n".join(
            line
            for line in sdp.split("\r\n")
            if not line.startswith("a=candidate:") or ":" in line.split()[4]
        )

    answer = six(await house.front.offer("c1", six(await browser.offer())))
    assert "a=candidate:" in answer
    await browser.accept(answer)
    await house.hall.hears(CallStarted)
    await house.hall.hears(CallConfirmed)
    agent = trickle.agent_of(house.line.calls["c1"]._connection)
    assert ":" in agent._nominated[1].remote_addr[0]
    assert power_at(await browser.hears(0.5), 1000) > 0.5

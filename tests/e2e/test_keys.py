"""Keys and silence on a whole gateway, by a telephone that sends exactly what a test says."""

from __future__ import annotations

import asyncio
import contextlib
import re
import struct
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from gateway.hall.media.audio import Floats
from gateway.line.telephone_event import EVENT
from tests.e2e.gateway_process import House
from tests.gateway.hall.key_sounds import dialled_sound
from tests.gateway.line.rawphone import Message, RawPhone
from tests.needs import HANGS_S
from watermark.pcm import bytes_from_float

pytestmark = pytest.mark.e2e

GONE_S = 4.0
PLAN = """
[[route]]
name = "dial"
called = ["dial"]

[[route.do]]
verb = "answer"

[[route.do]]
verb = "disclose"
principal = "Lindens"
language = "en"

[[route.do]]
verb = "gather"
prompt = "Dial."
digits = 20
timeout_s = 20.0
branches = { 0 = "dial", "012345A6D7*" = "dialled" }

[[route.do]]
verb = "hangup"

[[route]]
name = "dialled"
do = [{ verb = "answer" }, { verb = "hangup" }]
"""
"""What is dialled is noted whole where it is one of the plan's choices."""


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("keys")
    (folder / "plans").mkdir()
    (folder / "plans" / "dial.toml").write_text(PLAN)
    gateway = House(folder, dialplans=folder / "plans", rtp_timeout_s=GONE_S)
    gateway.start()
    yield gateway
    gateway.stop()


@contextlib.asynccontextmanager
async def calling(
    house: House, *, kind: int | None = EVENT, more: str = "", offers: bool = True
) -> AsyncIterator[tuple[RawPhone, Message]]:
    """A call that is up, and the gateway's 200. The phone's SDP has telephone-event on this payload type
    (None: not at all), and these lines; it comes in the INVITE, or in the ACK, which the line has read."""
    phone = await RawPhone(("127.0.0.1", house.sip_port), dials="dial").open()
    sdp = phone.offer(keys=kind is not None) + more
    if kind is not None:
        sdp = sdp.replace(f" {EVENT}\r\n", f" {kind}\r\n").replace(f":{EVENT} ", f":{kind} ")
    try:
        phone.send("INVITE", sdp if offers else "")
        answer = await phone.final()
        assert answer.status == 200, answer.start
        phone.acknowledge("" if offers else sdp)
        await asyncio.to_thread(house.wait_for, "the call", lambda: is_up(house), HANGS_S)
        await phone.hears(0.1, HANGS_S)  # the line has its media, and not only its dialog
        yield phone, answer
    finally:
        phone.close()


def is_up(house: House) -> bool:
    """A call is acknowledged; there is one at a time."""
    return any(call["state"] == "confirmed" for call in house.calls())


def newest(house: House) -> dict[str, Any]:
    return max(house.calls(), key=lambda call: float(call["started_at"]))


async def by_info(phone: RawPhone, kind: str, body: str) -> int:
    phone.send("INFO", body, content=kind)
    return (await phone.final("INFO")).status


async def plays(phone: RawPhone, sound: Floats) -> None:
    """Sends this sound, 8 kHz, packet by packet in time."""
    pcm, began = bytes_from_float(sound), time.monotonic()
    for sent, at in enumerate(range(0, len(pcm), 320)):
        phone.send_rtp(phone.coder.encode(pcm[at : at + 320].ljust(320, b"\0")))
        phone.timestamp += 160
        await asyncio.sleep(max(0.0, began + (sent + 1) * 0.02 - time.monotonic()))


def record(house: House) -> dict[str, Any]:
    """The newest call, once it is over."""
    call_id = newest(house)["call_id"]
    shown: dict[str, Any] = {}

    def over() -> bool:
        shown.update(house.get(f"/api/calls/{call_id}"))
        return bool(shown["state"] == "ended")

    house.wait_for("the call's end", over, HANGS_S)
    return shown


async def dialled(house: House) -> str:
    """What the newest call dialled, up to the `#`."""
    events = (await asyncio.to_thread(record, house))["events"]
    return "".join(event["data"]["digits"] for event in events if event["kind"] == "gathered")


async def test_keys_arrive_by_every_way_and_each_press_once(house: House) -> None:
    """From a phone that agreed on no telephone-event: RFC 4733 on 101, three kinds of INFO, tones; and one
    press by all three at once."""
    async with calling(house, kind=None) as (phone, _):
        await plays(phone, dialled_sound("0", 0.3, 0.2))
        phone.press("1")
        assert await by_info(phone, "application/dtmf-relay", "Signal=2\r\nDuration=100") == 200
        assert await by_info(phone, "application/dtmf", "3") == 200
        assert await by_info(phone, "audio/telephone-event", "d=4\r\n") == 200
        assert await by_info(phone, "application/dtmf-relay", "Signal=5") == 200
        await plays(phone, dialled_sound("A6D", 0.2, 0.2))
        phone.press("7")
        await plays(phone, dialled_sound("7", 0.2, 0.2))
        assert await by_info(phone, "application/dtmf", "7") == 200
        for bad in ("Signal=\r\n", "Signal=77\r\nDuration=100", "nonsense"):
            assert await by_info(phone, "application/dtmf-relay", bad) == 400
        assert await by_info(phone, "application/dtmf-relay", "Signal= *\r\nDuration= 100\r\n") == 200
        await plays(phone, dialled_sound("#", 0.2, 0.2))
        assert await dialled(house) == "012345A6D7*"


async def test_a_phone_that_answers_our_offer_may_send_either_sides_type(house: House) -> None:
    async with calling(house, kind=96, offers=False) as (phone, offer):
        assert f"a=rtpmap:{EVENT} telephone-event/8000" in offer.body
        phone.press("1", payload_type=96)
        phone.press("2", payload_type=EVENT)
        phone.press("#", payload_type=96)
        assert await dialled(house) == "12"


@pytest.mark.parametrize(("more", "length"), [("a=maxptime:10\r\n", 80), ("a=ptime:30\r\n", 240), ("", 160)])
async def test_packets_are_as_long_as_the_phone_asks(house: House, more: str, length: int) -> None:
    async with calling(house, more=more) as (phone, answer):
        said = re.search(r"a=ptime:(\d+)", answer.body)
        assert (said and int(said[1])) == (length // 8 if more else None)
        await phone.hears(0.5)
        assert len(phone.pcm) / phone.packets == 2 * length
        phone.press("#")
        await dialled(house)


async def test_comfort_noise_is_answered_and_is_a_sign_of_life(house: House) -> None:
    """The call outlives `GONE_S` by it, and ends that long after the last of it."""
    noise = "a=rtpmap:13 CN/8000\r\n"
    phone = await RawPhone(("127.0.0.1", house.sip_port), dials="dial").open()
    try:
        phone.send("INVITE", phone.offer().replace(" 101\r\n", " 101 13\r\n") + noise)
        answer = await phone.final()
        phone.acknowledge()
        assert re.search(r"m=audio \d+ RTP/AVP 0 101 13\r\n", answer.body)
        assert noise in answer.body
        for _ in range(6):
            phone.send_rtp(b"\x40", payload_type=13)
            phone.timestamp += 8000
            await asyncio.sleep(1.0)
        with pytest.raises(TimeoutError):
            await phone.request("BYE", 0.1)
        await phone.request("BYE", 20.0)
        over = await asyncio.to_thread(record, house)
        assert over["how"] == "failed: no sound came from the caller any more: 4 s"
    finally:
        phone.close()


async def test_a_caller_who_vanished_keeps_no_slot(house: House) -> None:
    async with calling(house) as (phone, _):
        phone.deaf = True
        await phone.request("BYE", 20.0)
        over = await asyncio.to_thread(record, house)
        assert over["how"] == "failed: no sound came from the caller any more: 4 s"
    async with contextlib.AsyncExitStack() as stack:
        phones = [(await stack.enter_async_context(calling(house)))[0] for _ in range(4)]
        for phone in phones:
            phone.press("#")
            await phone.request("BYE", 20.0)


async def test_an_rtp_event_of_our_own_form_is_no_key_of_theirs(house: House) -> None:
    """Events above 15 (a flash, a modem) are nothing, agreed or not."""
    async with calling(house, kind=None) as (phone, _):
        for code in (16, 32, 66):
            phone.send_rtp(struct.pack(">BBH", code, 0x8A, 800), payload_type=EVENT)
            phone.timestamp += 800
        phone.press("8")
        phone.press("#")
        assert await dialled(house) == "8"


@pytest.mark.parametrize("offers", [True, False])
async def test_an_address_that_no_host_has_ends_no_line(house: House, offers: bool) -> None:
    """In the INVITE, or in the ACK: the call goes on where its packets come from, and the others too."""
    before = house.pids()
    async with calling(house) as (other, _):
        long = "x" * 300
        phone = await RawPhone(("127.0.0.1", house.sip_port), dials="dial").open()
        try:
            sdp = phone.offer().replace("c=IN IP4 127.0.0.1", f"c=IN IP4 {long}")
            sdp += f"a=rtcp:5 IN IP4 {long}\r\n"
            phone.send("INVITE", sdp if offers else "")
            await phone.final()
            phone.acknowledge("" if offers else sdp)
            await phone.hang_up()
        finally:
            phone.close()
        other.press("5")
        other.press("#")
        await other.request("BYE", 20.0)
    assert house.pids() == before

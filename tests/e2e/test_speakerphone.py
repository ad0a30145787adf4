"""A telephone that plays our voice to its own microphone calls the whole gateway."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soxr

from gateway.hall.media.audio import Floats
from tests.e2e.gateway_process import House
from tests.gateway.hall.speakerphone import Room, levelled, steady
from tests.gateway.line.rawphone import RawPhone
from tests.needs import HANGS_S
from watermark.pcm import bytes_from_float, float_from_bytes
from watermark.sound import read

pytestmark = pytest.mark.e2e

FRAME = 160
ASKED_EVERY_S = 12.0


class Loudspeaker:
    """A phone with one, in a room; it asks when it is told to."""

    def __init__(self, phone: RawPhone, level_db: float) -> None:
        self._phone = phone
        self._room = Room(8_000, 1, level_db=level_db, delay=steady(0.12))
        self._voice = np.zeros(0, np.float32)
        self._read = 0

    def ask(self, question: Floats) -> None:
        self._voice = question

    async def run(self) -> None:
        """20 ms by 20 ms, until it is cancelled."""
        phone, began, sent = self._phone, time.monotonic(), 0
        while True:
            phone.send_rtp(phone.coder.encode(self._frame()))
            phone.timestamp += FRAME
            sent += 1
            await asyncio.sleep(max(0.0, began + 0.02 * sent - time.monotonic()))

    def _frame(self) -> bytes:
        came = bytes(self._phone.pcm[self._read : self._read + 2 * FRAME])
        played = float_from_bytes(came) if len(came) == 2 * FRAME else None
        self._read += 2 * FRAME * (played is not None)
        sound = self._room.turn(played)
        said, self._voice = self._voice[:FRAME], self._voice[FRAME:]
        sound[: len(said)] += said
        return bytes_from_float(sound)


@pytest.mark.long("a call in real time, since the gateway's processes have clocks of their own")
async def test_nobody_interrupts_but_the_caller(house: House, say: Callable[[str], Path]) -> None:
    recording = read(say("what are your opening hours"))
    voice = soxr.resample(recording.channels[0], recording.rate_hz, 8_000)
    question = levelled(np.asarray(voice, np.float32))
    before = {call["call_id"] for call in house.calls()}
    phone = await RawPhone(line=("127.0.0.1", house.sip_port)).open()
    phone.invite("")
    answer = await phone.final()
    assert answer.status == 200
    route = f"Route: {answer.headers['record-route']}\r\n"
    phone.send("ACK", headers=route, same=True)
    loudspeaker = Loudspeaker(phone, -15.0)
    talking = asyncio.create_task(loudspeaker.run())

    async def happened(kind: str) -> list[dict[str, Any]]:
        """The call's events of a kind, so far."""
        (call_id,) = {call["call_id"] for call in await asyncio.to_thread(house.calls)} - before
        call = await asyncio.to_thread(house.get, f"/api/calls/{call_id}")
        return [event["data"] for event in call["events"] if event["kind"] == kind]

    async def turns() -> list[str | None]:
        """What was understood of each of the caller's turns."""
        return [turn.get("text") for turn in await happened("turn") if turn["who"] == "caller"]

    async with asyncio.timeout(HANGS_S):
        while not await happened("disclosed"):  # noqa: ASYNC110  # it is another process that tells
            await asyncio.sleep(0.5)
        await asyncio.sleep(2.0)  # into the greeting
        asked, asked_at = 0, -ASKED_EVERY_S
        while "what are your opening hours" not in await turns():
            if time.monotonic() - asked_at > ASKED_EVERY_S:
                asked, asked_at = asked + 1, time.monotonic()
                loudspeaker.ask(question)
            await asyncio.sleep(0.5)
    assert len(await happened("echo")) >= 1
    assert len(await turns()) <= asked + 1, "it was ten within half a minute"
    talking.cancel()
    phone.send("BYE", headers=route)
    assert (await phone.final("BYE")).status == 200
    phone.close()

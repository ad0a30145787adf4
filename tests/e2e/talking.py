"""A caller in the test's own hands, who asks when the test says so, and as often as it takes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from gateway.cli.caller.caller_sound import read_wav
from tests.e2e.gateway_process import House
from tests.gateway.line.line_harness import tone
from tests.gateway.line.rawphone import RawPhone
from tests.needs import HANGS_S

RATE_HZ = 8000
QUIET = tone(1000, 0, RATE_HZ)
FRAME_BYTES = 320
ASKS_AGAIN_S = 8.0
"""As somebody does who hears nothing for so long."""
TALK = """
[[route]]
name = "talk"
called = ["talk"]
do = [
  { verb = "answer" },
  { verb = "disclose", principal = "Lindens", language = "en" },
  { verb = "converse", instructions = "Be brief.", greeting = "Hello.", silence_s = 120.0 },
]
"""
"""A route to a conversation that a caller may be silent in."""


class Talking:
    """A call that is up, in which somebody has spoken already. `Talking.calls` makes it."""

    def __init__(self, house: House, phone: RawPhone, call_id: str) -> None:
        self._house, self._phone, self.call_id = house, phone, call_id

    @classmethod
    @contextlib.asynccontextmanager
    async def calls(cls, house: House, dials: str = "demo") -> AsyncIterator[Talking]:
        """Calls, is answered, and hears that somebody speaks."""
        phone = await RawPhone(("127.0.0.1", house.sip_port), dials=dials).open()
        try:
            phone.invite("")
            async with asyncio.timeout(HANGS_S):
                while True:
                    with contextlib.suppress(TimeoutError):
                        answer = await phone.final()
                        break
            phone.acknowledge()
            assert answer.status == 200, answer.start
            phone.talk(QUIET)
            await phone.hears_loud(HANGS_S)
            yield cls(house, phone, max(house.calls(), key=lambda call: float(call["started_at"]))["call_id"])
        finally:
            if phone.to_tag:
                phone.send("BYE")
            phone.close()

    async def shown(self) -> dict[str, Any]:
        """What the gateway says of the call now; nothing while nobody is there to say it."""
        try:
            return dict(await asyncio.to_thread(self._house.get, f"/api/calls/{self.call_id}"))
        except OSError:
            return {}

    async def asks(self, sound: Path, wanted: str) -> bool:
        """Says it, again and again, until these words were in an answer. False: the call is over."""
        pcm = read_wav(sound, RATE_HZ).tobytes()
        frames = [
            pcm[at : at + FRAME_BYTES].ljust(FRAME_BYTES, b"\0") for at in range(0, len(pcm), FRAME_BYTES)
        ]
        already = len((await self.shown()).get("turns", ()))
        async with asyncio.timeout(HANGS_S):
            while True:
                self._phone.talk(lambda n: frames[n] if n < len(frames) else QUIET(0))
                until = asyncio.get_running_loop().time() + len(frames) / 50 + ASKS_AGAIN_S
                while asyncio.get_running_loop().time() < until:
                    shown = await self.shown()
                    turns = shown.get("turns", ())[already:]
                    if any(wanted in (turn.get("text") or "") for turn in turns if turn["who"] == "bot"):
                        return True
                    if shown.get("state") == "ended":
                        return False
                    await asyncio.sleep(0.2)

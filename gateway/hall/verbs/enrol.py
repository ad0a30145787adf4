"""The verb `enroll`: a person repeats a consent statement and some sentences over the telephone.

The words come from consent, by the front; here they are said, recorded and handed over, line by line. Nothing
is written to a disk in the hall.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from gateway.dialplan import Enroll
from gateway.errors import RpcError
from gateway.hall.calls.call import Call
from gateway.hall.media.audio import FRAME_S, HOUSE_HZ, Floats
from gateway.hall.verbs.dtmf import dialled
from gateway.ipc.envelope import A, Ask
from gateway.ipc.hall_messages import BeginEnrolment, FinishEnrolment, LineRepeated
from watermark.pcm import bytes_from_float

CODE_DIGITS: Final = 10
PIN_DIGITS: Final = 12
BEEP: Final = (880.0, 0.2)
"""Hz, seconds"""
LINE_S: Final = 20.0
"""The longest that one line may take."""
NOTHING_S: Final = 6.0
"""How long the caller may take to begin."""
AFTER_S: Final = 0.9
"""Quiet after which a line is over."""
FRONT_WITHIN_S: Final = 90.0
"""The checks of a finished registration take seconds, on a busy host many."""


async def enrol(call: Call, verb: Enroll) -> None:
    """Returns when it is done or given up; the caller was told which. Raises `CallEnded`."""
    try:
        outcome = await _Enrolment(call, verb).run()
    except RpcError as error:
        call.log.warning("enroll.failed", error=str(error))
        outcome = None
    call.session.event("enrolled", voice=outcome)
    await call.played(call.speech.say(verb.done if outcome else verb.failed))


class _Enrolment:
    def __init__(self, call: Call, verb: Enroll) -> None:
        self._call = call
        self._verb = verb

    async def run(self) -> str | None:
        """The pending voice's name; None when the caller gave up or was refused. Raises `RpcError`."""
        lines = await self._begin()
        if lines is None:
            return None
        await self._call.played(self._call.speech.say(self._verb.begin))
        for at, line in enumerate(lines):
            if not await self._line(at, line):
                return None
        return await self._finish()

    async def _begin(self) -> tuple[str, ...] | None:
        prompt = self._verb.ask_code
        for _ in range(self._verb.tries):
            code = await dialled(self._call, self._call.speech.say(prompt), CODE_DIGITS)
            lines = await self._ask(BeginEnrolment(self._call.id, code))
            if lines is not None:
                return lines
            prompt = f"{self._verb.wrong_code} {self._verb.ask_code}"
        return None

    async def _line(self, at: int, line: str) -> bool:
        call, say = self._call, line
        for _ in range(self._verb.tries):
            await call.played(call.speech.say(say))
            await call.played(call.speech.own.beep(*BEEP))
            pcm = bytes_from_float(await record_line(call))
            again = await self._ask(LineRepeated(call.id, at, pcm, call.line.rate_hz))
            if again is None:
                return True
            say = f"{again} {line}"
        return False

    async def _finish(self) -> str | None:
        prompt = self._verb.ask_pin
        for _ in range(self._verb.tries):
            pin = await dialled(self._call, self._call.speech.say(prompt), PIN_DIGITS)
            outcome = await self._ask(FinishEnrolment(self._call.id, pin))
            if outcome.voice is not None:
                return outcome.voice
            self._call.session.event("enroll_refused", check=outcome.refused)
            if outcome.refused != "pin":
                return None
            prompt = f"{self._verb.wrong_pin} {self._verb.ask_pin}"
        return None

    async def _ask(self, message: Ask[A]) -> A:
        asked = self._call.ask_front(message, FRONT_WITHIN_S)
        return await self._call.inbox.result_of(asked)  # a caller who hangs up meanwhile is noticed


async def record_line(call: Call) -> Floats:
    """What the caller says now, float32 24 kHz, until `AFTER_S` of quiet after it. Raises `CallEnded`."""
    frames: list[Floats] = []
    nothing = np.zeros(round(HOUSE_HZ * FRAME_S), np.float32)
    began = heard = call.clocks.monotonic()
    spoke = False
    with call.ear.tap(lambda frame: frames.append(nothing if frame is None else frame)):
        while (now := call.clocks.monotonic()) - began < LINE_S:
            await call.inbox.next(0.05)
            if call.ear.turns.speaking:
                spoke, heard = True, call.clocks.monotonic()
            elif now - heard > (AFTER_S if spoke else NOTHING_S):
                break
    return np.concatenate(frames) if frames else nothing

"""A hall and a front to test web lines with: they note what they are told, and answer ticks."""

from __future__ import annotations

import asyncio
import math
from array import array
from collections.abc import Callable
from typing import TypeVar

from gateway.config.runtime import Runtime
from gateway.hall.ticks import TickLine, TickServer
from gateway.ipc import tick
from gateway.ipc.envelope import A, Ask, Message, Tell
from gateway.ipc.line_messages import (
    AnswerOffer,
    CallConfirmed,
    CallLeft,
    CallStarted,
    DropCall,
    KeyPressed,
    MediaTurned,
)
from gateway.ipc.rpc import Peer, Server

TOKEN = "token-of-this-boot"
RATE_HZ = 48_000
FRAME = 960

M = TypeVar("M", bound=Message)
Sound = Callable[[int], bytes]
"""What the hall says in its nth frame to a call; empty: nothing."""


def tone(hz: float, peak: int = 8000) -> Sound:
    def frame(n: int) -> bytes:
        turn = 2 * math.pi * hz / RATE_HZ
        return array("h", (int(peak * math.sin(turn * (n * FRAME + k))) for k in range(FRAME))).tobytes()

    return frame


def silence(_: int) -> bytes:
    return b""


def power_at(pcm: bytes, hz: float, rate_hz: int = RATE_HZ) -> float:
    """Share of a sound's power at one frequency (Goertzel), 0 to 1."""
    samples = array("h", pcm)
    total = sum(s * s for s in samples)
    if not total:
        return 0.0
    k = 2 * math.cos(2 * math.pi * hz / rate_hz)
    a = b = 0.0
    for sample in samples:
        a, b = sample + k * a - b, a
    return 2 * (a * a + b * b - k * a * b) / (total * len(samples))


class FakeHall:
    """Notes every tell; says `sound` to each call once it is confirmed."""

    def __init__(self, runtime: Runtime, name: str = "hall0", sound: Sound = silence) -> None:
        self.told: asyncio.Queue[Message] = asyncio.Queue()
        self.heard: dict[int, bytearray] = {}
        self.flags: dict[int, list[int]] = {}
        self.played: dict[int, int] = {}
        self.line: Peer | None = None
        self.line_up = asyncio.Event()
        self.ticks_seen = 0
        self.sound = sound
        self.silent = False
        self.keep = True
        """what is heard is kept; a benchmark has no use for it"""
        self._stopped = False
        self._said: dict[int, int] = {}
        self._ticked = asyncio.Event()
        kinds: tuple[type[Tell], ...] = (CallStarted, CallConfirmed, KeyPressed, MediaTurned, CallLeft)
        handlers = [kind.handled_by(self._note) for kind in kinds]
        self._rpc = Server(runtime.hall(name), TOKEN, handlers, joined=self._joined)
        self._ticks = TickServer(runtime.ticks(name), TOKEN, self._turn)

    async def _note(self, _: Peer, message: Tell) -> None:
        self.told.put_nowait(message)

    async def _joined(self, peer: Peer) -> None:
        self.line = peer
        self.line_up.set()

    async def start(self) -> FakeHall:
        await self._ticks.start()
        await self._rpc.start()
        return self

    async def stop(self) -> None:
        if not self._stopped:
            self._stopped = True
            await self._rpc.stop()
            await self._ticks.stop()

    async def hears(self, kind: type[M], within_s: float = 5.0) -> M:
        """The next tell of this kind; others on the way are dropped."""
        async with asyncio.timeout(within_s):
            while True:
                told = await self.told.get()
                if isinstance(told, kind):
                    return told

    async def hears_sound(self, number: int, seconds: float, within_s: float = 10.0) -> None:
        """Waits until a call sent so much more sound."""
        wanted = len(self.heard.get(number, b"")) + int(seconds * 2 * RATE_HZ)
        async with asyncio.timeout(within_s):
            while len(self.heard.get(number, b"")) < wanted:
                self._ticked.clear()
                await self._ticked.wait()

    async def ask(self, message: Ask[A]) -> A:
        assert self.line is not None
        return await self.line.ask(message)

    def _turn(self, lines: list[TickLine]) -> None:
        self._ticked.set()
        for line in lines:
            waiting, line.waiting = line.waiting, []
            for packet in waiting:
                self.ticks_seen += 1
                answer = []
                for slot in packet.slots:
                    if self.keep:
                        self.heard.setdefault(slot.call, bytearray()).extend(slot.pcm)
                        self.flags.setdefault(slot.call, []).append(slot.flags)
                    self.played[slot.call] = slot.played
                    n = self._said[slot.call] = self._said.get(slot.call, -1) + 1
                    if sound := self.sound(n):
                        answer.append(tick.SlotAudio(slot.call, slot.slot, 0, 0, sound))
                if not self.silent:
                    line.answer(tick.pack(packet.seq, answer))


class FakeFront:
    """Notes `CallLeft`; asks the line."""

    def __init__(self, runtime: Runtime) -> None:
        self.ended: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        self.line: Peer | None = None
        self.line_up = asyncio.Event()
        self._rpc = Server(runtime.front, TOKEN, [CallLeft.handled_by(self._left)], joined=self._joined)

    async def _left(self, _: Peer, left: CallLeft) -> None:
        self.ended.put_nowait((left.call_id, left.how))

    async def _joined(self, peer: Peer) -> None:
        self.line = peer
        self.line_up.set()

    async def start(self) -> FakeFront:
        await self._rpc.start()
        return self

    async def stop(self) -> None:
        await self._rpc.stop()

    async def offer(self, call_id: str, sdp: str) -> str:
        assert self.line is not None
        return await self.line.ask(AnswerOffer(call_id, sdp), 5.0)

    async def hang_up(self, call_id: str) -> None:
        assert self.line is not None
        await self.line.ask(DropCall(call_id))

"""What a line talks to: a hall and a front that speak the real RPC and ticks, over the real unix sockets.

They note what lines tell them and do what a test says; `tests.gateway.rtp.rtp_exchange` puts lines for
telephones beside.
"""

from __future__ import annotations

import asyncio
import math
import statistics
from array import array
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Self, TypeVar, get_args

from gateway.config.runtime import Runtime
from gateway.errors import RpcError
from gateway.hall.calls.ticks import TickLine, TickServer
from gateway.ipc import tick
from gateway.ipc.envelope import A, Ask, Handled, Tell
from gateway.ipc.hello import LineFacts
from gateway.ipc.line_messages import (
    AnswerOffer,
    CallConfirmed,
    CallLeft,
    CallStarted,
    DropCall,
    KeyPressed,
    LineQuality,
    MediaTurned,
    RtpMoved,
    TargetRings,
    TransferOutcome,
)
from gateway.ipc.rpc import Peer, Server

TOKEN = "token-of-this-boot"
RATE_HZ = 48_000
"""A web line's; a SIP line has 8,000 or 16,000."""
FRAME = 960

Told = (
    CallStarted
    | CallConfirmed
    | KeyPressed
    | MediaTurned
    | TargetRings
    | TransferOutcome
    | RtpMoved
    | CallLeft
)
"""What lines tell a hall."""
TOLD: tuple[type[Tell], ...] = get_args(Told)
M = TypeVar("M", bound=Told)

Sound = Callable[[int], bytes]
"""What the hall says in its nth frame to a call; empty: nothing."""


def tone(hz: float, peak: int = 8000, rate_hz: int = RATE_HZ) -> Sound:
    turn, samples = 2 * math.pi * hz / rate_hz, rate_hz // 50

    def frame(n: int) -> bytes:
        return array("h", (int(peak * math.sin(turn * (n * samples + k))) for k in range(samples))).tobytes()

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


def is_tone(pcm: bytes, hz: float, rate_hz: int) -> bool:
    """Whether most of the 20 ms that are not silent are this tone: a machine that is busy makes gaps."""
    size = rate_hz // 50 * 2
    frames = [pcm[at : at + size] for at in range(0, len(pcm), size)]
    shares = [power_at(frame, hz, rate_hz) for frame in frames if max(array("h", frame)) > 1000]
    return bool(shares) and statistics.median(shares) > 0.9


class Listener:
    """Where lines join by RPC."""

    def __init__(self, path: Path, handlers: Iterable[Handled[Peer, Awaitable[object]]]) -> None:
        self.line: Peer | None = None
        """The line that joined last."""
        self.line_up = asyncio.Event()
        self.lines: dict[str, Peer] = {}
        self._joining = asyncio.Condition()
        self._rpc = Server(path, TOKEN, handlers, joined=self._joined, left=self._left)

    async def _joined(self, peer: Peer) -> None:
        self.line = peer
        self.line_up.set()
        async with self._joining:
            self.lines[peer.name] = peer
            self._joining.notify_all()

    async def _left(self, peer: Peer) -> None:
        async with self._joining:
            if self.lines.get(peer.name) is peer:
                del self.lines[peer.name]
            self._joining.notify_all()

    async def hears_hello(self, line: str, within_s: float = 10.0) -> LineFacts:
        """What a line says of itself when it joins, or has said."""
        async with asyncio.timeout(within_s), self._joining:
            await self._joining.wait_for(lambda: line in self.lines)
        facts = self.lines[line].hello.line
        assert facts is not None
        return facts

    async def misses(self, line: str, within_s: float = 10.0) -> None:
        """Waits until a line is gone."""
        async with asyncio.timeout(within_s), self._joining:
            await self._joining.wait_for(lambda: line not in self.lines)


class FakeHall(Listener):
    """Notes every tell; says `sound` to each call, from its first tick on."""

    def __init__(self, runtime: Runtime, name: str = "hall0", sound: Sound = silence) -> None:
        handlers: list[Handled[Peer, Awaitable[object]]] = [Handled(kind, self._note) for kind in TOLD]
        super().__init__(runtime.hall(name), [*handlers, LineQuality.handled_by(self._rate)])
        self.told: asyncio.Queue[Told] = asyncio.Queue()
        self.heard: dict[int, bytearray] = {}
        self.flags: dict[int, list[int]] = {}
        self.played: dict[int, int] = {}
        self.ticks_seen = 0
        self.sound = sound
        self.sounds: dict[int, Sound] = {}
        """What it says to calls of these numbers instead."""
        self.silent = False
        self.keep = True
        """what is heard is kept; a benchmark has no use for it"""
        self.misnamed: dict[int, int] = {}
        """Call numbers to answer under another's: an answer may be on its way when its call ends."""
        self.qualities: asyncio.Queue[LineQuality] = asyncio.Queue()
        self._stopped = False
        self._said: dict[int, int] = {}
        self._ticked = asyncio.Event()
        self._places: dict[int, tuple[TickLine, int]] = {}
        self._line_of: dict[str, Peer] = {}
        self._history: dict[str, list[type[Tell]]] = {}
        self._ticks = TickServer(runtime.ticks(name), TOKEN, self._turn)

    async def _note(self, peer: Peer, message: Told) -> None:
        self._line_of[message.call_id] = peer
        self._history.setdefault(message.call_id, []).append(type(message))
        self.told.put_nowait(message)

    async def _rate(self, _: Peer, quality: LineQuality) -> None:
        self.qualities.put_nowait(quality)

    async def hears_quality(
        self, call_id: str, such: Callable[[LineQuality], object] = bool, within_s: float = 10.0
    ) -> LineQuality:
        """The next word of how this call sounds that is `such`; others on the way are dropped."""
        async with asyncio.timeout(within_s):
            while True:
                quality = await self.qualities.get()
                if quality.call_id == call_id and such(quality):
                    return quality

    def told_of(self, call_id: str) -> list[type[Tell]]:
        """The kinds of all that it was told of a call."""
        return self._history.get(call_id, [])

    async def start(self) -> Self:
        await self._ticks.start()
        await self._rpc.start()
        return self

    async def stop(self) -> None:
        """As if killed: no line is told anything."""
        if not self._stopped:
            self._stopped = True
            await self._rpc.stop()
            await self._ticks.stop()

    async def hears(self, kind: type[M], call_id: str = "", within_s: float = 5.0) -> M:
        """The next tell of this kind, of this call if one is named; others on the way are dropped."""
        async with asyncio.timeout(within_s):
            while True:
                told = await self.told.get()
                if isinstance(told, kind) and call_id in ("", told.call_id):
                    return told

    async def ask(self, message: Ask[A]) -> A:
        """The answer of the line that has the call, or that joined last."""
        line = self._line_of.get(getattr(message, "call_id", ""), self.line)
        assert line is not None
        return await line.ask(message)

    # ── sound ────────────────────────────────────────────────────────────────────────────────────────

    async def hears_sound(self, number: int, seconds: float, within_s: float = 10.0) -> None:
        """Waits until a call of a web line sent so much more sound."""
        await self.hears_bytes(number, int(seconds * 2 * RATE_HZ), within_s)

    async def hears_bytes(self, number: int, count: int, within_s: float = 10.0) -> bytes:
        """Waits for the next `count` bytes of a call's sound."""
        start = len(self.heard.get(number, b""))
        async with asyncio.timeout(within_s):
            while len(self.heard.get(number, b"")) < start + count:
                await self._next_turn()
        return bytes(self.heard[number][start : start + count])

    async def hears_ticks(self, number: int, count: int, within_s: float = 10.0) -> list[int]:
        """Waits for the call's next `count` ticks; their flags."""
        start = len(self.flags.get(number, []))
        async with asyncio.timeout(within_s):
            while len(self.flags.get(number, [])) < start + count:
                await self._next_turn()
        return self.flags[number][start : start + count]

    async def _next_turn(self) -> None:
        self._ticked.clear()
        await self._ticked.wait()

    def said(self, number: int) -> int:
        """The number of the next frame that its sound is asked for."""
        return self._said.get(number, -1) + 1

    def say_at_once(self, number: int, frames: list[bytes]) -> None:
        """Sends a call all these frames now, as a hall does that was late."""
        line, slot = self._places[number]
        for frame in frames:
            line.answer(tick.pack(0, [tick.SlotAudio(number, slot, 0, 0, frame)]))

    def look_away(self, number: int) -> None:
        """Reads no more ticks of the call's line."""
        asyncio.get_running_loop().remove_reader(self._places[number][0].sock)

    def garble(self, number: int, packet: bytes) -> None:
        """Sends a call's line a packet that is no tick."""
        self._places[number][0].answer(packet)

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
                    self._places[slot.call] = line, slot.slot
                    n = self._said[slot.call] = self._said.get(slot.call, -1) + 1
                    if sound := self.sounds.get(slot.call, self.sound)(n):
                        name = self.misnamed.get(slot.call, slot.call)
                        answer.append(tick.SlotAudio(name, slot.slot, 0, 0, sound))
                if not self.silent:
                    line.answer(tick.pack(packet.seq, answer))


class FakeFront(Listener):
    """Notes `CallLeft`; asks lines."""

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(runtime.front, [CallLeft.handled_by(self._call_left)])
        self.ended: asyncio.Queue[tuple[str, str]] = asyncio.Queue()

    async def _call_left(self, _: Peer, left: CallLeft) -> None:
        self.ended.put_nowait((left.call_id, left.how))

    async def start(self) -> Self:
        await self._rpc.start()
        return self

    async def stop(self) -> None:
        await self._rpc.stop()

    async def offer(self, call_id: str, sdp: str, statement: str | None = None) -> str:
        assert self.line is not None
        answer = await self.line.ask(AnswerOffer(call_id, sdp, statement), 5.0)
        if answer.sdp is None:
            raise RpcError(f"the offer cannot be answered: {answer.wrong}")
        return answer.sdp

    async def hang_up(self, call_id: str, line: str = "") -> None:
        """By the line of this name, or the one that joined last."""
        peer = self.lines[line] if line else self.line
        assert peer is not None
        await peer.ask(DropCall(call_id))

    async def hears_end(self, call_id: str = "", within_s: float = 5.0) -> tuple[str, str]:
        """(call id, how) of the next call that ended, or of this one; others on the way are dropped."""
        async with asyncio.timeout(within_s):
            while call_id not in ("", (ended := await self.ended.get())[0]):
                pass
        return ended

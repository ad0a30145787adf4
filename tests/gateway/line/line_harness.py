"""A house around lines: a front and a hall that speak the real RPC and tick, and a real zygote."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from gateway.config.runtime import Runtime
from gateway.ipc import rpc, tick
from gateway.ipc.codec import unpacked
from gateway.ipc.envelope import Message
from gateway.ipc.hello import Hello, TickHello, admitted
from gateway.ipc.line_messages import (
    AnswerCall,
    CallConfirmed,
    CallLeft,
    CallStarted,
    KeyPressed,
    MediaTurned,
    RtpMoved,
    TransferOutcome,
)
from gateway.line.line_plan import LinePlan
from gateway.line.zygote_messages import ForkLine, LineDied

TOKEN = "a token of the tests, 64 characters long in real life"

Sound = Callable[["HallCall", int], bytes]
"""What the hall plays to a call in the next 20 ms, given the line's rate."""


@dataclass
class HallCall:
    """What the hall knows of one call."""

    call_id: str
    number: int
    slot: int
    resumed: bool
    codec: str | None = None
    confirmed: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    how: str = ""
    digits: list[tuple[str, int]] = field(default_factory=list)
    holds: list[tuple[bool, bool]] = field(default_factory=list)
    told: list[Message] = field(default_factory=list)
    heard: bytearray = field(default_factory=bytearray)
    flags: list[int] = field(default_factory=list)
    ticked_at: list[float] = field(default_factory=list)
    played: int = 0
    sent: int = 0
    """Samples of sound given to the line."""
    news: asyncio.Event = field(default_factory=asyncio.Event)


def echo(call: HallCall, rate_hz: int) -> bytes:
    return bytes(call.heard[-rate_hz // 50 * 2 :])


class Hall:
    """A hall that answers each tick with `sound`, and each call if `answers`."""

    def __init__(self, runtime: Runtime, name: str = "h0", sound: Sound = echo, answers: bool = True) -> None:
        self.runtime, self.name, self.sound, self.answers = runtime, name, sound, answers
        self.calls: dict[str, HallCall] = {}
        self.lines: dict[str, rpc.Peer] = {}
        self.changed = asyncio.Condition()
        self._listener: socket.socket | None = None
        self._ticking: dict[socket.socket, int] = {}
        handlers = [
            CallStarted.handled_by(self._started),
            CallConfirmed.handled_by(self._confirmed),
            KeyPressed.handled_by(self._key_pressed),
            MediaTurned.handled_by(self._media_turned),
            CallLeft.handled_by(self._call_left),
            TransferOutcome.handled_by(self._told),
            RtpMoved.handled_by(self._told),
        ]
        self._server = rpc.Server(runtime.hall(name), TOKEN, handlers, joined=self._joined, left=self._left)

    async def start(self) -> None:
        await self._server.start()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.runtime.ticks(self.name).unlink(missing_ok=True)
        self._listener.bind(str(self.runtime.ticks(self.name)))
        self._listener.listen(64)
        self._listener.setblocking(False)
        asyncio.get_running_loop().add_reader(self._listener, self._accept)

    async def stop(self) -> None:
        """As if killed: nobody is told anything."""
        loop = asyncio.get_running_loop()
        if self._listener is not None:
            loop.remove_reader(self._listener)
            self._listener.close()
        for ticks in self._ticking:
            loop.remove_reader(ticks)
            ticks.close()
        self._ticking.clear()
        await self._server.stop()
        self.lines.clear()

    # -- RPC

    async def _joined(self, peer: rpc.Peer) -> None:
        async with self.changed:
            self.lines[peer.name] = peer
            self.changed.notify_all()

    async def _left(self, peer: rpc.Peer) -> None:
        if self.lines.get(peer.name) is peer:
            del self.lines[peer.name]

    async def _started(self, peer: rpc.Peer, started: CallStarted) -> None:
        call = HallCall(started.call_id, started.call, started.slot, started.resumed, started.codec)
        async with self.changed:
            self.calls[call.call_id] = call
            self.changed.notify_all()
        if self.answers and not started.resumed:
            with contextlib.suppress(rpc.RpcError):
                await peer.ask(AnswerCall(call.call_id))

    async def _confirmed(self, _: rpc.Peer, confirmed: CallConfirmed) -> None:
        call = self.calls[confirmed.call_id]
        call.codec = confirmed.codec
        call.confirmed.set()

    async def _key_pressed(self, _: rpc.Peer, key: KeyPressed) -> None:
        self.calls[key.call_id].digits.append((key.digit, key.duration_ms))
        self.calls[key.call_id].news.set()

    async def _media_turned(self, _: rpc.Peer, turned: MediaTurned) -> None:
        self.calls[turned.call_id].holds.append((turned.sending, turned.receiving))
        self.calls[turned.call_id].news.set()

    async def _call_left(self, _: rpc.Peer, left: CallLeft) -> None:
        self.calls[left.call_id].how = left.how
        self.calls[left.call_id].ended.set()

    async def _told(self, _: rpc.Peer, message: TransferOutcome | RtpMoved) -> None:
        self.calls[message.call_id].told.append(message)
        self.calls[message.call_id].news.set()

    # -- ticks

    def _accept(self) -> None:
        assert self._listener is not None
        ticks, _ = self._listener.accept()
        ticks.setblocking(False)
        self._ticking[ticks] = 0
        asyncio.get_running_loop().add_reader(ticks, self._tick, ticks)

    def _tick(self, ticks: socket.socket) -> None:
        try:
            packet = ticks.recv(tick.MAX_PACKET)
        except BlockingIOError:
            return
        except OSError:
            packet = b""
        if not packet:
            asyncio.get_running_loop().remove_reader(ticks)
            self._ticking.pop(ticks, None)
            ticks.close()
            return
        if not self._ticking[ticks]:
            self._ticking[ticks] = admitted(TickHello, unpacked(packet), TOKEN).rate_hz
            return
        now = time.monotonic()
        rate_hz = self._ticking[ticks]
        heard = tick.unpack(packet)
        answers = []
        by_number = {call.number: call for call in self.calls.values()}
        for audio in heard.slots:
            call = by_number.get(audio.call)
            if call is None:
                continue
            call.ticked_at.append(now)
            call.flags.append(audio.flags)
            call.played = audio.played
            call.heard += audio.pcm
            pcm = self.sound(call, rate_hz)
            if pcm:
                call.sent += len(pcm) // 2
                answers.append(tick.SlotAudio(audio.call, audio.slot, 0, 0, pcm))
        with contextlib.suppress(BlockingIOError):
            ticks.send(tick.pack(heard.seq, answers))

    # -- what tests wait for

    async def call(self, call_id: str, timeout_s: float = 5.0) -> HallCall:
        async with asyncio.timeout(timeout_s), self.changed:
            await self.changed.wait_for(lambda: call_id in self.calls)
            return self.calls[call_id]

    async def line(self, name: str, timeout_s: float = 5.0) -> rpc.Peer:
        async with asyncio.timeout(timeout_s), self.changed:
            await self.changed.wait_for(lambda: name in self.lines)
            return self.lines[name]


class Front:
    """Hears the lines' hellos and their calls' ends."""

    def __init__(self, runtime: Runtime) -> None:
        self.lines: dict[str, rpc.Peer] = {}
        self.ended: dict[str, str] = {}
        self.changed = asyncio.Condition()
        self._server = rpc.Server(
            runtime.front, TOKEN, [CallLeft.handled_by(self._call_left)], joined=self._joined
        )
        self.start, self.stop = self._server.start, self._server.stop

    async def _joined(self, peer: rpc.Peer) -> None:
        async with self.changed:
            self.lines[peer.name] = peer
            self.changed.notify_all()

    async def _call_left(self, _: rpc.Peer, left: CallLeft) -> None:
        self.ended[left.call_id] = left.how

    async def line(self, name: str, timeout_s: float = 10.0) -> rpc.Peer:
        async with asyncio.timeout(timeout_s), self.changed:
            await self.changed.wait_for(lambda: name in self.lines)
            return self.lines[name]


class Zygote:
    """A real zygote process and its control socket."""

    def __init__(self) -> None:
        self.process: asyncio.subprocess.Process | None = None
        self.pids: dict[str, int] = {}
        self.deaths: asyncio.Queue[LineDied] = asyncio.Queue()
        self.peer: rpc.Peer | None = None

    async def start(self, **other: str) -> None:
        """`other`: what the supervisor says of itself that is not so."""
        ours, theirs = socket.socketpair()
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "gateway.line.zygote",
            "--fd",
            str(theirs.fileno()),
            pass_fds=[theirs.fileno()],
            env={**os.environ, "VOICEGATE_BOOT_TOKEN": TOKEN},
        )
        theirs.close()
        hello = replace(Hello("supervisor", "supervisor", TOKEN), **other)
        self.peer = await rpc.connect_by(ours, "zygote", hello, [LineDied.handled_by(self._died)])

    async def _died(self, _: rpc.Peer, died: LineDied) -> None:
        self.deaths.put_nowait(died)

    async def fork(
        self, runtime: Runtime, name: str, kind: Literal["narrow", "wide"], hall: str, **more: Any
    ) -> int:
        assert self.peer is not None
        plan = LinePlan(name, kind, hall, runtime, TOKEN, **more)
        pid = self.pids[name] = await self.peer.ask(ForkLine(plan), 10.0)
        return pid

    async def stop(self) -> None:
        """Closes the control socket, as a supervisor that dies does, and waits for the end."""
        assert self.peer is not None
        assert self.process is not None
        self.peer.close()
        async with asyncio.timeout(10):
            await self.process.wait()


class House:
    """Front, hall and zygote in a runtime directory of their own."""

    def __init__(self, path: Path, sound: Sound = echo, *, answers: bool = True) -> None:
        self.runtime = Runtime(path)
        self.front = Front(self.runtime)
        self.hall = Hall(self.runtime, sound=sound, answers=answers)
        self.zygote = Zygote()

    async def __aenter__(self) -> House:
        await self.front.start()
        await self.hall.start()
        await self.zygote.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.zygote.stop()
        await self.hall.stop()
        await self.front.stop()

    async def line(self, name: str = "n0", kind: Literal["narrow", "wide"] = "narrow", **more: Any) -> int:
        """Forks a line and waits for it; its SIP port."""
        await self.zygote.fork(self.runtime, name, kind, self.hall.name, **more)
        peer = await self.front.line(name)
        await self.hall.line(name)
        assert peer.hello.line is not None
        assert peer.hello.line.sip_port is not None
        return peer.hello.line.sip_port

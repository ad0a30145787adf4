"""A web line: `python -m gateway.line.web --name web0 --hall hall0 --runtime DIR`.

It answers browsers' offers (the front asks), keeps up to 8 calls, and speaks ticks with its hall as the SIP
lines do, at 48 kHz. Every 20 ms each confirmed call's sound goes to the hall; what the hall answers goes out
at once (`webcall`). The clock is the monotonic one, counted in
whole ticks, so nothing drifts: a frame's RTP timestamp is its tick's number. A hall up to 40 ms late costs
nothing but that delay, and its next pause makes up for it.

When the hall goes, calls hear silence and wait for it; when the front goes, nothing happens
(`joined_house`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import socket
from pathlib import Path
from typing import Final

import click
import structlog

from gateway.config import settings
from gateway.config.runtime import Runtime
from gateway.errors import LineError, RpcError, VoicegateError
from gateway.ipc import tick
from gateway.ipc.ending import CallEnding, End
from gateway.ipc.hello import LineCall, LineFacts
from gateway.ipc.line_messages import (
    AnswerCall,
    AnswerOffer,
    CallConfirmed,
    CallLeft,
    CallStarted,
    CloseBridge,
    DialDigits,
    DropCall,
    IceReply,
    JoinBridge,
    KeyPressed,
    MediaTurned,
    OfferAnswer,
    OpenBridge,
    PressKey,
    ProgressCall,
    ReferCall,
    RenewOffer,
    RingCall,
    ShowCaller,
    ShownStatement,
    TrickleIce,
)
from gateway.ipc.rpc import Peer
from gateway.ipc.tick import RECEIVING, SENDING, UNDERRUN, SlotAudio
from gateway.line import ice, target_bridge, webcall
from gateway.line.joined_house import Handling, JoinedHouse
from gateway.line.offer import OfferError
from gateway.line.opus import FRAME, RATE_HZ
from gateway.line.webcall import CODEC, WebCall
from model import heap, json_log
from model.tasks import Tasks, watch_loop

CAPACITY: Final = 8
MOST_TICKS_AT_ONCE: Final = 5
"""Ticks made up for after a stall; what lies further back is gone."""

NO_NETWORK: Final = (
    "this machine has no network address, which browsers want: Firefox cannot call until there is one; "
    "Chromium only with --allow-loopback-in-peer-connection"
)

log = structlog.get_logger("web")


class WebLine:
    """The process's one object. `run` returns after `stop` was called, with every call ended."""

    def __init__(
        self, name: str, hall: str, runtime: Runtime, token: str, public_address: str | None = None
    ) -> None:
        self.name = name
        self.calls: dict[str, WebCall] = {}
        self._hall_name = hall
        self._public_address = public_address
        self._by_number: dict[int, WebCall] = {}
        self._next_number = secrets.randbits(31)
        self._house = JoinedHouse(self, runtime, name, token)
        self._seq = 0
        self._live = asyncio.Event()
        self._tasks = Tasks()
        self.ticks_late = 0

    async def run(self) -> None:
        watch_loop()
        self._tasks.lasting(self._house.keep_front, "web.front")
        self._tasks.lasting(self._house.keep_hall, "web.hall")
        self._tasks.vital(self._tick_on, "web.ticks")  # without it nobody hears anything
        try:
            await self._house.stop_asked.wait()
        finally:
            why = CallEnding(End.GATEWAY_STOPPED)
            await asyncio.gather(*(call.close(why) for call in list(self.calls.values())))
            await asyncio.sleep(0)  # what was told must reach the sockets
            await self._tasks.stop()
            self._house.close()

    def stop(self) -> None:
        self._house.stop()

    # ── its front and its hall (`JoiningLine`) ───────────────────────────────────────────────────────

    def facts(self) -> LineFacts:
        """See `JoiningLine`."""
        calls = tuple(LineCall(call.call_id, call.number, call.slot) for call in self.calls.values())
        return LineFacts("web", RATE_HZ, self._hall_name, CAPACITY, calls)

    def from_front(self) -> Handling:
        """See `JoiningLine`."""
        return [
            AnswerOffer.handled_by(self._offer),
            RenewOffer.handled_by(self._renew),
            TrickleIce.handled_by(self._trickle),
            PressKey.handled_by(self._press),
            DropCall.handled_by(self._drop),
        ]

    def from_hall(self) -> Handling:
        """See `JoiningLine`."""
        return [
            AnswerCall.handled_by(self._noted),
            RingCall.handled_by(self._noted),
            ProgressCall.handled_by(self._no_progress),
            DropCall.handled_by(self._drop),
            ReferCall.handled_by(self._refuse),
            DialDigits.handled_by(self._refuse),
            ShowCaller.handled_by(self._show),
            OpenBridge.handled_by(self._open_bridge),
            JoinBridge.handled_by(self._join_bridge),
            CloseBridge.handled_by(self._close_bridge),
        ]

    def hall_joined(self, ticks: socket.socket) -> None:
        """See `JoiningLine`."""
        asyncio.get_running_loop().add_reader(ticks, self._answered)
        for call in self.calls.values():
            self._tell_started(call, resumed=True)

    def ticks_lost(self, ticks: socket.socket) -> None:
        """See `JoiningLine`."""
        asyncio.get_running_loop().remove_reader(ticks)

    def hall_given_up(self) -> None:
        """See `JoiningLine`."""
        for call in list(self.calls.values()):
            self._tasks.short(call.close(CallEnding(End.HALL_DIED)), "web.close")

    # ── what front and hall ask ──────────────────────────────────────────────────────────────────────

    async def _offer(self, _: Peer, asked: AnswerOffer) -> OfferAnswer:
        call_id = asked.call_id
        if not self._house.has_hall:
            raise RpcError(f"{self.name} has no hall")
        if call_id in self.calls:
            raise RpcError(f"{self.name} already has call {call_id}")
        free = set(range(CAPACITY)) - {call.slot for call in self.calls.values()}
        if not free or self._house.stop_asked.is_set():
            raise RpcError(f"{self.name} is full")
        self._next_number = (self._next_number + 1) & 0xFFFFFFFF
        call = WebCall(call_id, self._next_number, min(free), self._happened, self._public_address)
        self.calls[call_id] = call
        self._by_number[call.number] = call
        if asked.statement is not None:
            call.show(ShownStatement(asked.statement))
        try:
            answer = await call.answer(asked.sdp)
        except OfferError as error:
            self._forget(call)
            return OfferAnswer(wrong=str(error))
        except BaseException:
            self._forget(call)
            raise
        if call.ended is not None:
            raise RpcError(f"{self.name} was asked to drop call {call_id} before it was answered")
        self._tell_started(call, resumed=False)
        log.info("call.started", call_id=call_id, slot=call.slot)
        return OfferAnswer(sdp=answer)

    async def _renew(self, _: Peer, asked: RenewOffer) -> OfferAnswer:
        call = self.calls.get(asked.call_id)
        if call is None or call.ended is not None:
            raise RpcError(f"{self.name} has no call {asked.call_id}")
        try:
            return OfferAnswer(sdp=await call.renew(asked.sdp))
        except OfferError as error:
            return OfferAnswer(wrong=str(error))

    async def _trickle(self, _: Peer, asked: TrickleIce) -> IceReply:
        call = self.calls.get(asked.call_id)
        if call is None or call.ended is not None:
            return IceReply(404, wrong="there is no such call")
        return await call.trickle(asked.fragment, asked.etag)

    async def _press(self, _: Peer, asked: PressKey) -> None:
        if asked.call_id in self.calls:
            self._house.tell_hall(KeyPressed(asked.call_id, asked.digit, "info"))

    async def _drop(self, _: Peer, asked: DropCall) -> None:
        call = self.calls.get(asked.call_id)
        if call is None:
            raise RpcError(f"{self.name} has no call {asked.call_id}")
        self._tasks.short(call.close(asked.how), "web.close")

    async def _no_progress(self, _: Peer, __: ProgressCall) -> bool:
        return False

    async def _noted(self, _: Peer, __: AnswerCall | RingCall) -> None:
        """A browser's call is answered by its SDP; it hears us from `CallConfirmed` on."""

    async def _refuse(self, _: Peer, __: ReferCall | DialDigits) -> None:
        raise RpcError("a browser's call cannot be transferred, nor be sent digits")

    async def _open_bridge(self, _: Peer, asked: OpenBridge) -> int:
        try:
            return self._running(asked.call_id).open_bridge()
        except OSError as error:
            raise RpcError(f"call {asked.call_id}: no socket for a target: {error.strerror}") from None

    async def _join_bridge(self, _: Peer, asked: JoinBridge) -> None:
        bridge = self._running(asked.call_id).bridge
        if bridge is None:
            raise RpcError(f"call {asked.call_id} has no bridge")
        bridge.join(asked.port)

    async def _close_bridge(self, _: Peer, asked: CloseBridge) -> None:
        self._running(asked.call_id).close_bridge()

    def _running(self, call_id: str) -> WebCall:
        """Raises `RpcError`."""
        call = self.calls.get(call_id)
        if call is None or call.ended is not None:
            raise RpcError(f"{self.name} has no call {call_id}")
        return call

    async def _show(self, _: Peer, asked: ShowCaller) -> None:
        if asked.call_id in self.calls:
            self.calls[asked.call_id].show(asked.event)

    # ── what calls tell ──────────────────────────────────────────────────────────────────────────────

    def _tell_started(self, call: WebCall, *, resumed: bool) -> None:
        self._house.tell_hall(
            CallStarted(
                call_id=call.call_id,
                call=call.number,
                slot=call.slot,
                codec=CODEC,
                resumed=resumed,
                confirmed=call.confirmed_at is not None,
                handed_over=call.bridged,
            )
        )

    def _happened(self, call: WebCall, what: str, detail: str) -> None:
        if what == "confirmed" and call.confirmed_at is not None:
            self._live.set()
            self._house.tell_hall(CallConfirmed(call.call_id, CODEC, call.confirmed_at))
            log.info("call.confirmed", call_id=call.call_id)
        elif what == "dtmf":
            self._house.tell_hall(KeyPressed(call.call_id, detail, "page"))
        elif what == "event":
            self._house.tell_hall(KeyPressed(call.call_id, detail, "event"))
        elif what == "turned":
            self._house.tell_hall(MediaTurned(call.call_id, call.sending, call.receiving))
        elif what == "sounded":
            self._house.tell_hall(call.quality())
        elif what == "ended" and call.ended is not None:
            self._forget(call)
            self._house.tell_hall(call.quality())
            self._house.tell_both(CallLeft(call.call_id, call.ended))
            log.info("call.left", call_id=call.call_id, saw=call.ended, **call.report())

    def _forget(self, call: WebCall) -> None:
        self.calls.pop(call.call_id, None)
        self._by_number.pop(call.number, None)

    # ── the tick ─────────────────────────────────────────────────────────────────────────────────────

    async def _tick_on(self) -> None:
        """Every 20 ms while a call is confirmed; blocks never, logs never."""
        now = asyncio.get_running_loop().time
        while True:
            if not any(call.confirmed_at is not None for call in self.calls.values()):
                self._live.clear()
                await self._live.wait()
                origin, done = now(), 0
            due = int((now() - origin) / tick.FRAME_S) + 1 - done
            if due > MOST_TICKS_AT_ONCE:
                done += due - MOST_TICKS_AT_ONCE
                due = MOST_TICKS_AT_ONCE
            self.ticks_late += max(0, due - 1)
            for _ in range(due):
                done += 1
                self._tick(done * FRAME)
            await asyncio.sleep(max(0.0, origin + done * tick.FRAME_S - now()))

    def _tick(self, timestamp: int) -> None:
        slots = []
        for call in self._by_number.values():
            if call.confirmed_at is None:
                continue
            pcm = call.hear()
            call.owe(timestamp)
            if call.bridge is not None and call.bridge.joined:
                call.bridge.send(pcm)
                if call.bridge.silent_s() > target_bridge.GONE_S:
                    gone = CallEnding(End.TRANSFERRED, "the target's line is gone")
                    self._tasks.short(call.close(gone), "web.close")
                continue
            flags = (SENDING if call.sending else 0) | (RECEIVING if pcm else 0)
            flags |= UNDERRUN if call.underrun else 0
            slots.append(SlotAudio(call.number, call.slot, flags, call.played, pcm))
        if (ticks := self._house.ticks) is not None and slots:
            self._seq = (self._seq + 1) & 0xFFFFFFFF
            with contextlib.suppress(OSError):  # a stuck hall loses ticks; a gone one is noticed elsewhere
                ticks.send(tick.pack(self._seq, slots))

    def _answered(self) -> None:
        while (ticks := self._house.ticks) is not None:
            try:
                packet = ticks.recv(tick.MAX_PACKET)
                if not packet:
                    raise ConnectionResetError("the hall closed the tick socket")
                sounds = {audio.call: bytes(audio.pcm) for audio in tick.unpack(packet).slots}
            except BlockingIOError:
                return
            except (OSError, LineError) as error:
                log.warning("ticks.lost", error=str(error))
                self._house.break_with_hall()
                return
            for number, call in self._by_number.items():
                if call.confirmed_at is not None and not call.bridged:
                    call.take(sounds.get(number, b""))


async def _main(line: WebLine) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, line.stop)
    heap.settle()
    await line.run()


@click.command()
@click.option("--name", required=True, help="this line's name, such as web0")
@click.option("--hall", required=True, help="the hall that has its calls, such as hall0")
@click.option("--runtime", "runtime_dir", required=True, type=click.Path(path_type=Path, file_okay=False))
def main(name: str, hall: str, runtime_dir: Path) -> None:
    """One web line; the supervisor starts it."""
    try:
        given = settings.load()
        json_log.configure(name, given.log_level)
        runtime = Runtime(runtime_dir)
        token = os.environ.get("VOICEGATE_BOOT_TOKEN") or runtime.token()
        addresses = webcall.prepare(given.host)
        if given.local_only and not any(ice.reaches_beyond(address) for address in addresses):
            log.warning("ice.loopback_only", hint=NO_NETWORK)
        public_address = None if given.local_only else given.public_address
        asyncio.run(_main(WebLine(name, hall, runtime, token, public_address)))
    except VoicegateError as error:
        raise SystemExit(f"{name}: {error}") from None


if __name__ == "__main__":
    main()

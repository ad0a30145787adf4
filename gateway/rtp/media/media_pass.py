"""The 20 ms pass over the sound of all calls of a process: sockets, jitter buffers, codecs, ticks.

At each turn of the clock `hear` reads what the kernel has of all calls, takes 20 ms of each out of its jitter
buffer, decodes them together and makes the tick. `take` encodes what the hall answered, for all calls
together; `owe` says when it is time to send. No process is woken for a packet.

Hot path: waits for nothing, logs nothing, locks nothing.
"""

from __future__ import annotations

import asyncio
import select
from collections import defaultdict
from typing import Final

import numpy as np

from gateway.ipc import tick
from gateway.rtp.media.call_media import CallMedia
from gateway.rtp.media.last_turns import Group, LastTurns
from gateway.rtp.media.rate_changer import RateChanger
from gateway.rtp.media.rtp_sender import STEP
from gateway.rtp.media.socket_pair import Arrival, receive
from gateway.rtp.payloads import g711
from gateway.rtp.payloads.g711 import Law, Pcm
from gateway.rtp.payloads.packet import CLOCK_HZ
from watermark.pcm import float_from_bytes, float_from_int16, int16_from_float

PACKETS_A_TURN: Final = 8
"""Of one socket. The kernel keeps what is left; a stall of a second is read within seven turns, a flood is
never."""


class MediaPass:
    """All calls of one line. Calls come and go between turns."""

    def __init__(self, rate_hz: int, capacity: int, arrival: Arrival) -> None:
        self.arrival = arrival
        self.calls: dict[int, CallMedia] = {}
        """by slot"""
        self._rate_hz = rate_hz
        self._frame = rate_hz // 50
        self._heard = LastTurns()
        self._up = RateChanger(CLOCK_HZ, rate_hz, capacity)
        self._down = RateChanger(rate_hz, CLOCK_HZ, capacity)
        self._poll = select.epoll()
        self._sockets: dict[int, tuple[CallMedia, bool]] = {}
        """by descriptor; whether it is RTCP's"""
        self._broken: list[tuple[CallMedia, Exception]] = []
        self._seq = self._answered = 0
        """of the last tick, and of the one that the hall answered last"""
        self._begun = asyncio.Event()

    async def begins(self) -> None:
        """Waits until there is a call."""
        while not self.calls:
            self._begun.clear()
            await self._begun.wait()

    def add(self, media: CallMedia) -> None:
        """A call is there."""
        self._begun.set()
        self.calls[media.slot] = media
        self._heard.forget(media.slot)
        self._up.reset(media.slot)
        self._down.reset(media.slot)
        for sock, reports in ((media.sockets.rtp, False), (media.sockets.rtcp, True)):
            self._sockets[sock.fileno()] = media, reports
            self._poll.register(sock, select.EPOLLIN)

    def remove(self, media: CallMedia) -> None:
        """It is there no more; its sockets are closed."""
        if self.calls.get(media.slot) is media:
            del self.calls[media.slot]
        for sock in (media.sockets.rtp, media.sockets.rtcp):
            if self._sockets.pop(sock.fileno(), None) is not None:
                self._poll.unregister(sock)
        media.sockets.close()

    def join(self, one: CallMedia, other: CallMedia) -> None:
        """From now on these two hear each other; the hall neither hears them nor is it heard."""
        for media, mate in ((one, other), (other, one)):
            media.mate = mate
            media.ticked = False
            media.sender.forget_hall()

    def part(self, media: CallMedia) -> None:
        """They do not any more; who stays is the hall's again."""
        if (mate := media.mate) is not None:
            media.mate = mate.mate = None
            media.sender.forget_hall()

    def close(self) -> None:
        """After the last call."""
        self._poll.close()

    # ── from callers ─────────────────────────────────────────────────────────────────────────────────

    def hear(self) -> bytes | None:
        """The tick with the next 20 ms of the hall's calls; None while it has none. What joined calls hear of
        each other is handed over here."""
        self.arrival.turn()
        self._receive()
        if not self.calls:
            return None
        sounds = self._sounds()
        if self._broken:
            self._give_up()
        heard: list[tick.Slot] = []
        passed: list[tuple[CallMedia, bytes | memoryview]] = []
        for slot, media in self.calls.items():
            agreed, sender = media.agreed, media.sender
            pcm = sounds.get(slot, b"")
            if media.mate is not None:
                passed.append((media.mate, pcm))
                continue
            flags = (
                (tick.SENDING if agreed.sending else 0)
                | (tick.RECEIVING if pcm else 0)
                | (tick.UNDERRUN if sender.underrun else 0)
                | (tick.TONES if agreed.event is None else 0)
            )
            sender.underrun = False
            heard.append((media.number, slot, flags, media.played, pcm))
        if passed:
            self._send(passed)
        if not heard:
            return None
        self._seq += 1
        return tick.pack(self._seq, heard)

    def catch_up(self) -> None:
        """Reads what has come since the last turn: what else comes now was sent after it."""
        self.arrival.turn()
        self._receive()

    def _receive(self) -> None:
        arrival, poll, sockets = self.arrival, self._poll, self._sockets
        for _ in range(PACKETS_A_TURN):
            ready = poll.poll(0)
            if not ready:
                return
            for descriptor, _ in ready:
                media, reports = sockets[descriptor]
                got = receive(media.sockets.rtcp if reports else media.sockets.rtp, arrival)
                if got is None:
                    continue
                try:
                    (media.take_report if reports else media.take)(*got)
                except Exception as error:
                    self._broken.append((media, error))

    def _give_up(self) -> None:
        """Calls in which an error of ours happened."""
        broken, self._broken = self._broken, []
        for media, error in dict(broken).items():
            media.owner.broke(media, error)

    def _sounds(self) -> dict[int, bytes | memoryview]:
        """20 ms of each call from which something comes, by slot, at the line's rate."""
        now, heard = self.arrival.now, self._heard
        coded: dict[Law, tuple[list[int], list[bytes]]] = {}
        made: dict[int, tuple[list[int], list[Pcm]]] = {}
        for slot, media in self.calls.items():
            media.turn(now)
            receiver = media.receiver
            try:
                frame = receiver.frame(heard, slot)
            except Exception as error:
                self._broken.append((media, error))
                continue
            if frame is None:
                continue
            if isinstance(frame, bytes):
                slots, codes = coded.setdefault(receiver.law_of(frame), ([], []))
                slots.append(slot)
                codes.append(frame[1:])
            else:
                slots, frames = made.setdefault(receiver.rate_hz, ([], []))
                slots.append(slot)
                frames.append(frame)
        groups: list[Group] = []
        for law, (slots, codes) in coded.items():
            groups.append((slots, g711.decode(law, b"".join(codes)).reshape(len(slots), STEP)))
        for slots, frames in made.values():
            groups.append((slots, np.stack(frames)))
        heard.note(groups)
        sounds: dict[int, bytes | memoryview] = {}
        size = 2 * self._frame
        for slots, whole in groups:
            if whole.shape[1] != self._frame:  # G.711 on a wide line
                rows = np.array(slots, np.intp)
                whole = int16_from_float(self._up.change(rows, float_from_int16(whole)))
            sound = whole.data.cast("B")
            for at, slot in enumerate(slots):
                sounds[slot] = sound[at * size : (at + 1) * size]
        return sounds

    # ── to callers ───────────────────────────────────────────────────────────────────────────────────

    def take(self, packet: bytes) -> None:
        """The hall's answer to a tick. Raises `LineError` for what is not one."""
        answer = tick.unpack(packet)
        self._answered = answer.seq
        sounds = {audio[1]: audio for audio in answer.slots}
        answered: list[tuple[CallMedia, bytes | memoryview]] = []
        for slot, media in self.calls.items():
            if not media.ticked:
                continue
            sound = sounds.get(slot)
            answered.append((media, b"" if sound is None or sound.call != media.number else sound.pcm))
        self._send(answered)

    def _send(self, sounds: list[tuple[CallMedia, bytes | memoryview]]) -> None:
        """20 ms for each of these calls, at the line's rate; what is not 20 ms is silence."""
        together: dict[Law, list[tuple[CallMedia, bytes | memoryview]]] = defaultdict(list)
        size = 2 * self._frame
        for media, pcm in sounds:
            if len(pcm) != size:
                media.sender.take(None)
                continue
            codec = media.agreed.codec
            if codec == "G722" or codec == "OPUS" or codec == "G729":
                media.sender.take(media.encode(pcm))
            else:
                together[codec].append((media, pcm))
        for law, members in together.items():
            pcm = b"".join([sound for _, sound in members])
            if self._rate_hz != CLOCK_HZ:
                rows = np.array([media.slot for media, _ in members], np.intp)
                block = float_from_bytes(pcm).reshape(len(members), self._frame)
                pcm = int16_from_float(self._down.change(rows, block)).tobytes()
            codes = g711.encode(law, pcm)
            for at, (media, _) in enumerate(members):
                media.sender.take(codes[at * STEP : (at + 1) * STEP])

    @property
    def awaits_hall(self) -> bool:
        """It has not answered the last tick yet."""
        return self._answered != self._seq & 0xFFFFFFFF

    def owe(self, ticks: range, *, answered: bool) -> None:
        """It is time to send these ticks' frames: several after a stall. `answered`: a hall is there."""
        for media in self.calls.values():
            if media.mate is not None or (answered and media.ticked):
                media.sender.owe(ticks)
            else:
                media.sender.rest(ticks)

    def note_ticked(self) -> None:
        """The hall has the tick: what calls were in it are known there."""
        for media in self.calls.values():
            media.ticked = media.mate is None

    def lose_hall(self) -> None:
        """Nobody answers ticks any more."""
        for media in self.calls.values():
            if media.mate is None:
                media.ticked = False
                media.sender.forget_hall()

    def report(self, number: int) -> None:
        """Sends the RTCP reports that are due in the tick with this number."""
        for media in self.calls.values():
            media.report(number)

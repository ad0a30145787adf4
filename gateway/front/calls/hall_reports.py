"""What halls report while calls go on, as the metrics count it and admission goes by it."""

from __future__ import annotations

from collections.abc import Awaitable

from gateway.front.calls.closing import Closing
from gateway.front.halls.headroom import Headroom
from gateway.front.house.metrics import Metrics
from gateway.ipc.envelope import Handled
from gateway.ipc.hall_messages import CallRated, HallLoad, MarkFailed, TurnAnswered, VoiceMuted
from gateway.ipc.line_messages import RtpMoved
from gateway.ipc.rpc import Peer


class HallReports:
    """Takes the reports of all halls."""

    def __init__(self, metrics: Metrics, headroom: Headroom, closing: Closing) -> None:
        self._metrics = metrics
        self._headroom = headroom
        self._closing = closing

    @property
    def for_halls(self) -> list[Handled[Peer, Awaitable[object]]]:
        """What a hall may report."""
        return [
            VoiceMuted.handled_by(self._voice_muted),
            RtpMoved.handled_by(self._rtp_moved),
            MarkFailed.handled_by(self._mark_failed),
            TurnAnswered.handled_by(self._turn_answered),
            CallRated.handled_by(self._call_rated),
            HallLoad.handled_by(self._load),
        ]

    async def _voice_muted(self, _: Peer, muted: VoiceMuted) -> None:
        self._metrics.alarm(f"muted: {muted.reason}")

    async def _rtp_moved(self, _: Peer, moved: RtpMoved) -> None:
        self._metrics.rtp_moved(moved.way)
        if moved.way == "followed":
            self._metrics.alarm("rtp moved")

    async def _mark_failed(self, _: Peer, __: MarkFailed) -> None:
        self._metrics.alarm("mark failed")

    async def _turn_answered(self, _: Peer, turn: TurnAnswered) -> None:
        self._metrics.turn(turn.latency)

    async def _call_rated(self, _: Peer, rated: CallRated) -> None:
        self._metrics.call_rated(rated)
        self._closing.rated(rated)

    async def _load(self, hall: Peer, load: HallLoad) -> None:
        self._headroom.told(hall.name, load)

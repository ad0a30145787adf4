"""What the 20 ms pass does to the sound of all lines of one rate, on its way in and out."""

from __future__ import annotations

from typing import Final

from gateway.hall.media.audio import FRAME_S, HOUSE_HZ, VAD_HZ, Floats, Rows
from gateway.hall.media.echo import EchoStage
from gateway.hall.media.leg import Legs
from gateway.rtp.media.rate_changer import RateChanger

CAPACITY: Final = 256
"""Calls one hall can hold; its rows in every batched stage."""


class Rate:
    """The stages of all lines of one rate."""

    def __init__(self, rate_hz: int) -> None:
        self.rate_hz = rate_hz
        self.frame = round(rate_hz * FRAME_S)
        self.to_house = RateChanger(rate_hz, HOUSE_HZ, CAPACITY)
        self.to_vad = RateChanger(rate_hz, VAD_HZ, CAPACITY) if rate_hz != VAD_HZ else None
        self.legs = Legs(rate_hz, CAPACITY)
        self.echo = EchoStage(rate_hz, CAPACITY)

    def narrow(self, rows: Rows, sound: Floats) -> Floats:
        """The callers' 20 ms at 8 kHz."""
        return sound if self.to_vad is None else self.to_vad.change(rows, sound)

    def reset(self, row: int) -> None:
        self.to_house.reset(row)
        if self.to_vad is not None:
            self.to_vad.reset(row)
        self.legs.reset(row)
        self.echo.reset(row)

"""A rough line between a test phone and who it calls: packets that are lost, late, or in another order.

Which packets is decided by their number and a seed, never by the clock: each run loses the same ones.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final, NamedTuple

HEARD: Final = 1_000_000
"""Between a line's seed and that of its other direction."""
PACKETS: Final = 100
"""So many packets (2 s of sound) are decided about together, so that a percentage is a count."""


@dataclass(frozen=True)
class RoughLine:
    """What becomes of the packets that a phone sends, and of those that come to it.

    Raises `ValueError` for what no line can do.
    """

    loss_percent: float = 0.0
    """So many of each hundred packets never arrive."""
    burst: int = 1
    """So many packets in a row are lost together."""
    jitter_ms: float = 0.0
    """Each packet is held back for 0 to so many milliseconds; the order stays."""
    reorder_percent: float = 0.0
    """So many of each hundred packets change places with the next one."""
    seed: int = 1
    heard_loss_percent: float = 0.0
    """So many of each hundred packets that come to the phone are lost, in bursts as those that it sends."""

    def __post_init__(self) -> None:
        percentages = {
            "loss": self.loss_percent,
            "reorder": self.reorder_percent,
            "heard-loss": self.heard_loss_percent,
        }
        for name, percent in percentages.items():
            if not 0 <= percent <= 50:
                raise ValueError(f"{name}: {percent:g} is not a percentage from 0 to 50")
        if not 0 <= self.jitter_ms <= 1000:
            raise ValueError(f"jitter: {self.jitter_ms:g} is not a number of milliseconds from 0 to 1000")
        if not 1 <= self.burst <= 20:
            raise ValueError(f"burst: {self.burst} is not a number of packets from 1 to 20")

    @property
    def smooth(self) -> bool:
        """Nothing happens to any packet that the phone sends."""
        return not (self.loss_percent or self.jitter_ms or self.reorder_percent)

    @property
    def heard(self) -> RoughLine:
        """What becomes of the packets that come, as a line of its own."""
        return RoughLine(self.heard_loss_percent, self.burst, seed=self.seed + HEARD)


class PacketFate(NamedTuple):
    """What becomes of one packet. `held_s`: how long it is held back; `overtaken`: by the next packet."""

    lost: bool
    held_s: float
    overtaken: bool


class PacketFates:
    """The fates of a call's packets, one after the other; calls of one seed differ by their number."""

    def __init__(self, line: RoughLine, call: int = 0) -> None:
        self._line = line
        self._chance = random.Random(f"{line.seed}/{call}")  # noqa: S311  # it only has to repeat itself
        self._owed_lost = self._owed_overtaken = 0.0
        self._lost: set[int] = set()
        self._overtaken: set[int] = set()
        self._at = PACKETS

    def next(self) -> PacketFate:
        if self._at == PACKETS:
            self._decide()
        at = self._at
        self._at += 1
        held_s = self._chance.uniform(0.0, self._line.jitter_ms) / 1000 if self._line.jitter_ms else 0.0
        return PacketFate(at in self._lost, held_s, at in self._overtaken)

    def _decide(self) -> None:
        """About the next hundred. Parts of a packet, and of a burst, are owed to the hundred after them."""
        self._at = 0
        burst = self._line.burst
        self._owed_lost += self._line.loss_percent * PACKETS / 100
        bursts = int(self._owed_lost / burst + 1e-9)
        self._owed_lost -= bursts * burst
        places = self._chance.sample(range(PACKETS // burst), bursts)
        self._lost = {place * burst + n for place in places for n in range(burst)}
        self._owed_overtaken += self._line.reorder_percent * PACKETS / 100
        pairs = int(self._owed_overtaken + 1e-9)
        self._owed_overtaken -= pairs
        # every other one, since two packets that change places are a pair
        self._overtaken = {2 * place for place in self._chance.sample(range(PACKETS // 2), pairs)}

"""What a hall measures of its time, for the front to tell whether there is any for one more call."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from gateway.hall.calls.call import Call
from gateway.hall.calls.pass_times import PassTimes
from gateway.hall.media.audio import HOUSE_HZ
from gateway.hall.parts.clocks import Clocks
from gateway.hall.parts.first_sounds import FirstSounds
from gateway.ipc.hall_messages import HallLoad

EVERY_S: Final = 0.5
"""Between two looks, and so between two words to the front."""
HEARD_OVER: Final = 10
"""Looks at the recognisers' queue whose mean counts: 5 s, since some callers always ask at once."""
SETTLED: Final = HOUSE_HZ
"""Samples that a call has said by when it shows what it costs."""
STRAINED: Final = 0.5
"""The part of a bound from which the hall spares the engine what it need not be asked for."""


class LoadGauge:
    """See the module."""

    def __init__(
        self,
        passes: PassTimes,
        calls: Mapping[str, Call],
        hearing_s: Callable[[], float],
        bounds: Mapping[str, float],
        clocks: Clocks,
    ) -> None:
        """`hearing_s`: how long words that came now would wait for a recogniser. `bounds`: by measure."""
        self._passes = passes
        self._calls = calls
        self._hearing_s = hearing_s
        self._bounds = bounds
        self._clocks = clocks
        self._heard: deque[float] = deque(maxlen=HEARD_OVER)
        self.first_sounds = FirstSounds(self._waiting_s)
        self.load = HallLoad()
        """as it was at the last look"""

    def look(self) -> HallLoad:
        """Measures; call it every `EVERY_S`."""
        now, calls = self._clocks.monotonic(), self._calls.values()
        passes = self._passes.figures(now)
        self._heard.append(self._hearing_s())
        self.load = HallLoad(
            calls=len(calls),
            settled=sum(call.seat.spoken_samples >= SETTLED for call in calls),
            pass_s=passes.took_s,
            late_s=passes.late_s,
            late_turns=passes.late_share,
            hearing_s=sum(self._heard) / len(self._heard),
            first_sound_s=self.first_sounds.slow_s(now),
        )
        strain = max(self.load.strain(self._bounds).values(), default=0.0)
        self.first_sounds.note_strain(strain > STRAINED)
        return self.load

    def _waiting_s(self) -> Iterator[float]:
        """For how long each call has waited for a first sound that has not come."""
        for call in self._calls.values():
            if (waits_s := call.speech.soundless_s) is not None:
                yield waits_s

    def snapshot(self) -> dict[str, float]:
        """For the metrics, which `look` brings up to date."""
        load = self.load
        return {
            "pass_p99_s": load.pass_s, "late_p99_s": load.late_s, "late_share": load.late_turns,
            "hearing_wait_s": load.hearing_s, "first_sound_p90_s": load.first_sound_s,
            "settled": load.settled,
        }  # fmt: skip

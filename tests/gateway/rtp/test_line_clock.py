"""A line's clock: what is owed goes out before the next tick; a stall is made up for, up to a point."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise

import pytest

from gateway.rtp.line_clock import MOST_TICKS_AT_ONCE, LineClock


class Turned:
    """What a clock called, in order: a tick's number, or the range of ticks whose frames went out."""

    def __init__(self, ticks: int, then: Callable[[int], None] = lambda _: None) -> None:
        self.said: list[int | range] = []
        self._left = ticks
        self._then = then
        self.clock = LineClock(self._tick, self.said.append)

    def _tick(self, number: int) -> None:
        self.said.append(number)
        self._left -= 1
        self._then(len(self.ticks))

    @property
    def ticks(self) -> list[int]:
        return [one for one in self.said if isinstance(one, int)]

    async def run(self) -> None:
        await self.clock.run(lambda: self._left > 0)


async def test_what_a_tick_is_owed_goes_out_before_the_next_one() -> None:
    turned = Turned(6)
    await turned.run()
    owed: list[int] = []
    for one in turned.said:
        if isinstance(one, int):
            owed.append(one)
        else:
            assert list(one) == owed
            owed = []
    assert len(turned.ticks) - len(owed) >= 5 - MOST_TICKS_AT_ONCE
    assert all(b > a for a, b in pairwise(turned.ticks))


async def test_a_stall_is_made_up_for() -> None:
    turned = Turned(30, lambda count: time.sleep(0.05) if count == 3 else None)
    await turned.run()
    late = [one for one in turned.said if isinstance(one, range) and len(one) > 1]
    assert late  # the frames of what was made up for go out together
    assert turned.clock.late >= 1


async def test_of_a_longer_stall_the_last_hundred_milliseconds_are() -> None:
    turned = Turned(30, lambda count: time.sleep(0.25) if count == 2 else None)
    await turned.run()
    assert max(b - a for a, b in pairwise(turned.ticks)) >= 12 - MOST_TICKS_AT_ONCE
    assert max(len(one) for one in turned.said if isinstance(one, range)) == MOST_TICKS_AT_ONCE


async def test_an_error_of_ours_ends_it() -> None:
    def breaks(count: int) -> None:
        if count == 2:
            raise RecursionError("what nobody expects")

    with pytest.raises(RecursionError):
        await Turned(8, breaks).run()

"""How a part of the gateway is, asked within its own deadline: one that is slow makes no other look so."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, Generic, Literal, TypeVar

from model.tasks import Tasks

T = TypeVar("T")

PartState = Literal["ready", "slow", "down"]
"""Slow: it was ready a moment ago, and has not said in time how it is now."""

SLOW_FOR_S: Final = 10.0
"""A part that has been silent for longer is down."""
_FROM_WORST: Final[tuple[PartState, ...]] = ("down", "slow", "ready")


class Probe(Generic[T]):
    """Asks one part how it is, never twice at once, and remembers what it said last."""

    def __init__(self, ask: Callable[[], Awaitable[T]], answer_s: float, name: str) -> None:
        """`ask` returns what a ready part says of itself.

        `False`, or an `Exception` that is not `TimeoutError`, means down. It is waited for `answer_s`.
        """
        self._ask = ask
        self._answer_s = answer_s
        self._name = name
        self._tasks = Tasks()
        self._asking: asyncio.Task[tuple[T, float]] | None = None
        self._silent_since: float | None = None
        self.last: T | None = None
        """What it said last, for as long as it counts as ready or slow."""

    async def state(self) -> PartState:
        """How the part is now."""
        now = asyncio.get_running_loop().time()
        if self._silent_since is None:
            self._silent_since = now
        if self._asking is None:
            self._asking = self._tasks.short(self._timed(), f"ready.{self._name}", told=(Exception,))
        asking = self._asking
        done, _ = await asyncio.wait({asking}, timeout=self._answer_s)
        if done and self._asking is asking:
            self._asking = None
        if not done or asking.cancelled() or isinstance(asking.exception(), TimeoutError):
            return self._silent(now)
        self._silent_since = None
        if asking.exception() is not None or asking.result()[0] is False:
            self.last = None
            return "down"
        self.last, took_s = asking.result()
        return "ready" if took_s <= self._answer_s else "slow"

    def _silent(self, now: float) -> PartState:
        since = now if self._silent_since is None else self._silent_since
        if self.last is not None and now - since < SLOW_FOR_S:
            return "slow"
        self.last = None
        return "down"

    async def _timed(self) -> tuple[T, float]:
        began = asyncio.get_running_loop().time()
        said = await self._ask()
        return said, asyncio.get_running_loop().time() - began


def worst(states: Iterable[PartState]) -> PartState:
    """How a thing is that has several parts; down when it has none."""
    return min(states, key=_FROM_WORST.index, default="down")

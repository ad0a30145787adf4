"""Tells one receiver its events until it has them: at least once, in order of each call, without hurry.

What fails is tried again after a pause that doubles, up to a minute, with chance in it. A receiver that is
away, or refuses the events of several calls, is left alone as a whole for as long; one that refuses a single
event keeps no other call waiting.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, Protocol

import structlog

from gateway.front.events.deliveries import Deliveries, Delivery
from gateway.front.events.event_file import ShelfError
from gateway.front.events.event_shelf import EventShelf, KeptEvent
from model.tasks import race

log = structlog.get_logger("events")

FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 60.0
LONGEST_ASKED_S: Final = 3600.0
"""How long a receiver may ask to be left alone (`Retry-After`)."""
LOOK_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class TellOutcome:
    """What a receiver made of an event; `never`: it is not to be told it again."""

    said: Literal["taken", "later", "never"]
    why: str = ""
    after_s: float = 0.0
    """how long it wants to be left alone"""
    answered: bool = False
    """it is there, and refuses this event"""
    silent: bool = False
    """the log has heard of such already, and nothing has become better since"""


TAKEN: Final = TellOutcome("taken")


class Receiver(Protocol):
    """Somebody who is told."""

    name: str
    at_once: int
    """events of so many calls may be on their way to it"""
    retry_s: float
    """how long one event is tried"""

    def wants(self, event: KeptEvent) -> bool:
        """Whether it is told this one."""

    async def tell(self, event: KeptEvent, missed: int) -> TellOutcome:
        """Tells it. Raises nothing."""


class Courier:
    """One receiver's. `bell` rings when there may be more."""

    def __init__(
        self, shelf: EventShelf, deliveries: Deliveries, receiver: Receiver, bell: Callable[[], asyncio.Event]
    ) -> None:
        self._shelf = shelf
        self._deliveries = deliveries
        self._receiver = receiver
        self._bell = bell
        self._fails = 0
        self._disk_fails = 0

    async def run(self) -> None:
        """Tells whatever is due, until cancelled. The disk may be away."""
        while True:
            bell = self._bell()
            try:
                due = await asyncio.to_thread(
                    self._deliveries.due, self._receiver.name, self._receiver.at_once
                )
                if due:
                    await asyncio.sleep(await self._round(due))
                    continue
                next_at = await asyncio.to_thread(self._deliveries.next_at, self._receiver.name)
                self._disk_fails = 0
            except ShelfError as error:
                self._disk_fails += 1
                if self._disk_fails == 1:
                    log.error("receiver.not_told", receiver=self._receiver.name, error=str(error))
                await asyncio.sleep(
                    pause_s(self._disk_fails)
                )  # what it has and we could not note comes again
                continue
            left_s = LOOK_S if next_at is None else max(0.01, min(LOOK_S, next_at - time.time()))
            await race(bell.wait(), within_s=left_s)

    async def _round(self, due: list[Delivery]) -> float:
        """Tells some; returns for how long the receiver is to be left alone. Raises `ShelfError`."""
        outcomes = await asyncio.gather(*(self._one(one) for one in due))
        if any(outcome.said != "later" for outcome in outcomes):
            if self._fails:
                log.info("receiver.back", receiver=self._receiver.name)
            self._fails = 0
            return 0.0
        if len(outcomes) == 1 and outcomes[0].answered and not outcomes[0].after_s and not self._fails:
            return 0.0  # it has its own pause
        self._fails += 1
        if self._fails == 1:
            log.warning("receiver.away", receiver=self._receiver.name, error=outcomes[0].why)
        asked_s = min(LONGEST_ASKED_S, max(outcome.after_s for outcome in outcomes))
        return max(asked_s, pause_s(self._fails))

    async def _one(self, one: Delivery) -> TellOutcome:
        receiver, deliveries = self._receiver, self._deliveries
        event = await asyncio.to_thread(self._shelf.numbered, one.number)
        if event is None:
            outcome = TellOutcome("never", "it is not kept any more")
        elif not receiver.wants(event):  # any more
            outcome = TAKEN
        else:
            outcome = await receiver.tell(event, one.missed)
        if outcome.said == "taken":
            await asyncio.to_thread(deliveries.taken, receiver.name, [one])
        elif outcome.said == "never" or time.time() - one.since > receiver.retry_s:
            if not outcome.silent:
                log.error("receiver.missed", receiver=receiver.name, call_id=one.call_id, error=outcome.why)
            await asyncio.to_thread(deliveries.dead, receiver.name, one)
        else:
            if not one.tries:
                log.info("receiver.refused", receiver=receiver.name, call_id=one.call_id, error=outcome.why)
            at = time.time() + pause_s(one.tries + 1)
            await asyncio.to_thread(deliveries.later, receiver.name, one, at)
        return outcome


def pause_s(tries: int) -> float:
    """Before the next try after so many: half of it is by chance, so that not all come at once."""
    longest = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(tries - 1, 10))
    return longest * random.uniform(0.5, 1.0)  # noqa: S311  # no secret

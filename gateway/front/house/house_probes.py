"""How the parts are that the front itself does not hold: halls, engine, Redis, SQL, the consent office."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

from gateway.errors import RpcError, RpcTimeout
from gateway.ipc.hall_messages import HallHealth, Health
from gateway.ipc.readiness import SLOW_FOR_S, PartState, Probe, worst
from gateway.ipc.rpc import Peer

ANSWER_S: Final = 1.0
"""A part that has not said by then how it is, is slow."""
SILENT_S: Final = 5.0
"""How long one question waits for a hall that says nothing."""


@dataclass(frozen=True, slots=True)
class ProbedHouse:
    """What the probes found: the parts' states, and what halls and database said of themselves last."""

    parts: dict[str, PartState]
    halls: dict[str, HallHealth]
    """Of those that spoke, by name; one that is slow is as it was when it spoke last."""
    voices: tuple[str, ...]


class HouseProbes:
    """Asks all of them at once; each has its own deadline."""

    def __init__(
        self,
        halls: int,
        connected: Mapping[str, Peer],
        voices: Callable[[], tuple[str, ...]],
        registry: Callable[[], bool],
        redis: Callable[[], Awaitable[bool]],
    ) -> None:
        """`connected` are the halls that are there now, by name.

        `voices` asks the consent office, and `registry` the database, each in a thread; they raise when they
        cannot. `redis` is whether this process reaches Redis.
        """
        self._connected = connected
        names = [f"hall{k}" for k in range(halls)]
        self._halls = {name: Probe(partial(self._health, name), ANSWER_S, name) for name in names}
        self._office = Probe(partial(asyncio.to_thread, voices), ANSWER_S, "office")
        self._sql = Probe(partial(asyncio.to_thread, registry), ANSWER_S, "sql")
        self._redis = Probe(redis, ANSWER_S, "redis")
        self._engine: PartState = "down"
        self._engine_at = -SLOW_FOR_S
        """When a hall said so last."""

    async def ask(self) -> ProbedHouse:
        """Waits `ANSWER_S` at most."""
        *of_halls, office, sql, redis = await asyncio.gather(
            *(hall.state() for hall in self._halls.values()),
            self._office.state(),
            self._sql.state(),
            self._redis.state(),
        )
        halls = {name: hall.last for name, hall in self._halls.items() if hall.last is not None}
        return ProbedHouse(
            parts={
                "hall": worst(of_halls),
                "engine": self._engine_of(halls),
                "redis": worst((redis, *(health.state_of("redis") for health in halls.values()))),
                "SQL": sql,
                "consent office": office,
            },
            halls=halls,
            voices=self._office.last or (),
        )

    def _engine_of(self, halls: dict[str, HallHealth]) -> PartState:
        """Only halls know it; while none is there it is taken to be as it was, for a while."""
        now = asyncio.get_running_loop().time()
        if halls:
            self._engine, self._engine_at = worst(health.state_of("engine") for health in halls.values()), now
        return self._engine if now - self._engine_at < SLOW_FOR_S else "down"

    async def _health(self, name: str) -> HallHealth:
        hall = self._connected.get(name)
        if hall is None:
            raise RpcError(f"{name} is not connected")
        try:
            return await hall.ask(Health(), SILENT_S)
        except RpcTimeout as error:
            raise TimeoutError(str(error)) from None

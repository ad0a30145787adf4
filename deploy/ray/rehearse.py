"""Rehearses what a cluster does by itself: a rolling update around a conversation, scaling up and down.

    python -m deploy.ray.rehearse

One replica of the embedded engine with four slots, on a cluster of this machine alone; prints what happened.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

os.environ |= {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # nodes are at 127.0.0.1
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "1",
    "VOICEGATE_ENGINE_TOKEN": "a-token-for-the-rehearsal",
    "VOICEGATE_ENGINE_CALLS": "4",
}

import httpx
import ray
from ray import serve

from consent.office.office import ConsentOffice
from model.client import EngineClient, EngineSession
from model.cluster import ClusterSettings, application
from model.errors import EngineLost

TOKEN = os.environ["VOICEGATE_ENGINE_TOKEN"]
PORT = 18_010
SCALING = {
    "min_replicas": 1,
    "max_replicas": 3,
    "look_back_period_s": 3,
    "upscale_delay_s": 2,
    "downscale_delay_s": 5,
    "policy": {"policy_function": "model.cluster:by_slots"},
}


class Rehearsal:
    """`office` grants the conversations their voice."""

    def __init__(self, office: ConsentOffice) -> None:
        self._office = office
        self._began = time.monotonic()
        self._client = EngineClient(f"http://127.0.0.1:{PORT}", boot_token=TOKEN)

    def note(self, what: str, told: list[tuple[str, int]]) -> None:
        shown = ", ".join(f"{name} ({used} in use)" for name, used in told) or "none"
        click.echo(f"{time.monotonic() - self._began:6.1f} s  {what}; engines told: {shown}")

    async def deploy(self, spare: int, **options: Any) -> None:
        settings = ClusterSettings(
            engine="embedded", grant_keys=self._office.public_keys_path, spare=spare, drain_s=120
        )
        app = application(settings, ray_actor_options={"num_cpus": 0}, **options)
        await asyncio.to_thread(serve.run, app)

    async def told(self) -> list[tuple[str, int]]:
        async with httpx.AsyncClient(timeout=5, trust_env=False) as http:
            headers = {"X-Voicegate-Boot": TOKEN}
            answer = await http.get(f"http://127.0.0.1:{PORT}/v1/engines", headers=headers)
        return [(engine["replica"], engine["used"]) for engine in answer.json()["engines"]]

    async def until(self, what: str, happened: Callable[[list[tuple[str, int]]], bool]) -> None:
        async with asyncio.timeout(120):
            while not happened(told := await self.told()):  # noqa: ASYNC110 - another process's doing
                await asyncio.sleep(0.2)
        self.note(what, told)

    async def talk(self, call_id: str) -> EngineSession:
        grant = self._office.grant(
            voice="heart", purpose="support", dialplan="demo", language="en", call_id=call_id
        )
        return await self._client.connect(grant.token)

    async def update(self) -> None:
        """A rolling update with a conversation under way."""
        await self.deploy(1, num_replicas=1)
        await self.until("one replica", lambda told: len(told) == 1)
        ((old, _),) = await self.told()
        session = await self.talk("a")
        rolling = asyncio.create_task(self.deploy(0, num_replicas=1))
        await self.until("the old one takes nobody", lambda told: old not in dict(told))
        await self.until("the new one does", lambda told: bool(told))
        await session.update(lead_s=1.0)  # raises when the old one has not kept its conversation
        if rolling.done():
            raise EngineLost("the update did not wait for the conversation")
        await session.aclose()
        await rolling
        self.note("the conversation was over, and so was the update", await self.told())

    async def scale(self) -> None:
        """Three conversations in three open slots, then none."""
        await self.deploy(1, autoscaling_config=SCALING)
        await self.until("one replica", lambda told: len(told) == 1)
        sessions = [await self.talk(f"s{k}") for k in range(3)]
        await self.until("three conversations", lambda told: sum(used for _, used in told) == 3)
        await self.until("another replica", lambda told: len(told) == 2)
        for session in sessions:
            await session.aclose()
        await self.until("one replica again", lambda told: len(told) == 1)


async def rehearse(office: ConsentOffice) -> None:
    rehearsal = Rehearsal(office)
    await rehearsal.update()
    await rehearsal.scale()


@click.command()
def main() -> None:
    """Runs both."""
    ray.init(
        num_cpus=1,
        include_dashboard=False,
        object_store_memory=80 << 20,
        namespace="serve",
        log_to_driver=False,
    )
    serve.start(http_options={"host": "127.0.0.1", "port": PORT})
    with tempfile.TemporaryDirectory() as folder:
        office = ConsentOffice.open(f"sqlite:///{folder}/db", Path(folder, "consent"))
        asyncio.run(rehearse(office))
        office.close()
    ray.shutdown()


if __name__ == "__main__":
    main()

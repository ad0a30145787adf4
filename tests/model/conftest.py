"""An engine process's worth of server, in this process, over TCP or a unix socket; grants for it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from websockets.asyncio.client import ClientConnection, connect

from consent.grants.grant import GrantVerifier, VoiceGrant
from consent.grants.scope import Scope
from consent.office.office import ConsentOffice
from model.api import Engine
from model.reference import ReferenceDesk
from model.server import FetchReference, build

WITHIN_S = 10.0


class Grants:
    """A consent office of the tests' own."""

    def __init__(self, folder: Path) -> None:
        self.office = ConsentOffice.open(f"sqlite:///{folder}/consent.sqlite", folder)
        self.verifier = GrantVerifier.load(self.office.public_keys_path)

    def issue(self, call_id: str = "call-1", now: float | None = None) -> VoiceGrant:
        return self.office.grant(Scope("heart", "support", "demo", "en", call_id), now=now)


@pytest.fixture(scope="session")
def grants() -> Iterator[Grants]:
    with tempfile.TemporaryDirectory(prefix="vgt-") as folder:
        grants = Grants(Path(folder))
        yield grants
        grants.office.close()


@dataclass
class Served:
    """A server that listens at `port` of 127.0.0.1."""

    port: int
    grants: Grants

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    @contextlib.asynccontextmanager
    async def wire(self, grant: VoiceGrant | None = None, **options: Any) -> AsyncIterator[Wire]:
        """A raw client with a session, `session.created` read."""
        token = (grant or self.grants.issue()).token
        headers = {"Authorization": f"Bearer {token}"}
        async with connect(
            f"{self.url}/v1/realtime", additional_headers=headers, proxy=None, **options
        ) as socket:
            wire = Wire(socket)
            wire.created = await wire.until("session.created")
            yield wire


class Wire:
    """Events as they travel."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.created: dict[str, Any] = {}

    async def say(self, kind: str, **fields: Any) -> None:
        await self.socket.send(json.dumps({"type": kind, **fields}))

    async def next(self) -> Any:
        """The next event, or a binary frame's bytes."""
        async with asyncio.timeout(WITHIN_S):
            frame = await self.socket.recv()
        return frame if isinstance(frame, bytes) else json.loads(frame)

    async def gather(self, kind: str) -> list[Any]:
        """Everything up to the next event of that kind, which is the last."""
        events: list[Any] = []
        while not events or isinstance(events[-1], bytes) or events[-1]["type"] != kind:
            events.append(await self.next())
        return events

    async def until(self, kind: str) -> dict[str, Any]:
        return (await self.gather(kind))[-1]

    async def ask(self, kind: str, answer: str, **fields: Any) -> dict[str, Any]:
        await self.say(kind, **fields)
        return await self.until(answer)

    async def error(self, kind: str, **fields: Any) -> dict[str, Any]:
        """What the engine says to a wrong event."""
        return (await self.ask(kind, "error", **fields))["error"]


@contextlib.asynccontextmanager
async def serve(
    engine: Engine,
    grants: Grants,
    boot_token: str | None = None,
    revoked: Callable[[VoiceGrant], bool] = lambda _: False,
    fetch: FetchReference | None = None,
) -> AsyncIterator[Served]:
    """Any engine, served as it is in production. `fetch`: where its voices come from, if it has none."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)  # the kernel's may be tens of MB
    fetch = fetch or ReferenceDesk(None, None).fetch
    app = build(engine, grants.verifier, fetch, boot_token, revoked)
    config = uvicorn.Config(app, log_level="error", ws="websockets-sansio", ws_max_size=1 << 22)
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup([listener])  # without its main loop, which looks for its end ten times a second
    try:
        yield Served(listener.getsockname()[1], grants)
    finally:
        await server.shutdown([listener])


def pcm16(seconds: float, amplitude: float = 0.3) -> bytes:
    """A tone."""
    at = np.arange(round(seconds * 24_000)) / 24_000
    return (amplitude * 32767 * np.sin(2 * np.pi * 440 * at)).astype("<i2").tobytes()

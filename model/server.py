"""Any engine as an ASGI app: `GET /v1/realtime` (WebSocket), `/healthz`, `/metrics`.

    python -m model.server --engine embedded --uds PATH

Authorisation is the call's `VoiceGrant`; where the server was given a boot token, the header
`X-Voicegate-Boot` must carry it too. A grant's jti is good for one open connection.
"""

from __future__ import annotations

import asyncio
import hmac
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import click
import structlog
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from consent.errors import GrantRefused
from consent.grant import GrantVerifier, VoiceGrant
from model import events
from model.api import Engine, Reference
from model.errors import EngineBusy, EngineError
from model.reference import ReferenceDesk
from model.session import Session

log = structlog.get_logger("engine")

FetchReference = Callable[[VoiceGrant], Awaitable[Reference]]


class EngineApp:
    """One engine's sockets."""

    def __init__(
        self,
        engine: Engine,
        verifier: GrantVerifier,
        fetch: FetchReference,
        boot_token: str | None = None,
    ) -> None:
        self._engine = engine
        self._verifier = verifier
        self._fetch = fetch
        self._boot_token = boot_token
        self._jtis: set[str] = set()
        self._refused: dict[str, int] = {}
        self._served = 0

    def asgi(self) -> Starlette:
        return Starlette(
            routes=[
                WebSocketRoute("/v1/realtime", self._realtime),
                Route("/healthz", self._health),
                Route("/metrics", self._metrics),
            ]
        )

    async def _health(self, _: Request) -> Response:
        return JSONResponse({"ok": True, "conversations": len(self._jtis)})

    async def _metrics(self, _: Request) -> Response:
        lines = [
            f"voicegate_engine_conversations {len(self._jtis)}",
            f"voicegate_engine_conversations_total {self._served}",
            *(f'voicegate_engine_refused_total{{reason="{k}"}} {n}' for k, n in self._refused.items()),
        ]
        return PlainTextResponse("\n".join(lines) + "\n")

    async def _deny(self, websocket: WebSocket, status: int, code: str, message: str) -> None:
        self._refused[code] = self._refused.get(code, 0) + 1
        body = {"error": {"code": code, "message": message}}
        await websocket.send_denial_response(JSONResponse(body, status_code=status))

    async def _realtime(self, websocket: WebSocket) -> None:
        headers = websocket.headers
        if self._boot_token is not None and not hmac.compare_digest(
            headers.get("x-voicegate-boot", ""), self._boot_token
        ):
            await self._deny(websocket, 401, "unauthorized", "this engine wants its gateway's boot token")
            return
        token = headers.get("authorization", "").removeprefix("Bearer ").strip()
        try:
            grant = self._verifier.verify(token)
            if grant.jti in self._jtis:
                raise GrantRefused("replayed", "this grant is in use on another connection")
        except GrantRefused as refusal:
            await self._deny(websocket, 403, f"grant_{refusal.reason}", str(refusal))
            return
        self._jtis.add(grant.jti)
        try:
            conversation = await self._engine.open(grant, await self._fetch(grant))
        except (EngineError, GrantRefused) as error:
            self._jtis.discard(grant.jti)
            code = "busy" if isinstance(error, EngineBusy) else getattr(error, "code", "grant_refused")
            await self._deny(websocket, 503 if isinstance(error, EngineBusy) else 502, code, str(error))
            return
        self._served += 1
        await websocket.accept()
        lock = asyncio.Lock()

        async def send(event: events.Event | bytes) -> None:
            async with lock:
                if websocket.client_state is not WebSocketState.CONNECTED:
                    return
                if isinstance(event, bytes):
                    await websocket.send_bytes(event)
                else:
                    await websocket.send_text(events.dump(event))

        session = Session(conversation, grant, self._verifier.verify, self._engine.limits, send)
        try:
            await session.start()
            await self._read(websocket, session)
        except WebSocketDisconnect:
            pass
        finally:
            await session.close()
            self._jtis.discard(grant.jti)

    async def _read(self, websocket: WebSocket, session: Session) -> None:
        while True:
            message = await websocket.receive()
            if message["type"] == "websocket.disconnect":
                return
            if (raw := message.get("bytes")) is not None:
                await session.take_binary(raw)
            elif (text := message.get("text")) is not None:
                await session.take(text)


def build(
    engine: Engine, verifier: GrantVerifier, fetch: FetchReference, boot_token: str | None
) -> Starlette:
    """The ASGI app of one engine."""
    return EngineApp(engine, verifier, fetch, boot_token).asgi()


async def load(name: str) -> Engine:
    """The engine of that name, its weights loaded. Raises `EngineError` saying what is missing."""
    if name == "embedded":
        from model.embedded.engine import EmbeddedEngine

        return await EmbeddedEngine.load(conversations=int(os.environ.get("VOICEGATE_ENGINE_CALLS") or 64))
    if name == "chroma":
        source = os.environ.get("VOICEGATE_CHROMA")
        if not source:
            raise EngineError("VOICEGATE_CHROMA names no checkpoint: a directory, or FlashLabs/Chroma-4B")
        try:
            from model.chroma.engine import ChromaEngine, EngineSettings
        except ModuleNotFoundError as error:
            missing = f"the Chroma engine needs {error.name}: pip install 'voicegate[chroma]'"
            raise EngineError(missing) from None
        return await ChromaEngine.load(source, EngineSettings.from_environ(os.environ))
    raise EngineError(f"no engine is called {name!r}; there are embedded and chroma")


async def serve(name: str, keys: Path, front: Path | None, **listen: Any) -> None:
    """Serves until the process is told to stop. `listen`: uvicorn's uds, or host and port."""
    engine = await load(name)
    token = os.environ.get("VOICEGATE_BOOT_TOKEN")
    desk = ReferenceDesk(front, token)
    app = build(engine, GrantVerifier.load(keys), desk.fetch, token)
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, ws="websockets-sansio", ws_max_size=1 << 22, **listen
    )
    try:
        await uvicorn.Server(config).serve()
    finally:
        await engine.close()


@click.command()
@click.option("--engine", "name", type=click.Choice(["embedded", "chroma"]), default="embedded")
@click.option("--uds", type=click.Path(path_type=Path), help="listen on this unix socket")
@click.option("--host", default="127.0.0.1")
@click.option("--port", type=int, help="listen on this TCP port instead")
@click.option(
    "--keys", type=click.Path(path_type=Path, exists=True), required=True, help="grants' public keys"
)
@click.option("--front", type=click.Path(path_type=Path), help="the front's RPC socket, for voices")
def main(name: str, uds: Path | None, host: str, port: int | None, keys: Path, front: Path | None) -> None:
    """Serves one engine."""
    if (uds is None) == (port is None):
        raise click.UsageError("give either --uds or --port")
    listen: dict[str, Any] = {"uds": str(uds)} if uds is not None else {"host": host, "port": port}
    try:
        asyncio.run(serve(name, keys, front, **listen))
    except (EngineError, GrantRefused) as error:
        raise click.ClickException(str(error)) from None


if __name__ == "__main__":
    main()

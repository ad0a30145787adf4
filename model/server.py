"""Any engine as an ASGI app: `GET /v1/realtime` (WebSocket), `/healthz`, `/metrics`.

    python -m model.server --engine embedded --uds PATH

Authorisation is the call's `VoiceGrant`; where the server was given a token (its gateway's boot token, or
`VOICEGATE_ENGINE_TOKEN` of an engine that runs elsewhere), the header `X-Voicegate-Boot` must carry it too. A
grant's jti is good for one connection, over all engines that have a front. The last `spare` slots are for
calls that lost another engine (`X-Voicegate-Resumed`). `traceparent` says of which trace the call is.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import os
import secrets
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import click
import structlog
import uvicorn
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from consent import core_files
from consent.errors import GrantRefused
from consent.grants.grant import GrantVerifier, VoiceGrant
from model import engines, events, heap, json_log
from model.address import is_local
from model.api import Engine, Reference
from model.errors import ClientGone, EngineBusy, EngineError, GrantSpent
from model.proxy import EngineProxy
from model.reference import ReferenceDesk
from model.revoked_voices import RevokedVoices
from model.session import Session
from model.task_metrics import TaskFailures
from model.tasks import watch_loop
from model.trace_context import HEADER, enter, read_traceparent

log = structlog.get_logger("engine")

DRAIN_POLL_S: Final = 0.1

Revoked = Callable[[VoiceGrant], bool]
"""Whether a grant's voice was revoked."""
FetchReference = Callable[[VoiceGrant], Awaitable[Reference]]


class EngineApp:
    """One engine's sockets."""

    def __init__(
        self,
        engine: Engine,
        verifier: GrantVerifier,
        fetch: FetchReference,
        boot_token: str | None = None,
        revoked: Revoked = lambda _: False,
        spare: int = 0,
        doubt: Callable[[], str | None] = lambda: None,
        door: ReferenceDesk | None = None,
    ) -> None:
        """`doubt`: why a withdrawn voice may not be known here in time, None while it is.

        `door` redeems grants, so that each opens one connection over all engines; without one, over this
        engine's.
        """
        self._door = door
        self._engine = engine
        self._doubt = doubt
        self._spare = spare
        self._verifier = verifier
        self._fetch = fetch
        self._boot_token = boot_token
        self._revoked = revoked
        self._jtis: set[str] = set()
        self.draining = False
        self._registry = registry = CollectorRegistry()
        for name, text, value in (
            ("conversations", "Conversations now", lambda: self.used),
            ("slots", "Conversations that the engine can have at once", lambda: self.slots),
            ("spare", "Slots kept for calls that lost another engine", lambda: spare),
            ("draining", "1: it takes no more conversations", lambda: self.draining),
            ("revocations_in_doubt", "1: it may learn late of them", lambda: doubt() is not None),
        ):
            Gauge(f"voicegate_engine_{name}", text, registry=registry).set_function(value)
        self._served = Counter("voicegate_engine_served", "Conversations since the start", registry=registry)
        self._refused = Counter(
            "voicegate_engine_refused", "Conversations refused, by reason", ["reason"], registry=registry
        )
        TaskFailures("voicegate_engine_task_failures", "server", registry)

    @property
    def used(self) -> int:
        """Slots in use, those about to be opened too."""
        return len(self._jtis)

    @property
    def slots(self) -> int:
        return self._engine.limits.conversations

    async def drain(self, within_s: float) -> int:
        """Takes no more conversations and waits for those there are; answers how many are left after that."""
        self.draining = True
        until = time.monotonic() + within_s
        while self.used and time.monotonic() < until:  # noqa: ASYNC110 - a drain takes minutes
            await asyncio.sleep(DRAIN_POLL_S)
        return self.used

    def asgi(self) -> Starlette:
        return Starlette(
            routes=[
                WebSocketRoute("/v1/realtime", self._realtime),
                Route("/healthz", self._health),
                Route("/metrics", self._metrics),
            ]
        )

    async def _health(self, _: Request) -> Response:
        body = {
            "ok": not self.draining,
            "conversations": self.used,
            "slots": self.slots,
            "spare": self._spare,
            "revocations": self._doubt() or "ready",
        }
        return JSONResponse(body, 503 if self.draining else 200)

    async def _metrics(self, _: Request) -> Response:
        own = generate_latest(self._registry).decode()
        return PlainTextResponse(own + await self._engine.metrics())

    async def _deny(self, websocket: WebSocket, status: int, code: str, message: str) -> None:
        self._refused.labels(code).inc()
        body = {"error": {"code": code, "message": message}}
        await websocket.send_denial_response(JSONResponse(body, status_code=status))

    def _full(self, resumed: bool) -> str | None:
        """Why there is no slot; a call that lost another engine may have a spare one."""
        if self.draining:
            return "this engine finishes its conversations and takes no more"
        if self.used >= self.slots - (0 if resumed else self._spare):
            kept = f", {self._spare} of them for calls taken up again" if self._spare else ""
            return f"{self.slots} conversations are {self._engine.limits.bound}{kept}"
        return None

    def _claim(self, grant: VoiceGrant) -> None:
        """A grant is good for one connection at a time. Raises `GrantRefused`."""
        if self._revoked(grant):
            raise GrantRefused("revoked", f"the voice {grant.voice} was revoked")
        if grant.jti in self._jtis:
            raise GrantRefused("replayed", "this grant is in use on another connection")
        self._jtis.add(grant.jti)

    async def _realtime(self, websocket: WebSocket) -> None:
        headers = websocket.headers
        if self._boot_token is not None and not hmac.compare_digest(
            headers.get("x-voicegate-boot", ""), self._boot_token
        ):
            await self._deny(websocket, 401, "unauthorized", "this engine wants its gateway's boot token")
            return
        if (full := self._full("x-voicegate-resumed" in headers)) is not None:
            await self._deny(websocket, 503, "busy", full)
            return
        token = headers.get("authorization", "").removeprefix("Bearer").strip()
        try:
            if not token:
                raise GrantRefused("none", "a session needs a voice grant: Authorization: Bearer <grant>")
            grant = self._verifier.verify(token)
            self._claim(grant)
        except GrantRefused as refusal:
            await self._deny(websocket, 403, f"grant_{refusal.reason}", str(refusal))
            return
        connection = secrets.token_hex(16)
        try:
            if await self._redeemed(websocket, grant, connection):
                await self._converse(websocket, grant, connection)
        finally:
            self._jtis.discard(grant.jti)

    async def _redeemed(self, websocket: WebSocket, grant: VoiceGrant, connection: str) -> bool:
        """Whether the grant opens this connection; if not, the client is told."""
        try:
            if self._door is None or await self._door.redeem(grant, connection):
                return True
        except EngineError as error:
            await self._deny(websocket, 502, error.code, str(error))
            return False
        await self._deny(websocket, 403, GrantSpent.code, "this grant has opened a session before")
        return False

    async def _converse(self, websocket: WebSocket, first: VoiceGrant, connection: str) -> None:
        """One session in the voice of a claimed grant."""
        enter(read_traceparent(websocket.headers.getlist(HEADER)))
        try:
            conversation = await self._engine.open(first, await self._fetch(first))
        except (EngineError, GrantRefused) as error:
            if self._door is not None:
                await self._door.give_back(first, connection)
            code = "busy" if isinstance(error, EngineBusy) else getattr(error, "code", "grant_refused")
            await self._deny(websocket, 503 if isinstance(error, EngineBusy) else 502, code, str(error))
            return
        grant = first
        lock = asyncio.Lock()

        async def send(event: events.Event | bytes) -> None:
            async with lock:
                states = (websocket.client_state, websocket.application_state)  # an earlier word was in vain
                if states != (WebSocketState.CONNECTED, WebSocketState.CONNECTED):
                    raise ClientGone("the client has left")
                try:
                    if isinstance(event, bytes):
                        await websocket.send_bytes(event)
                    else:
                        await websocket.send_text(events.dump(event))
                except WebSocketDisconnect:
                    raise ClientGone("the client has left") from None

        def renew(token: str) -> VoiceGrant:
            nonlocal grant
            renewed = self._verifier.verify(token)
            if (renewed.call_id, renewed.voice_hash) != (grant.call_id, grant.voice_hash):
                raise GrantRefused("other_call", "a session keeps its call and its voice")
            if renewed.scope != grant.scope:
                raise GrantRefused("scope", "a session keeps its purpose, dialplan and language")
            if renewed.jti != grant.jti:
                if self._door is not None:
                    raise GrantRefused("replayed", "another grant opens another session")
                self._claim(renewed)
                self._jtis.discard(grant.jti)
            grant = renewed
            return renewed

        session = Session(conversation, first, renew, self._engine.limits, send, self._revoked)
        try:
            await websocket.accept()
            self._served.inc()
            await session.start()
            await self._read(websocket, session)
        except (WebSocketDisconnect, ClientGone):
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
    engine: Engine,
    verifier: GrantVerifier,
    fetch: FetchReference,
    boot_token: str | None,
    revoked: Revoked = lambda _: False,
    doubt: Callable[[], str | None] = lambda: None,
    door: ReferenceDesk | None = None,
) -> Starlette:
    """The ASGI app of one engine."""
    return EngineApp(engine, verifier, fetch, boot_token, revoked, doubt=doubt, door=door).asgi()


async def load(name: str) -> Engine:
    """The engine of that name, its weights loaded. Raises `EngineError` saying what is missing."""
    if name == "embedded":  # hears in a process of its own, and speaks in a thread without the lock
        return await engines.embedded()
    if name == "cascade":  # its thoughts are elsewhere
        return await engines.cascade()
    if name == "chroma":
        return await EngineProxy.start("model.engines:chroma", died=_end)
    raise EngineError(f"no engine is called {name!r}; there are embedded, cascade and chroma")


def _end() -> None:
    """A server without its engine ends at once: its clients see their sockets break, as when it dies itself,
    and whoever keeps it starts it anew."""
    os._exit(1)


def engine_token() -> str | None:
    """What a gateway must show: its boot token, or the one that both were given."""
    return os.environ.get("VOICEGATE_BOOT_TOKEN") or os.environ.get("VOICEGATE_ENGINE_TOKEN")


def _not_of_a_denial(record: logging.LogRecord) -> bool:
    """uvicorn takes a denied handshake for a forgotten one, and says so loudly at every refused grant."""
    return "without completing handshake" not in record.getMessage()


def listening(app: Starlette, **listen: Any) -> uvicorn.Config:
    """How an engine listens, alone and on a cluster. `listen`: uvicorn's uds, or host and port."""
    logging.getLogger("uvicorn.error").addFilter(_not_of_a_denial)
    return uvicorn.Config(
        app,
        log_level="warning",
        log_config=None,
        access_log=False,
        ws="websockets-sansio",
        ws_max_size=1 << 22,
        ws_ping_interval=5,  # a client that stops reading is let go within 15 s, whatever it has buffered
        ws_ping_timeout=10,
        ws_per_message_deflate=False,  # sound does not shrink
        **listen,
    )


async def serve(name: str, keys: Path, front: str | None, redis: str | None, **listen: Any) -> None:
    """Serves until the process is told to stop. `listen`: uvicorn's uds, or host and port."""
    watch_loop()
    verifier = GrantVerifier.load(keys)
    token = engine_token()
    desk = ReferenceDesk(front, token)
    engine = await load(name)
    heap.settle()
    # uvicorn raises a SIGTERM that it handled once more when it is done; by default that would end this
    # process before the engine has closed
    signal.signal(signal.SIGTERM, lambda *_: None)
    revoked = RevokedVoices(engine.forget, verifier, redis, desk)
    try:
        revoked.start()
        app = build(engine, verifier, desk.fetch, token, revoked.is_revoked, lambda: revoked.doubt, desk)
        await uvicorn.Server(listening(app, **listen)).serve()
    finally:
        await revoked.stop()
        await engine.close()


@click.command()
@click.option("--engine", "name", type=click.Choice(["embedded", "cascade", "chroma"]), default="embedded")
@click.option("--uds", type=click.Path(path_type=Path), help="listen on this unix socket")
@click.option("--host", default="127.0.0.1")
@click.option("--port", type=int, help="listen on this TCP port instead")
@click.option("--cert", type=click.Path(exists=True), help="serve TLS with this certificate (PEM, its chain)")
@click.option("--key", type=click.Path(exists=True), help="the certificate's private key")
@click.option(
    "--keys", type=click.Path(path_type=Path, exists=True), required=True, help="grants' public keys"
)
@click.option("--front", help="where voices come from: the front's RPC socket, or https://host:port")
@click.option("--redis", envvar="VOICEGATE_REDIS_URL", help="where revocations of voices are told")
def main(
    name: str,
    uds: Path | None,
    host: str,
    port: int | None,
    cert: str | None,
    key: str | None,
    keys: Path,
    front: str | None,
    redis: str | None,
) -> None:
    """Serves one engine."""
    if (uds is None) == (port is None):
        raise click.UsageError("give either --uds or --port")
    if port is not None and not is_local(host) and engine_token() is None:
        raise click.UsageError(f"an engine that listens at {host} needs VOICEGATE_ENGINE_TOKEN")
    listen: dict[str, Any] = {"uds": str(uds)} if uds is not None else {"host": host, "port": port}
    if cert is not None:
        listen |= {"ssl_certfile": cert, "ssl_keyfile": key}
    core_files.leave_none()
    json_log.configure("engine")
    try:
        asyncio.run(serve(name, keys, front, redis, **listen))
    except (EngineError, GrantRefused) as error:
        raise click.ClickException(str(error)) from None


if __name__ == "__main__":
    main()

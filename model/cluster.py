"""The engine on a Ray Serve cluster: Serve keeps the replicas, conversations go to them directly.

    serve run deploy/ray/serve.yaml

A `Replica` is one engine with the same ASGI app as alone, on a port of its own; a conversation's WebSocket
ends there and nowhere else, so it stays where it is until one of the two is gone. `Placement` is what Serve
shows outside: `GET /v1/engines` says which replicas there are, the one with most room first. Serve starts,
watches, replaces and scales; no sound goes through its proxy (docs/cluster.md has the measurement).
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import math
import os
import socket
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

import structlog
import uvicorn
from pydantic import BaseModel, ConfigDict, Field
from ray import serve
from ray.util import get_node_ip_address
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from consent.grants.grant import GrantVerifier
from model.errors import EngineError
from model.reference import ReferenceDesk
from model.revoked_voices import RevokedVoices
from model.server import EngineApp, engine_token, listening, load
from model.tasks import Tasks

log = structlog.get_logger("cluster")

LOOK_S: Final = 0.1
"""How often a replica looks whether it has news for the placement."""
REPORT_S: Final = 1.0
"""The longest that a replica says nothing to the placement."""
GONE_S: Final = 3.0
"""The placement gives no call to a replica that has said nothing for this long."""
KILLED_AFTER_S: Final = 10.0
"""Serve waits this much longer than the drain before it kills."""
FULL: Final = 0.8
"""Share of the open slots that are in use when another replica is started."""


class ClusterSettings(BaseModel):
    """The application's `args` in serve.yaml. What the engine itself reads are `VOICEGATE_…` variables."""

    model_config = ConfigDict(extra="forbid")

    engine: Literal["embedded", "cascade", "chroma"] = "embedded"
    grant_keys: Path = Field(description="the gateway's consent/grant-keys.json, on every node")
    front: str | None = Field(None, description="where voices come from: the gateway, https://host:port")
    redis: str | None = Field(None, description="the gateway's Redis, where revocations of voices are told")
    spare: int = Field(1, ge=0, description="slots of each replica kept for calls whose replica died")
    drain_s: float = Field(
        300.0, ge=0, description="how long a replica that is to go may finish its conversations"
    )
    host: str | None = Field(None, description="address that replicas listen at; unset: their node's")
    cert: str | None = Field(None, description="certificate (PEM) for wss://, on every node")
    key: str | None = Field(None, description="its private key")


@dataclass(frozen=True, slots=True)
class ReplicaStanding:
    """What a replica says of itself."""

    replica: str
    url: str
    pid: int
    slots: int
    used: int
    spare: int
    draining: bool

    @property
    def free(self) -> int:
        return self.slots - self.used


class Roster:
    """The replicas that spoke of late. `now` is a monotonic clock in seconds."""

    def __init__(self) -> None:
        self._standings: dict[str, tuple[ReplicaStanding, float]] = {}

    def take(self, standing: ReplicaStanding, now: float) -> None:
        self._standings[standing.replica] = standing, now

    def present(self, now: float) -> list[ReplicaStanding]:
        """All that live, also those that take nobody."""
        self._standings = {r: (s, at) for r, (s, at) in self._standings.items() if now - at < GONE_S}
        return [standing for standing, _ in self._standings.values()]

    def engines(self, now: float) -> list[ReplicaStanding]:
        """Where to go, most room first. Full ones come last: they refuse at once, or have a spare slot."""
        return sorted((s for s in self.present(now) if not s.draining), key=lambda s: -s.free)


@serve.deployment
class Replica:
    """One engine on one GPU (or CPU)."""

    async def __init__(self, settings: ClusterSettings) -> None:  # type: ignore[misc]  # Serve awaits it
        token = engine_token()
        if token is None:
            raise EngineError("an engine on a cluster needs VOICEGATE_ENGINE_TOKEN")
        self._settings = settings
        verifier = GrantVerifier.load(settings.grant_keys)
        desk = ReferenceDesk(settings.front, token)
        self._engine = await load(settings.engine)
        self._revoked = revoked = RevokedVoices(self._engine.forget, verifier, settings.redis, desk)
        revoked.start()
        self._app = EngineApp(
            self._engine, verifier, desk.fetch, token, revoked.is_revoked, settings.spare,
            doubt=lambda: revoked.doubt,
            door=desk,
        )  # fmt: skip
        host = settings.host or get_node_ip_address()
        listener = socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        self._url = f"{'wss' if settings.cert else 'ws'}://{host}:{listener.getsockname()[1]}"
        tls = {"ssl_certfile": settings.cert, "ssl_keyfile": settings.key} if settings.cert else {}
        self._server = uvicorn.Server(listening(self._app.asgi(), **tls))
        self._tasks = Tasks()
        self._serving = self._tasks.short(self._server.serve(sockets=[listener]), "replica.serve")
        self._tasks.lasting(self._report, "replica.report")

    def _standing(self, replica: str) -> ReplicaStanding:
        app = self._app
        return ReplicaStanding(
            replica, self._url, os.getpid(), app.slots, app.used, self._settings.spare, app.draining
        )

    async def _report(self) -> None:
        """Tells the placement what changed, and that we live."""
        context = serve.get_replica_context()
        placement = serve.get_deployment_handle("Placement", context.app_name)
        said, said_at = None, 0.0
        while True:
            standing = self._standing(context.replica_id.unique_id)
            now = time.monotonic()
            if standing != said or now - said_at >= REPORT_S:
                with contextlib.suppress(Exception):  # a placement that is away hears the next one
                    await asyncio.wait_for(placement.report.remote(asdict(standing)), REPORT_S)
                    said, said_at = standing, now
            await asyncio.sleep(LOOK_S)

    def check_health(self) -> None:
        """Serve replaces a replica for which this raises."""
        if self._serving.done():
            raise EngineError("the engine's server has ended")

    def record_autoscaling_stats(self) -> dict[str, float]:
        """What `by_slots` goes by."""
        return {"used": self._app.used, "open": self._app.slots - self._settings.spare}

    async def __del__(self) -> None:
        """Serve says goodbye: the conversations are finished for `drain_s`, then the callers' halls go on."""
        left = await self._app.drain(self._settings.drain_s)
        log.info("replica.drained", left=left)
        self._server.should_exit = self._server.force_exit = True
        await asyncio.gather(self._serving, return_exceptions=True)
        await self._tasks.stop()
        await self._revoked.stop()
        await self._engine.close()


@serve.deployment(
    num_replicas=1,
    ray_actor_options={"num_cpus": 0},
    max_ongoing_requests=1000,
    logging_config={"enable_access_log": False},  # reports come every second
)
class Placement:
    """Says where there is room. It holds nothing that cannot be told again within `REPORT_S`."""

    def __init__(self, replicas: Any) -> None:
        self._replicas = replicas  # so that Serve deploys them with us
        self._token = engine_token() or ""
        self._roster = Roster()

    async def report(self, standing: dict[str, Any]) -> None:
        """A replica's word."""
        self._roster.take(ReplicaStanding(**standing), time.monotonic())

    async def __call__(self, request: Request) -> Response:
        now = time.monotonic()
        path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
        if path == "/healthz":
            return JSONResponse({"ok": bool(self._roster.engines(now))})
        if not self._token or not hmac.compare_digest(
            request.headers.get("x-voicegate-boot", "").encode(), self._token.encode()
        ):
            return JSONResponse({"error": {"code": "unauthorized"}}, 401)
        if path == "/v1/engines":
            return JSONResponse({"engines": [asdict(standing) for standing in self._roster.engines(now)]})
        if path == "/metrics":
            return PlainTextResponse(exposition(self._roster.present(now)))
        return JSONResponse({"error": {"code": "not_found"}}, 404)


def exposition(present: list[ReplicaStanding]) -> str:
    """The replicas for Prometheus."""
    lines = [f"voicegate_cluster_replicas {len(present)}"]
    for standing in present:
        for name in ("slots", "used", "spare", "draining"):
            value = int(getattr(standing, name))
            lines.append(f'voicegate_cluster_{name}{{replica="{standing.replica}"}} {value}')
    return "\n".join(lines) + "\n"


def by_slots(context: Any) -> tuple[float, dict[str, Any]]:
    """Serve's autoscaling policy: as many replicas as keep at most `FULL` of the open slots in use."""
    measured = context.aggregated_metrics or {}
    used, room = (sum(measured.get(name, {}).values()) for name in ("used", "open"))
    replicas = len(measured.get("open", {}))
    if not room:
        return context.target_num_replicas, {}
    return math.ceil(used / (FULL * room / replicas)), {}


def application(settings: ClusterSettings, **options: Any) -> Any:
    """The Serve application; `options` of its replicas as Serve has them."""
    replica = Replica.options(  # type: ignore[attr-defined]  # made by the decorator
        graceful_shutdown_timeout_s=settings.drain_s + KILLED_AFTER_S,
        graceful_shutdown_wait_loop_s=LOOK_S,
        **options,
    )
    return Placement.bind(replica.bind(settings))  # type: ignore[attr-defined]


def build(args: ClusterSettings) -> Any:
    """The application of a serve.yaml, which sets the replicas' options itself."""
    return application(args)

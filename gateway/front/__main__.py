"""`python -m gateway.front`: the front as a process, started by the supervisor."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import structlog
import uvicorn
from starlette.types import ASGIApp

from consent.service.front_office import FrontOffice
from consent.service.office_client import OfficeClient
from gateway.config import ports, settings
from gateway.config.house_languages import why_no_languages
from gateway.config.paths import (
    grant_keys_path,
    kept_plans_path,
    mark_keys_path,
    office_socket,
    redis_url_for,
)
from gateway.config.runtime import runtime_for
from gateway.dialplan.house_plan import read_house_plan
from gateway.edge.flows.web_socket import MAX_FRAME
from gateway.errors import StartError
from gateway.front.admission.kept_plans import KeptPlans
from gateway.front.admission.routing import Routing
from gateway.front.front import Front
from gateway.front.house.metrics import Metrics
from gateway.front.http.app import build_app
from gateway.front.http.engine_door import engine_door, redeem_door, withdrawn_door
from gateway.front.http.identity_provider import IdentityProvider
from gateway.front.http.refused_offers import RefusedOffers
from gateway.store.api_tokens import ApiTokens
from gateway.store.call_headers import CallHeaders
from gateway.store.redeemed_grants import RedeemedGrants
from gateway.store.refused_calls import RefusedCalls
from gateway.store.registry import Registry
from gateway.store.sessions import Sessions
from gateway.store.sip_bindings import SipBindings
from gateway.store.sip_users import console_token
from model import heap, json_log
from model.tasks import watch_loop
from watermark.keys import KeyRing, MarkKey


class _Server(uvicorn.Server):
    """uvicorn without its own idea of signals: the front stops it."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def say_old_key(key: MarkKey, path: Path) -> None:
    """Logs a marking key of an older version, and how to have a new one."""
    if not key.has_envelope:
        structlog.get_logger("front").warning(
            "watermark.old_key",
            key=key.id,
            error="it marks with the carrier alone, as before",
            fix=f"voicegate watermark rotate {path}, then restart; {key.id} still detects",
        )


async def serve() -> None:
    conf = settings.load()
    json_log.configure("front", conf.log_level)
    watch_loop()
    runtime = runtime_for(conf.data_dir)
    token = os.environ.get("VOICEGATE_BOOT_TOKEN") or runtime.token()
    office = FrontOffice(OfficeClient(office_socket(conf)), grant_keys_path(conf))
    registry = Registry.open(conf.sql)
    RefusedCalls(registry).open()
    RedeemedGrants(registry).open()
    SipBindings(registry).open()
    CallHeaders(registry).open()
    tokens = ApiTokens(registry)
    tokens.open()
    ring = KeyRing.load(mark_keys_path(conf))
    say_old_key(ring.current, mark_keys_path(conf))
    sessions = await Sessions.open(redis_url_for(conf, runtime), ttl_s=conf.session_ttl_s, name="front")
    plan = read_house_plan(conf, office.names())
    if plan.hears_languages and (why := why_no_languages(conf)) is not None:
        structlog.get_logger("front").warning("languages.unheard", error=why)
    kept = KeptPlans(kept_plans_path(conf))
    kept.keep(plan)
    front = Front(
        settings=conf,
        runtime=runtime,
        token=token,
        routing=Routing(
            plan,
            office,
            registry,
            ring.current,
            stock_only=conf.stock_only,
            former=[key.id for key in ring.keys if key is not ring.current],
            plans=kept.all(),
        ),
        office=office,
        registry=registry,
        sessions=sessions,
        metrics=Metrics(),
    )
    doors = [front.feed.route()]
    if conf.engine_url and conf.engine_token is not None:
        shared = conf.engine_token.get_secret_value()
        doors += [
            engine_door(front.voices.reference, shared),
            withdrawn_door(front.hall_news.withdrawn, shared),
            redeem_door(front.grant_door.redeem, shared),
        ]
    provider = IdentityProvider.of(conf)
    app = build_app(
        front, conf, console_token(conf.data_dir), doors, tokens=tokens, counted=front.metrics.http_refused,
        on_wire=front.ladder.seen, provider=provider,
    )  # fmt: skip
    asgi = RefusedOffers(app, front.offer_refused, front.metrics.web_refused)
    servers = [(ports.http_port(conf), _server(asgi))]
    if (secure := front.certificate.for_browsers()) is not None:
        servers.append((ports.https_port(conf), _server(asgi, secure)))
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    with contextlib.ExitStack() as held:
        bound = [(held.enter_context(_bind(port, conf.host)), server) for port, server in servers]
        try:
            await front.start()
        except OSError as error:
            raise StartError(_sip_port_held(conf, error)) from None
        heap.settle()
        async with asyncio.TaskGroup() as group:  # a page that fails ends the front, which then comes back
            for listener, server in bound:
                group.create_task(_serve_on(server, listener, stop))
            structlog.get_logger("front").info("front.up", sip_port=conf.sip_port, http_port=conf.http_port)
            await stop.wait()
            front.feed.close()
            for _, server in bound:
                server.should_exit = True
    await front.stop()
    if provider is not None:
        await provider.close()


def _server(app: ASGIApp, secure: ssl.SSLContext | None = None) -> _Server:
    """`secure`: it speaks https by this context."""
    config = uvicorn.Config(
        app,
        log_level="warning",
        log_config=None,
        proxy_headers=False,  # the boundary believes proxies that the settings name, and no others
        access_log=False,
        lifespan="off",
        ws_max_size=MAX_FRAME,
        ws_per_message_deflate=False,
        ssl_context_factory=None if secure is None else lambda config, default: secure,
    )
    return _Server(config)


def _sip_port_held(conf: settings.Settings, error: OSError) -> str:
    """Which of SIP's ports the front did not get, and what to do."""
    for port in ports.all_ports(conf):
        if port.what.startswith("SIP"):
            try:
                port.bind(conf.host).close()
            except OSError as held:
                return port.refusal(conf.host, held)
    return ports.sip_port(conf, socket.SOCK_DGRAM).refusal(conf.host, error)


async def _serve_on(http: uvicorn.Server, listener: socket.socket, stop: asyncio.Event) -> None:
    """Serves until `stop`; a server that ends before has failed, whatever it says."""
    await http.serve([listener])
    if not stop.is_set():
        raise StartError("the HTTP server ended by itself")


def _bind(port: ports.Port, host: str) -> socket.socket:
    try:
        return port.bind(host)
    except OSError as error:
        raise StartError(port.refusal(host, error)) from None


def main() -> None:
    asyncio.run(serve())


if __name__ == "__main__":
    main()

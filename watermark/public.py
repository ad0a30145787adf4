"""The detector anyone may ask: a page and `POST /detect`, in a process of its own.

It answers yes, no or unsure, what was examined, and which technique the answer rests on. It never names a
payload or a score: whoever wants to erase a mark would use them as an oracle. Every question is examined in
a fresh child with limits on memory, CPU and files, at most `AT_ONCE` of them; size and length are capped
before. The key is read by the child only.

A 4xx says what is wrong with the question. A child that got too little time makes a 503, one that fails a
500: neither says anything about the recording. `GET /metrics` counts the answers by status.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import signal
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from math import ceil
from pathlib import Path
from typing import Final

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, generate_latest
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

LARGEST_BYTES: Final = 12 << 20
AT_ONCE: Final = 2
WAITING: Final = 8
"""Questions that may wait for a child; more are told to come again."""
WALL_S: Final = 1200.0
"""A child that is not done by then is ended: the machine has too little time for it."""
BODY_S: Final = 30.0
EVERY_S: Final = 6.0
"""One question per address in this time, after `BURST` of them."""
BURST: Final = 5
ADDRESSES: Final = 10_000
COME_AGAIN_S: Final = 60
STARVED: Final = (-signal.SIGXCPU, -signal.SIGKILL)
"""How a child ends that used up its CPU seconds, or whose memory the machine needed."""
EXAMINE: Final = (sys.executable, "-m", "watermark.examine")
TECHNIQUE: Final = "watermark"
RESTS_ON: Final = (
    "a keyed spread-spectrum watermark in the sound itself (voicegate), found by correlation; a false yes is "
    "rarer than one in a million recordings; it knows this gateway's voices and no other's"
)
"""What every answer says that it rests on, as the Code of Practice of the EU's AI Act asks of a detector."""
PAGE: Final = Path(__file__).with_name("public.html")
HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'self'; "
    "connect-src 'self'; form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


log = logging.getLogger(__name__)


class Patience:
    """How many questions each address may still ask: a bucket that fills by one every `EVERY_S`."""

    def __init__(self) -> None:
        self._seen: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def takes(self, address: str, now: float) -> bool:
        left, since = self._seen.pop(address, (float(BURST), now))
        left = min(float(BURST), left + (now - since) / EVERY_S)
        allowed = left >= 1
        self._seen[address] = (left - 1 if allowed else left, now)
        if len(self._seen) > ADDRESSES:
            self._seen.popitem(last=False)
        return allowed


class Proxies:
    """Reverse proxies whose `X-Forwarded-For` is believed: behind one, all askers have its address."""

    def __init__(self, networks: Sequence[str]) -> None:
        self._networks = [ipaddress.ip_network(network, strict=False) for network in networks]

    def asker(self, request: Request) -> str:
        """Who asks, as patience counts: an IPv4 address, or the /64 that an IPv6 host has to itself.

        The header's last address that is not a proxy's: what stands before it anybody may have written.
        """
        host = request.client.host if request.client else ""
        told = [part for value in request.headers.getlist("x-forwarded-for") for part in value.split(",")]
        asker = _address(host)
        for address in reversed(told):
            if asker is None or not any(asker in network for network in self._networks):
                break
            asker = _address(address) or asker
        if isinstance(asker, ipaddress.IPv6Address):
            return str(ipaddress.ip_network((asker, 64), strict=False))
        return host if asker is None else str(asker)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """An address, without port or brackets, IPv4 as IPv4; None for a text that is not one."""
    host = text.strip().strip('"')
    if host.startswith("["):
        host = host[1:].partition("]")[0]
    elif host.count(":") == 1:
        host = host.partition(":")[0]
    try:
        found = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found


class PublicDetector:
    """Children, counted. `examine`: the child's command, which gets the key file's path as its last argument;
    `clock`: seconds by which an address's patience grows; `proxies`: whose word on who asks is believed."""

    def __init__(
        self, keys_path: Path, examine: Sequence[str], clock: Callable[[], float], proxies: Proxies
    ) -> None:
        self._proxies = proxies
        self._command = (*examine, str(keys_path))
        self._clock = clock
        self._children = asyncio.Semaphore(AT_ONCE)
        self._asked = 0
        self._patience = Patience()
        self._registry = CollectorRegistry()
        self._answers = Counter(
            "voicegate_detector_answers",
            "Answers of the public detector, by HTTP status",
            ["status"],
            registry=self._registry,
        )

    async def page(self, request: Request) -> Response:
        return HTMLResponse(PAGE.read_text(), headers=HEADERS)

    async def script(self, request: Request) -> Response:
        return Response(PAGE.with_suffix(".js").read_text(), media_type="text/javascript", headers=HEADERS)

    async def metrics(self, request: Request) -> Response:
        return Response(generate_latest(self._registry), media_type=CONTENT_TYPE_LATEST)

    async def detect(self, request: Request) -> Response:
        """The body is a WAV file; `{"answer": "yes" | "no" | "unsure"}` or `{"error": ...}` comes back."""
        reply = await self._reply(request)
        self._answers.labels(str(reply.status_code)).inc()
        return reply

    async def _reply(self, request: Request) -> Response:
        address = self._proxies.asker(request)
        if not self._patience.takes(address, self._clock()):
            return refused(429, "too many questions: wait a few seconds", ceil(EVERY_S))
        if self._asked >= AT_ONCE + WAITING:
            return refused(503, "busy: come again in a minute", COME_AGAIN_S)
        self._asked += 1
        try:
            async with asyncio.timeout(BODY_S):
                wav = await body(request)
            if wav is None:
                return refused(413, f"the file is larger than {LARGEST_BYTES >> 20} MiB")
            async with self._children:
                return await self._examine(wav)
        except (TimeoutError, ClientDisconnect):
            return refused(408, "the file took too long to arrive")
        finally:
            self._asked -= 1

    async def _examine(self, wav: bytes) -> Response:
        child = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},  # waiting threads would use up its CPU seconds
        )
        said, late = b"", False
        try:
            async with asyncio.timeout(WALL_S):
                said, _ = await child.communicate(wav)
        except TimeoutError:
            late = True
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()
        word, _, reason = said.decode("utf-8", "replace").strip().partition(" ")
        if child.returncode == 0 and word in ("yes", "no", "unsure"):
            said_of = {"answer": word, "examined": reason, "technique": TECHNIQUE, "rests_on": RESTS_ON}
            return JSONResponse(said_of, headers=HEADERS)
        if child.returncode == 0 and word == "wrong":
            return refused(422, reason)
        if late or child.returncode in STARVED:
            log.warning("a recording of %d bytes was not examined: it took more time than there is", len(wav))
            return refused(
                503, "the detector ran out of time: try again, or send a shorter part", COME_AGAIN_S
            )
        log.error("the examination of %d bytes failed with status %s", len(wav), child.returncode)
        return refused(500, "the detector failed: this says nothing about the recording")


def refused(status: int, reason: str, again_s: int | None = None) -> Response:
    """`again_s`: when the same question may be asked again."""
    later = {} if again_s is None else {"Retry-After": str(again_s)}
    return JSONResponse({"error": reason}, status_code=status, headers={**HEADERS, **later})


async def body(request: Request) -> bytes | None:
    """The whole body; None when it is larger than it may be."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > LARGEST_BYTES:
            return None
        parts.append(part)
    return b"".join(parts)


def app(
    keys_path: Path,
    examine: Sequence[str] = EXAMINE,
    clock: Callable[[], float] = time.monotonic,
    proxies: Sequence[str] = (),
) -> Starlette:
    """The ASGI application. `proxies`: addresses or networks. Raises `ValueError` for what is neither."""
    detector = PublicDetector(keys_path, examine, clock, Proxies(proxies))
    return Starlette(
        routes=[
            Route("/", detector.page),
            Route("/public.js", detector.script),
            Route("/detect", detector.detect, methods=["POST"]),
            Route("/metrics", detector.metrics),
        ]
    )

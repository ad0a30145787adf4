"""The detector anyone may ask: a page and `POST /detect`, in a process of its own.

It answers yes, no or unsure. It never names a payload or a score: whoever wants to erase a mark would use
them as an oracle. Every question is examined in a fresh child with limits on memory, CPU and files, at most
`AT_ONCE` of them; size and length are capped before. The key is read by the child only.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import OrderedDict
from pathlib import Path
from typing import Final

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

LARGEST_BYTES: Final = 12 << 20
AT_ONCE: Final = 2
WAITING: Final = 8
"""Questions that may wait for a child; more are told to come again."""
WALL_S: Final = 60.0
BODY_S: Final = 30.0
EVERY_S: Final = 6.0
"""One question per address in this time, after `BURST` of them."""
BURST: Final = 5
ADDRESSES: Final = 10_000
PAGE: Final = Path(__file__).with_name("public.html")
HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'self'; "
    "connect-src 'self'; form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


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


class PublicDetector:
    """Children, counted."""

    def __init__(self, keys_path: Path) -> None:
        self._keys_path = keys_path
        self._children = asyncio.Semaphore(AT_ONCE)
        self._asked = 0
        self._patience = Patience()

    async def page(self, request: Request) -> Response:
        return HTMLResponse(PAGE.read_text(), headers=HEADERS)

    async def script(self, request: Request) -> Response:
        return Response(PAGE.with_suffix(".js").read_text(), media_type="text/javascript", headers=HEADERS)

    async def detect(self, request: Request) -> Response:
        """The body is a WAV file; `{"answer": "yes" | "no" | "unsure"}` or `{"error": ...}` comes back."""
        address = request.client.host if request.client else ""
        if not self._patience.takes(address, time.monotonic()):
            return refused(429, "too many questions: wait a few seconds")
        if self._asked >= AT_ONCE + WAITING:
            return refused(503, "busy: come again in a minute")
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
            sys.executable, "-m", "watermark.examine", str(self._keys_path),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        try:
            async with asyncio.timeout(WALL_S):
                said, _ = await child.communicate(wav)
        except TimeoutError:
            said = b""
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()
        word, _, reason = said.decode("utf-8", "replace").strip().partition(" ")
        if word in ("yes", "no", "unsure"):
            return JSONResponse({"answer": word}, headers=HEADERS)
        if word == "wrong":
            return refused(422, reason)
        return refused(422, "the file could not be examined within the limits")


def refused(status: int, reason: str) -> Response:
    return JSONResponse({"error": reason}, status_code=status, headers=HEADERS)


async def body(request: Request) -> bytes | None:
    """The whole body; None when it is larger than it may be."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > LARGEST_BYTES:
            return None
        parts.append(part)
    return b"".join(parts)


def app(keys_path: Path) -> Starlette:
    """The ASGI application."""
    detector = PublicDetector(keys_path)
    return Starlette(
        routes=[
            Route("/", detector.page),
            Route("/public.js", detector.script),
            Route("/detect", detector.detect, methods=["POST"]),
        ]
    )

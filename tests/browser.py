"""Debian's Chromium, kept off the network, with a microphone that needs no person to allow it."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any, Final

from playwright import async_api, sync_api
from playwright.async_api import expect

from tests.needs import HANGS_S

PAGE_MS: Final = 30_000
"""A page that does not show it by then does not show it; a browser takes its time on a busy machine."""
expect.set_options(timeout=PAGE_MS)

FLAGS: Final = (
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
    "--allow-loopback-in-peer-connection",  # else Chromium makes no calls on a host without a network
    "--autoplay-policy=no-user-gesture-required",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
    "--no-first-run",
    *(["--no-sandbox"] if os.geteuid() == 0 else []),
)
LOOK_AGAIN_S: Final = 0.1


async def until(page: async_api.Page, function: str, arg: Any = None) -> None:
    """Waits until a function of the page's says true; of an asynchronous one, until what it promises does.

    Playwright's own `wait_for_function` takes a promise itself for true.
    """
    async with asyncio.timeout(HANGS_S):
        while not await page.evaluate(function, arg):  # noqa: ASYNC110 - it is another process's
            await asyncio.sleep(LOOK_AGAIN_S)


def until_sync(page: sync_api.Page, function: str, arg: Any = None) -> float:
    """The same without an event loop; answers how long it took, in seconds."""
    began = time.monotonic()
    while not page.evaluate(function, arg):
        took = time.monotonic() - began
        assert took < HANGS_S, f"{function} did not become true in {took:.0f} s"
        time.sleep(LOOK_AGAIN_S)
    return time.monotonic() - began

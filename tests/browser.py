"""Debian's Chromium, kept off the network, with a microphone that needs no person to allow it."""

from __future__ import annotations

import os
from typing import Final

from playwright.async_api import expect

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

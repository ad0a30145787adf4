"""The data channel of a browser's call: what its page is shown, and what it says."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from gateway.ipc.codec import to_json
from gateway.ipc.line_messages import Shown

FLUSH_WITHIN_S: Final = 1.0
MAX_MESSAGE: Final = 1024
EVENTS_WAITING: Final = 64
BUFFERED: Final = 256 * 1024
DIGITS: Final = frozenset("0123456789*#ABCD")


class PageChannel:
    """One call's. `pressed` gets each key of the page, `goodbye` is called when it hangs up."""

    def __init__(self, pressed: Callable[[str], None], goodbye: Callable[[], None]) -> None:
        self._pressed = pressed
        self._goodbye = goodbye
        self._channel: Any = None
        self._open = asyncio.Event()
        self._events: deque[str] = deque(maxlen=EVENTS_WAITING)

    def opened(self, channel: Any) -> None:
        """The page has opened a channel; the first is taken, and others are not."""
        if self._channel is not None:
            return
        self._channel = channel
        self._open.set()
        channel.on("message", self._said)
        while self._events:
            channel.send(self._events.popleft())

    def _said(self, message: str | bytes) -> None:
        """{"dtmf": "5"} or {"bye": true}; anything else is dropped."""
        if len(message) > MAX_MESSAGE:
            return
        try:
            said = json.loads(message)
        except ValueError:
            return
        if not isinstance(said, dict):
            return
        digit = said.get("dtmf")
        if isinstance(digit, str) and digit.upper() in DIGITS:
            self._pressed(digit.upper())
        elif said.get("bye") is True:
            self._goodbye()

    def show(self, event: Shown) -> None:
        """Sends the page an event; kept until its channel is open."""
        text = json.dumps(to_json(type(event), event), ensure_ascii=False, separators=(",", ":"))
        if self._channel is None:
            self._events.append(text)
        elif self._channel.readyState == "open" and self._channel.bufferedAmount < BUFFERED:
            with contextlib.suppress(Exception):  # the association may be going this very moment
                self._channel.send(text)

    async def flush(self, *, comes: bool) -> None:
        """Lets the page's last event leave before its channel goes.

        `comes`: the page opens a channel, which of a call that ends as soon as it began is still coming.
        """
        if comes:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FLUSH_WITHIN_S):
                    await self._open.wait()
        channel = self._channel
        if channel is None or channel.readyState != "open" or not channel.bufferedAmount:
            return
        empty = asyncio.Event()
        channel.on("bufferedamountlow", empty.set)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_WITHIN_S):
                await empty.wait()

"""Whether what calls were sent carries their marks: looked into window by window, in a thread of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import structlog

from model.tasks import failures
from watermark.detect import Detection
from watermark.selfcheck import Window

log = structlog.get_logger("inspector")

Told = Callable[[Detection], None]
"""Told the verdict on a window."""


class Inspector:
    """One for all calls of a hall."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="inspector")
        self.checked = 0
        """windows that were looked into"""

    def look(self, sent: Window, told: Told, call_id: str) -> None:
        """Has `sent` looked into soon. The hot path calls this: the thread's queue, which has a lock, comes
        after the pass."""
        asyncio.get_running_loop().call_soon(self._begin, sent, told, call_id)

    def _begin(self, sent: Window, told: Told, call_id: str) -> None:
        judged = asyncio.get_running_loop().run_in_executor(self._thread, sent.verdict)
        judged.add_done_callback(partial(self._judged, told, call_id))

    def _judged(self, told: Told, call_id: str, judged: asyncio.Future[Detection]) -> None:
        if judged.cancelled():
            return
        if (error := judged.exception()) is not None:
            failures["hall.inspect"] += 1
            log.error("mark.not_looked_for", call_id=call_id, error=f"{type(error).__name__}: {error}")
            return
        self.checked += 1
        told(judged.result())

    def close(self) -> None:
        """Waits for nothing: windows that nobody looked into yet are forgotten."""
        self._thread.shutdown(wait=False, cancel_futures=True)

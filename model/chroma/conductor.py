"""One thread for the weights: a frame for every reply that has room for it, and other work between frames.

The event loop decides, the thread computes. Everything that touches a slot runs in that thread in the order
in which it was asked for, so that a cut that follows a cancelled step sees what the step left.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, ParamSpec, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from model.chroma.reply import Reply, perform
from model.chroma.steps import Steps

AHEAD: Final = 4
"""Frames of a reply that may wait for whoever hears it; then it rests."""

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Spoken:
    """One frame of a reply: a word of its text, and 80 ms of sound `(frame,)` float32."""

    word: int | None
    pcm: NDArray[np.float32] | None


class Conductor:
    """Steps replies together; see the module."""

    def __init__(self, steps: Steps) -> None:
        self.steps = steps
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="chroma")
        self._playing: dict[Reply, asyncio.Queue[Spoken | Exception | None]] = {}
        self._hungry = asyncio.Event()
        self._loop: asyncio.Task[None] | None = None

    @property
    def playing(self) -> int:
        """Replies under way."""
        return len(self._playing)

    async def do(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs `work` in the thread, after what was asked for before."""

        def run() -> T:
            with torch.inference_mode():
                return work(*args, **kwargs)

        return await asyncio.get_running_loop().run_in_executor(self._thread, run)

    async def perform(self, reply: Reply) -> AsyncIterator[Spoken]:
        """The frames of a reply; closing the iterator ends it."""
        queue: asyncio.Queue[Spoken | Exception | None] = asyncio.Queue()
        self._playing[reply] = queue
        if self._loop is None:
            self._loop = asyncio.create_task(self._run(), name="chroma-conductor")
        try:
            while True:
                self._hungry.set()
                frame = await queue.get()
                if frame is None:
                    return
                if isinstance(frame, Exception):
                    raise frame
                yield frame
        finally:
            del self._playing[reply]

    async def _run(self) -> None:
        while True:
            replies = [r for r, queue in self._playing.items() if r.end is None and queue.qsize() < AHEAD]
            if not replies:
                self._hungry.clear()
                await self._hungry.wait()
                continue
            try:
                frames = await self.do(self._step, replies)
            except Exception as error:  # told to those it hit; the others go on
                for reply in replies:
                    reply.end = "failed"
                    if (queue := self._playing.get(reply)) is not None:
                        queue.put_nowait(error)
                continue
            for reply, frame in zip(replies, frames, strict=True):
                if (queue := self._playing.get(reply)) is not None:
                    queue.put_nowait(frame)
                    if reply.end is not None:
                        # told, not asked: the thread sets `end` before its last frame is here
                        queue.put_nowait(None)

    def _step(self, replies: list[Reply]) -> list[Spoken]:
        return [Spoken(frame.word, frame.pcm) for frame in perform(self.steps, replies)]

    async def close(self) -> None:
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)
        self._thread.shutdown(wait=True, cancel_futures=True)

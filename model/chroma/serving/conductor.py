"""One thread for the weights; the schedule says what it does next.

The event loop decides, the thread computes, one thing at a time: what a conversation asks for after its reply
was cancelled finds what the step under way left. Nothing here waits for a listener. What needs no weights
(mel frames) goes `aside`, to a few threads of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
import traceback
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any, Final, TypeVar

import numpy as np
import structlog
import torch
from numpy.typing import NDArray
from torch import Tensor

from model import own_process
from model.chroma.serving.fates import fate, give_back, hung_after_s, told
from model.chroma.serving.garbage import Garbage
from model.chroma.serving.meters import Meters
from model.chroma.serving.reply import Reply, perform
from model.chroma.serving.schedule import Kind, Rest, Schedule, Step, Work
from model.chroma.serving.steps import Steps
from model.errors import EngineBusy, EngineError
from model.tasks import Tasks

log = structlog.get_logger("chroma")

LEAD_S: Final = 0.5
"""How far a reply may be ahead; more would be made in vain where replies are interrupted."""

ASIDE: Final = 2
"""Threads beside the one for the weights: a chunk's mel frames take a millisecond or two."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Spoken:
    """One frame of a reply: a word of its text, and 80 ms of sound `(frame,)` float32."""

    word: int | None
    pcm: NDArray[np.float32] | None


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    """What `do`, `prefill` or `hear` asked for."""

    work: Callable[[], Any]
    kind: Kind
    size: int
    done: asyncio.Future[Any]


@dataclass(slots=True, eq=False)
class _Part:
    """A reply's, on its way to its listener. `stand_by` goes before its first frame, in the same go."""

    stand_by: Callable[[], None] | None
    frames: asyncio.Queue[Spoken | Exception | None] = field(default_factory=asyncio.Queue)


@dataclass(frozen=True, slots=True)
class _Lacking:
    """What became of a job of a pass: there was no memory for it."""

    error: Exception


def speak(steps: Steps, replies: Sequence[Reply]) -> list[Spoken]:
    """A step, and what came of it on the host."""
    return [Spoken(frame.word, frame.pcm) for frame in perform(steps, replies)]


class Conductor:
    """Steps replies together; see the module."""

    def __init__(
        self,
        steps: Steps,
        lead_s: float = LEAD_S,
        meters: Meters | None = None,
        garbage: Garbage | None = None,
    ) -> None:
        """`garbage`: where the engine says when this process collects it."""
        self.steps = steps
        self.meters = meters or Meters()
        self.schedule: Schedule[Reply, _Job] = Schedule(lead_s, steps.model.config.frame_s)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="chroma")
        self._aside = ThreadPoolExecutor(ASIDE, thread_name_prefix="chroma-aside")
        self._parts: dict[Reply, _Part] = {}
        self._changed = asyncio.Event()
        self._tasks = Tasks()
        self._garbage = garbage
        self._begun = False
        self._closed = False

    @property
    def playing(self) -> int:
        """Replies under way."""
        return len(self._parts)

    async def do(
        self, kind: Kind, size: int, work: Callable[[], T], awaited: Callable[[], bool] = lambda: True
    ) -> T:
        """Runs `work` in the thread when it is its turn, which comes sooner while somebody waits (`awaited`)
        for what it does. Of any kind but prefill and hearing."""
        return await self._ask(kind, size, work, awaited)

    async def prefill(
        self, size: int, fresh: Callable[[], tuple[int, Tensor]], awaited: Callable[[], bool]
    ) -> None:
        """The same for what `fresh` answers in the thread: a slot, and embeddings `(size, H)` for its
        thinker. One at a time for a slot; those of several that wait go in one pass."""
        await self._ask(Kind.PREFILL, size, fresh, awaited)

    async def hear(self, mels: list[Tensor], awaited: Callable[[], bool]) -> list[Tensor]:
        """Chunks `(mels, L)` through the audio encoder, each to its tokens; those of several utterances that
        wait go in one pass."""
        return await self._ask(Kind.HEARING, len(mels), lambda: mels, awaited)

    async def aside(self, work: Callable[[], T]) -> T:
        """Runs `work` beside the thread for the weights; not at all if it is cancelled before its turn."""
        if self._closed:
            raise _closed()
        return await asyncio.get_running_loop().run_in_executor(self._aside, work)

    async def _ask(self, kind: Kind, size: int, work: Callable[[], T], awaited: Callable[[], bool]) -> T:
        self._begin()
        job = _Job(work, kind, size, asyncio.get_running_loop().create_future())
        self.schedule.ask(job, kind, size, awaited=awaited, now=time.perf_counter())
        self._changed.set()
        try:
            found: T = await job.done
        except asyncio.CancelledError:
            self.schedule.withdraw(job)
            raise
        return found

    async def perform(
        self, reply: Reply, stand_by: Callable[[], None] | None = None
    ) -> AsyncIterator[Spoken]:
        """The frames of a reply; closing the iterator ends it."""
        self._begin()
        part = self._parts[reply] = _Part(stand_by)
        self.schedule.join(reply, time.perf_counter())
        self._changed.set()
        try:
            while True:
                frame = await part.frames.get()
                if frame is None:
                    return
                if isinstance(frame, Exception):
                    raise frame
                if self.schedule.taken(reply, time.perf_counter()):
                    self._changed.set()
                yield frame
        finally:
            del self._parts[reply]
            self.schedule.leave(reply)

    def _begin(self) -> None:
        if self._closed:
            raise _closed()
        if not self._begun:
            self._begun = True
            if self._garbage is not None:
                self._garbage.begin()
            self._tasks.vital(self._run, "chroma.conductor")  # without it every caller would wait for ever

    async def _run(self) -> None:
        while True:
            now = time.perf_counter()
            if self._garbage is not None and self._garbage.due(now):
                collect = self.do(Kind.GARBAGE, 1, self._garbage.collect, _unhurried)
                self._tasks.short(collect, "chroma.garbage")
                await asyncio.sleep(0)  # it asks before the next thing is chosen
            match self.schedule.next(now):
                case Step(replies):
                    await self._frames(replies)
                case Work(jobs):
                    await self._work([job for job in jobs if not job.done.done()])  # the others: cancelled
                case Rest(until):
                    self._changed.clear()
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(None if math.isinf(until) else until - now):
                            await self._changed.wait()

    async def _frames(self, replies: list[Reply]) -> None:
        parts = [self._parts[reply] for reply in replies]
        failed: dict[Reply, Exception] = {}

        def step() -> list[Spoken | None]:
            for reply, part in zip(replies, parts, strict=True):
                try:
                    if part.stand_by is not None:
                        part.stand_by()
                        part.stand_by = None
                except Exception as error:  # the slot's alone
                    failed[reply] = error
            ready = [reply for reply in replies if reply not in failed]
            found = iter(self._step(ready)) if ready else iter(())
            return [None if reply in failed else next(found) for reply in replies]

        try:
            frames, began, ended = await self._timed(Kind.FRAME, step)
        except Exception as error:
            self._failed(error, Kind.FRAME)  # the process ends
            raise
        for reply, why in failed.items():
            reply.end = "failed"
            self.schedule.leave(reply)
            if reply in self._parts:
                self._parts[reply].frames.put_nowait(self._failed(why, Kind.SLOT))
        if len(failed) == len(replies):
            return
        self._spent(Kind.FRAME, len(replies) - len(failed), ended - began)
        longest, now = 0.0, time.perf_counter()
        for reply, part, frame in zip(replies, parts, frames, strict=True):
            if frame is None or self._parts.get(reply) is not part:
                continue
            handed = self.schedule.handed(reply, began, now)
            longest = max(longest, handed.took_s)
            if frame.pcm is not None:
                self.meters.frame(handed)
            part.frames.put_nowait(frame)
            if reply.end is not None:  # told, not asked: the thread sets `end` before its last frame is here
                part.frames.put_nowait(None)
                self.schedule.leave(reply)
        self.meters.step(len(replies) - len(failed), longest, now)

    async def _work(self, jobs: list[_Job]) -> None:
        if not jobs:
            return
        kind = jobs[0].kind
        try:
            found, began, ended = await self._timed(kind, partial(self._pass, jobs))
        except asyncio.CancelledError:
            for job in jobs:
                job.done.cancel()
            raise
        except Exception as error:  # told to those it hit; the others go on
            why = self._failed(error, kind)
            for job in jobs:
                if not job.done.done():
                    job.done.set_exception(why)
            return
        self._spent(kind, sum(job.size for job in jobs), ended - began)
        for job, one in zip(jobs, found, strict=True):
            if not job.done.done():
                if isinstance(one, _Lacking):
                    job.done.set_exception(self._failed(one.error, kind))
                else:
                    job.done.set_result(one)
        await asyncio.sleep(0)  # whoever waited may ask for more before the next thing is chosen

    def _pass(self, jobs: list[_Job]) -> list[Any]:
        """What each job's work answers; of prefills it is what goes into thinkers, of hearing what goes into
        the encoder, all at once."""
        found = [job.work() for job in jobs]
        match jobs[0].kind:
            case Kind.HEARING:
                return self._together(Kind.HEARING, found, self._heard)
            case Kind.PREFILL:
                return self._prefilled(found)
        return found

    def _heard(self, found: list[list[Tensor]]) -> list[Any]:
        heard = iter(self.steps.encoder([mel for mels in found for mel in mels]))
        return [list(islice(heard, len(mels))) for mels in found]

    def _prefilled(self, found: list[tuple[int, Tensor]]) -> list[Any]:
        assert len(dict(found)) == len(found), "a slot has one prefill at a time"  # noqa: S101  # `Schedule` hands out one a slot
        cache = self.steps.slots.thinker
        starts = {slot: cache.lengths[slot] for slot, _ in found}

        def prefill(some: list[tuple[int, Tensor]]) -> list[Any]:
            if some is not found:  # nobody knows how far the pass of all came
                for slot, _ in some:
                    cache.cut(slot, starts[slot])
            self.steps.prefill(dict(some))
            return [None] * len(some)

        return self._together(Kind.PREFILL, found, prefill)

    def _together(self, kind: Kind, parts: list[T], work: Callable[[list[T]], list[Any]]) -> list[Any]:
        """What `work` makes of all parts or, where memory does not hold that, of one after the other."""
        found = self._tried(kind, lambda: work(parts))
        if not isinstance(found, _Lacking):
            return found
        if len(parts) == 1:
            return [found]
        alone = [self._tried(kind, partial(work, [part])) for part in parts]
        return [one if isinstance(one, _Lacking) else one[0] for one in alone]

    def _tried(self, kind: Kind, work: Callable[[], list[Any]]) -> list[Any] | _Lacking:
        """What `work` answers, or what it lacked, where memory does not hold it."""
        try:
            return work()
        except Exception as error:
            if fate(error, kind) != "refused":
                raise
            self._let_go(error)
            return _Lacking(error.with_traceback(None))

    def _let_go(self, error: BaseException) -> None:
        """What was made on the way to that error is free: in its frames and, of a GPU, in torch's store."""
        traceback.clear_frames(error.__traceback__)
        give_back(self.steps.model.device)

    def _failed(self, error: Exception, kind: Kind) -> Exception:
        """What those are told whose work of that kind failed so. Where the engine cannot go on, it ends."""
        match fate(error, kind):
            case "told":
                return error
            case "refused":
                self.meters.lacked.labels(kind.value).inc()
                log.warning("chroma.out_of_memory", phase=kind.value, error=told(error))
                return EngineBusy(
                    f"memory: the device has too little for this conversation now ({kind.value})"
                )
            case cause:
                own_process.end(cause, f"{kind.value}: {told(error)}")

    async def _timed(self, kind: Kind, work: Callable[[], T]) -> tuple[T, float, float]:
        """What `work` answers, and when it began and ended; the device has done it."""
        device = self.steps.model.device
        bound_s = hung_after_s(kind, device)

        def run() -> tuple[T, float, float]:
            began = time.perf_counter()
            try:
                with own_process.within(bound_s, f"work of kind {kind.value}"), torch.inference_mode():
                    found = work()
                    if device.type == "cuda":
                        torch.cuda.current_stream(device).synchronize()
            except Exception as error:
                if fate(error, kind) == "refused":
                    self._let_go(error)
                raise
            return found, began, time.perf_counter()

        return await asyncio.get_running_loop().run_in_executor(self._thread, run)

    def _spent(self, kind: Kind, size: int, seconds: float) -> None:
        self.schedule.costs.spent(kind, size, seconds)
        self.meters.spent(kind, seconds)

    def _step(self, replies: list[Reply]) -> list[Spoken]:
        return speak(self.steps, replies)

    async def close(self) -> None:
        self._closed = True
        await self._tasks.stop()
        for job in self.schedule.abandon():
            job.done.cancel()
        for part in self._parts.values():
            part.frames.put_nowait(_closed())
        for pool in (self._thread, self._aside):
            await asyncio.to_thread(pool.shutdown, cancel_futures=True)


def _unhurried() -> bool:
    """Frames of those who talk go first."""
    return False


def _closed() -> EngineError:
    return EngineError("the engine is closed")

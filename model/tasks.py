"""Background tasks: each has a name, and a failure is logged and counted, never lost.

Every task of the gateway and its engines begins here, or in an `asyncio.TaskGroup`, or is awaited where it
begins. Nothing of the model is imported: the web lines use this module too.
"""

from __future__ import annotations

import asyncio
import collections
import errno
import os
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, Final, TypeVar

import structlog

log = structlog.get_logger("tasks")

T = TypeVar("T")

PAUSES_S: Final = (0.1, 0.5, 1.0, 2.0, 5.0)
"""Before a lasting task that failed is started again; the last one for good."""
SPENT: Final = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
)
"""The machine, or the process' limits, gave no more: no fault of the code, so no traceback is told."""
SPENT_SAID_S: Final = 10.0
NO_MEMORY: Final = 12
"""Exit status: `ENOMEM`."""
STEADY_S: Final = 30.0
"""A lasting task that ran this long starts its pauses anew."""

failures: Final[collections.Counter[str]] = collections.Counter()
"""Failures in this process since its start, by the task's name; its metrics show them."""
_running: Final[set[asyncio.Future[Any]]] = set()
"""The event loop has weak references only: a task that nothing else holds could vanish while it waits."""


class Tasks:
    """The tasks of one owner, which it ends together."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        """Tasks under way."""
        return len(self._tasks)

    def short(
        self, work: Coroutine[Any, Any, T], name: str, *, told: tuple[type[Exception], ...] = ()
    ) -> asyncio.Task[T]:
        """Starts what ends by itself. Errors of the kinds `told` are for whoever awaits it: no failure."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        _running.add(task)
        task.add_done_callback(partial(self._done, told))
        return task

    def lasting(self, work: Callable[[], Awaitable[object]], name: str) -> asyncio.Task[None]:
        """Starts what ends only when cancelled; whenever it fails it is started again, after a pause."""
        return self.short(_again(work, name), name)

    def vital(self, work: Callable[[], Awaitable[object]], name: str) -> asyncio.Task[None]:
        """Starts what this process is nothing without: when it fails, the process ends by `SystemExit`."""
        return self.short(_or_exit(work, name), name)

    def _done(self, told: tuple[type[Exception], ...], task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        _running.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, (*told, SystemExit)):
            failed(task.get_name(), error)

    def cancel(self) -> None:
        """Cancels all but the task that calls this."""
        for task in self._tasks - {asyncio.current_task()}:
            task.cancel()

    async def stop(self) -> None:
        """Cancels all but the task that calls this, and waits for their ends."""
        self.cancel()
        await self.join()

    async def join(self, within_s: float | None = None) -> None:
        """Waits until all but the task that calls this have ended, or `within_s` is over."""
        if others := self._tasks - {asyncio.current_task()}:
            await asyncio.wait(others, timeout=within_s)


def failed(name: str, error: BaseException, **facts: Any) -> None:
    """Logs and counts the failure of the task of that name."""
    failures[name] += 1
    if not (isinstance(error, OSError) and error.errno in SPENT):
        facts["exc_info"] = error
    log.error("task.failed", task=name, error=f"{type(error).__name__}: {error}", **facts)


def watch_loop(*, outlives_memory: bool = False) -> None:
    """Counts what the running loop would only print: errors of callbacks, and of tasks begun elsewhere.

    A process whose callbacks find no memory hears and answers nobody any more: it ends at once, with status
    `NO_MEMORY`, so that whoever keeps it starts another; unless it `outlives_memory`.
    """

    spent = _Spent()

    def stray(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        message, error = str(context.get("message", "")), context.get("exception")
        if isinstance(error, OSError) and error.errno in SPENT:
            spent.note(loop.time(), message, error)
        elif isinstance(error, MemoryError) and not outlives_memory:
            log.critical("memory.spent", message=message)
            os._exit(NO_MEMORY)  # tidying up takes memory too, and seconds in which its calls are silent
        elif isinstance(error, BaseException):
            failed("loop", error, message=message)
        else:
            log.warning("loop.odd", message=message)

    asyncio.get_running_loop().set_exception_handler(stray)


class _Spent:
    """Says that descriptors or memory are spent, once in `SPENT_SAID_S`: while no connection can be accepted,
    asyncio says so 2,048 times a second."""

    def __init__(self) -> None:
        self._times = 0
        self._said_at: float | None = None

    def note(self, now: float, message: str, error: OSError) -> None:
        self._times += 1
        if self._said_at is None or now - self._said_at >= SPENT_SAID_S:
            failures["loop"] += 1
            log.error("resources.spent", message=message, error=error.strerror, times=self._times)
            self._times, self._said_at = 0, now


class _Ended(Exception):
    """A task ended that should last."""


async def _failure(work: Callable[[], Awaitable[object]]) -> Exception | None:
    """Runs `work`; why it failed, if it did. Having been cancelled is not a failure."""
    try:
        await work()
    except asyncio.CancelledError as cancelled:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        return _Ended(f"something that it waited for was cancelled {cancelled}".strip())
    except Exception as error:
        return error
    return None


async def _again(work: Callable[[], Awaitable[object]], name: str) -> None:
    now, tries = asyncio.get_running_loop().time, 0
    while True:
        began = now()
        error = await _failure(work) or _Ended("it returned")
        if now() - began > STEADY_S:
            tries = 0
        pause_s = PAUSES_S[min(tries, len(PAUSES_S) - 1)]
        tries += 1
        failed(name, error, again_in_s=pause_s)
        await asyncio.sleep(pause_s)


async def _or_exit(work: Callable[[], Awaitable[object]], name: str) -> None:
    if (error := await _failure(work)) is not None:
        failed(name, error)
        raise SystemExit(f"{name} failed: {type(error).__name__}: {error}")


async def race(*works: Awaitable[Any], within_s: float | None = None) -> list[asyncio.Future[Any] | None]:
    """Runs `works` until one is done or `within_s` is over; then cancels the others and waits for them.

    Returns for each its future if it was done, else None. What a work raised is raised by its `result()`.
    """
    racing = [asyncio.ensure_future(work) for work in works]
    try:
        done, _ = await asyncio.wait(racing, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
        return [work if work in done else None for work in racing]
    finally:
        for work in racing:
            work.cancel()
        await asyncio.gather(*racing, return_exceptions=True)

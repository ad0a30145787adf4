"""Sound before words: who speaks and who hears words gets the processor after whoever carries sound.

Without root a process can only be lowered, so the engine, the ears and the detector are: the hall, the lines
and the front stay where the gateway itself was started (`Nice=` of its unit). Linux weighs processes of
different sessions by their sessions first (sched(7), autogroup), and each of ours has one, so a session is
lowered too where there are such groups.

Who carries sound also asks the kernel for short turns: a process that wants the processor often and briefly
then interrupts whoever has it, and need not wait for the end of turns of 3 ms and more. It gets no more of
the processor for that. Linux knows it from 6.12 on, and ignores it before (sched_setattr(2)).

While engine and ears load, callers wait for them: until they listen they have the same weight as all others,
and interrupt nobody. On two cores with a load of ten an engine that had died was back after 19 and 23 s
when it loaded at a third of the weight.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import platform
import struct
from pathlib import Path
from typing import Final

import structlog

log = structlog.get_logger("supervisor")

BELOW: Final = {"engine": 5, "ears": 5, "detector": 10}
"""Steps of niceness by which processes are below the others, by name: 5 are a third of the weight."""
TRIES: Final = 10
AGAIN_S: Final = 0.11
"""The kernel lets nobody but root change a group's niceness more than ten times a second."""
MOST: Final = 19
SOUND: Final = ("hall", "sip", "web")
"""How the names of processes begin that carry sound."""
TURN_NS: Final = 100_000
"""The turn that they ask for, the shortest that there is."""
_SET_ATTRIBUTES: Final = {"x86_64": 314, "aarch64": 274}.get(platform.machine())
"""The number of sched_setattr(2), for which the C library has no name."""
_ATTRIBUTES: Final = struct.Struct("=IIQiIQQQ")
"""size, policy, flags, nice, priority, runtime (the turn), deadline, period"""
LOADS_S: Final = 60.0
"""What does not listen by then is lowered all the same."""
LOOKS_S: Final = 0.2


async def lower(name: str, pid: int, door: Path | None = None) -> None:
    """Lowers the process that has just been started under that name, if it is one that goes after others.

    One that carries sound gets short turns. `door`: the unix socket at which it listens once it has loaded,
    until when it keeps its weight. It has one thread yet, and those to come inherit what it is. What the
    system refuses is logged.
    """
    if name.startswith(SOUND):
        shorten_turns(pid)
    steps = BELOW.get(name, 0)
    if not steps:
        return
    try:
        os.sched_setscheduler(pid, os.SCHED_BATCH, os.sched_param(0))  # it interrupts nobody when it wakes
        if door is not None:
            await _loads(door)
        _lower_threads(pid, min(MOST, os.getpriority(os.PRIO_PROCESS, pid) + steps))
    except (ProcessLookupError, FileNotFoundError):  # it has died, which is told elsewhere
        return
    except OSError as error:
        log.warning("process.not_lowered", name=name, pid=pid, error=str(error))
    await _lower_group(pid, steps)


def shorten_turns(pid: int) -> None:
    """Asks for `TURN_NS` for all threads of a process, where the kernel can be asked."""
    if _SET_ATTRIBUTES is None:
        return
    with contextlib.suppress(OSError):  # it has ended, which is told elsewhere, or there is no /proc
        for thread in map(int, os.listdir(f"/proc/{pid}/task")):
            nice = os.getpriority(os.PRIO_PROCESS, thread)
            wanted = _ATTRIBUTES.pack(_ATTRIBUTES.size, os.SCHED_OTHER, 0, nice, 0, TURN_NS, 0, 0)
            ctypes.CDLL(None).syscall(_SET_ATTRIBUTES, thread, wanted, 0)


async def _loads(door: Path) -> None:
    """Waits until somebody listens there, for `LOADS_S` at most."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LOADS_S):
            while True:
                with contextlib.suppress(OSError):  # nobody does, or only a socket of one that died is there
                    _, writer = await asyncio.open_unix_connection(door)
                    writer.close()
                    return
                await asyncio.sleep(LOOKS_S)


def _lower_threads(pid: int, niceness: int) -> None:
    """All threads, those too that are begun meanwhile: Linux has a niceness for each. Raises `OSError`."""
    threads = Path(f"/proc/{pid}/task")
    lowered: set[int] = set()
    while left := {int(each.name) for each in threads.iterdir()} - lowered:
        for thread in left:
            with contextlib.suppress(ProcessLookupError):  # it was over sooner
                os.setpriority(os.PRIO_PROCESS, thread, niceness)
        lowered |= left


async def _lower_group(pid: int, niceness: int) -> None:
    group = Path(f"/proc/{pid}/autogroup")
    for _ in range(TRIES):
        with contextlib.suppress(BlockingIOError):
            with contextlib.suppress(OSError):  # this kernel has no such groups, or the process is gone
                group.write_text(str(niceness))  # noqa: ASYNC240 - not a disk
            return
        await asyncio.sleep(AGAIN_S)

"""Sound before words: which processes of a house are lowered, as the kernel tells."""

from __future__ import annotations

import asyncio
import ctypes
import os
import platform
import re
import signal
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from gateway.run import priority
from gateway.run.supervisor import Supervisor
from tests.gateway.run.test_supervisor import Module, house, module
from tests.needs import HANGS_S

__all__ = ("house", "module")
WAITS = """
import signal, threading, time

def main():
    threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
    signal.sigwait({signal.SIGTERM})
"""
BEHIND = ("engine", "ears")


def group(pid: int) -> int | None:
    """The niceness of a process's session; None where the kernel has no such groups."""
    try:
        said = Path(f"/proc/{pid}/autogroup").read_text()
    except OSError:
        return None
    found = re.search(r"nice (-?\d+)", said)
    return int(found[1]) if found else None


def niceness(pid: int) -> set[int]:
    """Of all its threads."""
    return {os.getpriority(os.PRIO_PROCESS, int(each.name)) for each in Path(f"/proc/{pid}/task").iterdir()}


async def comes(what: Callable[[], bool]) -> None:
    """Waits for what another process and the kernel do, which nothing tells."""
    async with asyncio.timeout(HANGS_S):
        while True:
            if what():
                return
            await asyncio.sleep(0.01)


async def started(house: Supervisor, module: Module, *names: str) -> dict[str, int]:
    """Processes of these names, which have two threads each; their ids."""
    place = module(WAITS)
    for name in names:
        house.keep(name, place)

    def pids() -> dict[str, int]:
        return {kept.name: kept.pid for kept in house.children.values() if kept.pid}

    await comes(lambda: len(pids()) == len(names))
    for pid in pids().values():
        await comes(lambda pid=pid: len(list(Path(f"/proc/{pid}/task").iterdir())) == 2)  # type: ignore[misc]
    return pids()


async def test_engine_and_ears_go_after_the_hall_the_lines_and_the_front_once_they_have_loaded(
    house: Supervisor, module: Module
) -> None:
    house.settings = house.settings.model_copy(update={"engine": "embedded"})
    pids = await started(house, module, *BEHIND, "hall0", "front", "sip0", "web0")
    ours, groups = os.getpriority(os.PRIO_PROCESS, 0), group(os.getpid()) is not None
    await comes(lambda: all(os.sched_getscheduler(pids[name]) == os.SCHED_BATCH for name in BEHIND))
    assert all(niceness(pids[name]) == {ours} for name in BEHIND), "callers wait for what loads"
    for path in (house.runtime.engine, house.runtime.ears):
        server = await asyncio.start_unix_server(lambda _, writer: writer.close(), path)
    for name in BEHIND:
        steps = min(priority.MOST, ours + priority.BELOW[name])
        await comes(lambda name=name, steps=steps: niceness(pids[name]) == {steps})  # type: ignore[misc]
        if groups:
            await comes(lambda name=name: group(pids[name]) == priority.BELOW[name])  # type: ignore[misc]
    for name in ("hall0", "front", "sip0", "web0"):
        assert niceness(pids[name]) == {ours}
        assert os.sched_getscheduler(pids[name]) == os.sched_getscheduler(0)
        assert not group(pids[name])
    server.close()


async def test_chroma_which_loads_for_minutes_goes_after_the_others_at_once(
    house: Supervisor, module: Module
) -> None:
    house.settings = house.settings.model_copy(update={"engine": "chroma"})
    pids = await started(house, module, "engine")
    ours = os.getpriority(os.PRIO_PROCESS, 0)
    await comes(lambda: niceness(pids["engine"]) == {min(priority.MOST, ours + priority.BELOW["engine"])})


async def test_what_never_listens_is_lowered_all_the_same(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(priority, "LOADS_S", 0.05)
    waits = await asyncio.create_subprocess_exec(sys.executable, "-c", "input()", stdin=subprocess.PIPE)
    await priority.lower("ears", waits.pid, tmp_path / "nobody")
    ours = os.getpriority(os.PRIO_PROCESS, 0)
    assert niceness(waits.pid) == {min(priority.MOST, ours + priority.BELOW["ears"])}
    await waits.communicate(b"\n")


async def test_a_process_that_dies_while_it_loads_is_started_again_at_once(
    house: Supervisor, module: Module
) -> None:
    first = (await started(house, module, "ears"))["ears"]
    os.kill(first, signal.SIGKILL)
    await comes(lambda: house.children["ears"].pid not in (0, first))


async def test_what_the_system_refuses_is_said_and_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(priority.os, "setpriority", refused)
    with capture_logs() as logged:
        await priority.lower("ears", 2**30)
    assert [line["event"] for line in logged] in (["process.not_lowered"], [])


async def test_a_process_that_has_died_is_no_error() -> None:
    await priority.lower("ears", 2**30)


def turn_ns(pid: int) -> int:
    """The turn that a process's first thread gets at once; 0 where the kernel does not tell."""
    number = {"x86_64": 315, "aarch64": 275}.get(platform.machine(), -1)
    attributes = ctypes.create_string_buffer(56)
    if ctypes.CDLL(None).syscall(number, pid, attributes, 56, 0) != 0:
        return 0
    return int(struct.unpack_from("=IIQiIQQQ", attributes.raw)[5])


async def test_who_carries_sound_has_short_turns(house: Supervisor, module: Module) -> None:
    usual = turn_ns(os.getpid())
    if not usual:
        pytest.skip("this kernel gives all processes the same turns")
    pids = await started(house, module, "hall0", "sip0", "front")
    await comes(lambda: turn_ns(pids["hall0"]) == turn_ns(pids["sip0"]) == priority.TURN_NS)
    assert turn_ns(pids["front"]) == usual != priority.TURN_NS


def test_of_a_process_that_is_gone_nothing_is_asked() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
        priority.shorten_turns(gone.pid)

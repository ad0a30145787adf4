"""Sound before words: which processes of a house are lowered, as the kernel tells."""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from gateway.run import priority
from gateway.run.supervisor import Supervisor
from tests.gateway.run.test_supervisor import Module, house, module, pids_of

__all__ = ("house", "module")
WAITS = "import signal\ndef main(): signal.sigwait({signal.SIGTERM})"


def group(pid: int) -> int | None:
    """The niceness of a process's session; None where the kernel has no such groups."""
    try:
        said = Path(f"/proc/{pid}/autogroup").read_text()
    except OSError:
        return None
    found = re.search(r"nice (-?\d+)", said)
    return int(found[1]) if found else None


async def started(house: Supervisor, module: Module, *names: str) -> dict[str, int]:
    """Processes of these names, once the engine is lowered; their ids."""
    place = module(WAITS)
    for name in names:
        house.keep(name, place)
    lowered = group(os.getpid()) is not None
    async with asyncio.timeout(60):
        while True:
            pids = {kept.name: kept.pid for kept in house.children.values() if kept.pid}
            if len(pids) == len(names) and pids_of(house).keys() == set(names):
                behind = [name for name in names if priority.BELOW.get(name)]
                if all(os.sched_getscheduler(pids[name]) == os.SCHED_BATCH for name in behind) and (
                    not lowered or all(group(pids[name]) for name in behind)
                ):
                    return pids
            await asyncio.sleep(0.01)


async def test_engine_and_ears_go_after_the_hall_the_lines_and_the_front(
    house: Supervisor, module: Module
) -> None:
    pids = await started(house, module, "engine", "ears", "hall0", "front", "sip0", "web0")
    ours = os.getpriority(os.PRIO_PROCESS, 0)
    for name in ("hall0", "front", "sip0", "web0"):
        assert os.getpriority(os.PRIO_PROCESS, pids[name]) == ours
        assert os.sched_getscheduler(pids[name]) == os.sched_getscheduler(0)
        assert not group(pids[name])
    for name in ("engine", "ears"):
        assert os.getpriority(os.PRIO_PROCESS, pids[name]) == min(priority.MOST, ours + priority.BELOW[name])
        assert group(pids[name]) in (None, priority.BELOW[name])


async def test_what_the_system_refuses_is_said_and_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(priority.os, "setpriority", refused)
    with capture_logs() as logged:
        await priority.lower("ears", 2**30)
    assert [line["event"] for line in logged] in (["process.not_lowered"], [])


async def test_a_process_that_has_died_is_no_error() -> None:
    await priority.lower("ears", 2**30)

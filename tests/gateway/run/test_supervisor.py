"""A house that does not start says which process, and why; real processes, broken on purpose."""

from __future__ import annotations

import asyncio
import errno
import json
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.config import remedy
from gateway.config.runtime import Runtime
from gateway.config.settings import Settings
from gateway.errors import StartError
from gateway.ipc.process_lives import noted_lives
from gateway.run import nursery, sip_lines, supervisor, zygote
from gateway.run.supervisor import Supervisor
from model import tasks
from tests.gateway.conftest import short_folder

Module = Callable[[str], str]
AGAIN = f"install voicegate again: {remedy.install_again()}"


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Module:
    """Writes a module that the supervisor's processes can import; returns the place of its `main`."""
    root = Path(__file__).parents[3]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(root)]))

    def write(body: str) -> str:
        (tmp_path / "part.py").write_text(body)
        return "part:main"

    return write


@pytest.fixture
async def house(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Supervisor]:
    monkeypatch.setattr(zygote, "SHARED", ())  # to import them takes longer than these tests
    with short_folder() as folder:
        folder.chmod(0o700)
        settings = Settings(data_dir=folder / "data", narrow_calls=0, wide_calls=0)
        kept = Supervisor(settings, Runtime(folder), "token", lambda doing: shown.append(doing))
        shown.clear()
        yield kept
        await kept.stop()


shown: list[str] = []
"""What the operator was shown."""


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("raise RuntimeError('boom')", "RuntimeError: boom"),
        ("def main(): raise SystemExit('VOICEGATE_X is not set')", "VOICEGATE_X is not set"),
        ("import no_such", f"voicegate needs no_such, which is not installed; {AGAIN}"),
        (
            "import os\ndef main(): os.kill(os.getpid(), 9)",
            "it was killed by signal 9 (SIGKILL); is the machine out of memory?",
        ),
        ("import os\ndef main(): os.abort()", "it was killed by signal 6 (SIGABRT)"),
        ("def main(): pass", "it ended with status 0 and said nothing"),
    ],
)
async def test_a_process_that_keeps_dying_is_quoted(
    house: Supervisor, module: Module, body: str, error: str
) -> None:
    house.keep("web0", module(body))
    with pytest.raises(StartError) as refused:
        await house.ready()
    assert str(refused.value) == f"web0 does not start: {error}"
    assert shown[0] == "waiting for front"


async def test_a_sip_line_that_keeps_dying_is_quoted(house: Supervisor) -> None:
    house.keep("sip0", "gateway.rtp.sip_process:main", *sip_lines.arguments(house.settings, house.runtime, 0))
    with pytest.raises(StartError) as refused:
        await house.ready()
    assert (
        str(refused.value) == "sip0 does not start: it is to take no calls: --narrow or --wide says how many"
    )


async def test_what_is_made_once_fails_with_its_own_words(house: Supervisor, module: Module) -> None:
    place = module(
        "from gateway.errors import StartError\ndef main(): raise StartError('the key file is broken')"
    )
    with pytest.raises(StartError, match=r"^the key file is broken$"):
        await house._once("prepare", place)


async def test_what_takes_too_long_is_named_with_the_last_errors(
    house: Supervisor, module: Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "READY_S", 0.0)
    house.keep("hall0", module("raise RuntimeError('boom')"))
    house.children["hall0"].error = "RuntimeError: boom"
    with pytest.raises(
        StartError, match="not ready after 0 s; still missing: front; hall0: RuntimeError: boom"
    ):
        await house.ready()


async def test_a_process_that_cannot_be_started_is_quoted_too(
    house: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refused(*_: object, **__: object) -> None:
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(nursery.Nursery, "born", refused)
    house.keep("hall0", "part:main")
    with pytest.raises(StartError, match=r"^hall0 does not start: BlockingIOError: \[Errno 11\] Resource"):
        await house.ready()


async def test_who_keeps_a_process_goes_on_after_a_failure_of_its_own(
    house: Supervisor, module: Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that was started is ended before another takes its place."""
    real, broken = house._note_pids, ["once"]
    seen: list[int] = []

    def note() -> None:
        seen.append(house.children["hall0"].pid)
        if broken:
            raise LookupError(broken.pop())
        real()

    monkeypatch.setattr(house, "_note_pids", note)
    monkeypatch.setattr(tasks, "PAUSES_S", (0.0,))
    house.keep("hall0", module("import signal\ndef main(): signal.sigwait({signal.SIGTERM})"))
    while len(seen) < 2:  # noqa: ASYNC110 - nothing tells of a birth
        await asyncio.sleep(0.01)
    assert seen[0] != seen[1]
    assert not os.path.exists(f"/proc/{seen[0]}")  # noqa: ASYNC240 - not a disk
    assert os.path.exists(f"/proc/{seen[1]}")  # noqa: ASYNC240
    assert not house.children["hall0"].hopeless


async def test_who_is_ended_is_not_started_again(house: Supervisor, module: Module) -> None:
    place = module("import signal\ndef main(): signal.sigwait({signal.SIGTERM})")
    for name in ("engine", "hall0", "web0"):
        house.keep(name, place)
    while not all(kept.pid for kept in house.children.values()):  # noqa: ASYNC110 - nothing tells of a birth
        await asyncio.sleep(0.01)
    pids = pids_of(house)
    assert set(pids) == {"engine", "hall0", "web0", "zygote"}
    await house.stop()
    assert not [pid for pid in pids.values() if os.path.exists(f"/proc/{pid}")]  # noqa: ASYNC240 - not a disk
    assert not house.runtime.path.joinpath("pids.json").exists()


async def test_how_processes_fare_is_noted_for_the_front(house: Supervisor, module: Module) -> None:
    house.keep("web0", module("def main(): raise SystemExit('no port is free')"))
    await house.children["web0"].given_up.wait()
    while not noted_lives(house.runtime.lives)["web0"].hopeless:  # noqa: ASYNC110 - it is written after that
        await asyncio.sleep(0.01)
    life = noted_lives(house.runtime.lives)["web0"]
    assert life.error == "no port is free"
    assert life.restarts >= 1
    await house.stop()
    assert not house.runtime.lives.exists()


def pids_of(house: Supervisor) -> dict[str, Any]:
    return dict(json.loads((house.runtime.path / "pids.json").read_text()))

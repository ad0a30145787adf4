"""Every long-lived task of the house is hurt, once and for good: it comes back, and is counted."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import pytest

from consent.archive.keys import OfficeKeys, SigningKey
from consent.archive.tables import Archive
from consent.grants.grant import GrantVerifier
from consent.ledger.books import Books
from consent.ledger.head_keeper import HeadKeeper
from gateway.config.runtime import Runtime
from gateway.config.settings import Settings
from gateway.front.front import Front
from gateway.front.house.metrics import Metrics
from gateway.line.web import WebLine
from gateway.rtp.line_plan import LinePlan
from gateway.rtp.rtp_line import RtpLine
from gateway.run.supervisor import Supervisor
from gateway.store.sessions import Sessions
from model.ears.ears_client import Ears
from model.reference import ReferenceDesk
from model.revoked_voices import RevokedVoices
from model.tasks import Tasks, failures, watch_loop
from tests.e2e.gateway_process import free_port
from tests.gateway.front.admission.test_routing import Desk
from tests.gateway.hall import virtual_hall

HOUSE_TIME = True

SOURCES: Final = Path(__file__).parents[3]
NOWHERE: Final = "unix:///nowhere"

ELSEWHERE: Final = {
    "chroma.conductor": "vital: the engine's process ends, and the server that has it (tests/model/chroma)",
    "ears.keep": "starts a process, in an engine that runs by itself (tests/model/ears)",
    "replica.report": "begins within Ray alone; a placement forgets who says nothing",
}
"""Long-lived tasks that begin in none of the houses below."""


@asynccontextmanager
async def a_hall(folder: Path) -> AsyncIterator[None]:
    house = virtual_hall.House(folder)
    await house.open()
    await house.hall.start()
    try:
        yield
    finally:
        await house.close()
        await house.hall._tasks.stop()
        await house.hall._server.stop()
        await house.hall._ticks.stop()


@asynccontextmanager
async def a_front(folder: Path) -> AsyncIterator[None]:
    desk = Desk(folder)
    desk.routing.halls.clear()  # the double takes calls only
    desk.office.withdrawn = list  # type: ignore[attr-defined]  # nobody withdraws here
    desk.office.usable = tuple  # type: ignore[attr-defined]  # nobody has a voice here
    desk.office.look_at_ledger = lambda: 0  # type: ignore[attr-defined]  # no witness has an alarm
    desk.office.publish_keys = lambda: None  # type: ignore[attr-defined]  # nor is any key new
    desk.office.close = lambda: None  # type: ignore[attr-defined]  # it is a double
    ledger = Books(Archive.open(f"sqlite:///{folder}/ledger.db"), OfficeKeys.open(folder / "consent"))
    desk.office.heads = HeadKeeper(ledger, [])  # type: ignore[attr-defined]
    desk.office.clock = ledger.clock  # type: ignore[attr-defined]
    runtime = Runtime(folder)
    (folder / "data").mkdir()
    settings = Settings(
        data_dir=folder / "data", host="127.0.0.1", sip_port=free_port(),
        otlp_url="http://127.0.0.1:9", hep="127.0.0.1:9",
    )  # fmt: skip
    sessions = await Sessions.open(NOWHERE)
    front = Front(
        settings, runtime, runtime.new_token(), desk.routing, desk.office, desk.registry, sessions, Metrics()
    )  # fmt: skip
    front.voices.keep_tidy = asyncio.Event().wait  # type: ignore[method-assign, assignment]  # the double has no ledger
    await front.start()
    try:
        yield
    finally:
        await front.stop()
        desk.registry.close()


@asynccontextmanager
async def a_web_line(folder: Path) -> AsyncIterator[None]:
    line = WebLine("web0", "hall0", Runtime(folder), "token")
    running = asyncio.create_task(line.run())
    try:
        yield
    finally:
        line.stop()
        with contextlib.suppress(SystemExit):
            await running


@asynccontextmanager
async def a_sip_line(folder: Path) -> AsyncIterator[None]:
    line = RtpLine(LinePlan("n0", "narrow", "hall0", Runtime(folder), "token", capacity=4))
    running = asyncio.create_task(line.run())
    try:
        yield
    finally:
        line.stop()
        with contextlib.suppress(SystemExit):
            await running


@asynccontextmanager
async def an_engine(_: Path) -> AsyncIterator[None]:
    key = SigningKey.make()
    verifier = GrantVerifier({key.kid: key.private.public_key()})
    revoked = RevokedVoices(lambda _: None, verifier, NOWHERE, ReferenceDesk("/nowhere", None))
    revoked.start()
    ears = Ears(Path("/nowhere/ears"))
    try:
        yield
    finally:
        await ears.close()
        await revoked.stop()


@asynccontextmanager
async def a_supervisor(folder: Path) -> AsyncIterator[None]:
    settings = Settings(data_dir=folder / "data")
    supervisor = Supervisor(settings, Runtime(folder), "token", lambda _: None)

    async def fails(*_: object, **__: object) -> Any:
        raise OSError("too many processes")

    supervisor._start_process = fails  # type: ignore[method-assign]
    supervisor.keep("part", "nowhere:main")
    try:
        yield
    finally:
        supervisor.stopping.set()
        await supervisor._tasks.stop()


HOUSES: Final[dict[str, Callable[[Path], AbstractAsyncContextManager[None]]]] = {
    "hall": a_hall,
    "front": a_front,
    "web line": a_web_line,
    "SIP line": a_sip_line,
    "engine": an_engine,
    "supervisor": a_supervisor,
}


class Hurt:
    """Has each lasting task that begins raise, so many times, before its own work begins."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, times: float) -> None:
        self.raised: Counter[str] = Counter()
        self.went_on: set[str] = set()
        self.begun: set[str] = set()
        lasting = Tasks.lasting

        def begin(tasks: Tasks, work: Callable[[], Awaitable[object]], name: str) -> asyncio.Task[None]:
            mine = SimpleNamespace(raised=0)

            async def hurt() -> None:
                self.begun.add(name)
                if mine.raised < times:
                    mine.raised += 1
                    self.raised[name] += 1
                    raise RecursionError("what nobody expects")
                self.went_on.add(name)
                await work()

            return lasting(tasks, hurt, name)

        monkeypatch.setattr(Tasks, "lasting", begin)


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="vgt-") as name:
        yield Path(name)


@pytest.mark.parametrize("house", HOUSES)
async def test_hurt_once_each_comes_back_and_is_counted(
    house: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurt = Hurt(monkeypatch, 1)
    async with HOUSES[house](folder):
        await asyncio.sleep(3.0)
        assert hurt.begun
        assert hurt.went_on == hurt.begun
        for name in hurt.begun:
            assert failures[name] == hurt.raised[name]


@pytest.mark.parametrize("house", HOUSES)
async def test_hurt_for_good_each_is_tried_again_and_again(
    house: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurt = Hurt(monkeypatch, float("inf"))
    async with HOUSES[house](folder):
        await asyncio.sleep(20.0)
        for name in hurt.begun:
            assert hurt.raised[name] >= 5
            assert failures[name] == hurt.raised[name]


async def test_no_long_lived_task_is_left_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: set[str] = set()
    for name, house in HOUSES.items():
        place = folder / name[:3].strip()
        place.mkdir()
        with monkeypatch.context() as patch:
            hurt = Hurt(patch, 0)
            async with house(place):
                await asyncio.sleep(1.0)
            begun |= hurt.begun
    named = {_pattern(name) for name in begun}
    assert _written() - named == set(ELSEWHERE)


def _pattern(name: str) -> str:
    return "keep." if name.startswith("keep.") else name


def _written() -> set[str]:
    """The names by which the sources begin what lasts; of an f-string its first part."""
    names: set[str] = set()
    for package in ("gateway", "model", "consent", "watermark"):
        for path in (SOURCES / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                    continue
                if node.func.attr not in ("lasting", "vital") or len(node.args) != 2:
                    continue
                name = node.args[1]
                if isinstance(name, ast.JoinedStr):
                    name = name.values[0]
                if isinstance(name, ast.Constant) and name.value not in ("web.ticks", "rtp.ticks"):
                    names.add(str(name.value))
    return names


@pytest.mark.parametrize(
    ("line", "house", "ticks"), [(WebLine, a_web_line, "web.ticks"), (RtpLine, a_sip_line, "rtp.ticks")]
)
async def test_a_line_without_its_ticks_ends(
    line: type[WebLine] | type[RtpLine],
    house: Callable[[Path], AbstractAsyncContextManager[None]],
    ticks: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Run in a loop of its own: the process ends by `SystemExit`, which a test cannot survive otherwise."""
    ended: list[str] = []

    async def fails(_: WebLine | RtpLine) -> None:
        raise RecursionError("what nobody expects")

    def lasts(tasks: Tasks, work: Callable[[], Awaitable[object]], name: str) -> asyncio.Task[None]:
        async def watched() -> None:
            try:
                await work()
            except Exception as error:
                ended.append(f"{name}: {type(error).__name__}")

        return tasks.short(watched(), name)

    monkeypatch.setattr(line, "_tick_on", fails)
    monkeypatch.setattr(Tasks, "vital", lasts)  # what `vital` does with it: tests/model/test_tasks.py
    async with house(folder):
        await asyncio.sleep(0.1)
    assert ended == [f"{ticks}: RecursionError"]


async def test_what_a_loop_would_only_print_is_counted() -> None:
    loop = asyncio.get_running_loop()
    before = loop.get_exception_handler()
    try:
        watch_loop()
        loop.call_soon(lambda: 1 / 0)
        await asyncio.sleep(0.1)
    finally:
        loop.set_exception_handler(before)
    assert failures["loop"] == 1

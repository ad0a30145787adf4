"""Headless Chromium presses Call: the page, the app, a web line; the hall is this test's."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from array import array
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import uvicorn
from playwright.async_api import Browser, JSHandle, Page, async_playwright, expect

from gateway.config.runtime import Runtime
from gateway.config.settings import Settings
from gateway.errors import CallRefused, RpcError
from gateway.front.app import build_app
from gateway.ipc.front_messages import HouseState
from gateway.ipc.line_messages import (
    CallConfirmed,
    CallLeft,
    CallStarted,
    DropCall,
    KeyPressed,
    ShowCaller,
    Shown,
    ShownHeard,
    ShownLatency,
    ShownState,
    ShownWords,
)
from tests.browser import FLAGS, PAGE_MS
from tests.gateway.line.line_harness import TOKEN, FakeFront, FakeHall, power_at, tone
from tests.needs import need_program

pytestmark = pytest.mark.asyncio(loop_scope="module")


class Desk:
    """The app's house: a front without routing."""

    def __init__(self, front: FakeFront) -> None:
        self.front = front
        self.records: dict[str, dict[str, Any]] = {}
        self.full = False

    async def place(self, offer_sdp: str, dialled: str, source: str, user_agent: str) -> tuple[str, str]:
        if self.full:
            raise CallRefused(503, "all web lines are busy", retry_after_s=5)
        call_id = f"c{len(self.records) + 1}"
        try:
            answer = await self.front.offer(call_id, offer_sdp)
        except RpcError as error:
            raise CallRefused(488, str(error)) from None
        self.records[call_id] = {
            "call_id": call_id, "state": "talking", "caller": "web", "called": dialled, "source": source,
        }  # fmt: skip
        return call_id, answer

    async def hang_up(self, call_id: str, *, by_caller: bool = False) -> None:
        try:
            await self.front.hang_up(call_id)
        except RpcError as error:
            raise CallRefused(404, str(error)) from None

    async def list_calls(self) -> list[dict[str, Any]]:
        while not self.front.ended.empty():
            call_id, how = self.front.ended.get_nowait()
            self.records[call_id] |= {"state": "ended", "how": how, "ended_at": 2.0}
        return list(self.records.values())

    async def show_call(self, call_id: str) -> dict[str, Any] | None:
        return self.records.get(call_id)

    async def prometheus(self) -> bytes:
        return b""

    async def ready(self) -> HouseState:
        return HouseState(ready=True, parts={"hall0": True})


class Stage:
    def __init__(self, runtime: Runtime) -> None:
        self.hall = FakeHall(runtime, sound=tone(440))
        self.front = FakeFront(runtime)
        self.desk = Desk(self.front)
        self.url = ""


@pytest_asyncio.fixture(loop_scope="module")
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    """A web line in a process of its own, as the supervisor starts it, and the app on a free port."""
    runtime = Runtime(tmp_path)
    stage = Stage(runtime)
    await stage.hall.start()
    await stage.front.start()
    line = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway.line.web", "--name", "web0", "--hall", "hall0",
        "--runtime", str(tmp_path),
        env={**os.environ, "VOICEGATE_BOOT_TOKEN": TOKEN, "VOICEGATE_DATA_DIR": str(tmp_path)},
    )  # fmt: skip
    sock = socket.create_server(("127.0.0.1", 0))
    app = build_app(stage.desk, Settings(host="127.0.0.1"))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
    serving = asyncio.create_task(server.serve([sock]))
    stage.url = f"http://localhost:{sock.getsockname()[1]}"
    async with asyncio.timeout(10):
        await stage.front.line_up.wait()
        await stage.hall.line_up.wait()
    yield stage
    server.should_exit = True
    await serving
    line.terminate()
    async with asyncio.timeout(5):
        assert await line.wait() == 0
    await stage.front.stop()
    await stage.hall.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    chromium = need_program("chromium")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="module")
async def page(browser: Browser, stage: Stage) -> AsyncIterator[Page]:
    """The console, opened; anything it complains of in its log fails the test."""
    page = await browser.new_page(viewport={"width": 1100, "height": 900})
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    await page.goto(stage.url)
    yield page
    await page.close()
    assert [text for text in complaints if "503" not in text] == []


async def call(page: Page, stage: Stage) -> CallStarted:
    await page.get_by_role("button", name="Call", exact=True).click()
    started = await stage.hall.hears(CallStarted, within_s=10)
    await stage.hall.hears(CallConfirmed, within_s=10)
    return started


async def show(stage: Stage, call_id: str, event: Shown) -> None:
    await stage.hall.ask(ShowCaller(call_id, event))


async def test_a_call_from_the_page(page: Page, stage: Stage) -> None:
    started = await call(page, stage)
    number = started.call
    await expect(page.get_by_role("button", name="Hang up", exact=True)).to_be_visible()

    # the page hears the hall's 440 Hz …
    loud = "() => Number(document.getElementById('bot').getAttribute('aria-valuenow')) > -30"
    await page.wait_for_function(loud)
    # … and the hall hears Chromium's fake microphone, which beeps once a second
    await stage.hall.hears_sound(number, seconds=2.0)
    assert max(memoryview(bytes(stage.hall.heard[number])).cast("h")) > 1000

    await show(stage, "c1", ShownWords("i1", "Hello, I am", final=False))
    await show(stage, "c1", ShownWords("i1", "Hello, I am an automated voice.", final=True))
    await show(stage, "c1", ShownState("thinking"))
    await show(stage, "c1", ShownHeard("what are your opening hours", duration_s=1.4, confidence=0.9))
    await show(stage, "c1", ShownWords("i2", "We are open from nine to five.", final=True))
    await show(stage, "c1", ShownLatency(1, endpointing=0.35, engine=0.09, playout=0.02, whole=0.46))
    await show(stage, "c1", ShownState("speaking"))
    log = page.get_by_role("log")
    await expect(log.get_by_role("listitem")).to_contain_text(
        ["Hello, I am an automated voice.", "what are your opening hours", "We are open from nine to five."]
    )
    await expect(log).to_contain_text("after 0.46 s (endpointing 350 + engine 90 + playout 20 ms)")
    await expect(page.locator("#state")).to_have_text("Speaking")

    await page.get_by_role("button", name="5").click()
    await page.keyboard.press("#")
    assert (await stage.hall.hears(KeyPressed)).digit == "5"
    assert (await stage.hall.hears(KeyPressed)).digit == "#"

    await page.get_by_role("button", name="Hang up", exact=True).click()
    assert (await stage.hall.hears(CallLeft)).how == "caller hung up"
    await expect(page.locator("#state")).to_have_text("Call ended")
    await expect(page.get_by_role("table")).to_contain_text("caller hung up")


async def test_what_the_page_plays_is_what_the_hall_said(page: Page, stage: Stage) -> None:
    await call(page, stage)
    await page.wait_for_function("() => document.getElementById('voice').srcObject !== null")
    analyser = await page.evaluate_handle(
        """() => {
          const context = new AudioContext({ sampleRate: 48000 });
          const source = context.createMediaStreamSource(document.getElementById('voice').srcObject);
          const analyser = context.createAnalyser();
          analyser.fftSize = 16384;
          source.connect(analyser);
          return analyser;
        }"""
    )
    async with asyncio.timeout(PAGE_MS / 1000):  # a busy machine's browser begins with gaps
        while power_at(await last_third_of_a_second(page, analyser), 440) <= 0.9:  # noqa: ASYNC110 - it only plays
            await asyncio.sleep(0.2)


async def last_third_of_a_second(page: Page, analyser: JSHandle) -> bytes:
    """What the page has just played, 16 bits at 48 kHz."""
    samples = await page.evaluate(
        """(analyser) => {
          const heard = new Float32Array(analyser.fftSize);
          analyser.getFloatTimeDomainData(heard);
          return Array.from(heard, (sample) => Math.round(sample * 32767));
        }""",
        analyser,
    )
    return array("h", samples).tobytes()


async def test_the_hall_hangs_up(page: Page, stage: Stage) -> None:
    await call(page, stage)
    await stage.hall.ask(DropCall("c1"))
    await expect(page.locator("#state")).to_have_text("Call ended")
    await expect(page.locator("#detail")).to_have_text("The voice hung up.")
    await expect(page.get_by_role("button", name="Call", exact=True)).to_be_visible()


async def test_the_operator_hangs_up(page: Page, stage: Stage) -> None:
    await call(page, stage)
    await page.get_by_role("button", name="Hang up call c1").click()
    assert (await stage.hall.hears(CallLeft)).how == "hung up"
    await expect(page.locator("#state")).to_have_text("Call ended")


async def test_closing_the_page_ends_the_call(browser: Browser, stage: Stage) -> None:
    page = await browser.new_page()
    await page.goto(stage.url)
    await call(page, stage)
    await show(stage, "c1", ShownState("listening"))
    await expect(page.locator("#state")).to_have_text("Listening")  # its channel is open: it can say goodbye
    await page.close(run_before_unload=False)
    assert (await stage.hall.hears(CallLeft)).how == "caller hung up"


async def test_all_lines_busy(page: Page, stage: Stage) -> None:
    stage.desk.full = True
    await page.get_by_role("button", name="Call", exact=True).click()
    await expect(page.get_by_role("alert")).to_have_text("All lines are busy. Try again in 5 seconds.")
    await expect(page.get_by_role("button", name="Call", exact=True)).to_be_visible()


@pytest.mark.parametrize(
    ("error", "says"), [("NotAllowedError", "The microphone is blocked"), ("NotFoundError", "No microphone")]
)
async def test_no_microphone(page: Page, stage: Stage, error: str, says: str) -> None:
    await page.evaluate(
        """(name) => {
          navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('', name) };
        }""",
        error,
    )
    await page.get_by_role("button", name="Call", exact=True).click()
    await expect(page.get_by_role("alert")).to_contain_text(says)


async def test_a_second_call_after_the_first(page: Page, stage: Stage) -> None:
    await call(page, stage)
    await page.get_by_role("button", name="Hang up", exact=True).click()
    await stage.hall.hears(CallLeft)
    started = await call(page, stage)
    assert started.call_id == "c2"
    await page.get_by_role("button", name="Hang up", exact=True).click()
    await stage.hall.hears(CallLeft)


async def test_the_page_needs_nobody_else(browser: Browser, stage: Stage) -> None:
    page = await browser.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    await page.goto(stage.url)
    await expect(page.locator("#gateway-text")).to_have_text("Ready")
    assert asked
    assert all(url.startswith(stage.url) for url in asked), json.dumps(asked)
    await page.close()


async def test_the_login_form_opens_the_console(browser: Browser, stage: Stage) -> None:
    sock = socket.create_server(("127.0.0.1", 0))
    app = build_app(stage.desk, Settings(host="0.0.0.0"), "a-console-token")
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
    serving = asyncio.create_task(server.serve([sock]))
    context = await browser.new_context()
    page = await context.new_page()
    await page.goto(f"http://127.0.0.1:{sock.getsockname()[1]}/")
    await page.get_by_label("Console token").fill("wrong")
    await page.get_by_role("button", name="Open the console").click()
    await expect(page.get_by_role("alert")).to_have_text("That is not the token.")
    await page.get_by_label("Console token").fill("a-console-token")
    await page.get_by_role("button", name="Open the console").click()
    await expect(page.locator("#gateway-text")).to_have_text("Ready")
    await context.close()
    server.should_exit = True
    await serving

"""Microphone and speaker on the page, in Chromium with devices of its own: chosen, kept, lost in a call."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Page, async_playwright, expect

from gateway.ipc.line_messages import CallConfirmed, CallLeft, CallStarted
from tests.browser import FLAGS, until
from tests.firefox import KEEP_CONNECTION
from tests.gateway.front.http.page_stage import Stage, stage
from tests.gateway.front.http.test_app_browser import faults
from tests.needs import HANGS_S, need_program

__all__ = ["stage"]
pytestmark = pytest.mark.asyncio(loop_scope="module")

UNPLUG = """
(() => {
  const media = navigator.mediaDevices;
  const [all, open] = [media.enumerateDevices.bind(media), media.getUserMedia.bind(media)];
  const away = new Set(), streams = [];
  const gone = (id) => away.has('*') || away.has(id);
  media.enumerateDevices = async () => (await all()).filter((one) => !away.has(one.label) && !away.has('*'));
  media.getUserMedia = async (asked) => {
    const id = asked.audio.deviceId?.exact;
    const found = (await all()).find((one) => one.deviceId === (id ?? 'default'));
    if (gone(found?.label)) throw new DOMException('', id ? 'OverconstrainedError' : 'NotFoundError');
    const stream = await open(asked);
    streams.push(stream);
    return stream;
  };
  const sink = HTMLMediaElement.prototype.setSinkId;
  HTMLMediaElement.prototype.setSinkId = async function (id) {
    const found = (await all()).find((one) => one.deviceId === id);
    if (id && gone(found?.label)) throw new DOMException('', 'NotFoundError');
    return sink.call(this, id);
  };
  window.plug = (label) => { away.delete(label); media.dispatchEvent(new Event('devicechange')); };
  window.unplug = (label, first) => {
    away.add(label);
    const told = [() => media.dispatchEvent(new Event('devicechange')), () => {
      for (const track of streams.flatMap((one) => one.getAudioTracks()))
        if ((label === '*' || track.label === label) && track.readyState === 'live') {
          track.stop();
          track.dispatchEvent(new Event('ended'));
        }
    }];
    if (first === 'ended') told.reverse();
    for (const tell of told) tell();
  };
})()
"""
"""What a browser does when a device is pulled out: its track ends, a page is told, it is listed no more."""
SENT = "window.connection.getSenders()[0].track"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    flags = [*FLAGS, "--use-fake-device-for-media-stream=device-count=3"]
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=need_program("chromium"), args=flags)
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="module")
async def context(browser: Browser) -> AsyncIterator[BrowserContext]:
    context = await browser.new_context(viewport={"width": 1100, "height": 900}, permissions=["microphone"])
    await context.add_init_script(KEEP_CONNECTION)
    await context.add_init_script(UNPLUG)
    yield context
    await context.close()


async def opened(context: BrowserContext, stage: Stage) -> Page:
    page = await context.new_page()
    await page.goto(stage.url)
    await page.get_by_text("Microphone and speaker").click()
    return page


async def call(page: Page, stage: Stage) -> int:
    await page.locator("#call").click()
    started = await stage.hall.hears(CallStarted, within_s=HANGS_S)
    await stage.hall.hears(CallConfirmed, within_s=HANGS_S)
    await expect(page.get_by_role("button", name="Mute", exact=True)).to_be_visible()
    return started.call


async def heard_anew(stage: Stage, number: int) -> None:
    """The hall hears the browser's beeps, from now on."""
    stage.hall.heard[number].clear()
    await stage.hall.hears_sound(number, seconds=1.5, within_s=HANGS_S)
    assert max(memoryview(bytes(stage.hall.heard[number])).cast("h")) > 1000


async def test_what_was_chosen_is_used_and_remembered(context: BrowserContext, stage: Stage) -> None:
    page = await opened(context, stage)
    microphone, speaker = page.get_by_label("Microphone"), page.get_by_label("Speaker")
    there = ["Default", "Fake Audio Input 1", "Fake Audio Input 2"]
    await expect(microphone.locator("option")).to_have_text(there)
    await microphone.select_option(label="Fake Audio Input 2")
    await speaker.select_option(label="Fake Audio Output 1")
    await page.reload()
    await page.get_by_text("Microphone and speaker").click()
    await expect(microphone.locator("option:checked")).to_have_text("Fake Audio Input 2")
    number = await call(page, stage)
    assert await page.evaluate(f"{SENT}.label") == "Fake Audio Input 2"
    chosen = await speaker.input_value()
    await until(page, f"() => document.getElementById('voice').sinkId === '{chosen}'")

    # another one in the call, whose mute holds on
    await page.get_by_role("button", name="Mute", exact=True).click()
    await microphone.select_option(label="Fake Audio Input 1")
    await until(page, f"() => {SENT}.label === 'Fake Audio Input 1'")
    assert not await page.evaluate(f"{SENT}.enabled")
    await page.get_by_role("button", name="Muted", exact=True).click()
    await heard_anew(stage, number)
    await speaker.select_option(label="Default")
    await until(page, "() => document.getElementById('voice').sinkId === ''")
    await expect(page.locator("#notice")).to_be_hidden()
    await page.locator("#call").click()
    await stage.hall.hears(CallLeft)


@pytest.mark.parametrize("first", ["ended", pytest.param("list", marks=pytest.mark.prove)])
async def test_a_device_that_vanishes_is_replaced_and_the_call_goes_on(
    context: BrowserContext, stage: Stage, first: str
) -> None:
    """Its track ends before the list changes, or after."""
    page = await opened(context, stage)
    await page.get_by_label("Microphone").select_option(label="Fake Audio Input 2")
    await page.get_by_label("Speaker").select_option(label="Fake Audio Output 2")
    notice, number = page.locator("#notice"), await call(page, stage)
    await page.evaluate("(first) => unplug('Fake Audio Input 2', first)", first)
    await expect(notice).to_contain_text(
        "The microphone “Fake Audio Input 2” is gone; the default one is used."
    )
    await until(page, f"() => {SENT}.label === 'Fake Default Audio Input' && {SENT}.readyState === 'live'")
    chosen = page.get_by_label("Microphone").locator("option:checked")
    await expect(chosen).to_have_text("Gone: Fake Audio Input 2")
    await heard_anew(stage, number)

    await page.evaluate("() => unplug('Fake Audio Output 2')")
    await expect(notice).to_contain_text(
        "The speaker “Fake Audio Output 2” is gone; the default one is used."
    )
    await until(page, "() => document.getElementById('voice').sinkId === ''")
    await page.evaluate("() => plug('Fake Audio Input 2')")
    await expect(notice).to_contain_text("The microphone “Fake Audio Input 2” is back, and used again.")
    await until(page, f"() => {SENT}.label === 'Fake Audio Input 2'")
    await heard_anew(stage, number)

    # nothing is left, and the voice is still heard
    await page.evaluate("(first) => unplug('*', first)", first)
    await expect(notice).to_contain_text("No microphone works: the voice cannot hear you.")
    await expect(page.get_by_role("button", name="Hang up", exact=True)).to_be_visible()
    await page.evaluate("() => plug('*')")
    await until(page, f"() => {SENT}.readyState === 'live'")
    await expect(notice).not_to_contain_text("No microphone works")
    await heard_anew(stage, number)
    assert stage.desk.hows == []
    assert await faults(page) == []
    await page.locator("#call").click()
    assert (await stage.hall.hears(CallLeft)).how == "caller hung up"
    assert len(stage.desk.records) == 1


async def test_what_somebody_wrote_into_the_memory_harms_nobody(
    context: BrowserContext, stage: Stage
) -> None:
    for kept in (
        "null", "[]", "{", '{"audioinput": 7, "audiooutput": {"id": {}, "label": 1}}',
        '{"audioinput": {"id": "never-there", "label": "<img src=x onerror=alert(1)>"}}',
    ):  # fmt: skip
        page = await context.new_page()
        complaints: list[str] = []
        page.on("pageerror", lambda error, said=complaints: said.append(str(error)))
        await page.goto(f"{stage.url}/console/icon.svg")
        await page.evaluate("(kept) => localStorage.setItem('voicegate.devices', kept)", kept)
        await page.goto(stage.url)
        await expect(page.locator("#gateway-text")).to_have_text("Ready")
        assert complaints == []
        if "img" in kept:
            await expect(page.locator("#notice")).to_have_text(
                "The microphone “<img src=x onerror=alert(1)>” is gone; the default one is used."
            )
            await call(page, stage)
            await page.locator("#call").click()
            await stage.hall.hears(CallLeft)
        await page.close()

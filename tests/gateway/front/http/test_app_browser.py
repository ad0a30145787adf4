"""Headless Chromium presses Call: the page, the app, a web line; the hall is this test's."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
from array import array
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
import uvicorn
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, JSHandle, Page, Route, async_playwright, expect

from gateway.config.settings import Settings
from gateway.front.http.app import build_app
from gateway.ipc.ending import End
from gateway.ipc.front_messages import HouseState
from gateway.ipc.line_messages import (
    CallConfirmed,
    CallLeft,
    CallStarted,
    DropCall,
    KeyPressed,
    ShownHeard,
    ShownLatency,
    ShownNote,
    ShownState,
    ShownWords,
)
from tests.browser import FLAGS, PAGE_MS, until
from tests.firefox import KEEP_CONNECTION
from tests.gateway.front.http.page_stage import Stage, stage
from tests.gateway.line.line_harness import TOKEN, power_at
from tests.needs import HANGS_S, need_program

__all__ = ["stage"]

pytestmark = pytest.mark.asyncio(loop_scope="module")


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


async def call(page: Page, stage: Stage, button: str = "Call") -> CallStarted:
    await page.get_by_role("button", name=button, exact=True).click()
    started = await stage.hall.hears(CallStarted, within_s=10)
    await stage.hall.hears(CallConfirmed, within_s=10)
    return started


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

    await stage.show("c1", ShownWords("i1", "Hello, I am", final=False))
    await stage.show("c1", ShownWords("i1", "Hello, I am an automated voice.", final=True))
    await stage.show("c1", ShownState("thinking"))
    await stage.show("c1", ShownHeard("what are your opening hours", duration_s=1.4, confidence=0.9))
    await stage.show("c1", ShownWords("i2", "We are open from nine to five.", final=True))
    await stage.show("c1", ShownLatency(1, endpointing=0.35, engine=0.09, playout=0.02, whole=0.46))
    await stage.show("c1", ShownState("speaking"))
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
          analyser.fftSize = 4096;
          source.connect(analyser);
          return analyser;
        }"""
    )
    async with asyncio.timeout(PAGE_MS / 1000):  # a busy machine's browser begins with gaps
        while power_at(await last_twelfth_of_a_second(page, analyser), 440) <= 0.9:  # noqa: ASYNC110 - it only plays
            await asyncio.sleep(0.2)


async def last_twelfth_of_a_second(page: Page, analyser: JSHandle) -> bytes:
    """What the page has just played, 16 bits at 48 kHz; longer pieces all have a busy machine's gaps."""
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
    await expect(page.get_by_role("button", name="Call again", exact=True)).to_be_visible()


async def test_the_operator_hangs_up(page: Page, stage: Stage) -> None:
    await page.goto(f"{stage.url}/login")
    await page.get_by_label("Console token").fill(TOKEN)
    await page.get_by_role("button", name="Open the console").click()
    await expect(page.get_by_role("button", name="Log out")).to_be_visible()
    await call(page, stage)
    await page.get_by_role("button", name="Hang up call c1").click()
    assert (await stage.hall.hears(CallLeft)).how == "hung up"
    await expect(page.locator("#state")).to_have_text("Call ended")


async def test_who_did_not_log_in_hangs_up_no_call_but_the_own_one(page: Page, stage: Stage) -> None:
    await call(page, stage)
    await expect(page.locator("#calls tr").first).to_contain_text("web")
    await expect(page.get_by_role("button", name="Hang up call c1")).to_have_count(0)
    await expect(page.get_by_role("link", name="Log in")).to_be_visible()
    await page.get_by_role("button", name="Hang up", exact=True).click()
    await expect(page.locator("#detail")).to_have_text("You hung up.")


async def test_another_page_in_this_browser_places_and_ends_no_call(browser: Browser, stage: Stage) -> None:
    """One of another port of localhost: the same site, so that even strict cookies go with its requests."""
    context = await browser.new_context()
    page = await context.new_page()
    await page.goto(stage.url)
    await call(page, stage)
    other = await context.new_page()
    served = await asyncio.start_server(_evil, "127.0.0.1", 0)
    port = served.sockets[0].getsockname()[1]
    await other.goto(f"http://localhost:{port}/")
    tried = await other.evaluate(EVIL, stage.url)
    assert tried == ["no answer"] * 5
    served.close()
    assert list(stage.desk.records) == ["c1"]
    assert stage.desk.hows == []
    await expect(page.locator("#call-text")).to_have_text("Hang up")
    await context.close()


EVIL = """async (gate) => {
  const tries = [
    ["/api/call", { method: "POST", body: "v=0", headers: { "Content-Type": "application/sdp" } }],
    ["/api/call", { method: "POST", body: "v=0", mode: "no-cors" }],
    ["/api/calls/c1", { method: "DELETE" }],
    ["/api/calls", {}],
    ["/api/me", {}],
  ];
  const told = [];
  for (const [path, how] of tries) {
    try {
      const answer = await fetch(gate + path, { credentials: "include", ...how });
      told.push(answer.type === "opaque" ? "no answer" : await answer.text());
    } catch {
      told.push("no answer");
    }
  }
  return told;
}"""


async def _evil(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 4\r\n\r\nevil")
    await writer.drain()
    writer.close()


async def test_closing_the_page_ends_the_call(browser: Browser, stage: Stage) -> None:
    page = await browser.new_page()
    await page.goto(stage.url)
    await call(page, stage)
    await stage.show("c1", ShownState("listening"))
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
    started = await call(page, stage, "Call again")
    assert started.call_id == "c2"
    await page.get_by_role("button", name="Hang up", exact=True).click()
    await stage.hall.hears(CallLeft)


async def test_the_page_says_what_the_voice_does_and_who_speaks(page: Page, stage: Stage) -> None:
    await call(page, stage)
    state, detail = page.locator("#state"), page.locator("#detail")
    await stage.show("c1", ShownState("announcing"))
    await expect(state).to_have_text("Speaking")
    await expect(detail).to_contain_text("Listen first")
    await stage.show("c1", ShownWords("i1", "You talk to a machine.", final=True))
    await stage.show("c1", ShownState("speaking"))
    await expect(detail).to_contain_text("You may interrupt")
    await stage.show("c1", ShownState("listening"))
    await expect(state).to_have_text("Listening")
    await stage.show("c1", ShownState("thinking"))
    await expect(state).to_have_text("Thinking…")
    await stage.show("c1", ShownHeard("are you open", duration_s=1.0, confidence=0.9))
    await stage.show("c1", ShownWords("i2", "One moment, please.", final=True))
    await stage.show("c1", ShownNote("The voice does not ask for a key now."))
    items = page.get_by_role("log").get_by_role("list").get_by_role("listitem")
    await expect(items).to_have_text(
        ["Voice: You talk to a machine.", re.compile("You: are you open"), "Voice: One moment, please.",
         "The voice does not ask for a key now."]
    )  # fmt: skip


async def test_a_state_may_come_before_the_browser_says_that_it_is_connected(
    page: Page, stage: Stage
) -> None:
    await page.evaluate(
        """() => {
          window.RTCPeerConnection = class extends RTCPeerConnection {
            addEventListener(kind, listener) {
              const late = (event) => setTimeout(() => listener(event), 1000);
              super.addEventListener(kind, kind === 'connectionstatechange' ? late : listener);
            }
          };
        }"""
    )
    await call(page, stage)
    await stage.show("c1", ShownState("announcing"))
    await expect(page.get_by_role("button", name="Mute")).to_be_visible()  # it is connected now
    await expect(page.locator("#state")).to_have_text("Speaking")


async def faults(page: Page) -> list[str]:
    """What axe finds in a view that is serious, critical or moderate."""
    found = (await Axe().run(page)).response["violations"]
    return [f"{one['id']}: {one['nodes'][0]['html']}" for one in found if one["impact"] != "minor"]


async def test_axe_finds_nothing_in_any_view(page: Page, stage: Stage) -> None:
    await expect(page.locator("#gateway-text")).to_have_text("Ready")
    assert await faults(page) == []
    await call(page, stage)
    await stage.show("c1", ShownWords("i1", "You talk to a machine.", final=True))
    await stage.show("c1", ShownHeard("are you open", duration_s=1.0, confidence=0.9))
    await stage.show("c1", ShownState("listening"))
    await expect(page.get_by_role("table")).to_contain_text("talking")
    assert await faults(page) == []
    await page.get_by_role("button", name="Hang up", exact=True).click()
    await expect(page.get_by_role("table")).to_contain_text("caller hung up")
    assert await faults(page) == []
    stage.desk.full = True
    await page.get_by_role("button", name="Call again", exact=True).click()
    await expect(page.get_by_role("alert")).to_contain_text("All lines are busy")
    assert await faults(page) == []


async def test_forced_colours_tell_the_two_apart(page: Page, stage: Stage) -> None:
    await page.emulate_media(forced_colors="active")
    await call(page, stage)
    await stage.show("c1", ShownWords("i1", "You talk to a machine.", final=True))
    await stage.show("c1", ShownHeard("are you open", duration_s=1.0, confidence=0.9))
    bubbles = page.get_by_role("log").get_by_role("listitem")
    await expect(bubbles).to_have_count(2)
    drawn = "(one) => [getComputedStyle(one).borderTopStyle, getComputedStyle(one).borderTopWidth]"
    voice, you = await bubbles.nth(0).evaluate(drawn), await bubbles.nth(1).evaluate(drawn)
    assert voice != you
    assert "0px" not in (voice[1], you[1])
    meter, bar = (page.locator(f"#bot{inner}") for inner in ("", " i"))
    colour = "(one) => getComputedStyle(one).backgroundColor"
    assert await meter.evaluate(colour) != await bar.evaluate(colour)
    assert (await meter.evaluate(drawn))[1] != "0px"


async def test_a_line_that_died_is_noticed_long_before_ice_notices(page: Page, stage: Stage) -> None:
    """The gateway knows at once; ICE would take 15 s, and has another word for it."""
    await call(page, stage)
    await page.wait_for_function("() => document.getElementById('voice').srcObject !== null")
    stage.kill_line()
    await stage.front.misses("web0", within_s=HANGS_S)
    stage.desk.close("c1", "failed: its line died")
    await expect(page.get_by_role("alert")).to_have_text("The call broke off: its line died.")
    await expect(page.locator("#state")).to_have_text("Call ended")
    await expect(page.get_by_role("button", name="Call again", exact=True)).to_be_visible()


async def test_a_shaky_connection_says_so_until_it_is_back(page: Page, stage: Stage) -> None:
    await call(page, stage)
    await stage.show("c1", ShownState("listening"))
    state = page.locator("#state")
    await expect(state).to_have_text("Listening")
    stage.line.send_signal(signal.SIGSTOP)
    try:
        await expect(state).to_have_text("Connection is shaky")
    finally:
        stage.line.send_signal(signal.SIGCONT)
    await expect(state).to_have_text("Listening")
    await page.get_by_role("button", name="Hang up", exact=True).click()
    assert (await stage.hall.hears(CallLeft)).how == "caller hung up"


async def test_silence_begins_ice_anew_and_the_call_goes_on(page: Page, stage: Stage) -> None:
    """As after a change of networks: the browser's old way is gone, and it has a new one."""
    await page.evaluate(KEEP_CONNECTION)
    await call(page, stage)
    await stage.show("c1", ShownState("listening"))
    await expect(page.locator("#state")).to_have_text("Listening")
    named = "() => window.connection.localDescription.sdp.match(/ice-ufrag:(\\S+)/)[1]"
    before = await page.evaluate(named)
    stage.line.send_signal(signal.SIGSTOP)
    try:
        async with page.expect_request(lambda request: request.method == "PATCH"):
            pass
    finally:
        stage.line.send_signal(signal.SIGCONT)
    # by the new names there is a way, and sound comes by it
    await until(
        page,
        """async (before) => {
          const stats = [...(await window.connection.getStats()).values()];
          const { iceLocalUsernameFragment: now, dtlsState, selectedCandidatePairId: pair } =
            stats.find((one) => one.type === 'transport');
          return now !== before && dtlsState === 'connected'
            && stats.some((one) => one.id === pair && one.state === 'succeeded' && one.responsesReceived > 0);
        }""",
        before,
    )
    assert await page.evaluate(named) != before
    await expect(page.locator("#state")).to_have_text("Listening")
    await page.get_by_role("button", name="Hang up", exact=True).click()
    assert (await stage.hall.hears(CallLeft)).how == "caller hung up"


async def test_a_gateway_that_is_gone_is_said_to_be(browser: Browser, stage: Stage) -> None:
    page = await browser.new_page()
    await page.goto(stage.url)
    await call(page, stage)
    await page.wait_for_function("() => document.getElementById('voice').srcObject !== null")
    await stage.stop_serving()
    stage.kill_line()
    await expect(page.locator("#state")).to_have_text("Connection is shaky")
    await expect(page.locator("#detail")).to_contain_text("Neither sound nor an answer")
    await expect(page.locator("#gateway-text")).to_have_text("The gateway does not answer")
    await page.close()


async def test_what_gets_no_answer_is_given_up(page: Page, stage: Stage) -> None:
    """As behind a cable that was cut: nothing comes, not even an error."""
    await expect(page.locator("#gateway-text")).to_have_text("Ready")

    async def never(_: Route) -> None:
        """Leaves the request without an answer."""

    await page.evaluate(
        """() => {
          const timeout = AbortSignal.timeout;
          AbortSignal.timeout = (ms) => timeout.call(AbortSignal, ms / 10);
        }"""
    )
    await page.route("**/readyz", never)
    await page.route("**/api/call?*", never)
    await expect(page.locator("#gateway-text")).to_have_text("The gateway does not answer")
    await page.get_by_role("button", name="Call", exact=True).click()
    await expect(page.get_by_role("alert")).to_contain_text("did not answer within 10 seconds")
    await expect(page.get_by_role("button", name="Call", exact=True)).to_be_visible()
    await page.unroute_all(behavior="ignoreErrors")


async def test_a_call_that_never_gets_sound_says_what_it_likely_is(page: Page, stage: Stage) -> None:
    async def deaf(route: Route) -> None:
        """The answer with another password, so that no check succeeds."""
        answer = await route.fetch()
        body = re.sub(r"a=ice-pwd:\S+", "a=ice-pwd:" + "x" * 22, await answer.text())
        await route.fulfill(response=answer, body=body)

    await page.route("**/api/call?*", deaf)
    await page.get_by_role("button", name="Call", exact=True).click()
    await expect(page.get_by_role("alert")).to_contain_text("on its own machine only")
    await expect(page.get_by_role("alert")).to_contain_text("VPN")
    await expect(page.locator("#state")).to_have_text("No call")
    await stage.hall.hears(CallLeft, within_s=HANGS_S)
    assert stage.desk.hows == [End.NO_MEDIA], "its place is free again at once"


async def test_a_browser_that_will_not_play_asks_for_a_tap(page: Page, stage: Stage) -> None:
    await page.evaluate(
        """() => {
          const play = HTMLMediaElement.prototype.play;
          HTMLMediaElement.prototype.play = function () {
            HTMLMediaElement.prototype.play = play;
            return Promise.reject(new DOMException('not without a gesture', 'NotAllowedError'));
          };
        }"""
    )
    await call(page, stage)
    tap = page.get_by_role("button", name="Tap to hear the voice")
    await expect(tap).to_be_visible()
    await tap.click()
    await expect(tap).to_be_hidden()
    await page.get_by_role("button", name="Hang up", exact=True).click()
    await stage.hall.hears(CallLeft)


async def test_a_number_is_written_as_people_write_it(page: Page, stage: Stage) -> None:
    number = page.get_by_label("Number")
    for wrong in ("my shop", "a/b", "()", "ü"):
        await number.fill(wrong)
        await page.get_by_role("button", name="Call", exact=True).click()
        assert not await number.evaluate("(field) => field.validity.valid"), wrong
    assert await number.get_attribute("title")
    assert stage.desk.records == {}
    for k, (written, called) in enumerate(
        [
            ("+49 30 123", "+4930123"),
            ("(030) 12-34.5", "03012345"),
            (" sales ", "sales"),
            ("*21*5#", "*21*5#"),
        ]
    ):
        await number.fill(written)
        await call(page, stage, "Call again" if k else "Call")
        assert stage.desk.records[f"c{k + 1}"]["called"] == called
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


async def test_the_list_says_how_calls_sound(browser: Browser, stage: Stage) -> None:
    poor = {"mos": 4.31, "far_mos": 2.94, "mos_worst": 2.5}
    stage.desk.records = {
        "c1": {"call_id": "c1", "state": "ended", "how": "hung up", "ended_at": 2.0, **poor},
        "c2": {"call_id": "c2", "state": "talking", "mos": 4.38},
        "c3": {"call_id": "c3", "state": "ringing"},
    }
    page = await browser.new_page()
    await page.goto(stage.url)
    cells = [page.locator("#calls tr").nth(row).locator("td").nth(6) for row in range(3)]
    await expect(cells[0]).to_have_text("2.9")
    await expect(cells[0]).to_have_class("poor")
    said = "From the caller: 4.3, to the caller: 2.9, worst ten seconds: 2.5"
    await expect(cells[0]).to_have_attribute("title", said)
    await expect(cells[1]).to_have_text("4.4")
    await expect(cells[1]).not_to_have_class("poor")
    await expect(cells[2]).to_have_text("")
    await page.close()


HOSTILE = {
    "p-asserted-identity": '"Ada" <sip:+49301234567@carrier.example;user=phone>',
    "diversion": "<img src=x onerror=\"alert('diversion')\">;reason=unconditional",
    "x-markup": "</dd></dl></details></td></tr></table><script>alert(1)</script><b>bold</b> &amp; ${1+1}",
    "x-right-to-left": "\u05e9\u05dc\u05d5\u05dd 123 <sip:evil>",
    "x-stacked": "Z" + "\u0301\u0323" * 60,
    "x-long": "W" * 128,
    "x-link": "javascript:alert(document.cookie)",
}
"""What strangers may write that a trusted peer passes on: printable, each 128 characters at most."""


async def test_what_a_peer_says_of_a_call_is_shown_as_it_stands(page: Page, stage: Stage) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("dialog", lambda dialog: asked.append(dialog.message))
    stage.desk.records = {
        "c1": {"call_id": "c1", "state": "talking", "caller": "+4930", "called": "demo", "headers": HOSTILE},
        "c2": {"call_id": "c2", "state": "talking", "caller": "web", "called": "demo"},
    }
    first, second = (page.locator("#calls tr").nth(row) for row in range(2))
    summary = first.locator("summary")
    await expect(summary).to_have_text("7 headers")
    await expect(second.locator("summary")).to_have_count(0)
    await summary.click()
    await expect(first.locator("dt")).to_have_text(list(HOSTILE))
    assert await first.locator("dd").evaluate_all("(all) => all.map((one) => one.textContent)") == [
        *HOSTILE.values()
    ]
    assert await first.locator("dd").evaluate_all("(all) => all.map((one) => one.children.length)") == [0] * 7
    await summary.evaluate("(one) => one.blur()")
    async with page.expect_response("**/api/calls?*"):
        pass  # rows are made anew …
    stage.desk.records["c2"]["caller"] = "somebody else"
    await expect(second).to_contain_text("somebody else")
    await expect(first.locator("dd").first).to_be_visible()  # … and this one stays open
    fits = "() => document.documentElement.scrollWidth <= innerWidth"
    for width in (1100, 390):
        await page.set_viewport_size({"width": width, "height": 900})
        assert await page.evaluate(fits), width
    assert await faults(page) == []
    paths = {url.removeprefix(stage.url).partition("?")[0] for url in asked}
    own = {"/api/calls", "/api/events", "/api/me", "/console/icon.svg", "/readyz"}
    assert paths <= own, "nothing that a peer wrote is asked for"


async def test_the_header_tells_a_slow_part_from_one_that_is_down(browser: Browser, stage: Stage) -> None:
    page = await browser.new_page()
    header = page.locator("#gateway-text")
    for parts, said in (
        ({"hall": "ready", "engine": "slow", "redis": "ready"}, "Slow: engine"),
        ({"hall": "down", "engine": "slow", "redis": "down"}, "Not ready: hall, redis; Slow: engine"),
        ({}, "Not ready"),
    ):
        stage.desk.state = HouseState(ready=False, parts=parts)
        await page.goto(stage.url)
        await expect(header).to_have_text(said)
    stage.desk.state = HouseState(ready=True, parts={"hall": "ready"})
    await expect(header).to_have_text("Ready")
    await page.close()


async def test_the_login_form_opens_the_console(browser: Browser, stage: Stage) -> None:
    sock = socket.create_server(("127.0.0.1", 0))
    app = build_app(stage.desk, Settings(host="0.0.0.0"), "a-console-token")
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
    serving = asyncio.create_task(server.serve([sock]))
    context = await browser.new_context()
    page = await context.new_page()
    await page.goto(f"http://127.0.0.1:{sock.getsockname()[1]}/")
    assert await faults(page) == []
    await page.get_by_label("Console token").fill("wrong")
    await page.get_by_role("button", name="Open the console").click()
    await expect(page.get_by_role("alert")).to_have_text("That is not the token.")
    assert await faults(page) == []
    await page.get_by_label("Console token").fill("a-console-token")
    await page.get_by_role("button", name="Open the console").click()
    await expect(page.locator("#gateway-text")).to_have_text("Ready")
    await context.close()
    server.should_exit = True
    await serving

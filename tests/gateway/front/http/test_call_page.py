"""The page of one call in Chromium: what it tells of sound calls, bad ones, living ones, and hostile ones."""

from __future__ import annotations

import copy
import re
import wave
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, Page, async_playwright, expect

from gateway.front.events.event_shelf import NewEvent
from gateway.store.call_events import Turn
from gateway.store.sip_users import console_token
from tests.browser import FLAGS, until
from tests.gateway.front.http.test_event_feed import Fed, feeding
from tests.gateway.front.http.told_courses import (
    BEGAN,
    Course,
    course_of,
    kept_call,
    line,
    long_course,
    message,
    whole_course,
)
from tests.needs import HANGS_S, need_program

pytestmark = pytest.mark.asyncio(loop_scope="module")

VIEWS = {"light": {}, "dark phone": {"color_scheme": "dark", "viewport": {"width": 360, "height": 740}}}
MARKUP = (
    "<img src=x onerror='window.hurt=1'></td></script><script>window.hurt=1</script>"
    "<svg onload=window.hurt=1>\u202e\u2066javascript:window.hurt=1 "
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=need_program("chromium"), args=FLAGS)
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="module")
async def fed(tmp_path: Path) -> AsyncIterator[Fed]:
    async with feeding(tmp_path) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def page(browser: Browser) -> AsyncIterator[Page]:
    """A page; what it complains of in its log fails the test."""
    page = await browser.new_page(viewport={"width": 1200, "height": 900})
    page.set_default_timeout(HANGS_S * 1000)
    complaints: list[str] = []
    page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    yield page
    await page.context.close()
    assert [text for text in complaints if "Failed to load resource" not in text] == []


async def open_call(page: Page, fed: Fed, course: Course | None, call_id: str = "c1") -> None:
    if course is not None:
        fed.house.courses[call_id] = course
    await page.goto(f"{fed.url}/calls/{call_id}")
    await expect(page.locator("main")).to_have_attribute("aria-busy", "false")


async def is_drawn(page: Page, colour: str, lane: str, at_s: float) -> bool:
    """Whether something of that colour stands in a lane, near so many seconds into the call."""
    return bool(
        await page.evaluate(
            """async ([colour, lane, at]) => {
              await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
              const [canvas, stage] = ['lanes', 'stage'].map((id) => document.getElementById(id));
              const names = [...document.querySelectorAll('#names span')];
              const label = names.find((one) => one.textContent === lane);
              const { from, to } = stage.dataset;
              const left = 7.2 * 16;
              const x = left + (at - from) / (to - from) * (canvas.clientWidth - left - 4);
              const paper = canvas.getContext('2d');
              paper.fillStyle = getComputedStyle(canvas).getPropertyValue(colour);
              const wanted = [1, 3, 5].map((n) => parseInt(paper.fillStyle.slice(n, n + 2), 16));
              const high = label.offsetHeight + 8;
              const near = paper.getImageData(x - 6, label.offsetTop - 4, 12, high).data;
              for (let n = 0; n < near.length; n += 4) {
                const isIt = wanted.every((one, c) => Math.abs(one - near[n + c]) < 8);
                if (near[n + 3] > 200 && isIt) return true;
              }
              return false;
            }""",
            [colour, lane, at_s],
        )
    )


async def test_a_sound_call_is_told_whole(page: Page, fed: Fed) -> None:
    await open_call(page, fed, whole_course())
    await expect(page.locator("#verdict")).to_contain_text("Nothing was wrong")
    await expect(page.locator("#facts")).to_contain_text("1a2b3c4d")
    table = page.get_by_role("table")
    await expect(table).to_contain_text("what are your opening hours")
    await expect(table).to_contain_text("We are open Monday to Friday")
    await expect(page.locator("#answers")).to_contain_text("457 ms")

    # a moment opens the log lines of its second, and no others
    row = page.get_by_role("row").filter(has_text="We are open Monday")
    await row.get_by_role("button", name="Log").click()
    await expect(page.locator("tr.log")).to_contain_text("turn.answered")
    await expect(page.locator("tr.log")).not_to_contain_text("call.ended")

    # the ladder has an arrow for each message, which opens its text
    invite = page.locator("#ladder").get_by_role("button", name=re.compile("INVITE"))
    await invite.click()
    await expect(page.locator("#ladder pre")).to_contain_text("a=crypto:1 (blanked)")
    assert await page.locator("#ladder .arrow").count() == 6

    # levels are drawn where somebody speaks, and nowhere else
    assert await is_drawn(page, "--blue", "Caller", 11.6)
    assert await is_drawn(page, "--teal", "Our voice", 14.0)
    assert not await is_drawn(page, "--blue", "Caller", 3.7)
    assert not await is_drawn(page, "--red", "Mark", 18.0)


async def test_the_cursor_goes_by_keys_clicks_and_wheel(page: Page, fed: Fed) -> None:
    await open_call(page, fed, whole_course())
    stage = page.get_by_role("slider", name="Time in the call")
    await stage.focus()
    await page.keyboard.press("End")
    await expect(stage).to_have_attribute("aria-valuenow", "24.02")
    await page.keyboard.press("Home")
    await page.keyboard.press("PageDown")
    await expect(stage).to_have_attribute("aria-valuetext", re.compile("100 Trying"))

    await page.get_by_role("button", name="0:11.18").first.click()
    await expect(stage).to_have_attribute("aria-valuetext", re.compile("opening hours"))
    span = """async () => {
      for (let n = 0; n < 2; n += 1) await new Promise(requestAnimationFrame);
      const { from, to } = document.getElementById('stage').dataset;
      return to - from;
    }"""
    whole = await page.evaluate(span)
    await page.keyboard.press("0")
    await stage.press("+")
    assert await page.evaluate(span) < whole
    box = await stage.bounding_box()
    assert box is not None
    await page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 60)
    zoomed = await page.evaluate(span)
    await page.mouse.wheel(0, -200)
    await until(page, f"async (before) => await ({span})() < before", zoomed)
    await stage.press("0")
    await page.mouse.click(box["x"] + 116 + (box["width"] - 120) / 2, box["y"] + 60)
    now = await stage.get_attribute("aria-valuenow")
    assert now is not None
    assert 11.5 < float(now) < 12.5, "the middle of the picture is the middle of the call"


def mark_alarm() -> Course:
    call = kept_call()
    call["events"].append({"at": BEGAN + 18, "kind": "mark_not_found", "data": {}})
    return whole_course(call)


def revoked() -> Course:
    call = kept_call()
    call["events"].append({"at": BEGAN + 15, "kind": "muted", "data": {"reason": "revoked"}})
    return whole_course(call)


FAULTS = {
    "mark alarm": (mark_alarm, "the watermark was not found", "18", "Mark"),
    "loss": (lambda: whole_course(kept_call("rough")), "with losses", "0", "Loss from caller"),
    "revoked": (revoked, "consent was withdrawn", "15", "Consent"),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_is_named_and_seen(page: Page, fed: Fed, fault: str) -> None:
    made, says, at_s, lane = FAULTS[fault]
    await open_call(page, fed, made())
    verdict = page.locator("#verdict")
    await expect(verdict).to_contain_text(says)
    await verdict.get_by_role("button", name="Go to").first.click()
    stage = page.get_by_role("slider")
    await expect(stage).to_have_attribute("aria-valuenow", re.compile(rf"^{at_s}\.\d\d$"))
    seen_at = float(at_s) + (2 if lane == "Loss from caller" else 0)
    assert await is_drawn(page, "--red", lane, seen_at), f"the lane {lane} shows it"


def hostile() -> Course:
    long = MARKUP + "x" * 20_000
    call = kept_call() | {
        "caller": MARKUP, "name": long, "called": MARKUP, "source": MARKUP, "how": MARKUP, "route": MARKUP,
        "headers": {"X-" + MARKUP: long, "P-Asserted-Identity": MARKUP},
    }  # fmt: skip
    for event in call["events"]:
        event["data"] = {
            name: MARKUP if isinstance(one, str) and name != "who" else one
            for name, one in event["data"].items()
        }
    call["events"].append({"at": BEGAN + 20, "kind": MARKUP, "data": {MARKUP: long, "deep": [{"a": MARKUP}]}})
    call["events"].append({"at": BEGAN + 21, "kind": "__proto__", "data": {"constructor": MARKUP}})
    ladder = [message(BEGAN, "caller", MARKUP, MARKUP, long), message(BEGAN + 1, "constructor", "us", MARKUP)]
    log = [line(BEGAN + 20, MARKUP, MARKUP, **{MARKUP: long})]
    told = course_of(call, ladder=ladder, log=log)
    told["causes"] = [
        {
            "name": "x",
            "since": BEGAN + 1,
            "at": BEGAN + 2,
            "event": MARKUP,
            "number": MARKUP,
            "what": "what",
            "remedy": "do",
        }
    ]
    return told


async def test_what_strangers_wrote_is_text_and_runs_nothing(page: Page, fed: Fed) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    await open_call(page, fed, hostile())
    await page.locator("#which").select_option("log")
    for button in await page.get_by_role("button", name="Log").all():
        await button.click()
    for arrow in await page.locator("#ladder .arrow").all():
        await arrow.click()
    await expect(page.locator("#ladder pre").first).to_contain_text("<script>window.hurt=1</script>")
    await expect(page.locator("#facts")).to_contain_text("onerror='window.hurt=1'")
    assert await page.evaluate("window.hurt") is None
    assert await page.locator("main :is(img, script, svg, iframe, a)").count() == 0
    assert not [url for url in asked if not url.startswith(fed.url)]
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing is wider"
    direction = "getComputedStyle(document.querySelector('#facts .foreign')).unicodeBidi"
    assert await page.evaluate(direction) == "isolate", "it turns no text beside it round"


async def test_an_hour_with_2000_events_draws_what_is_seen(page: Page, fed: Fed) -> None:
    await page.add_init_script(
        """window.drawn = 0;
        for (const name of ['fillRect', 'fillText', 'stroke', 'fill']) {
          const own = CanvasRenderingContext2D.prototype[name];
          CanvasRenderingContext2D.prototype[name] = function (...all) {
            window.drawn += 1;
            return own.apply(this, all);
          };
        }"""
    )
    await open_call(page, fed, long_course())
    frames = """async () => {
      for (let n = 0; n < 2; n += 1) await new Promise(requestAnimationFrame);
      return window.drawn;
    }"""
    stage = page.get_by_role("slider")
    await stage.focus()
    before = await page.evaluate(frames)
    await stage.press("ArrowRight")
    whole = await page.evaluate(frames) - before
    assert whole < 25_000, "all of it: a few marks for each pixel"
    for _ in range(12):
        await stage.press("+")
    before = await page.evaluate(frames)
    await stage.press("ArrowRight")
    near = await page.evaluate(frames) - before
    assert near < 6_000, "some seconds: what is in them"
    assert await page.locator("#rows tr").count() <= 251, "rows are made when somebody wants them"
    await page.locator("#more").click()
    assert await page.locator("#rows tr").count() >= 2000


async def test_a_living_call_goes_on(page: Page, fed: Fed) -> None:
    call = kept_call()
    call = {name: one for name, one in call.items() if name not in ("ended_at", "how")} | {"state": "talking"}
    later = call["events"][-4:]
    call["events"] = [one for one in call["events"] if one["at"] < BEGAN + 15]
    shift = await page.evaluate("Date.now() / 1000") - BEGAN - 16
    call = _later(call, shift)
    await open_call(page, fed, course_of(call))
    await expect(page.locator("#gateway-text")).to_have_text("Live")
    await expect(page.locator("#verdict")).to_contain_text("so far")
    table = page.get_by_role("table")
    await expect(table).not_to_contain_text("where are you")
    more = copy.deepcopy(call)
    more["events"] += [_moved(one, shift) for one in later]
    ended = more["events"][-1]["at"]
    over = more | {"state": "ended", "ended_at": ended, "how": "caller hung up"}
    fed.house.courses["c1"] = course_of(over)
    await fed.tell(NewEvent("c1", 5.0, Turn("caller", "where are you")))
    await expect(table).to_contain_text("You find us at twelve Mill Lane")
    await expect(page.locator("#gateway-text")).to_have_text("Over")


def _moved(event: dict[str, Any], by: float) -> dict[str, Any]:
    return {**event, "at": event["at"] + by}


def _later(call: dict[str, Any], by: float) -> dict[str, Any]:
    times = {name: call[name] + by for name in ("started_at", "answered_at") if name in call}
    return {**call, **times, "events": [_moved(one, by) for one in call["events"]]}


def refused() -> Course:
    facts = {
        "call_id": "c1", "caller": "sip:bob@x", "called": "sip:nobody@y", "source": "192.0.2.7",
        "transport": "udp", "status": 404, "reason": "no route has this number",
        "started_at": BEGAN, "first_at": BEGAN, "count": 1,
    }  # fmt: skip
    ladder = [
        message(BEGAN, "caller", "us", "INVITE sip:nobody@y SIP/2.0"),
        message(BEGAN + 0.01, "us", "caller", "SIP/2.0 404 Not Found"),
    ]
    return course_of({**facts, "state": "refused", "refused": facts}, ladder=ladder)


def forgotten() -> Course:
    known = ("call_id", "caller", "called", "route", "voice", "started_at", "ended_at", "how")
    return course_of({name: one for name, one in kept_call().items() if name in known} | {"state": "ended"})


async def test_calls_of_which_little_is_known_say_so(page: Page, fed: Fed) -> None:
    await open_call(page, fed, refused())
    await expect(page.locator("#verdict")).to_contain_text("the call was not taken")
    await expect(page.locator("#ladder")).to_contain_text("404 Not Found")
    await open_call(page, fed, forgotten())
    await expect(page.locator("#notice")).to_contain_text("not kept any more")
    await expect(page.locator("#facts")).to_contain_text("sip:caller@example.com")
    await open_call(page, fed, None, "strange")
    await expect(page.get_by_role("alert")).to_contain_text("No call strange is known here")

    async def away(route: Any) -> None:
        await route.fulfill(status=503, json={"detail": "Redis does not answer"})

    async def hasty(route: Any) -> None:
        answer = await route.fetch()
        await route.fulfill(
            response=answer, body=(await answer.text()).replace("AWAY_MS = 5000", "AWAY_MS = 500")
        )

    await page.route("**/console/course.js", hasty)
    await page.route("**/course", away)
    await page.goto(f"{fed.url}/calls/c1")
    await expect(page.get_by_role("alert")).to_contain_text("Redis does not answer")
    await page.unroute("**/course")
    await page.route("**/course", lambda route: route.abort())
    await page.goto(f"{fed.url}/calls/c1")
    await expect(page.get_by_role("alert")).to_contain_text("The gateway does not answer")
    await page.unroute("**/course")
    await expect(page.get_by_role("alert")).to_be_hidden()  # it was asked again


def leave_message(folder: Path, seconds: float) -> None:
    day = folder / "recordings" / "2023-11-14"
    day.mkdir(parents=True)
    with wave.open(str(day / f"c1-{int(BEGAN) + 5}.wav"), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(24000)
        out.writeframes(b"\0\0" * int(24000 * seconds))


async def test_a_recording_plays_with_the_cursor(page: Page, fed: Fed) -> None:
    leave_message(fed.folder, 4.0)
    call = kept_call()
    left = {"path": f"/x/2023-11-14/c1-{int(BEGAN) + 5}.wav", "seconds": 4.0}
    call["events"].append({"at": BEGAN + 9.5, "kind": "recorded", "data": left})
    await open_call(page, fed, whole_course(call))
    await expect(page.locator("#heard")).to_contain_text("needs the right recordings.read")
    assert await page.locator("audio").count() == 0

    await page.goto(f"{fed.url}/login?then=/calls/c1")
    await page.get_by_label("Console token").fill(console_token(fed.folder))
    await page.get_by_role("button", name="Open the console").click()
    await page.wait_for_url("**/calls/c1")
    await expect(page.locator("#heard")).to_contain_text("from 0:05.50 on, 4.0 s")
    stage = page.get_by_role("slider")
    await page.evaluate("() => document.querySelector('audio').play()")
    await until(page, "() => Number(document.getElementById('stage').ariaValueNow) > 5.9")
    await page.evaluate("() => document.querySelector('audio').pause()")
    await page.get_by_role("button", name="Go to 0:06.30").first.click()
    await until(
        page,
        """() => {
          const cursor = Number(document.getElementById('stage').ariaValueNow);
          return Math.abs(document.querySelector('audio').currentTime - (cursor - 5.5)) < 0.05;
        }""",
    )
    await expect(stage).to_have_attribute("aria-valuenow", "6.30")


@pytest.mark.parametrize("view", VIEWS)
async def test_axe_finds_nothing(browser: Browser, fed: Fed, view: str) -> None:
    page = await browser.new_page(**VIEWS[view])  # type: ignore[arg-type]
    await open_call(page, fed, mark_alarm())
    await page.get_by_role("button", name="Log").last.click()
    found = (await Axe().run(page)).response["violations"]
    serious = [f"{one['id']}: {one['nodes'][0]['html']}" for one in found if one["impact"] != "minor"]
    assert serious == []
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing is wider"

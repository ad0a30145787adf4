"""Debian's Firefox, driven by WebDriver BiDi over its own socket, with a microphone that beeps.

Playwright drives a Firefox of its own alone, and Debian has no geckodriver; what the tests need of BiDi
(https://www.w3.org/TR/webdriver-bidi/) is little: a page, what it says, and a click by a person.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

from websockets.asyncio.client import ClientConnection, connect

from tests.needs import HANGS_S, need_program

PREFS: Final = {
    "media.navigator.streams.fake": True,
    "media.navigator.permission.disabled": True,
    "app.update.enabled": False,
    "app.normandy.enabled": False,
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "toolkit.telemetry.enabled": False,
}
"""Nobody is asked for the microphone, which is no real one; and nothing is asked of the network."""
KEEP_CONNECTION: Final = """(() => {
  const Connection = window.RTCPeerConnection;
  window.RTCPeerConnection = function (...given) { return (window.connection = new Connection(...given)); };
})()"""
"""Has a page leave its next RTCPeerConnections at `window.connection`."""
HEARS: Final = """window.connection?.getStats().then((all) =>
  [...all.values()].some((one) => one.type === "inbound-rtp" && one.totalAudioEnergy > 0.001))"""
"""Whether more than silence came to `window.connection`: -30 dB for a second."""
LISTENS: Final = re.compile(rb"WebDriver BiDi listening on (ws://\S+)")
LOOK_AGAIN_S: Final = 0.1


class FirefoxPage:
    """A page of a Firefox that `firefox` started; what JavaScript throws fails the test."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._ids = itertools.count(1)
        self._context = ""

    async def _ask(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._ids)
        await self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        async with asyncio.timeout(HANGS_S):
            while (said := json.loads(await self._socket.recv())).get("id") != number:
                pass  # an event that nobody asked for
        assert said["type"] == "success", f"{method}: {said.get('error')}: {said.get('message')}"
        result: dict[str, Any] = said["result"]
        return result

    async def open(self) -> None:
        """Begins the session, in the tab that is there."""
        await self._ask("session.new", capabilities={})
        self._context = (await self._ask("browsingContext.getTree"))["contexts"][0]["context"]

    async def goto(self, url: str) -> None:
        await self._ask("browsingContext.navigate", context=self._context, url=url, wait="complete")

    async def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression, awaited when it is a promise; what JSON can say."""
        said = await self._ask(
            "script.evaluate",
            expression=f"Promise.resolve({expression}).then((value) => JSON.stringify(value ?? null))",
            target={"context": self._context},
            awaitPromise=True,
            userActivation=True,
        )
        assert said["type"] == "success", said.get("exceptionDetails", {}).get("text")
        return json.loads(said["result"]["value"])

    async def until(self, expression: str, within_s: float = HANGS_S) -> Any:
        """Waits until a JavaScript expression is true of the page; returns its value."""
        value = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while not (value := await self.evaluate(expression)):  # noqa: ASYNC110 - it is another process's
                    await asyncio.sleep(LOOK_AGAIN_S)
                return value
        raise AssertionError(f"{expression} stayed {value!r}; the page says: {await self.text()}")

    async def text(self) -> str:
        """What the page says."""
        return str(await self.evaluate("document.body.innerText"))

    async def click(self, selector: str) -> None:
        """As a person does: in the middle of the element, which is scrolled to."""
        where = f"document.querySelector({json.dumps(selector)})"
        await self.evaluate(f"{where}.scrollIntoView({{block: 'center'}})")
        box = await self.evaluate(f"{where}.getBoundingClientRect()")
        x, y = round(box["x"] + box["width"] / 2), round(box["y"] + box["height"] / 2)
        moves = [
            {"type": "pointerMove", "x": x, "y": y},
            {"type": "pointerDown", "button": 0},
            {"type": "pointerUp", "button": 0},
        ]
        mouse = {"type": "pointer", "id": "mouse", "actions": moves}
        await self._ask("input.performActions", context=self._context, actions=[mouse])

    async def screenshot(self) -> str:
        """The page as it is seen, PNG in base64."""
        return str((await self._ask("browsingContext.captureScreenshot", context=self._context))["data"])


@contextlib.asynccontextmanager
async def firefox(folder: Path) -> AsyncIterator[FirefoxPage]:
    """A Firefox without a window, whose profile and home are in `folder`."""
    program = need_program("firefox-esr")
    profile = folder / "profile"
    profile.mkdir(parents=True)
    prefs = [f"user_pref({json.dumps(name)}, {json.dumps(value)});" for name, value in PREFS.items()]
    (profile / "user.js").write_text("\n".join(prefs))
    process = await asyncio.create_subprocess_exec(
        program, "--headless", "--no-remote", "--profile", profile, "--remote-debugging-port", "0",
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "HOME": str(folder), "MOZ_CRASHREPORTER_DISABLE": "1"},
    )  # fmt: skip
    try:
        assert process.stderr is not None
        async with asyncio.timeout(HANGS_S):
            while (listens := LISTENS.search(await _line(process.stderr))) is None:
                pass
        reading = asyncio.create_task(process.stderr.read())  # it writes on, and must not wait for us
        async with connect(f"{listens[1].decode()}/session", max_size=None) as socket:
            page = FirefoxPage(socket)
            await page.open()
            yield page
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()
    await reading


async def _line(errors: asyncio.StreamReader) -> bytes:
    line = await errors.readline()
    assert line, "Firefox ended before it could be driven"
    return line

"""The call button of docs/webrtc.md, as it is written there, on a page of another origin, in Chromium."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Page, async_playwright

from gateway.config.own_certificate import own_certificate
from gateway.config.settings import Settings
from gateway.ipc.line_messages import CallConfirmed, CallLeft, CallStarted
from tests.browser import FLAGS, until
from tests.firefox import HEARS, KEEP_CONNECTION
from tests.gateway.front.http.page_stage import Stage
from tests.gateway.line.line_harness import TOKEN
from tests.needs import HANGS_S, need_program

pytestmark = pytest.mark.asyncio(loop_scope="module")

DOCUMENT = Path(__file__).parents[4] / "docs" / "webrtc.md"
SHOP, STRANGER = "https://shop.example", "https://stranger.example"
Visit = Callable[[str], Awaitable[Page]]


def example() -> str:
    """The page that the document shows."""
    (found,) = re.findall(r"^```html\n(.*?)^```$", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
    return str(found)


@pytest_asyncio.fixture(loop_scope="module")
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    own_certificate(Settings(http_names=("gate.example", "shop.example", "stranger.example")), chain, key)
    settings = Settings(
        host="127.0.0.1", http_names=("gate.example",), tls_certificate=chain, tls_key=key,
        embed_origins=(SHOP,), embed_per_address=1,
    )  # fmt: skip
    stage = Stage(tmp_path, settings)
    await stage.open()
    yield stage
    await stage.close()


@pytest_asyncio.fixture(loop_scope="module")
async def visit(stage: Stage) -> AsyncIterator[Visit]:
    """Opens the shop's page, or the same one at a stranger's: each on a port of its own, as the names say."""
    chain, key = stage.settings.tls_certificate, stage.settings.tls_key
    assert chain is not None
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(chain, key)
    server = await asyncio.start_server(lambda *streams: answer(stage, *streams), "127.0.0.1", 0, ssl=serving)
    shop = server.sockets[0].getsockname()[1]
    names = {"gate.example:8443": stage.port, "shop.example:443": shop, "stranger.example:443": shop}
    rules = ",".join(f"MAP {name} 127.0.0.1:{port}" for name, port in names.items())
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=need_program("chromium"), args=[*FLAGS, f"--host-resolver-rules={rules}"]
        )
        context = await browser.new_context(ignore_https_errors=True)

        async def visit(origin: str) -> Page:
            page = await context.new_page()
            await page.add_init_script(KEEP_CONNECTION)
            await page.goto(f"{origin}/")
            return page

        yield visit
        await browser.close()
    server.close()


async def answer(stage: Stage, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The shop's server: writes a token into its page, as the document says."""
    await reader.readuntil(b"\r\n\r\n")
    page = example().replace("…written here by your server…", await asyncio.to_thread(token, stage)).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {len(page)}\r\n"
    writer.write(f"{head}Connection: close\r\n\r\n".encode() + page)
    await writer.drain()
    writer.close()


def token(stage: Stage) -> str:
    trust = ssl.create_default_context(cafile=str(stage.settings.tls_certificate))
    asked = urllib.request.Request(
        f"{stage.url}/api/embed",
        json.dumps({"origin": SHOP, "dialled": "demo"}).encode(),
        {"Content-Type": "application/json", "Authorization": f"Bearer {TOKEN}"},
    )
    with urllib.request.urlopen(asked, timeout=HANGS_S, context=trust) as answer:
        return str(json.load(answer)["token"])


async def said(page: Page) -> str:
    """Presses the button; what the page complains of."""
    async with page.expect_event("dialog", timeout=HANGS_S * 1000) as told:
        await page.click("#call", no_wait_after=True)
    dialog = await told.value
    await dialog.accept()
    return str(dialog.message)


async def test_the_example_of_the_document_calls_from_a_page_of_another_origin(
    stage: Stage, visit: Visit
) -> None:
    assert len(example().splitlines()) <= 20
    page = await visit(SHOP)
    await page.click("#call")
    started = await stage.hall.hears(CallStarted, within_s=HANGS_S)
    await stage.hall.hears(CallConfirmed, within_s=HANGS_S)
    await until(page, f"async () => await ({HEARS})")
    await stage.hall.hears_sound(started.call, seconds=1.0, within_s=HANGS_S)
    assert stage.desk.records["c1"]["called"] == "demo"
    await page.close(run_before_unload=False)
    assert (await stage.hall.hears(CallLeft, within_s=HANGS_S)).how in ("caller hung up", "hung up")

    page = await visit(SHOP)
    assert await said(page) == "No call: too many calls from that page or address"

    page = await visit(STRANGER)
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    assert await said(page) == "No call: Failed to fetch"
    assert any("blocked by CORS policy" in text for text in complaints), complaints
    assert len(stage.desk.records) == 1

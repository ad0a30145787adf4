"""Chromium logs in by a provider of another site: cookies, redirects and policy as a browser has them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import uvicorn
from playwright.async_api import Page, async_playwright, expect

from gateway.front.http.credentials import TICKET_COOKIE
from tests.browser import FLAGS
from tests.gateway.front.http.oidc_double import ProviderDouble
from tests.gateway.front.http.test_provider_login import ROLES, Console
from tests.needs import HANGS_S, need_program

LINK = "Log in with your account"


@pytest.fixture
async def port(tmp_path: Path) -> AsyncIterator[int]:
    """Of a console at localhost whose provider is at 127.0.0.1, which is another site."""
    with ProviderDouble() as double, socket.socket() as listener:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        house = {"host": "127.0.0.1", "public_url": None, "http_port": port, "http_names": ("gate.example",)}
        console = Console(tmp_path, double, oidc_roles=ROLES, **house)
        server = uvicorn.Server(uvicorn.Config(console.app, log_level="error", lifespan="off"))
        serving = asyncio.create_task(server.serve([listener]))
        yield port
        server.should_exit = True
        await serving
        console.close()


@pytest.fixture
async def page() -> AsyncIterator[Page]:
    chromium = need_program("chromium")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield await browser.new_page()
        await browser.close()


async def test_a_browser_logs_in_from_whatever_name_it_came_by(page: Page, port: int) -> None:
    async with asyncio.timeout(HANGS_S):
        await page.goto(f"http://127.0.0.1:{port}/login")
        await page.get_by_role("link", name=LINK).click()
        await expect(page).to_have_url(f"http://localhost:{port}/login")  # by another name: not from our page
        await page.get_by_role("link", name=LINK).click()
        await expect(page).to_have_url(f"http://localhost:{port}/")
        who = await page.evaluate("fetch('/api/me').then(answer => answer.json())")
        assert (who["name"], who["role"]) == ("oidc:ada", "admin")
        names = {cookie.get("name") for cookie in await page.context.cookies()}
        assert TICKET_COOKIE not in names
        assert await page.evaluate("document.cookie") == "", "no script reads a login"

"""The page, and the token for a cookie."""

from __future__ import annotations

import html
import time
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs

import structlog
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, RedirectResponse, Response

from gateway.front.http.boundary import PAGES, source_of
from gateway.front.http.credentials import COOKIE, PAGE_COOKIE, PAGE_S, Gatekeeper

PAGE: Final = Path(__file__).with_name("console")
TOO_MANY: Final = "Too many wrong tokens from here. Wait a minute."

log = structlog.get_logger("http")


class LoginDoor:
    """The handlers."""

    def __init__(self, credentials: Gatekeeper) -> None:
        self._credentials = credentials

    async def page(self, request: Request) -> Response:
        """The console. On loopback its button may call."""
        return self._console(request, "index.html")

    async def calls_page(self, request: Request) -> Response:
        """The list of calls; which of them, its script reads in its address."""
        return self._console(request, "calls_list.html")

    async def call_page(self, request: Request) -> Response:
        """The page of one call; which one, its script reads in its address."""
        return self._console(request, "call_page.html")

    def _console(self, request: Request, name: str) -> Response:
        response = FileResponse(PAGE / name)
        if not request.state.asker.token_id:
            _set(request, response, PAGE_COOKIE, self._credentials.page_cookie(), PAGE_S)
        return response

    async def house(self, _: Request) -> Response:
        """How the house is, and its plans."""
        return FileResponse(PAGE / "house.html")

    async def login(self, request: Request) -> Response:
        """The form, and what it sends."""
        if request.method == "GET":
            return _login_page()
        source = source_of(request.scope)
        fields = parse_qs((await request.body()).decode("utf-8", "replace"))
        asker = await self._credentials.of_token(fields.get("token", [""])[0].strip(), source)
        if asker is None:
            log.warning("login.refused", source=source)
            return _login_page("That is not the token.", 401)
        if isinstance(asker, Response):
            late = asker.status_code == 429
            said = TOO_MANY if late else "The gateway cannot look it up now."
            return _login_page(said, asker.status_code)
        then = request.query_params.get("then", "/")
        response = RedirectResponse(then if PAGES.fullmatch(then) else "/", 303)
        session, until = self._credentials.session_for(asker)
        _set(request, response, COOKIE, session, max(1, int(until - time.time())))
        log.info("login", asker=asker.name, role=asker.role, id=asker.token_id, source=source)
        return response

    async def logout(self, _: Request) -> Response:
        """Takes the cookie back."""
        response = RedirectResponse("/login", 303)
        response.delete_cookie(COOKIE, httponly=True, samesite="strict")
        return response


def _set(request: Request, response: Response, name: str, value: str, lives_s: int) -> None:
    secure = request.url.scheme == "https"
    response.set_cookie(name, value, max_age=lives_s, httponly=True, samesite="strict", secure=secure)


def _login_page(problem: str = "", status: int = 200) -> Response:
    page = (PAGE / "login.html").read_text()
    shown = f'<p class="problem" role="alert">{html.escape(problem)}</p>' if problem else ""
    return HTMLResponse(page.replace("<!-- problem -->", shown), status)

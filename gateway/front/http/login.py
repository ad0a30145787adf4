"""The page, and the token for a cookie."""

from __future__ import annotations

import html
import time
from pathlib import Path
from typing import Final, Literal
from urllib.parse import parse_qs, urlencode

import structlog
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, RedirectResponse, Response

from gateway.front.admission.rights import Principal
from gateway.front.http.boundary import PAGES, source_of
from gateway.front.http.credentials import COOKIE, PAGE_COOKIE, PAGE_S, Gatekeeper
from gateway.front.http.problems import refusal
from gateway.store.registry import RegistryError

PAGE: Final = Path(__file__).with_name("console")
TOO_MANY: Final = "Too many wrong tokens from here. Wait a minute."

log = structlog.get_logger("http")


class LoginDoor:
    """The handlers."""

    def __init__(self, credentials: Gatekeeper, provider_url: str = "") -> None:
        """`provider_url`: where a login by the provider begins, if there is one."""
        self._credentials = credentials
        self._provider_url = provider_url

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
            set_cookie(request, response, PAGE_COOKIE, self._credentials.page_cookie(), PAGE_S)
        return response

    async def house(self, _: Request) -> Response:
        """How the house is, and its plans."""
        return FileResponse(PAGE / "house.html")

    async def login(self, request: Request) -> Response:
        """The form, and what it sends."""
        then = page_after(request)
        if request.method == "GET":
            return login_page(provider_url=self._provider_url, then=then)
        source = source_of(request.scope)
        fields = parse_qs((await request.body()).decode("utf-8", "replace"))
        asker = await self._credentials.of_token(fields.get("token", [""])[0].strip(), source)
        if asker is None:
            log.warning("login.refused", source=source)
            return login_page("That is not the token.", 401, self._provider_url, then)
        if isinstance(asker, Response):
            late = asker.status_code == 429
            said = TOO_MANY if late else "The gateway cannot look it up now."
            return login_page(said, asker.status_code, self._provider_url, then)
        response = RedirectResponse(then, 303)
        keep_session(request, response, self._credentials, asker)
        log.info("login", asker=asker.name, role=asker.role, id=asker.token_id, source=source)
        return response

    async def logout(self, request: Request) -> Response:
        """Takes the cookie back, and ends a login by the provider."""
        try:
            await self._credentials.log_out(request.state.asker)
        except RegistryError as error:
            log.error("logout.not_kept", error=str(error))
            return refusal(503, "the login cannot be ended now", retry_after_s=5)
        response = RedirectResponse("/login", 303)
        response.delete_cookie(COOKIE, httponly=True, samesite="strict")
        return response


def keep_session(request: Request, response: Response, credentials: Gatekeeper, asker: Principal) -> None:
    """Gives the browser the login's cookie."""
    session, until = credentials.session_for(asker)
    set_cookie(request, response, COOKIE, session, max(1, int(until - time.time())))


def set_cookie(
    request: Request,
    response: Response,
    name: str,
    value: str,
    lives_s: int,
    *,
    path: str = "/",
    samesite: Literal["strict", "lax"] = "strict",
) -> None:
    """A cookie that no script reads; over https it goes nowhere else."""
    secure = request.url.scheme == "https"
    response.set_cookie(
        name, value, max_age=lives_s, path=path, httponly=True, samesite=samesite, secure=secure
    )


def page_after(request: Request) -> str:
    """Which of our pages a login leads to; the console where the request names none."""
    then = request.query_params.get("then", "/")
    return then if PAGES.fullmatch(then) else "/"


def login_page(problem: str = "", status: int = 200, provider_url: str = "", then: str = "/") -> Response:
    """The form, what went wrong, and the way to the provider, if there is one. `then`: what it leads to."""
    more = "" if then == "/" else f"?{urlencode({'then': then})}"
    page = (PAGE / "login.html").read_text().replace("<!-- action -->", html.escape(f"/login{more}"))
    shown = f'<p class="problem" role="alert">{html.escape(problem)}</p>' if problem else ""
    link = f'<a class="primary" href="{html.escape(provider_url + more)}">Log in with your account</a>'
    page = page.replace("<!-- provider -->", f'<p class="card">{link}</p>' if provider_url else "")
    return HTMLResponse(page.replace("<!-- problem -->", shown), status)


def logged_in_page(then: str) -> HTMLResponse:
    """What goes on to that page by itself."""
    return HTMLResponse((PAGE / "logged_in.html").read_text().replace("<!-- then -->", html.escape(then)))

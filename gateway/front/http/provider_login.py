"""Logging in at the console by an OpenID provider: the authorization code flow with PKCE, state and nonce.

A browser that begins gets a ticket, a cookie under our MAC: state, nonce and verifier follow from it, so that
nothing is kept here however many begin, and what comes back with another browser's ticket logs nobody in. A
ticket is good once. Who comes back well has a token for as long as a login holds (`credentials`), with the
role that the provider's claim means here.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlencode

import structlog
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from gateway.config.settings import Settings
from gateway.front.admission.rights import Principal
from gateway.front.http.boundary import source_of
from gateway.front.http.credentials import TICKET_COOKIE, TICKET_S, Gatekeeper, LoginTicket, cookies_of, same
from gateway.front.http.id_token import ClaimedRoles, LoginRefused, header_of, verified
from gateway.front.http.identity_provider import ERROR_CODE, IdentityProvider, ProviderAway
from gateway.front.http.login import keep_session, logged_in_page, login_page, page_after, set_cookie
from gateway.store.api_tokens import TokenError
from gateway.store.registry import RegistryError

BEGIN: Final = "/login/oidc"
BACK: Final = "/login/oidc/back"
AT_ONCE: Final = 4
"""Codes that are on their way to the provider."""
SPENT: Final = 10_000
"""Tickets that came back, and are known; those that are over do not hold anyhow."""
LONGEST: Final = 4096
TOO_MANY: Final = "Too many logins failed from here. Wait a minute."
AWAY: Final = "The login provider cannot be asked now."

log = structlog.get_logger("http")


class ProviderLogin:
    """The handlers. `provider` is asked, `roles` says what whom it sends may do."""

    def __init__(self, settings: Settings, credentials: Gatekeeper, provider: IdentityProvider) -> None:
        self._credentials = credentials
        self._provider = provider
        self._roles = ClaimedRoles(settings.oidc_claim, settings.oidc_roles)
        self._scope = " ".join(dict.fromkeys(["openid", *settings.oidc_scope.split()]))
        self.begin_url = settings.console_url + BEGIN
        self._back_url = settings.console_url + BACK
        self._spent: dict[str, None] = {}
        self._asking = asyncio.Semaphore(AT_ONCE)
        if not settings.oidc_roles:
            log.warning("oidc.nobody", error="nobody has a role: set VOICEGATE_OIDC_ROLES")

    def routes(self) -> Sequence[Route]:
        """Where a login begins and comes back."""
        return [Route(BEGIN, self.begin), Route(BACK, self.back)]

    async def begin(self, request: Request) -> Response:
        """Sends the browser to the provider, with a ticket to come back with."""
        if request.headers.get("sec-fetch-site") in ("cross-site", "same-site"):
            return RedirectResponse("/login", 303)  # nobody is sent there but from our own page
        if self._credentials.must_wait(source_of(request.scope)):
            return self._failed(TOO_MANY, 429)
        try:
            facts = await self._provider.facts()
        except ProviderAway:
            return self._failed(AWAY, 503)
        cookie = self._credentials.ticket_cookie(page_after(request))
        ticket = self._credentials.ticket(cookie)
        assert ticket is not None  # noqa: S101  # it was made a line ago
        asked = {
            "response_type": "code",
            "client_id": self._provider.client_id,
            "redirect_uri": self._back_url,
            "scope": self._scope,
            "state": ticket.state,
            "nonce": ticket.nonce,
            "code_challenge": challenge_of(ticket.verifier),
            "code_challenge_method": "S256",
        }
        there = facts.authorization_endpoint
        response = RedirectResponse(f"{there}{'&' if '?' in there else '?'}{urlencode(asked)}", 303)
        # lax: the provider sends the browser back from a page of its own
        set_cookie(request, response, TICKET_COOKIE, cookie, int(TICKET_S), path=BEGIN, samesite="lax")
        return response

    async def back(self, request: Request) -> Response:
        """Logs in whom the provider sends back with what belongs to the ticket."""
        source = source_of(request.scope)
        if self._credentials.must_wait(source):
            return self._failed(TOO_MANY, 429)
        ticket = self._credentials.ticket(cookies_of(request.headers).get(TICKET_COOKIE, ""))
        if ticket is None or not same(_one(request, "state"), ticket.state):
            # any page can send a browser here so: nothing is counted, logged, or taken from it
            return self._failed("Nobody was logged in: this browser did not begin that here.", 403)
        response = await self._came_back(request, ticket, source)
        response.delete_cookie(TICKET_COOKIE, path=BEGIN, httponly=True, samesite="lax")
        return response

    async def _came_back(self, request: Request, ticket: LoginTicket, source: str) -> Response:
        try:
            self._spend(ticket)
            asker = await self._logged_in(request, ticket, source)
        except (LoginRefused, ProviderAway) as error:
            self._credentials.guessed(source)
            if isinstance(error, ProviderAway):
                return self._failed(AWAY, 503)
            log.warning("login.refused", source=source, why=str(error))
            return self._failed(f"Nobody was logged in: {error}.", 403)
        except (RegistryError, TokenError) as error:
            log.error("login.not_kept", error=str(error))
            return self._failed("The login cannot be kept now.", 503)
        # a page of ours goes on to the console: a redirect would still be the provider's, without the cookie
        response = logged_in_page(ticket.then)
        keep_session(request, response, self._credentials, asker)
        log.info("login", asker=asker.name, role=asker.role, id=asker.token_id, source=source)
        return response

    def _spend(self, ticket: LoginTicket) -> None:
        """A ticket is good once. Raises `LoginRefused`."""
        if ticket.state in self._spent:
            raise LoginRefused("this login has come back before")
        if len(self._spent) >= SPENT:
            del self._spent[next(iter(self._spent))]
        self._spent[ticket.state] = None

    async def _logged_in(self, request: Request, ticket: LoginTicket, source: str) -> Principal:
        provider = self._provider
        facts = await provider.facts()
        if (facts.names_itself or "iss" in request.query_params) and _one(request, "iss") != provider.issuer:
            raise LoginRefused("what came back is another provider's")
        if "error" in request.query_params:
            said = _one(request, "error")
            raise LoginRefused(f"the provider said {said if ERROR_CODE.fullmatch(said) else 'no'}")
        if not (code := _one(request, "code")):
            raise LoginRefused("the provider sent no code")
        async with self._asking:
            token = await provider.exchange(code, ticket.verifier, self._back_url)
            keys = await provider.keys(header_of(token)[1])
        subject = verified(
            token, keys, issuer=provider.issuer, client_id=provider.client_id, nonce=ticket.nonce
        )
        role = self._roles.of(subject)
        return await self._credentials.log_in(subject.name, role, provider.issuer, source)

    def _failed(self, problem: str, status: int) -> Response:
        return login_page(problem, status, self.begin_url)


def challenge_of(verifier: str) -> str:
    """RFC 7636 §4.2, S256."""
    digest = hashlib.sha256(verifier.encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _one(request: Request, name: str) -> str:
    """The one value of that name; nothing where there is none, several, or too long a one."""
    values = request.query_params.getlist(name)
    return values[0] if len(values) == 1 and len(values[0]) <= LONGEST else ""

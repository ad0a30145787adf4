"""What a request shows, and whose it is: a token, a login's cookie, on loopback the page's, or nothing.

* `Authorization: Bearer vgt_…`: a token of the table (`gateway.store.api_tokens`); looked up each time, so
  that one that was revoked opens nothing from then on.
* `Authorization: Bearer …`, the console's token: a file of mode 600 in the data directory, for whoever may
  read it: the machine's own user, and the command line. It may do everything.
* The login's cookie: which token it was made for and until when, under our MAC. The token's rights are looked
  up each time here too.
* A login by a provider (`provider_login`) is such a token, too, whose text nobody has: made when somebody
  logs in, over within `COOKIE_S`, and revoked by logging out.
* On loopback a request without any of these may read. The page that is opened there gets a cookie that lets
  it call (`SameSite=Strict`), so that a newcomer needs no token and a page of another site gets nowhere.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import secrets
import time
from dataclasses import dataclass, field, replace
from http.cookies import CookieError, SimpleCookie
from typing import Final

import structlog
from starlette.datastructures import Headers
from starlette.responses import Response

from gateway.front.admission.rights import HERE, PAGE, ROLES, Principal, rights_of
from gateway.front.http.problems import refusal
from gateway.store.api_tokens import ApiToken, ApiTokens
from gateway.store.registry import RegistryError

COOKIE: Final = "voicegate"
COOKIE_S: Final = 12 * 3600
PAGE_COOKIE: Final = "voicegate-page"
PAGE_S: Final = 7 * 86_400
CONSOLE: Final = "console"
"""Whose session it is that was opened with the console's own token."""
WRONG_TOKENS: Final = 10
"""Wrong tokens from one source in `WRONG_WITHIN_S` before it must wait."""
WRONG_WITHIN_S: Final = 60.0
SOURCES: Final = 10_000
TICKET_COOKIE: Final = "voicegate-login"
TICKET_S: Final = 600.0
"""How long somebody may take at the provider."""
LOGINS: Final = 4
"""Of one person, that hold at once."""
BY_PROVIDER: Final = "oidc "
"""How `made_by` of a login's token begins; the issuer follows."""
LONGEST: Final = 256
"""Characters of a token that are looked at."""
LONGEST_COOKIE: Final = 4096
"""Of a cookie: a ticket has the page in it that the login leads to. Browsers keep no longer one."""

log = structlog.get_logger("http")


@dataclass(frozen=True, slots=True)
class LoginTicket:
    """What goes with a login at the provider, and is known to the browser that began it alone."""

    state: str = field(repr=False)
    nonce: str = field(repr=False)
    verifier: str = field(repr=False)
    """PKCE's (RFC 7636)"""
    then: str = "/"
    """which of our pages it leads to"""


class Guesses:
    """Wrong tokens, by source; the oldest sources are forgotten."""

    def __init__(self) -> None:
        self._wrong: dict[str, list[float]] = {}

    def must_wait(self, source: str) -> bool:
        """True when this source guessed too often of late."""
        since = time.monotonic() - WRONG_WITHIN_S
        recent = [at for at in self._wrong.get(source, ()) if at > since]
        if recent:
            self._wrong[source] = recent
        else:
            self._wrong.pop(source, None)
        return len(recent) >= WRONG_TOKENS

    def note(self, source: str) -> None:
        """It was wrong once more."""
        if len(self._wrong) >= SOURCES:
            self._wrong.pop(next(iter(self._wrong)))
        self._wrong.setdefault(source, []).append(time.monotonic())


class SharedToken:
    """A secret that two sides share, such as engines elsewhere and we."""

    def __init__(self, token: str) -> None:
        self._token = token
        self._guesses = Guesses()

    def admits(self, headers: Headers, source: str) -> Response | None:
        """The refusal of a request that does not show it."""
        given = bearer(headers)
        if given is None:
            return refusal(401, "a token is needed: Authorization: Bearer …")
        if self._guesses.must_wait(source):
            return refusal(429, "too many wrong tokens", retry_after_s=int(WRONG_WITHIN_S))
        if not same(given, self._token):
            self._guesses.note(source)
            return refusal(401, "that is not the token")
        return None


class Gatekeeper:
    """Tells who asks. `console` is the console's token, None: it has none; `tokens` None: nor any others."""

    def __init__(self, console: str | None, tokens: ApiTokens | None, *, local_only: bool) -> None:
        self.console = console
        self._tokens = tokens
        self._local_only = local_only
        self._guesses = Guesses()
        secret = secrets.token_bytes(32) if console is None else console.encode()
        self._key = hmac.new(secret, b"voicegate console sessions", hashlib.sha256).digest()

    async def asker(self, headers: Headers, source: str, *, here: bool) -> Principal | Response:
        """Whose request it is, or its refusal. `here`: it was asked for by a name of this machine's own.

        A login that holds never waits for others' guesses.
        """
        given = bearer(headers)
        if given is not None:
            found = await self.of_token(given, source)
            return refusal(401, "that token opens nothing: it is wrong, or over") if found is None else found
        cookies = cookies_of(headers)
        try:
            if COOKIE in cookies and (session := await self._session(cookies[COOKIE])) is not None:
                return session
        except RegistryError as error:
            return _unreadable(error)
        if not (self._local_only and here):
            return refusal(401, "a token is needed: Authorization: Bearer …")
        if self._signed(PAGE_COOKIE, cookies.get(PAGE_COOKIE, "")) is not None:
            return Principal("page", "", PAGE)
        return Principal("loopback", "", HERE)

    async def of_token(self, given: str, source: str) -> Principal | Response | None:
        """Whose token it is; None: nobody's (a wrong guess, which is counted)."""
        if self._guesses.must_wait(source):
            return refusal(429, "too many wrong tokens", retry_after_s=int(WRONG_WITHIN_S))
        given = given[:LONGEST]
        if self.console is not None and same(given, self.console):
            return Principal(CONSOLE, "admin", ROLES["admin"], CONSOLE)
        try:
            token = None if self._tokens is None else await asyncio.to_thread(self._tokens.of, given)
        except RegistryError as error:
            return _unreadable(error)
        if token is None or not token.holds():
            self._guesses.note(source)
            known = {} if token is None else {"id": token.token_id, "why": token.state}
            log.warning("token.refused", source=source, **known)
            return None
        try:
            if self._tokens is not None:
                await asyncio.to_thread(self._tokens.used, token, source)
        except RegistryError as error:
            log.warning("token.use_not_noted", id=token.token_id, error=str(error))
        return _principal(token)

    async def still(self, asker: Principal) -> bool:
        """Whether who asked a while ago may still do what it may: asked while an answer lasts."""
        if asker.expires_at is not None and time.time() >= asker.expires_at:
            return False
        if asker.token_id in ("", CONSOLE) or self._tokens is None:
            return True
        try:
            token = await asyncio.to_thread(self._tokens.get, asker.token_id)
        except RegistryError:
            return True  # nobody knows: the next request will hear so
        return token is not None and token.holds() and rights_of(token.role) >= asker.rights

    def session_for(self, asker: Principal) -> tuple[str, float]:
        """The cookie of a login with a token, which proves it without being it; and until when it holds."""
        until = min(time.time() + COOKIE_S, asker.expires_at or float("inf"))
        return self._sign(COOKIE, asker.token_id, until), until

    def ticket_cookie(self, then: str) -> str:
        """A cookie for a browser that begins to log in at the provider; `then` is what that leads to."""
        page = base64.urlsafe_b64encode(then.encode()).decode().rstrip("=")
        return self._sign(TICKET_COOKIE, f"{secrets.token_hex(24)}~{page}", time.time() + TICKET_S)

    def ticket(self, cookie: str) -> LoginTicket | None:
        """What that cookie stands for; None when it is not ours, or over. Nothing is kept of it here."""
        if (found := self._signed(TICKET_COOKIE, cookie)) is None:
            return None
        page = found[0].partition("~")[2]
        state, nonce, verifier = (self._mac(what, found[0]) for what in ("state", "nonce", "verifier"))
        then = base64.urlsafe_b64decode(page + "=" * (-len(page) % 4)).decode()
        return LoginTicket(state, nonce, verifier, then)

    async def log_in(self, name: str, role: str, issuer: str, source: str) -> Principal:
        """Whom a provider sent, with a token for as long as a login holds; the oldest of too many end.

        Raises `RegistryError`, `TokenError`.
        """
        if self._tokens is None:
            raise RegistryError("there is no table of tokens")
        tokens, made_by = self._tokens, f"{BY_PROVIDER}{issuer}"[:128]

        def kept() -> ApiToken:
            tokens.revoke_oldest(name, made_by, LOGINS - 1)
            made, _ = tokens.make(name, role, COOKIE_S, made_by)
            tokens.used(made, source)
            return made

        return _principal(await asyncio.to_thread(kept))

    async def log_out(self, asker: Principal) -> None:
        """Ends a login by a provider; a token that somebody has goes on. Raises `RegistryError`."""
        if self._tokens is None or asker.token_id in ("", CONSOLE):
            return
        token = await asyncio.to_thread(self._tokens.get, asker.token_id)
        if token is not None and token.made_by.startswith(BY_PROVIDER):
            await asyncio.to_thread(self._tokens.revoke, token.token_id, asker.name)

    def must_wait(self, source: str) -> bool:
        """Whether this source guessed too often of late."""
        return self._guesses.must_wait(source)

    def guessed(self, source: str) -> None:
        """It was wrong once more."""
        self._guesses.note(source)

    def page_cookie(self) -> str:
        """The cookie of the page on loopback."""
        return self._sign(PAGE_COOKIE, "page", time.time() + PAGE_S)

    def own_call(self, call_id: str) -> str:
        """What stands behind a call's id in its Location: whoever has it placed the call."""
        return self._mac("own call", call_id)[:32]

    def is_own_call(self, call_id: str, shown: str) -> bool:
        """Whether that stood in the Location of that call."""
        return same(shown, self.own_call(call_id))

    async def _session(self, cookie: str) -> Principal | None:
        found = self._signed(COOKIE, cookie)
        if found is None:
            return None
        token_id, until = found
        if token_id == CONSOLE:
            return Principal(CONSOLE, "admin", ROLES["admin"], CONSOLE, until)
        token = None if self._tokens is None else await asyncio.to_thread(self._tokens.get, token_id)
        if token is None or not token.holds():
            return None
        return replace(_principal(token), expires_at=min(until, token.expires_at))

    def _sign(self, what: str, whose: str, until: float) -> str:
        return f"{whose}.{int(until)}.{self._mac(what, whose, str(int(until)))}"

    def _signed(self, what: str, cookie: str) -> tuple[str, float] | None:
        """Whose it is, and until when, if it is ours and not over."""
        whose, _, rest = cookie[:LONGEST_COOKIE].partition(".")
        until, _, mac = rest.partition(".")
        if not same(mac, self._mac(what, whose, until)):
            return None
        return (whose, float(until)) if time.time() < float(until) else None

    def _mac(self, *said: str) -> str:
        return hmac.new(self._key, "\n".join(said).encode("utf-8", "replace"), hashlib.sha256).hexdigest()


def bearer(headers: Headers) -> str | None:
    """What `Authorization: Bearer` shows; None without it."""
    scheme, _, given = headers.get("authorization", "").partition(" ")
    return given.strip() if scheme.lower() == "bearer" else None


def _principal(token: ApiToken) -> Principal:
    return Principal(token.name, token.role, rights_of(token.role), token.token_id, token.expires_at)


def cookies_of(headers: Headers) -> dict[str, str]:
    """A request's cookies by name."""
    try:
        found = SimpleCookie(headers.get("cookie", ""))
    except CookieError:
        return {}
    return {name: morsel.value for name, morsel in found.items()}


def same(given: str, right: str) -> bool:
    """Whether they are, in a time that says nothing of where they differ."""
    return hmac.compare_digest(given.encode("utf-8", "replace"), right.encode())


def _unreadable(error: RegistryError) -> Response:
    log.error("tokens.unreadable", error=str(error))
    return refusal(503, "whose token that is cannot be looked up now", retry_after_s=5)

"""The OpenID provider of this house: where it is asked, by which keys it signs, and what it gives for a code.

It is found by its issuer (OpenID Connect Discovery 1.0). Whatever it answers is bounded in size and time, and
it is asked seldom, however many log in: what it said of itself holds for an hour, a failure for some seconds.
"""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar
from urllib.parse import quote_plus

import httpx
import structlog

from gateway.config.private_file import private_bytes
from gateway.config.settings import SERVER_URL, Settings
from gateway.errors import SettingsError, VoicegateError
from gateway.front.events.failed_delivery import is_untrusted, why_undelivered
from gateway.front.house.guarded_transport import guarded_client
from gateway.front.http.id_token import KeysById, LoginRefused, ProviderKey, read_keys

DISCOVERY: Final = "/.well-known/openid-configuration"
ANSWER_S: Final = 10.0
MOST_ANSWER: Final = 262_144
HOLDS_S: Final = 3600.0
"""How long what it said of itself, and its keys, are good for."""
AGAIN_S: Final = 5.0
"""A provider that failed, or did not have a key, is not asked anew before that."""
LONGEST_TOKEN: Final = 65_536
SECRET_BYTES: Final = 4096
SETTING: Final = "VOICEGATE_OIDC_SECRET_FILE"
ERROR_CODE: Final = re.compile(r"[a-z_]{1,40}")

T = TypeVar("T")

log = structlog.get_logger("http")


Told = Callable[[str], object]


def _log(why: str) -> None:
    log.warning("login.provider_away", error=why)


class ProviderAway(VoicegateError):
    """The provider cannot be asked, or says what cannot be; the text is ours."""


@dataclass(frozen=True, slots=True)
class ProviderFacts:
    """What it says of itself. `names_itself`: its answers name the issuer (RFC 9207)."""

    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    secret_in_body: bool = False
    names_itself: bool = False


class _KnownFor(Generic[T]):
    """Something that `fetch` fetches, for as long as it holds. `fetch` raises `ProviderAway`."""

    def __init__(self, fetch: Callable[[], Awaitable[T]]) -> None:
        self._fetch = fetch
        self._kept: T | None = None
        self._until = self._next = float("-inf")
        self._why = "the provider was asked a moment ago"
        self._lock = asyncio.Lock()

    async def value(self, good: Callable[[T], object] = lambda _: True) -> T:
        """What is kept; fetched anew when it is old or not `good`, but not twice within `AGAIN_S`.

        Raises `ProviderAway`.
        """
        async with self._lock:
            kept = self._kept if time.monotonic() < self._until else None
            if kept is not None and (good(kept) or time.monotonic() < self._next):
                return kept
            if time.monotonic() < self._next:
                raise ProviderAway(self._why)
            try:
                self._kept = kept = await self._fetch()
                self._until = time.monotonic() + HOLDS_S
                return kept
            except ProviderAway as away:
                self._why = str(away)
                raise
            finally:
                self._next = time.monotonic() + AGAIN_S


class IdentityProvider:
    """The one with that issuer, to which this gateway is `client_id`; `secret` None: it wants none.

    `told` hears why it cannot be asked, each time that it was.
    """

    def __init__(
        self,
        issuer: str,
        client_id: str,
        secret: str | None = None,
        told: Told = _log,
    ) -> None:
        self.issuer = issuer
        self.client_id = client_id
        self._secret = secret
        self._tell = told
        self._facts = _KnownFor(self._discovered)
        self._keys = _KnownFor(self._key_set)
        self._trust = ssl.create_default_context()
        self._client: httpx.AsyncClient | None = None

    @classmethod
    def of(cls, conf: Settings, told: Told = _log) -> IdentityProvider | None:
        """The one that the settings name. Raises `SettingsError`."""
        if conf.oidc_issuer is None or conf.oidc_client_id is None:
            return None
        secret = None
        if conf.oidc_secret_file is not None:
            written = private_bytes(SETTING, conf.oidc_secret_file, SECRET_BYTES).strip()
            if not written or not written.isascii() or b"\n" in written:
                raise SettingsError(f"{SETTING}: {conf.oidc_secret_file} should have one line, in ASCII")
            secret = written.decode()
        return cls(conf.oidc_issuer, conf.oidc_client_id, secret, told)

    async def close(self) -> None:
        """Lets go of its connections."""
        if self._client is not None:
            await self._client.aclose()

    async def facts(self) -> ProviderFacts:
        """What it says of itself. Raises `ProviderAway`."""
        return await self._facts.value()

    async def keys(self, key_id: str | None) -> list[ProviderKey]:
        """Those of that id, all where a token names none; a key that is new to us is looked for.

        Raises `ProviderAway`.
        """
        return _named(await self._keys.value(lambda keys: _named(keys, key_id)), key_id)

    async def exchange(self, code: str, verifier: str, back: str) -> str:
        """The ID token for a code (RFC 6749 §4.1.3, RFC 7636 §4.5). `back`: where the code came to.

        Raises `ProviderAway`, and `LoginRefused` when the code is not good.
        """
        facts = await self.facts()
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": back,
            "code_verifier": verifier,
        }
        login = None
        if self._secret is None or facts.secret_in_body:
            form["client_id"] = self.client_id
            if self._secret is not None:
                form["client_secret"] = self._secret
        else:  # RFC 6749 §2.3.1
            login = httpx.BasicAuth(quote_plus(self.client_id), quote_plus(self._secret))
        said = await self._asked("POST", facts.token_endpoint, data=form, auth=login)
        token = said.get("id_token")
        if not isinstance(token, str) or not 0 < len(token) <= LONGEST_TOKEN:
            raise ProviderAway("the provider's answer has no ID token")
        return token

    async def _discovered(self) -> ProviderFacts:
        said = await self._asked("GET", self.issuer.rstrip("/") + DISCOVERY)
        if said.get("issuer") != self.issuer:
            raise ProviderAway("what is found at the issuer's address is another issuer's")
        urls = [said.get(name) for name in ("authorization_endpoint", "token_endpoint", "jwks_uri")]
        if not all(isinstance(url, str) and len(url) < 2000 and self._may_be(url) for url in urls):
            raise ProviderAway("the provider names addresses that are not https")
        ways = said.get("token_endpoint_auth_methods_supported")
        body = isinstance(ways, list) and "client_secret_basic" not in ways and "client_secret_post" in ways
        names = said.get("authorization_response_iss_parameter_supported") is True
        there, tokens, keys = map(str, urls)
        return ProviderFacts(there, tokens, keys, secret_in_body=body, names_itself=names)

    async def _key_set(self) -> KeysById:
        return read_keys(await self._asked("GET", (await self.facts()).jwks_uri))

    def _may_be(self, url: str) -> bool:
        """Whether an address that the provider names may be gone to: https, or on this machine as it is."""
        bare = url.partition("?")[0]
        if not bare.startswith("https://") and not self.issuer.startswith("http://"):
            return False
        return SERVER_URL.fullmatch(bare) is not None and _is_plain(url)

    async def _asked(self, method: str, url: str, **more: Any) -> dict[str, Any]:
        """The table that it answers; what goes wrong is told to the log.

        Raises `ProviderAway`, and `LoginRefused` for what a POST gets 400 for.
        """
        try:
            return await self._answered(method, url, **more)
        except ProviderAway as away:
            self._tell(str(away))
            raise

    async def _answered(self, method: str, url: str, **more: Any) -> dict[str, Any]:
        if self._client is None:
            self._client = guarded_client(self._trust, ANSWER_S)
        headers = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "voicegate"}
        try:
            async with (
                asyncio.timeout(ANSWER_S),
                self._client.stream(method, url, headers=headers, **more) as answer,
            ):
                body = await _body(answer)
                status = answer.status_code
        except TimeoutError:
            raise ProviderAway(f"the provider did not answer within {ANSWER_S:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:  # its text may have the URL
            if is_untrusted(error):  # by the next try this machine may trust others
                await asyncio.to_thread(self._trust.load_default_certs)
            raise ProviderAway(f"the provider cannot be asked: {why_undelivered(error)}") from None
        try:
            table = json.loads(body)
        except (ValueError, RecursionError):
            table = None
        if status != 200:
            said = table.get("error") if isinstance(table, dict) else None
            code = said if isinstance(said, str) and ERROR_CODE.fullmatch(said) else f"HTTP {status}"
            if method == "POST" and status == 400:
                raise LoginRefused(f"the provider refused the login's code: {code}")
            raise ProviderAway(f"the provider answered {code}")
        if not isinstance(table, dict):
            raise ProviderAway("the provider's answer is not JSON")
        return table


def _named(keys: KeysById, key_id: str | None) -> list[ProviderKey]:
    if key_id is None:
        return [key for some in keys.values() for key in some]
    return keys.get(key_id, [])


def _is_plain(url: str) -> bool:
    return url.isascii() and url.isprintable() and not set(url) & set(' "<>\\^`{|}#')


async def _body(answer: httpx.Response) -> bytes:
    got = b""
    async for piece in answer.aiter_raw():
        got += piece
        if len(got) > MOST_ANSWER:
            raise ValueError("too long")
    return got

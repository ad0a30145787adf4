"""People log in at the console by an OpenID provider that signs; and an enemy tries every way around it."""

from __future__ import annotations

import hashlib
import hmac
import html
import json
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import OctKey
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.testclient import TestClient
from structlog.testing import capture_logs

from gateway.config.settings import Settings
from gateway.errors import SettingsError
from gateway.front.http import identity_provider, provider_login
from gateway.front.http.app import build_app
from gateway.front.http.credentials import COOKIE, LOGINS, TICKET_COOKIE, TICKET_S, WRONG_TOKENS
from gateway.front.http.id_token import ClaimedRoles, LoginRefused, Subject, header_of, read_keys, verified
from gateway.front.http.identity_provider import IdentityProvider
from gateway.front.http.provider_login import BACK, BEGIN
from gateway.store.api_tokens import ApiTokens
from gateway.store.registry import Registry
from tests.gateway.front.http.oidc_double import (
    CLIENT,
    SECRET,
    ProviderDouble,
    Table,
    b64,
    ec_key,
    rsa_key,
    signed,
)
from tests.gateway.front.http.test_app import TOKEN, FakeHouse

GATE = "https://gate.example"
ROLES = ("voicegate-admins=admin", "staff=watcher")


class Console:
    """An app to log in at."""

    def __init__(self, folder: Path, double: ProviderDouble, **more: Any) -> None:
        secret = folder / "secret"
        secret.write_text(f"{SECRET}\n")
        secret.chmod(0o600)
        self.registry = Registry.open(f"sqlite:///{folder / 'tokens.db'}")
        self.tokens = ApiTokens(self.registry)
        self.tokens.open()
        self.settings = Settings(
            **{
                "host": "0.0.0.0",
                "data_dir": folder,
                "public_url": GATE,
                "oidc_issuer": double.issuer,
                "oidc_client_id": CLIENT,
                "oidc_secret_file": secret,
                "oidc_roles": ROLES,
                **more,
            }
        )
        self.provider = IdentityProvider.of(self.settings)
        self.app: Starlette = build_app(
            FakeHouse(), self.settings, TOKEN, tokens=self.tokens, provider=self.provider
        )
        self.double = double

    def browser(self, **headers: str) -> TestClient:
        return TestClient(self.app, base_url=GATE, headers=headers, follow_redirects=False)

    def close(self) -> None:
        self.registry.close()


@pytest.fixture
def double() -> Iterator[ProviderDouble]:
    with ProviderDouble() as running:
        yield running


@pytest.fixture
def console(tmp_path: Path, double: ProviderDouble) -> Iterator[Console]:
    made = Console(tmp_path, double)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def _asks_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity_provider, "AGAIN_S", 0.0)


def begin(browser: TestClient) -> str:
    """Where the browser is sent."""
    answer = browser.get(BEGIN)
    assert answer.status_code == 303, answer.text
    return answer.headers["location"]


def agree(there: str) -> str:
    """Where the provider sends it back to."""
    return httpx.get(there).headers["location"]


def log_in(browser: TestClient) -> httpx.Response:
    return browser.get(agree(begin(browser)))


def me(browser: TestClient) -> dict[str, Any]:
    answer = browser.get("/api/me")
    return answer.json() if answer.status_code == 200 else {}


def refused(browser: TestClient, why: str = "", status: int = 403) -> None:
    answer = log_in(browser)
    assert (answer.status_code, why in html.unescape(answer.text)) == (status, True), answer.text
    assert COOKIE not in browser.cookies
    assert me(browser) == {}


# ── the way in ───────────────────────────────────────────────────────────────────────────────────────


def test_who_the_provider_sends_is_logged_in_with_the_role_that_is_meant(console: Console) -> None:
    browser = console.browser()
    assert f'href="{GATE}{BEGIN}"' in browser.get("/login").text
    with capture_logs() as lines:
        answer = log_in(browser)
    assert answer.status_code == 200
    assert 'http-equiv="refresh" content="0; url=/"' in answer.text
    set_cookie = next(one for one in answer.headers.get_list("set-cookie") if one.startswith(f"{COOKIE}="))
    assert all(word in set_cookie for word in ("HttpOnly", "Secure", "SameSite=strict"))
    assert me(browser)["role"] == "admin"
    assert browser.get("/").status_code == 200
    (token,) = console.tokens.listed()
    assert (token.name, token.role, token.made_by) == ("oidc:ada", "admin", f"oidc {console.double.issuer}")
    assert token.expires_at - token.made_at <= 12 * 3600
    (line,) = [line for line in lines if line["event"] == "login"]
    assert (line["asker"], line["role"], line["id"]) == ("oidc:ada", "admin", token.token_id)
    assert SECRET not in str(lines)


def test_what_the_provider_is_asked(console: Console) -> None:
    browser = console.browser()
    there = begin(browser)
    asked = {name: values[0] for name, values in parse_qs(urlsplit(there).query).items()}
    assert (asked["response_type"], asked["code_challenge_method"]) == ("code", "S256")
    assert (asked["client_id"], asked["redirect_uri"]) == (CLIENT, GATE + BACK)
    assert asked["scope"].split()[0] == "openid"
    assert len({asked["state"], asked["nonce"], asked["code_challenge"]}) == 3
    cookie = browser.cookies[TICKET_COOKIE]
    assert not any(asked[name] in cookie for name in ("state", "nonce"))
    browser.get(agree(there))
    (login,) = console.double.logins
    assert login["grant_type"] == "authorization_code"
    assert login["authorization"].startswith("Basic ")
    assert "client_secret" not in login
    assert len(login["code_verifier"]) >= 43


def test_the_cookie_of_the_way_is_lax_for_that_way_alone_and_goes_after_it(console: Console) -> None:
    browser = console.browser()
    given = browser.get(BEGIN).headers["set-cookie"]
    for word in ("HttpOnly", "Secure", "SameSite=lax", f"Path={BEGIN}", "Max-Age=600"):
        assert word in given
    log_in(browser)
    assert TICKET_COOKIE not in browser.cookies


def test_a_provider_that_wants_the_secret_in_the_body_gets_it_there(console: Console) -> None:
    console.double.facts = {"token_endpoint_auth_methods_supported": ["client_secret_post"]}
    assert log_in(console.browser()).status_code == 200
    (login,) = console.double.logins
    assert (login["client_secret"], login["authorization"]) == (SECRET, "")


def test_a_provider_that_wants_no_secret_gets_none(tmp_path: Path, double: ProviderDouble) -> None:
    double.wants_secret = False
    console = Console(tmp_path, double, oidc_secret_file=None)
    assert log_in(console.browser()).status_code == 200
    assert double.logins[0]["client_id"] == CLIENT
    assert SECRET not in str(double.logins)
    console.close()


@pytest.mark.parametrize("algorithm", ["RS256", "PS256", "RS512", "ES256"])
def test_signatures_that_hold(console: Console, algorithm: str) -> None:
    console.double.algorithm = algorithm
    console.double.signer = ec_key() if algorithm.startswith("ES") else rsa_key()
    assert log_in(console.browser()).status_code == 200


def test_a_key_that_is_new_is_looked_for_and_one_that_went_does_not_hold(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    double = console.double
    assert log_in(console.browser()).status_code == 200
    double.keys, double.signer = [rsa_key("two")], rsa_key("two")
    assert log_in(console.browser()).status_code == 200
    double.signer = rsa_key("one")
    refused(console.browser(), "not signed by a key")
    asked = double.answered["jwks"]
    monkeypatch.setattr(identity_provider, "AGAIN_S", 60.0)
    double.signer = rsa_key("two")
    assert log_in(console.browser()).status_code == 200
    double.signer = rsa_key("three")
    refused(console.browser(), "not signed by a key")
    refused(console.browser(), "not signed by a key")
    assert double.answered["jwks"] <= asked + 1, "no token makes us ask again and again"


def test_what_the_provider_says_of_itself_is_asked_once(console: Console) -> None:
    for _ in range(3):
        assert log_in(console.browser()).status_code == 200
    assert console.double.answered["openid-configuration"] == 1
    assert console.double.answered["jwks"] == 1


# ── roles ────────────────────────────────────────────────────────────────────────────────────────────


def said(**claims: Any) -> Callable[[Table], Table]:
    return lambda table: {name: one for name, one in {**table, **claims}.items() if one is not None}


def test_nobody_without_a_role_gets_in(console: Console) -> None:
    console.double.twist = said(groups=["guests"])
    refused(console.browser(), "no role is meant for oidc:ada")
    assert console.tokens.listed() == []


@pytest.mark.parametrize(
    ("groups", "role"),
    [
        (["staff"], "watcher"),
        ("staff", "watcher"),
        (["staff", "voicegate-admins"], "admin"),
        *((none, None) for none in ([], None, "nobody", 7, [["staff"]], {"staff": 1}, ["STAFF"], "staff ")),
    ],
)
def test_the_first_role_that_fits_holds(groups: object, role: str | None) -> None:
    subject = Subject("oidc:ada", {"groups": groups})
    if role is not None:
        assert ClaimedRoles("groups", ROLES).of(subject) == role
        return
    with pytest.raises(LoginRefused, match="no role"):
        ClaimedRoles("groups", ROLES).of(subject)


def test_a_role_may_do_what_it_may(console: Console) -> None:
    console.double.twist = said(groups=["staff"])
    browser = console.browser()
    log_in(browser)
    assert browser.get("/api/calls").status_code == 200
    assert browser.delete("/api/calls/c1").status_code == 403
    assert browser.get("/api/tokens").status_code == 403


def test_a_claim_may_lie_in_a_table() -> None:
    roles = ClaimedRoles("realm_access.roles", ["ops=operator"])
    assert roles.of(Subject("x", {"realm_access": {"roles": ["ops"]}})) == "operator"
    for claims in (
        {"realm_access.roles": ["none"], "realm_access": {"roles": ["ops"]}},
        {"realm_access": ["roles"]},
        {"realm_access": None},
    ):
        with pytest.raises(LoginRefused):
            roles.of(Subject("x", claims))


def test_without_roles_nobody_gets_in(tmp_path: Path, double: ProviderDouble) -> None:
    with capture_logs() as lines:
        console = Console(tmp_path, double, oidc_roles=())
    assert "oidc.nobody" in {line["event"] for line in lines}
    refused(console.browser(), "no role")
    console.close()


# ── sessions ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_login_that_was_revoked_opens_nothing(console: Console) -> None:
    browser = console.browser()
    log_in(browser)
    console.tokens.revoke(console.tokens.listed()[0].token_id, "a test")
    assert me(browser) == {}


def test_logging_out_ends_the_login_everywhere(console: Console) -> None:
    browser, thief = console.browser(), console.browser()
    log_in(browser)
    thief.cookies.set(COOKIE, browser.cookies[COOKIE])
    assert me(thief)["role"] == "admin"
    assert browser.post("/logout", headers={"Origin": GATE}).status_code == 303
    assert me(thief) == {}
    assert console.tokens.listed()[0].revoked_by == "oidc:ada"


def test_logging_out_leaves_somebodys_token_as_it_is(console: Console) -> None:
    _, text = console.tokens.make("ci", "watcher", 60, "a test")
    browser = console.browser()
    browser.post("/login", data={"token": text}, headers={"Origin": GATE})
    assert me(browser)["role"] == "watcher"
    browser.post("/logout", headers={"Origin": GATE})
    assert console.tokens.listed()[0].holds()


def test_one_person_has_so_many_logins_and_no_more(console: Console) -> None:
    browsers = [console.browser() for _ in range(LOGINS + 2)]
    for browser in browsers:
        assert log_in(browser).status_code == 200
    assert [bool(me(browser)) for browser in browsers] == [False] * 2 + [True] * LOGINS
    console.double.twist = said(sub="bob")
    assert log_in(console.browser()).status_code == 200
    assert me(browsers[-1]), "somebody else's login ends nobody's"


def test_long_subjects_are_told_apart(console: Console) -> None:
    for end in "ab":
        console.double.twist = said(sub="x" * 200 + end)
        assert log_in(console.browser()).status_code == 200
    names = {token.name for token in console.tokens.listed()}
    assert len(names) == 2
    assert all(len(name) <= 64 for name in names)


# ── tokens that lie ──────────────────────────────────────────────────────────────────────────────────

ISSUED = "https://login.example.com"
NONCE = "7" * 64


def sound() -> Table:
    now = int(time.time())
    more = {"iat": now, "exp": now + 300, "groups": ["staff"]}
    return {"iss": ISSUED, "sub": "ada", "aud": CLIENT, "nonce": NONCE, **more}


def verify(token: str) -> Subject:
    keys = read_keys({"keys": [rsa_key().as_dict(private=False), ec_key().as_dict(private=False)]})
    key_id = header_of(token)[1]
    return verified(token, keys.get(key_id, []), issuer=ISSUED, client_id=CLIENT, nonce=NONCE)


@pytest.mark.parametrize(
    ("claims", "why"),
    [
        ({"iss": "https://evil.example"}, "another issuer"),
        ({"iss": None}, "another issuer"),
        ({"aud": "somebody-else"}, "for somebody else"),
        ({"aud": None}, "for somebody else"),
        ({"aud": [CLIENT, "other"]}, "for somebody else"),
        ({"aud": [CLIENT, "other"], "azp": "other"}, "for somebody else"),
        ({"aud": CLIENT, "azp": "other"}, "for somebody else"),
        ({"aud": [[CLIENT]]}, "for somebody else"),
        ({"nonce": "0" * 64}, "of another login"),
        ({"nonce": None}, "of another login"),
        ({"nonce": 7}, "of another login"),
        ({"exp": 1}, "over"),
        ({"exp": None}, "over"),
        ({"exp": "tomorrow"}, "over"),
        ({"exp": True}, "over"),
        ({"iat": None}, "over"),
        ({"iat": 1}, "over"),
        ({"iat": 9_999_999_999}, "over"),
        ({"nbf": 9_999_999_999}, "over"),
        ({"sub": None}, "names nobody"),
        ({"sub": ""}, "names nobody"),
        ({"sub": "a\nlogin"}, "names nobody"),
        ({"sub": "x" * 256}, "names nobody"),
        ({"sub": ["ada"]}, "names nobody"),
    ],
    ids=lambda given: json.dumps(given)[:40] if isinstance(given, dict) else None,
)
def test_a_token_that_is_not_for_this_login_holds_nothing(claims: Table, why: str) -> None:
    with pytest.raises(LoginRefused, match=why):
        verify(signed(said(**claims)(sound()), rsa_key(), "RS256"))


def test_such_a_token_logs_nobody_in(console: Console) -> None:
    console.double.twist = said(nonce="0" * 64)
    refused(console.browser(), "of another login")
    assert console.tokens.listed() == []


def test_two_audiences_hold_where_we_are_the_party() -> None:
    claims = said(aud=[CLIENT, "other"], azp=CLIENT)(sound())
    assert verify(signed(claims, rsa_key(), "RS256")).name == "oidc:ada"


def unsigned(claims: Table) -> str:
    head = b64(json.dumps({"alg": "none", "kid": "one"}).encode())
    return f"{head}.{b64(json.dumps(claims).encode())}."


def macced(key: bytes, kid: str = "one") -> Callable[[Table], str]:
    def made(claims: Table) -> str:
        head = b64(json.dumps({"alg": "HS256", "kid": kid}).encode())
        body = f"{head}.{b64(json.dumps(claims).encode())}"
        return f"{body}.{b64(hmac.digest(key, body.encode(), 'sha256'))}"

    return made


def own_key(claims: Table) -> str:
    """Signed by a key that the token itself brings."""
    stranger = rsa_key("stranger")
    head = {"alg": "RS256", "kid": "one", "jwk": stranger.as_dict(private=False)}
    return jwt.encode(head, claims, stranger, algorithms=["RS256"])


def changed(claims: Table) -> str:
    head, _, signature = signed(claims, rsa_key(), "RS256").split(".")
    return f"{head}.{b64(json.dumps({**claims, 'sub': 'root'}).encode())}.{signature}"


@pytest.mark.parametrize(
    "make",
    [
        unsigned,
        macced(rsa_key().as_pem(private=False)),
        macced(json.dumps(rsa_key().as_dict(private=False)).encode()),
        macced(b""),
        macced(SECRET.encode()),
        lambda claims: signed(claims, rsa_key("stranger"), "RS256"),
        lambda claims: signed(claims, ec_key("one"), "ES256"),
        own_key,
        changed,
        lambda claims: signed(claims, rsa_key(), "RS256").rpartition(".")[0] + ".",
        lambda claims: signed(claims, rsa_key(), "RS256") + "A",
        lambda _: "",
        lambda _: "a.b.c",
        lambda _: "....",
        lambda _: "x" * 100_000,
        lambda _: "é.é.é",
        lambda _: b64(b"[" * 400) + "." + b64(b"{}") + ".x",
    ],
    ids=[
        "none", "HS256 by the public key", "HS256 by the JWK", "HS256 by nothing", "HS256 by the secret",
        "a stranger's key", "a key of another kind by that name", "a key that it brings", "changed",
        "without signature", "with more", "empty", "letters", "dots", "long", "not ASCII", "deep",
    ],
)  # fmt: skip
def test_a_token_that_the_provider_did_not_sign_holds_nothing(make: Callable[[Table], str]) -> None:
    assert verify(signed(sound(), rsa_key(), "RS256")).name == "oidc:ada"
    with pytest.raises(LoginRefused):
        verify(make(sound()))


@pytest.mark.parametrize("make", [unsigned, macced(rsa_key().as_pem(private=False))], ids=["none", "HS256"])
def test_such_a_token_opens_no_login(console: Console, make: Callable[[Table], str]) -> None:
    console.double.make = make
    refused(console.browser(), "an algorithm that does not hold")
    assert console.tokens.listed() == []


@pytest.mark.filterwarnings("ignore:Key size")
@pytest.mark.parametrize(
    "keys",
    [
        [],
        5,
        [5, {}, {"kty": "RSA"}, {"kty": "RSA", "n": "%", "e": "AQAB", "kid": "one"}],
        [{"kty": ["RSA"], "kid": []}],
        [{"kty": "EC", "crv": "P-9", "x": "AA", "y": "AA", "kid": "one"}],
        [{**rsa_key().as_dict(private=False), "use": "enc"}],
        [rsa_key("small", 1024).as_dict(private=False)],
        [OctKey.import_key(b"k" * 32, {"kid": "oct"}).as_dict(private=True)],
    ],
    ids=["none", "number", "broken", "odd", "another curve", "for encryption", "small", "symmetric"],
)
def test_keys_that_cannot_sign_are_passed_over(keys: object) -> None:
    assert read_keys({"keys": keys}) == {}
    assert read_keys(keys) == {}


# ── ways that lie ────────────────────────────────────────────────────────────────────────────────────


def test_what_comes_back_with_another_state_logs_nobody_in(console: Console) -> None:
    browser = console.browser()
    back = agree(begin(browser))
    forged = back.replace("state=", "state=0")
    for url in (forged, back.replace("state=", "stat="), f"{back}&state=x", f"{BACK}?code=x&state="):
        assert browser.get(url).status_code == 403
    assert console.double.logins == [], "the provider is not even asked"
    assert browser.get(back).status_code == 200, "and the login that was begun goes on"


def test_an_enemys_login_is_not_put_upon_somebody(console: Console) -> None:
    """Login CSRF: the enemy begins, agrees, and sends somebody else's browser back."""
    back = agree(begin(console.browser()))
    victim = console.browser()
    assert victim.get(back).status_code == 403
    begin(victim)
    assert victim.get(back).status_code == 403
    assert COOKIE not in victim.cookies
    assert console.double.logins == []


def test_a_login_comes_back_once(console: Console) -> None:
    console.double.forgets_codes = False
    browser = console.browser()
    there = begin(browser)
    ticket = browser.cookies[TICKET_COOKIE]
    back = agree(there)
    assert browser.get(back).status_code == 200
    again = console.browser()
    again.cookies.set(TICKET_COOKIE, ticket)
    answer = again.get(back)
    assert (answer.status_code, "come back before" in answer.text) == (403, True)
    assert len(console.double.logins) == 1


def test_a_code_is_good_for_the_browser_that_began_alone(console: Console) -> None:
    """Code injection: a stolen code comes with the thief's own ticket; PKCE and nonce are another's."""
    code = parse_qs(urlsplit(agree(begin(console.browser()))).query)["code"][0]
    thief = console.browser()
    own = agree(begin(thief))
    answer = thief.get(own.replace(parse_qs(urlsplit(own).query)["code"][0], code))
    assert (answer.status_code, "code: invalid_grant" in answer.text) == (403, True)
    assert COOKIE not in thief.cookies


def test_a_ticket_is_ours_and_young(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    browser = console.browser()
    back = agree(begin(browser))
    ticket = browser.cookies[TICKET_COOKIE]
    whose, until, mac = ticket.split(".")
    later_on, another = f"{whose}.{int(until) + 1}.{mac}", f"{whose[1:]}.{until}.{mac}"
    for forged in (later_on, another, "", "...", f"{whose}.x.{mac}"):
        other = console.browser()
        other.cookies.set(TICKET_COOKIE, forged)
        assert other.get(back).status_code == 403
    later = time.time() + TICKET_S + 1
    monkeypatch.setattr("gateway.front.http.credentials.time.time", lambda: later)
    assert browser.get(back).status_code == 403


def test_a_logins_cookie_and_a_ticket_do_not_stand_for_each_other(console: Console) -> None:
    browser = console.browser()
    begin(browser)
    ticket = browser.cookies[TICKET_COOKIE]
    other = console.browser()
    other.cookies.set(COOKIE, ticket)
    assert me(other) == {}


@pytest.mark.parametrize("iss", ["https://evil.example", "", None])
def test_an_answer_of_another_provider_is_told_apart(console: Console, iss: str | None) -> None:
    browser = console.browser()
    back = agree(begin(browser))
    head, _, _ = back.partition("&iss=")
    answer = browser.get(head if iss is None else f"{head}&iss={iss}")
    assert (answer.status_code, "another provider" in answer.text) == (403, True)
    assert console.double.logins == []


def test_a_provider_that_does_not_name_itself_may_still_not_name_another(
    tmp_path: Path, double: ProviderDouble
) -> None:
    double.names_itself = False
    console = Console(tmp_path, double)
    assert log_in(console.browser()).status_code == 200
    browser = console.browser()
    assert browser.get(f"{agree(begin(browser))}&iss=https://evil.example").status_code == 403
    console.close()


def test_what_the_provider_says_of_a_refusal_is_not_repeated(console: Console) -> None:
    for given, shown in (("access_denied", "access_denied"), ("<script>alert(1)</script>", "said no")):
        browser = console.browser()
        state = parse_qs(urlsplit(begin(browser)).query)["state"][0]
        answer = browser.get(BACK, params={"state": state, "error": given, "iss": console.double.issuer})
        assert (answer.status_code, shown in answer.text) == (403, True)
        assert "<script>alert" not in answer.text


@pytest.mark.parametrize(
    ("then", "leads"),
    [("/calls/c1", "/calls/c1"), ("/calls", "/calls"), ("//evil.example", "/"), ("https://evil.example", "/"),
     ("/\\evil.example", "/"), ("/calls/../..//evil.example", "/"), ('/"><script>', "/"),
     ("/calls/%0a", "/")],
)  # fmt: skip
def test_a_login_leads_to_the_page_that_was_asked_for_and_to_ours_alone(
    console: Console, then: str, leads: str
) -> None:
    browser = console.browser()
    shown = browser.get("/login", params={"then": then}).text
    assert ("evil" in shown, "<script>" in shown) == (False, False)
    answer = browser.get(agree(browser.get(BEGIN, params={"then": then}).headers["location"]))
    assert f'content="0; url={leads}"' in answer.text
    assert "evil" not in answer.text


@pytest.mark.parametrize("length", [60, 90, 100, 300, 2000])
def test_a_login_leads_to_the_page_however_much_was_searched_for_there(console: Console, length: int) -> None:
    then = f"/calls?{'c' * length}"
    browser = console.browser()
    answer = browser.get(agree(browser.get(BEGIN, params={"then": then}).headers["location"]))
    assert f'content="0; url={then}"' in answer.text


def test_a_page_that_failed_still_takes_a_token(console: Console) -> None:
    failed = console.browser().get(f"{BACK}?state=x").text
    assert 'action="/login"' in failed
    assert 'action="/login?then=%2Fcalls%2Fc1"' in console.browser().get("/login?then=/calls/c1").text


def test_nobody_is_sent_elsewhere(console: Console) -> None:
    browser = console.browser()
    for more in ("?next=https://evil.example", "?redirect_uri=https://evil.example", "/../..//evil.example"):
        answer = browser.get(BEGIN + more)
        assert answer.headers.get("location", console.double.issuer).startswith((console.double.issuer, "/"))
    asked = parse_qs(urlsplit(begin(browser)).query)
    assert asked["redirect_uri"] == [GATE + BACK]
    answer = browser.get(agree(begin(browser)) + "&next=https://evil.example")
    assert "evil" not in answer.text


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_another_page_begins_no_login(console: Console, site: str) -> None:
    answer = console.browser(**{"Sec-Fetch-Site": site}).get(BEGIN)
    assert (answer.status_code, answer.headers["location"]) == (303, "/login")
    assert "set-cookie" not in answer.headers


def test_no_page_frames_the_login(console: Console) -> None:
    browser = console.browser()
    for answer in (browser.get("/login"), browser.get(BEGIN), log_in(browser), browser.get(BACK)):
        assert answer.headers["x-frame-options"] == "DENY"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["cache-control"] == "no-store"


def test_by_another_name_nobody_comes_back(console: Console) -> None:
    stranger = TestClient(console.app, base_url="https://evil.example", follow_redirects=False)
    assert stranger.get(BEGIN).status_code == 421


def test_whoever_fails_again_and_again_waits_and_others_do_not_make_him(console: Console) -> None:
    browser = console.browser()
    for _ in range(WRONG_TOKENS + 5):
        assert browser.get(f"{BACK}?code=x&state=y").status_code == 403
    assert begin(browser), "what any page can have a browser do counts for nothing"
    console.double.twist = said(groups=[])
    for _ in range(WRONG_TOKENS):
        refused(console.browser(), "no role")
    assert browser.get(BEGIN).status_code == 429
    assert browser.get(BACK).status_code == 429


# ── a provider that is away, or lies of itself ───────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "facts",
    [
        {"issuer": "https://evil.example"},
        {"issuer": None},
        {"token_endpoint": "http://192.0.2.1/token"},
        {"token_endpoint": "file:///etc/passwd"},
        {"jwks_uri": "http://169.254.169.254/latest"},
        {"jwks_uri": None},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"authorization_endpoint": "https://x.example/\r\nSet-Cookie: a=b"},
        {"authorization_endpoint": "https://user:pass@x.example/"},
        {"authorization_endpoint": ["https://x.example"]},
    ],
)
def test_a_provider_that_says_what_cannot_be_is_away(console: Console, facts: Table) -> None:
    console.double.facts = facts
    answer = console.browser().get(BEGIN)
    assert (answer.status_code, "cannot be asked" in answer.text) == (503, True)
    assert "location" not in answer.headers


def test_a_provider_elsewhere_names_https_alone() -> None:
    provider = IdentityProvider("https://login.example.com", CLIENT)
    assert provider._may_be("https://login.example.com/token?tenant=1")
    for url in ("http://localhost/token", "http://127.0.0.1:1/", "ftp://x", "https://x/#y", "https://x y"):
        assert not provider._may_be(url)


@pytest.mark.parametrize(
    ("name", "status", "body"),
    [
        ("openid-configuration", 500, b"{}"),
        ("openid-configuration", 302, b"{}"),
        ("openid-configuration", 200, b"<html>"),
        ("openid-configuration", 200, b"[" * 100_000),
        ("openid-configuration", 200, b'"' + b"x" * 300_000 + b'"'),
        ("token", 500, b"{}"),
        ("token", 401, b'{"error": "invalid_client"}'),
        ("token", 302, b"{}"),
        ("token", 200, b"{}"),
        ("token", 200, b'{"id_token": 7}'),
        ("token", 200, b"x" * 300_000),
        ("jwks", 500, b"{}"),
    ],
    ids=[
        "away", "redirects", "page", "deep", "long", "token away", "wrong secret", "token redirects",
        "no token", "number", "long token", "no keys",
    ],
)  # fmt: skip
def test_a_provider_that_fails_logs_nobody_in(console: Console, name: str, status: int, body: bytes) -> None:
    console.double.status[name] = status
    console.double.bodies[name] = body
    browser = console.browser()
    answer = browser.get(BEGIN)
    if answer.status_code == 303:
        answer = browser.get(agree(answer.headers["location"]))
    assert answer.status_code == 503
    assert me(browser) == {}
    console.double.status.clear()
    console.double.bodies.clear()
    assert log_in(console.browser()).status_code == 200, "and is asked again when it is well"


def test_a_provider_that_is_away_is_asked_seldom(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity_provider, "AGAIN_S", 60.0)
    console.double.status["openid-configuration"] = 503
    with capture_logs() as lines:
        for _ in range(5):
            assert console.browser().get(BEGIN).status_code == 503
    assert console.double.answered["openid-configuration"] == 1
    assert [line["event"] for line in lines] == ["login.provider_away"]


def test_a_provider_that_stalls_is_not_waited_for(
    tmp_path: Path, double: ProviderDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity_provider, "ANSWER_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        double.issuer = f"http://127.0.0.1:{silent.getsockname()[1]}"
        console = Console(tmp_path, double)
        assert console.browser().get(BEGIN).status_code == 503
        console.close()


def test_the_token_still_opens_while_the_provider_is_away(console: Console) -> None:
    console.double.status["openid-configuration"] = 503
    browser = console.browser()
    assert browser.post("/login", data={"token": TOKEN}, headers={"Origin": GATE}).status_code == 303
    assert me(browser)["role"] == "admin"


# ── settings ─────────────────────────────────────────────────────────────────────────────────────────

ISSUER = {"oidc_issuer": "https://login.example.com", "oidc_client_id": CLIENT}


@pytest.mark.parametrize(
    "given",
    [
        {"oidc_issuer": "https://login.example.com"},
        {"oidc_client_id": CLIENT},
        {**ISSUER, "oidc_issuer": "http://login.example.com"},
        {**ISSUER, "oidc_issuer": "http://192.0.2.1"},
        {**ISSUER, "oidc_issuer": "https://login.example.com/?x=1"},
        {**ISSUER, "oidc_issuer": "https://a:b@login.example.com"},
        {**ISSUER, "host": "0.0.0.0"},
        {**ISSUER, "host": "0.0.0.0", "public_url": "http://gate.example"},
        {**ISSUER, "oidc_claim": ""},
        {**ISSUER, "oidc_scope": 'openid "x"'},
    ],
)
def test_settings_that_cannot_be_meant(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Settings(**given)


def test_settings_that_will_do() -> None:
    assert Settings(**ISSUER).console_url == "http://localhost:8080"
    assert Settings(**ISSUER, host="0.0.0.0", public_url="https://gate.example/").console_url == GATE
    assert IdentityProvider.of(Settings()) is None


@pytest.mark.parametrize("written", ["admin", "=admin", "staff=", "staff=root", "staff=nobody"])
def test_roles_that_are_none_end_the_start(tmp_path: Path, double: ProviderDouble, written: str) -> None:
    with pytest.raises(SettingsError, match="VOICEGATE_OIDC_ROLES"):
        Console(tmp_path, double, oidc_roles=(written,))


@pytest.mark.parametrize(
    ("text", "mode"), [(SECRET, 0o644), ("", 0o600), (f"{SECRET}\n{SECRET}", 0o600), ("é", 0o600)]
)
def test_a_secret_that_cannot_be_used_ends_the_start_unquoted(tmp_path: Path, text: str, mode: int) -> None:
    file = tmp_path / "secret"
    file.write_text(text)
    file.chmod(mode)
    with pytest.raises(SettingsError, match="VOICEGATE_OIDC_SECRET_FILE") as wrong:
        IdentityProvider.of(Settings(**ISSUER, oidc_secret_file=file))
    assert SECRET not in str(wrong.value)


def test_without_a_provider_there_is_no_such_door(tmp_path: Path) -> None:
    app = build_app(FakeHouse(), Settings(host="0.0.0.0", data_dir=tmp_path), TOKEN)
    browser = TestClient(app, base_url="http://192.0.2.7:8080", follow_redirects=False)
    assert browser.get(BEGIN).status_code == 404
    assert BEGIN not in browser.get("/login").text


def test_the_challenge_is_that_of_the_rfc() -> None:
    verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"  # RFC 7636, appendix B
    assert provider_login.challenge_of(verifier) == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
    assert hashlib.sha256(verifier.encode()).digest_size == 32

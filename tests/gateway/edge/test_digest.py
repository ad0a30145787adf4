"""Digest: the right password opens, everything else meets the same challenge."""

from __future__ import annotations

import hashlib
import re
import time

import pytest

from gateway.edge import digest as module
from gateway.edge.digest import Digest, DigestVerdict
from tests.gateway.edge.conftest import Exchange
from tests.gateway.edge.peers import OFFER, Caller

HOUSE_TIME = True

HASH = {"MD5": hashlib.md5, "SHA-256": hashlib.sha256}


def ha1(user: str, algorithm: str) -> str | None:
    known = HASH[algorithm](b"alice:voicegate:secret!!").hexdigest()
    return known if user == "alice" else None


def credentials(
    challenge: str,
    *,
    user: str = "alice",
    password: str = "secret!!",
    nc: str = "00000001",
    method: str = "INVITE",
    **changed: str,
) -> str:
    """An Authorization header as RFC 7616 §3.4 has it."""
    nonce = re.search('nonce="([^"]+)"', challenge)[1]  # type: ignore[index]
    algorithm = re.search("algorithm=([A-Z0-9-]+)", challenge)[1]  # type: ignore[index]

    def h(text: str) -> str:
        return HASH[algorithm](text.encode()).hexdigest()

    uri = "sip:demo@127.0.0.1"
    a1, a2 = h(f"{user}:voicegate:{password}"), h(f"{method}:{uri}")
    fields = {
        "username": f'"{user}"', "realm": '"voicegate"', "nonce": f'"{nonce}"', "uri": f'"{uri}"',
        "algorithm": algorithm, "qop": "auth", "nc": nc, "cnonce": '"c"',
        "response": '"' + h(f"{a1}:{nonce}:{nc}:c:auth:{a2}") + '"', **changed,
    }  # fmt: skip
    return "Digest " + ", ".join(f"{name}={value}" for name, value in fields.items() if value)


@pytest.fixture
def digest() -> Digest:
    return Digest(ha1, "both")


@pytest.mark.parametrize("which", [0, 1])
def test_both_algorithms_open(digest: Digest, which: int) -> None:
    challenge = digest.challenges("192.0.2.1")[which]
    assert digest.check([credentials(challenge)], "INVITE", "192.0.2.1") == (DigestVerdict.OK, "alice")


def test_what_is_not_offered_is_not_taken(digest: Digest) -> None:
    weak, strong = digest.challenges("192.0.2.1")[::-1]
    for offer, other in (("md5", strong), ("sha-256", weak)):
        only = Digest(ha1, offer)
        only._key = digest._key
        assert len(only.challenges("192.0.2.1")) == 1
        assert only.check([credentials(other)], "INVITE", "192.0.2.1")[0] is DigestVerdict.WRONG


def test_sha_256_is_offered_first(digest: Digest) -> None:
    assert ["SHA-256" in one for one in digest.challenges("192.0.2.1")] == [True, False]


@pytest.mark.parametrize(
    "wrong",
    [
        {"password": "guess"},
        {"user": "mallory"},
        {"method": "BYE"},
        {"qop": "auth-int"},
        {"qop": ""},
        {"algorithm": "SHA-512"},
        {"realm": '"elsewhere"'},
        {"nc": "1"},
        {"nc": "zzzzzzzz"},
        {"nonce": '"' + "f" * 65 + '"'},
        {"nonce": '"x"'},
        {"response": '"ünicode"'},
    ],
)
def test_anything_else_is_wrong(digest: Digest, wrong: dict[str, str]) -> None:
    challenge = digest.challenges("192.0.2.1")[1]
    verdict, _ = digest.check([credentials(challenge, **wrong)], "INVITE", "192.0.2.1")
    assert verdict is DigestVerdict.WRONG


def test_what_is_no_header_is_wrong(digest: Digest) -> None:
    for value in ("", "Basic YTpi", "Digest", "Digest self=1", "Digest ,,,", "Digest realm"):
        assert digest.check([value], "INVITE", "192.0.2.1")[0] is DigestVerdict.WRONG


def test_no_header_takes_long(digest: Digest) -> None:
    began = time.thread_time()
    for part in (',a="\\"', ",a=b", ' ,a="', "a=,", '"\\'):
        digest.check(["Digest realm=voicegate" + part * (8000 // len(part))], "INVITE", "192.0.2.1")
    assert time.thread_time() - began < 0.25


def test_a_nonce_is_for_one_source_and_one_time(digest: Digest, monkeypatch: pytest.MonkeyPatch) -> None:
    challenge = digest.challenges("192.0.2.1")[0]
    assert digest.check([credentials(challenge)], "INVITE", "192.0.2.2")[0] is DigestVerdict.STALE
    assert (
        Digest(ha1, "both").check([credentials(challenge)], "INVITE", "192.0.2.1")[0] is DigestVerdict.STALE
    )
    later = time.time() + module.NONCE_S + 2
    monkeypatch.setattr(module.time, "time", lambda: later)
    assert digest.check([credentials(challenge)], "INVITE", "192.0.2.1")[0] is DigestVerdict.STALE


def test_a_count_is_used_once(digest: Digest) -> None:
    challenge = digest.challenges("192.0.2.1")[0]
    first, second = credentials(challenge), credentials(challenge, nc="00000002")
    verdicts = [
        digest.check([one], "INVITE", "192.0.2.1")[0] for one in (first, first, second, first, second)
    ]
    assert verdicts == [
        DigestVerdict.OK,
        DigestVerdict.STALE,
        DigestVerdict.OK,
        DigestVerdict.STALE,
        DigestVerdict.STALE,
    ]


def test_counts_are_bounded(digest: Digest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_NONCES", 3)
    for n in range(10):
        challenge = digest.challenges(f"192.0.2.{n}")[0]
        assert digest.check([credentials(challenge)], "INVITE", f"192.0.2.{n}")[0] is DigestVerdict.OK
    assert len(digest._counts) == 3


def test_nobody_takes_the_same_steps_as_somebody(digest: Digest, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[int] = []
    real = module.hmac.compare_digest
    monkeypatch.setattr(module.hmac, "compare_digest", lambda a, b: compared.append(len(a)) or real(a, b))
    challenge = digest.challenges("192.0.2.1")[0]
    digest.check([credentials(challenge, password="guess")], "INVITE", "192.0.2.1")
    somebody, compared[:] = list(compared), []
    digest.check([credentials(challenge, user="mallory")], "INVITE", "192.0.2.1")
    assert compared == somebody


async def _challenged(exchange: Exchange) -> tuple[Caller, list[str]]:
    await exchange.edge(ha1=ha1, digest="both", trusted_proxies=("127.0.0.9",))
    caller = await exchange.caller()
    caller.send("INVITE", OFFER)
    return caller, (await caller.next(401)).all("www-authenticate")


async def test_a_user_calls_and_a_stranger_does_not(bare: Exchange) -> None:
    caller, challenges = await _challenged(bare)
    line = await bare.line()
    caller.send("INVITE", OFFER, f"Authorization: {credentials(challenges[0], password='guess')}")
    again = (await caller.next(401)).all("www-authenticate")
    assert "stale" not in again[0]
    foreign = 'Authorization: Digest username="x", realm="other", nonce="1", uri="sip:x", response="0"'
    caller.send("INVITE", OFFER, foreign, f"Authorization: {credentials(again[0])}")
    await line.invited()
    assert bare.desk.calls[0].facts.user == "alice"
    assert len(bare.desk.calls) == 1
    assert bare.edges[0].stats()["digest_wrong"] == 1


async def test_a_replayed_invite_is_challenged_as_stale(bare: Exchange) -> None:
    caller, challenges = await _challenged(bare)
    line = await bare.line()
    header = f"Authorization: {credentials(challenges[1])}"
    caller.send("INVITE", OFFER, header)
    await line.invited()
    villain = await bare.caller()
    villain.send("INVITE", OFFER, header)
    assert "stale=true" in (await villain.next(401))["www-authenticate"]


async def test_guessing_is_slower_than_calling(bare: Exchange) -> None:
    await bare.edge(ha1=ha1, invites_per_s=10.0)
    caller = await bare.caller()
    caller.send("INVITE", OFFER)
    challenge = (await caller.next(401))["www-authenticate"]
    for _ in range(20):
        caller.send("INVITE", OFFER, f"Authorization: {credentials(challenge, password='guess')}")
    other = await bare.caller(host="127.0.0.2")
    other.send("INVITE", OFFER)
    await other.next(401)
    assert len(caller.kept) <= 5


async def test_a_trusted_proxy_vouches_for_its_callers(bare: Exchange) -> None:
    await _challenged(bare)
    line = await bare.line()
    proxy = await bare.caller(host="127.0.0.9")
    below = "Via: SIP/2.0/UDP phone.example;branch=z9hG4bKp;received=203.0.113.7"
    proxy.send("INVITE", OFFER, below)
    await line.invited()
    assert bare.desk.calls[0].facts.source == "203.0.113.7"
    other = await bare.caller()
    other.send("INVITE", OFFER, below)
    await other.next(401)
    assert len(bare.desk.calls) == 1

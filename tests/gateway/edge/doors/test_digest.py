"""Digest: the right password opens, everything else meets the same challenge."""

from __future__ import annotations

import asyncio
import hashlib
import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.edge.doors import digest as module
from gateway.edge.doors.digest import Digest, DigestVerdict
from gateway.edge.router import Refuse
from tests.gateway.edge.conftest import Exchange
from tests.gateway.edge.peers import OFFER, Caller

HOUSE_TIME = True

HASH = {"MD5": hashlib.md5, "SHA-256": hashlib.sha256}


USERS = ("alice", "alice@voicegate", "jörg", "Jäsøn")


def ha1(user: str, algorithm: str) -> str | None:
    known = HASH[algorithm](f"{user}:voicegate:secret!!".encode()).hexdigest()
    return known if user in USERS else None


def credentials(
    challenge: str,
    *,
    user: str = "alice",
    password: str = "secret!!",
    nc: str = "00000001",
    method: str = "INVITE",
    protected: str = "auth",
    body: str = "",
    variant: str = "",
    first_cnonce: str = "c",
    uri: str = "sip:demo@127.0.0.1",
    **changed: str,
) -> str:
    """An Authorization header as RFC 7616 §3.4 has it, or with `protected` "" as RFC 2069 has it."""
    nonce = re.search('nonce="([^"]+)"', challenge)[1]  # type: ignore[index]
    algorithm = re.search("algorithm=([A-Z0-9-]+)", challenge)[1]  # type: ignore[index]

    def h(text: str) -> str:
        return HASH[algorithm](text.encode()).hexdigest()

    a1 = h(f"{user}:voicegate:{password}")
    if variant:
        a1 = h(f"{a1}:{nonce}:{first_cnonce}")
    a2 = h(f"{method}:{uri}" + (f":{h(body)}" if protected == "auth-int" else ""))
    middle = f":{nc}:c:{protected}" if protected else ""
    fields = {
        "username": f'"{user}"', "realm": '"voicegate"', "nonce": f'"{nonce}"', "uri": f'"{uri}"',
        "algorithm": algorithm + variant, "qop": protected, "nc": nc if protected else "",
        "cnonce": '"c"' if protected else "", "response": '"' + h(f"{a1}:{nonce}{middle}:{a2}") + '"',
        **changed,
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
        {"nc": "0"},
        {"nc": "-1"},
        {"nc": "0x1"},
        {"nc": "1_0"},
        {"nc": "000000001"},
        {"nc": "zzzzzzzz"},
        {"protected": ""},
        {"protected": "auth-conf"},
        {"user": ""},
        {"user": "alice@elsewhere"},
        {"username": ""},
        {"username": '"alice" , username="alice"'},
        {"username": '"alice'},
        {"username": 'al"ice"'},
        {"username": "\"alice\", username*=UTF-8''alice"},
        {"username": "", "username*": "UTF-8''%ff"},
        {"username": "", "username*": "alice"},
        {"username": "", "username*": "ISO-8859-1''alice"},
        {"uri": '""'},
        {"uri": '"sip:other@127.0.0.1"'},
        {"cnonce": '"' + "c" * 200 + '"'},
        {"response": '""'},
        {"response": '"0"'},
        {"response": '"' + "0" * 31 + '"'},
        {"response": '"' + "0" * 64 + '"'},
        {"variant": "-sess", "protected": "auth", "first_cnonce": "another"},
        {"algorithm": "MD5-sess"},
        {"realm": '"Voicegate"'},
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


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize(
    "how",
    [
        {"nc": "1"},
        {"nc": "0000000A"},
        {"nc": "ffffffff"},
        {"variant": "-sess"},
        {"variant": "-SESS"},
        {"protected": "auth-int", "body": OFFER},
        {"protected": "auth-int", "body": OFFER, "variant": "-sess"},
        {"protected": "Auth"},
        {"qop": '"auth"', "nc": "00000001"},
        {"user": "jörg"},
        {"user": "Jäsøn", "username": "", "username*": "UTF-8''J%C3%A4s%C3%B8n"},
        {"user": "Jäsøn", "username": "", "username*": "utf-8'en'J%c3%a4s%c3%b8n"},
        {"user": "jörg", "username": '"j\\ör\\g"'},
        {"uri": "sip:somebody-else@192.0.2.77:5070;transport=udp"},
        {"opaque": '"a, b=\\"c\\""', "auth-param": "x"},
    ],
)
def test_what_other_telephones_write_opens_too(digest: Digest, which: int, how: dict[str, str]) -> None:
    challenge = digest.challenges("192.0.2.1")[which]
    verdict, user = digest.check([credentials(challenge, **how)], "INVITE", "192.0.2.1", OFFER.encode())
    assert (verdict, user) == (DigestVerdict.OK, how.get("user", "alice"))


def test_capitals_and_blanks_change_nothing(digest: Digest) -> None:
    value = credentials(digest.challenges("192.0.2.1")[0])
    value = re.sub(r'response="([^"]+)"', lambda match: f'Response = "{match[1].upper()}"', value)
    value = value.replace("Digest ", "dIGEST   ").replace(", ", " ,\t").replace("nonce=", "NONCE =") + ","
    assert digest.check([value], "INVITE", "192.0.2.1")[0] is DigestVerdict.OK


def test_a_name_with_the_realm_behind_it_is_the_same_user(digest: Digest) -> None:
    value = credentials(digest.challenges("192.0.2.1")[0], user="alice@voicegate")
    assert digest.check([value], "INVITE", "192.0.2.1") == (DigestVerdict.OK, "alice")


def test_a_changed_body_is_noticed_where_the_caller_protects_it(digest: Digest) -> None:
    value = credentials(digest.challenges("192.0.2.1")[0], protected="auth-int", body=OFFER)
    assert digest.check([value], "INVITE", "192.0.2.1", b"v=0")[0] is DigestVerdict.WRONG
    assert digest.check([value], "INVITE", "192.0.2.1", OFFER.encode())[0] is DigestVerdict.OK


def test_a_sessions_key_is_that_of_its_first_request(digest: Digest) -> None:
    challenge = digest.challenges("192.0.2.1")[0]
    first = credentials(challenge, variant="-sess")
    second = credentials(challenge, variant="-sess", nc="00000002", first_cnonce="c", cnonce='"d"')
    third = credentials(challenge, variant="-sess", nc="00000003")
    assert digest.check([first], "INVITE", "192.0.2.1")[0] is DigestVerdict.OK
    assert digest.check([second], "INVITE", "192.0.2.1")[0] is DigestVerdict.WRONG, "cnonce is in the answer"
    assert digest.check([third], "INVITE", "192.0.2.1")[0] is DigestVerdict.OK


def test_of_two_headers_for_us_the_first_counts_that_we_can_read(digest: Digest) -> None:
    right = credentials(digest.challenges("192.0.2.1")[0])
    other = 'Digest username="alice", realm="elsewhere", nonce="1", uri="sip:x", response="0"'
    sha512 = right.replace("SHA-256", "SHA-512-256")
    for before in (other, sha512, 'Digest username="alice, realm="voicegate"', "Basic YTpi"):
        fresh = credentials(digest.challenges("192.0.2.1")[0])
        assert digest.check([before, fresh], "INVITE", "192.0.2.1")[0] is DigestVerdict.OK
    wrong = credentials(digest.challenges("192.0.2.1")[0], password="guess")
    assert digest.check([wrong, right], "INVITE", "192.0.2.1")[0] is DigestVerdict.WRONG


def test_no_two_challenges_are_the_same(digest: Digest) -> None:
    challenges = [digest.challenges("192.0.2.1")[0] for _ in range(50)]
    assert len(set(challenges)) == 50
    for challenge in reversed(challenges):
        assert digest.check([credentials(challenge)], "INVITE", "192.0.2.1")[0] is DigestVerdict.OK


def test_who_does_not_know_the_password_never_hears_stale(digest: Digest) -> None:
    made_up = 'Digest realm="voicegate", nonce="1-1-1-1", algorithm=MD5'
    for user, password in (("alice", "guess"), ("mallory", "secret!!")):
        value = credentials(made_up, user=user, password=password)
        assert digest.check([value], "INVITE", "192.0.2.1")[0] is DigestVerdict.WRONG
    assert digest.check([credentials(made_up)], "INVITE", "192.0.2.1")[0] is DigestVerdict.STALE


@pytest.mark.parametrize("nonce", ["", "-", "---", "zz-1-1-1", "é", "1-" + "0" * 40])
def test_a_nonce_that_is_none_is_stale_for_who_knows_the_password(digest: Digest, nonce: str) -> None:
    value = credentials(f'nonce="{nonce or "x"}", algorithm=MD5')
    if nonce:
        assert digest.check([value], "INVITE", "192.0.2.1")[0] is DigestVerdict.STALE
    else:
        assert digest.check([value.replace('"x"', '""')], "INVITE", "192.0.2.1")[0] is DigestVerdict.WRONG


@pytest.mark.parametrize("by_s", [3600.0, -3600.0])
def test_after_the_clock_was_set_who_knows_the_password_logs_in_once_more(
    digest: Digest, monkeypatch: pytest.MonkeyPatch, by_s: float
) -> None:
    before = credentials(digest.challenges("192.0.2.1")[0])
    wall = time.time
    monkeypatch.setattr(time, "time", lambda: wall() + by_s)
    assert digest.check([before], "INVITE", "192.0.2.1")[0] is DigestVerdict.STALE, "it asks nobody"
    after = credentials(digest.challenges("192.0.2.1")[0])
    assert digest.check([after], "INVITE", "192.0.2.1") == (DigestVerdict.OK, "alice")


def test_counts_may_overtake_each_other_but_none_is_good_twice(digest: Digest) -> None:
    challenge = digest.challenges("192.0.2.1")[0]
    verdicts = {}
    for count in (5, 3, 4, 5, 100, 37, 36, 3, 100, 1 << 31, 100):
        value = credentials(challenge, nc=f"{count:08x}")
        verdicts.setdefault(count, []).append(digest.check([value], "INVITE", "192.0.2.1")[0].value)
    assert verdicts == {
        5: ["ok", "stale"], 3: ["ok", "stale"], 4: ["ok"], 100: ["ok", "stale", "stale"], 37: ["ok"],
        36: ["stale"], 1 << 31: ["ok"],
    }  # fmt: skip


def test_what_is_forgotten_is_not_good_again(digest: Digest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_NONCES", 3)
    old = credentials(digest.challenges("192.0.2.1")[0])
    for value in [old, *(credentials(digest.challenges("192.0.2.1")[0]) for _ in range(5))]:
        assert digest.check([value], "INVITE", "192.0.2.1")[0] is DigestVerdict.OK
    assert digest.check([old], "INVITE", "192.0.2.1")[0] is DigestVerdict.STALE


def test_rfc_2069_is_for_who_may_and_its_nonce_is_good_once() -> None:
    digest = Digest(ha1, "both", lambda user: user == "alice")
    for which in (0, 1):
        challenge = digest.challenges("192.0.2.1")[which]
        value = credentials(challenge, protected="")
        assert digest.check([value], "INVITE", "192.0.2.1") == (DigestVerdict.OK, "alice")
        for again in (value, credentials(challenge), credentials(challenge, nc="ffffffff")):
            assert digest.check([again], "INVITE", "192.0.2.1")[0] is DigestVerdict.STALE
        wrong = credentials(challenge, protected="", password="guess")
        assert digest.check([wrong], "INVITE", "192.0.2.1")[0] is DigestVerdict.WRONG
    fresh = digest.challenges("192.0.2.1")[1]
    assert digest.check([credentials(fresh)], "INVITE", "192.0.2.1")[0] is DigestVerdict.OK, (
        "it may do better"
    )
    session = credentials(fresh, protected="", variant="-sess")
    assert digest.check([session], "INVITE", "192.0.2.1")[0] is DigestVerdict.WRONG
    others = credentials(fresh, user="jörg", protected="")
    assert digest.check([others], "INVITE", "192.0.2.1")[0] is DigestVerdict.WRONG


@settings(max_examples=300)
@given(st.data())
def test_whatever_is_written_is_judged(data: st.DataObject) -> None:
    digest = Digest(ha1, "both", lambda user: True)
    how = {"protected": data.draw(st.sampled_from(["auth", "auth-int", ""]))}
    value = credentials(digest.challenges("192.0.2.1")[0], **how)
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, len(value) - 1))
        value = value[:at] + data.draw(st.text(max_size=4)) + value[at + data.draw(st.integers(0, 4)) :]
    verdict, user = digest.check([value], "INVITE", "192.0.2.1")
    assert verdict is not DigestVerdict.OK or user == "alice"


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


async def test_four_telephones_at_one_address_get_in_in_the_same_second(bare: Exchange) -> None:
    await bare.edge(ha1=ha1)
    await bare.line()
    phones = [await bare.caller() for _ in range(4)]
    for phone in phones:
        phone.send("INVITE", OFFER)
    headers = [credentials((await phone.next(401))["www-authenticate"]) for phone in phones]
    bare.desk.verdict = lambda call: Refuse(404, "no such number")
    for phone, header in zip(phones, headers, strict=True):
        phone.send("INVITE", OFFER, f"Authorization: {header}")
    for phone in phones:
        await phone.next(404)
    assert len(bare.desk.calls) == 4


async def test_a_new_edge_asks_again_and_says_that_only_the_nonce_is_old(bare: Exchange) -> None:
    await bare.edge(ha1=ha1)
    caller = await bare.caller()
    caller.send("INVITE", OFFER)
    old = (await caller.next(401))["www-authenticate"]
    await bare.edges[0].stop()
    await bare.edge(ha1=ha1, port=bare.edges[0].port)
    await bare.line()
    caller.send("INVITE", OFFER, f"Authorization: {credentials(old)}")
    again = (await caller.next(401))["www-authenticate"]
    assert again.endswith(", charset=UTF-8, stale=true")
    caller.send("INVITE", OFFER, f"Authorization: {credentials(again)}")
    await caller.next(100)


async def test_a_name_beyond_ascii_comes_through(bare: Exchange) -> None:
    await bare.edge(ha1=ha1)
    await bare.line()
    for encoding in ("utf-8", "latin-1"):
        caller = await bare.caller()
        caller.send("INVITE", OFFER)
        header = credentials((await caller.next(401))["www-authenticate"], user="jörg")
        caller.write(caller.text("INVITE", OFFER, f"Authorization: {header}").encode(encoding))
        await caller.next(100)
    assert [call.facts.user for call in bare.desk.calls] == ["jörg", "jörg"]


# ── who asks too much ────────────────────────────────────────────────────────────────────────────────────


async def test_who_has_logged_in_hears_that_it_asks_too_often(bare: Exchange) -> None:
    caller, challenges = await _challenged(bare)
    await bare.line()
    stranger = await bare.caller(host="127.0.0.2")
    caller.send("INVITE", OFFER, f"Authorization: {credentials(challenges[0])}")
    await caller.next(100)
    for phone in (caller, stranger):
        for _ in range(60):
            phone.send("OPTIONS")
    busy = await caller.next(503, "OPTIONS")
    assert int(busy["retry-after"]) > 0
    await asyncio.sleep(0.2)
    assert len([said for said in caller.kept if said.method == "OPTIONS"]) == 59, "each one is answered"
    assert len(stranger.kept) == 40, "a stranger hears nothing beyond its rate"
    scanner = await bare.caller()
    for _ in range(60):
        scanner.send("OPTIONS", "", "User-Agent: friendly-scanner")
    await scanner.nothing()


@pytest.mark.parametrize("rule", ["trusted_proxies", "allow"])
async def test_peers_that_the_operator_named_hear_it_too(bare: Exchange, rule: str) -> None:
    await bare.edge(**{rule: ("127.0.0.9",)})
    await bare.line()
    peer = await bare.caller(host="127.0.0.9")
    for _ in range(60):
        peer.send("OPTIONS")
    await asyncio.sleep(0.2)
    assert [len([said for said in peer.kept if said.status == status]) for status in (200, 503)] == [40, 20]


async def test_no_flood_is_answered_without_end(bare: Exchange) -> None:
    edge = await bare.edge(trusted_proxies=("127.0.0.9",), invites_per_s=1.0)
    peer = await bare.caller(host="127.0.0.9")
    for _ in range(200):
        peer.send("OPTIONS")
    await asyncio.sleep(0.2)
    assert len(peer.kept) <= 2 + 20 + 1
    assert edge.stats()["dropped"]["rate"] >= 170

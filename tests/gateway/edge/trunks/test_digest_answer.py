"""What a trunk's challenge is answered with, checked by our own digest and by the RFC's example."""

from __future__ import annotations

import pytest

from gateway.edge.doors.digest import Digest, DigestVerdict
from gateway.edge.grammar.header import CSeq
from gateway.edge.grammar.sip_message import Request, Response
from gateway.edge.grammar.uri import URI
from gateway.edge.trunks.digest_answer import MOST, Credentials
from gateway.edge.trunks.trunk import Trunk
from gateway.store.sip_users import SipUsers


def request() -> Request:
    made = Request("INVITE", URI.read("sip:+4930@example.com"))
    made.cseq = CSeq(1, "INVITE")
    return made


def challenge(*values: str, code: int = 401) -> Response:
    answer = Response(code, "Unauthorized")
    answer.headers.setlist("WWW-Authenticate" if code == 401 else "Proxy-Authenticate", list(values))
    return answer


def known(**more: str) -> Credentials:
    trunk = Trunk(name="t", hosts=(), **{"user": "u1", "password": "geheim", **more})  # type: ignore[arg-type]
    return Credentials(trunk)


@pytest.mark.parametrize("offer", ["md5", "sha-256", "both"])
def test_our_own_door_takes_what_we_answer(offer: str, tmp_path: object) -> None:
    users = SipUsers(tmp_path)  # type: ignore[arg-type]
    users.add("u1", "geheim-und-lang")
    door = Digest(users.ha1, offer)
    credentials = known(password="geheim-und-lang")
    assert credentials.learn(challenge(*door.challenges("192.0.2.1", stale=False))) is None
    for _ in range(2):  # the count goes on
        asked = request()
        credentials.put(asked)
        verdict, user = door.check(asked.headers.getlist("Authorization"), "INVITE", "192.0.2.1", b"")
        assert (verdict, user) == (DigestVerdict.OK, "u1")


def test_the_stronger_of_two_is_answered() -> None:
    credentials = known()
    both = ('Digest realm="r", nonce="n", algorithm=MD5', 'Digest realm="r", nonce="n", algorithm=SHA-256')
    assert credentials.learn(challenge(*both, code=407)) is None
    asked = request()
    credentials.put(asked)
    assert "algorithm=SHA-256" in asked.headers["Proxy-Authorization"]


def test_a_second_challenge_is_a_wrong_password_unless_the_nonce_was_old() -> None:
    credentials = known()
    assert credentials.learn(challenge('Digest realm="r", nonce="1"')) is None
    credentials.put(request())
    assert "refuses" in (credentials.learn(challenge('Digest realm="r", nonce="2"')) or "")
    assert credentials.learn(challenge('Digest realm="r", nonce="3", stale=true')) is None


def test_stale_for_ever_ends_too() -> None:
    credentials = known()
    whys = []
    for number in range(MOST + 1):
        whys.append(credentials.learn(challenge(f'Digest realm="r", nonce="{number}", stale=true')))
        credentials.put(request())
    assert whys[:-1] == [None] * MOST
    assert whys[-1]


@pytest.mark.parametrize(
    "said",
    [
        'Basic realm="r"',
        'Digest realm="other", nonce="1"',
        'Digest realm="r"',
        'Digest realm="r", nonce="1", algorithm=MD5-sess',
        'Digest realm="r", nonce="1", algorithm=SHA-512',
        'Digest realm="r", nonce="1", qop="auth-int"',
        "Digest " + 'x="' + "y" * 2000 + '", realm="r", nonce="1"',
        'Digest realm="r',
    ],
)
def test_what_cannot_be_answered_is_told(said: str) -> None:
    assert known(realm="r").learn(challenge(said)) is not None


def test_without_a_password_nothing_is_answered() -> None:
    assert "password_file" in (known(password="").learn(challenge('Digest realm="r", nonce="1"')) or "")

"""What people see of a SIP message: no password, key or signed word passes, however its header is written."""

from __future__ import annotations

import base64
import secrets

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.edge.grammar.blanking import ADDRESSES, ATTRIBUTES, MAX_TEXT, PLAIN, blanked, blanked_description
from gateway.edge.grammar.message import read
from gateway.edge.grammar.token import RouteToken

SECRET = "c2VjcmV0LWtleS1vZi1vdXJz"
KEY = "d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj"
HEAD = (
    "INVITE sip:demo@192.0.2.1 SIP/2.0\r\n"
    "Via: SIP/2.0/UDP 192.0.2.7;branch=z9hG4bKabc;rport\r\n"
    "From: Bob <sip:bob@192.0.2.7>;tag=1\r\n"
    "To: <sip:demo@192.0.2.1>\r\n"
    "Call-ID: one@192.0.2.7\r\n"
    "CSeq: 7 INVITE\r\n"
)
CONTACT = "Contact: <sip:bob@192.0.2.7>\r\n"


def message(more: str = "", body: str = "", kind: str = "application/sdp", head: str = HEAD) -> bytes:
    contact = "" if "contact" in more.lower() or "\r\nm:" in f"\r\n{more}" else CONTACT
    typed = f"Content-Type: {kind}\r\n" if body else ""
    data = body.encode()
    return f"{head}{contact}{more}{typed}Content-Length: {len(data)}\r\n\r\n".encode() + data


def shown(data: bytes) -> str:
    read(data)  # what our own reader does not take is another test
    return blanked(data).text


def test_a_message_reads_as_it_was_written_but_for_its_secrets() -> None:
    sdp = (
        "v=0\r\no=- 1 1 IN IP4 192.0.2.7\r\ns=-\r\nc=IN IP4 192.0.2.7\r\nt=0 0\r\n"
        "m=audio 4000 RTP/SAVP 0\r\na=rtpmap:0 PCMU/8000\r\n"
        f"a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}|2^31\r\na=ice-pwd:{SECRET}\r\n"
    )
    said = (
        f'Authorization: Digest username="bob", realm="house", nonce="{SECRET}", response="{SECRET}"\r\n'
        f"Identity: {SECRET}.{SECRET}.{SECRET}\r\n"
    )
    assert shown(message(said, sdp)).splitlines() == [
        "INVITE sip:demo@192.0.2.1 SIP/2.0",
        "Via: SIP/2.0/UDP 192.0.2.7;branch=z9hG4bKabc;rport",
        "From: Bob <sip:bob@192.0.2.7>;tag=1",
        "To: <sip:demo@192.0.2.1>",
        "Call-ID: one@192.0.2.7",
        "CSeq: 7 INVITE",
        "Contact: <sip:bob@192.0.2.7>",
        'Authorization: Digest username="bob", realm="house", (blanked)',
        "Identity: (74 characters)",
        "Content-Type: application/sdp",
        f"Content-Length: {len(sdp)}",
        "",
        "v=0",
        "o=- 1 1 IN IP4 192.0.2.7",
        "s=-",
        "c=IN IP4 192.0.2.7",
        "t=0 0",
        "m=audio 4000 RTP/SAVP 0",
        "a=rtpmap:0 PCMU/8000",
        "a=crypto:1 AES_CM_128_HMAC_SHA1_80 (blanked)",
        "a=ice-pwd:(24 characters)",
    ]


SPELLINGS = {
    "as it should be": f'Authorization: Digest username="b", response="{SECRET}"\r\n',
    "in capitals": f'AUTHORIZATION: DIGEST response="{SECRET}"\r\n',
    "a blank before the colon": f'Authorization \t: Digest response="{SECRET}"\r\n',
    "folded": f'Authorization: Digest\r\n\tusername="b",\r\n response="{SECRET}"\r\n',
    "twice": f'Authorization: Digest username="b"\r\nauthorization: Digest response={SECRET}\r\n',
    "for a proxy": f'Proxy-Authorization: Digest response="{SECRET}"\r\n',
    "another scheme": f"Authorization: Bearer {SECRET}\r\n",
    "a tab behind the scheme": f'Authorization: Digest\tresponse="{SECRET}"\r\n',
    "a quote that is not closed": f'Authorization: Digest username="b, response={SECRET}"\r\n',
    "no comma": f'Authorization: Digest username=b response="{SECRET}"\r\n',
    "a quote within": f'Authorization: Digest username="b\\", response={SECRET}, x=\\""\r\n',
    "a key in the name's place": f'Authorization: Digest username={SECRET}{SECRET}{SECRET}\r\n',
    "what was proven": f'Authentication-Info: rspauth="{SECRET}", cnonce="{SECRET}"\r\n',
    "a challenge": f'WWW-Authenticate: Digest realm="x", opaque="{SECRET}"\r\n',
    "an identity": f"Identity: {SECRET}\r\n",
    "an identity, compact": f"y: {SECRET}\r\n",
    "an identity, folded": f"Identity:\r\n {SECRET}\r\n",
    "ours to a line": f"X-VG-Auth: {SECRET}\r\n",
    "another program's": f"X-Api-Key: {SECRET}\r\n",
    "a key of a P- header": f"P-Charging-Vector: icid-value={SECRET}\r\n",
    "replaces": f"Replaces: {SECRET};to-tag=1;from-tag=2\r\n",
    "a link": f"Call-Info: <https://x/?token={SECRET}>\r\n",
    "a subject": f"s: {SECRET}\r\n",
    "a password": f"Contact: <sip:bob:{SECRET}@192.0.2.7>\r\n",
    "a password, compact": f"m: <sip:bob:{SECRET}@192.0.2.7>\r\n",
    "a password without brackets": f"Contact: sip:bob:{SECRET}@192.0.2.7\r\n",
    "a password of two": f"Contact: <sip:a@192.0.2.7>, <sips:bob:{SECRET}@192.0.2.7>\r\n",
    "a password that is escaped": f"Referred-By: <sip:bob%3a{SECRET}@192.0.2.7>\r\n",
    "headers of a URI": f"r: <sip:bob@192.0.2.7?Replaces={SECRET}&Authorization={SECRET}>\r\n",
    "headers of a bare URI": f"Refer-To: sip:bob@192.0.2.7?Authorization={SECRET}\r\n",
    "our word": f"Route: <sip:192.0.2.1;lr;vg={SECRET}>\r\n",
    "our word in capitals": f"Route: <sip:192.0.2.1;lr;VG = {SECRET}>\r\n",
    "a key where none belongs": f"User-Agent: phone inline: {SECRET}\r\n",
    "a name that is none": f"({SECRET}): x\r\n",
}  # fmt: skip


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_no_header_shows_a_secret(spelling: str) -> None:
    assert SECRET not in shown(message(SPELLINGS[spelling]))


def test_a_password_in_the_request_uri_is_blanked() -> None:
    for uri in (
        f"sip:demo:{SECRET}@192.0.2.1",
        f"sip:demo@192.0.2.1;vg={SECRET}",
        f"SIPS:d:{SECRET}@[::1]:5061",
    ):
        found = blanked(message(head=HEAD.replace("sip:demo@192.0.2.1", uri, 1)))
        assert SECRET not in found.first
        assert SECRET not in found.text


def test_our_signed_word_is_blanked_wherever_it_stands() -> None:
    token = RouteToken("0123456789abcdef", "sip0", 40_001, "udp", "1.2.3.4", 5060)
    word = token.sign(secrets.token_bytes(32))
    for more in (
        f"Contact: <sip:1.2.3.4;vg={word}>\r\n", f"User-Agent: {word}\r\n",
        f"Reason: SIP;text=\"{word}\"\r\n",
        f"Refer-To: <sip:1.2.3.4;%76g={word}>\r\n", f"Warning: 399 x \"{'a' * 300} {word}\"\r\n",
        f"Route: <sip:1.2.3.4;vg={word}>,{'<sip:1.2.3.4;vg=' + word + '>,' * 20}<sip:x;vg={word}>\r\n",
    ):  # fmt: skip
        assert word[:20] not in shown(message(more))


BODIES = {
    "as it should be": f"a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}",
    "in capitals": f"A=CRYPTO:1 AES_CM_128_HMAC_SHA1_80 INLINE:{KEY}",
    "blanks": f"a= crypto:1 AES inline:{KEY}",
    "blanks before": f" a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}",
    "a blank before the colon": f"a=crypto :1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}",
    "two keys": f"a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{SECRET}|2^20|1:4;inline:{KEY}",
    "the key in the suite's place": f"a=crypto:1 {KEY} inline:x",
    "a key of old": f"k=base64:{KEY}",
    "key management": f"a=key-mgmt:mikey {KEY}",
    "ICE": f"a=ice-pwd:{KEY}",
    "an identity": f"a=identity:{KEY}",
    "behind a lone CR": f"s=x\ra=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}",
    "behind a vertical tab": f"s=x\va=ice-pwd:{KEY}",
    "behind a line separator": f"s=x\u2028a=ice-pwd:{KEY}",
    "behind NEL": f"s=x\x85a=ice-pwd:{KEY}",
    "behind a NUL": f"s=x\0a=ice-pwd:{KEY}",
    "within a format": f"a=fmtp:0 inline:{KEY}",
    "not a line": KEY,
}


@pytest.mark.parametrize("line", BODIES)
@pytest.mark.parametrize("way", ["alone", "in parts", "in a part by base64", "by HTTP"])
def test_no_description_shows_a_key(line: str, way: str) -> None:
    sdp = f"v=0\r\no=- 1 1 IN IP4 192.0.2.7\r\ns=-\r\nt=0 0\r\nm=audio 4 RTP/SAVP 0\r\n{BODIES[line]}\r\n"
    if way == "by HTTP":
        text = blanked_description(sdp, "POST /api/call").text
    elif way == "alone":
        text = shown(message(body=sdp))
    else:
        coded = "by base64" in way
        content = base64.b64encode(sdp.encode()).decode() if coded else sdp
        coding = "Content-Transfer-Encoding: base64\r\n" if coded else ""
        part = f"--b\r\nContent-Type: application/sdp\r\n{coding}\r\n{content}\r\n"
        other = f"--b\r\nContent-Type: text/plain\r\n\r\n{KEY}\r\n--b--\r\n"
        text = shown(message(body=part + other, kind="multipart/mixed;boundary=b"))
    assert KEY not in text
    assert KEY[:12] not in text


KINDS = {
    "a key pressed": ("application/dtmf-relay", "Signal=5\r\nDuration=160\r\n"),
    "a key alone": ("application/dtmf", "5"),
    "a text": ("text/plain", "Signal=5"),
    "no kind": ("", "Signal=5"),
    "a kind that is none": (f"<b>Signal=5/{SECRET}", "Signal=5"),
    "parts without a description": ("multipart/mixed;boundary=b", "--b\r\n\r\nSignal=5\r\n--b--\r\n"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_body_that_is_no_description_is_told_by_its_length(kind: str) -> None:
    media, body = KINDS[kind]
    head = HEAD.replace("INVITE", "INFO")
    text = shown(message(body=body, kind=media or "x", head=head))
    assert "Signal" not in text.partition("\n\n")[2]
    assert "5" not in text.partition("\n\n")[2].replace(f"({len(body)} bytes", "")


def test_a_transfers_notice_shows_its_status_alone() -> None:
    head = HEAD.replace("INVITE", "NOTIFY")
    text = shown(message(body=f"SIP/2.0 486 {SECRET}\r\nX: {SECRET}\r\n", kind="message/sipfrag", head=head))
    assert text.endswith("bytes of message/sipfrag)\nSIP/2.0 486")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff" * 100,
        b"INVITE sip:x\r\n\r\n",
        f"INVITE {SECRET}\r\nAuthorization: {SECRET}\r\n\r\n".encode(),
    ],
    ids=["nothing", "bytes", "no version", "broken"],
)
def test_what_cannot_be_read_is_told_by_its_length(data: bytes) -> None:
    found = blanked(data)
    assert found.text.endswith(f"{len(data)} bytes that cannot be read")
    assert SECRET not in found.text


def test_of_two_lengths_or_kinds_neither_is_believed() -> None:
    key = f"a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}"
    for more in (
        "Content-Length: 5",
        "Content-Type: text/plain",
        "l: 5",
        "c: text/plain",
        "Content-Length: x",
    ):
        data = message(body=f"v=0\r\n{key}\r\n").replace(b"CSeq", f"{more}\r\nCSeq".encode())
        assert KEY not in blanked(data).text


def test_it_is_short_and_printable_whatever_comes() -> None:
    text = shown(message("".join(f'Warning: 399 x "{n}{"w " * 190}"\r\n' for n in range(15))))
    assert len(text) <= MAX_TEXT
    assert text.endswith("(more was left out)")
    assert len(text) > MAX_TEXT - 500
    text = shown(message("User-Agent: a\x1b[31m\u202eb\r\n"))
    assert all(line.isprintable() for line in text.split("\n"))


NAMES = st.text("abcdefghijklmnopqrstuvwxyzABCXYZ0123456789-_.!%*+`'~", min_size=1, max_size=30)


@settings(derandomize=True, max_examples=150, deadline=None)
@given(name=NAMES, fold=st.sampled_from(["", " ", "\r\n ", "\t"]), tail=st.text(max_size=20))
def test_a_header_that_is_not_on_the_list_shows_nothing(name: str, fold: str, tail: str) -> None:
    printable = "".join(c for c in tail if c.isprintable())
    text = blanked(message(f"{name} :{fold}{SECRET} {printable}\r\n")).text
    assert SECRET not in text or name.lower() in PLAIN | ADDRESSES or len(name) == 1


@settings(derandomize=True, max_examples=150, deadline=None)
@given(
    name=st.text("abcdefghijklmnopqrstuvwxyz-ABC0123456789", min_size=1, max_size=20),
    before=st.sampled_from(["", "v=0\r\n", "\n", "\r", "m=audio 4 RTP/AVP 0\n", "\u2029", "\x1d"]),
    between=st.sampled_from([":", ": ", ":1 ", "=", " :"]),
)
def test_an_attribute_that_is_not_on_the_list_shows_nothing(name: str, before: str, between: str) -> None:
    text = blanked_description(f"{before}a={name}{between}{KEY}", "PATCH").text
    assert KEY not in text or name in ATTRIBUTES


@settings(derandomize=True, max_examples=200, deadline=None)
@given(st.binary(max_size=400))
def test_no_bytes_make_it_fail(tail: bytes) -> None:
    for data in (tail, message() + tail, message(body="x").replace(b"x", tail), HEAD.encode() + tail):
        found = blanked(data)
        assert len(found.text) <= MAX_TEXT
        assert found.text.startswith(found.first)

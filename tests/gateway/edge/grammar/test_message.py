"""What the reader takes, what it refuses, and that neither costs more than its length."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.edge.doors.digest import credentials
from gateway.edge.flows.transport import Flow
from gateway.edge.grammar import sdp
from gateway.edge.grammar.header import Address, Via, addresses, parameters, split
from gateway.edge.grammar.message import MAX_HEAD, MAX_MESSAGE, Unreadable, bare_answer, read, stamped
from gateway.edge.grammar.session_part import session_part
from gateway.edge.grammar.sip_message import UNTAGGED, Request
from gateway.edge.grammar.uri import URI

HEADERS = {
    "Via": "SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKx",
    "Max-Forwards": "70",
    "From": "<sip:a@b.c>;tag=1",
    "To": "<sip:a@b.c>",
    "Call-ID": "1",
    "CSeq": "1 INVITE",
    "Contact": "<sip:a@192.0.2.1>",
}


def invite(start: str = "INVITE sip:demo@192.0.2.9 SIP/2.0", **changed: str | None) -> bytes:
    """An INVITE with these headers instead; None leaves one out, and `_` stands for `-`."""
    named = {name.replace("_", "-"): value for name, value in changed.items()}
    lines = [f"{name}: {value}" for name, value in {**HEADERS, **named}.items() if value is not None]
    return "\r\n".join([start, *lines, "", ""]).encode()


@pytest.mark.parametrize(
    "data",
    [
        invite(From="<sip:a@pbx1>;tag=1"),
        invite(From="<sip:a@1af019b2ba08>;tag=1", Contact="<sip:asterisk@1af019b2ba08:45999>"),
        invite(From="<sip:a@my_pbx>;tag=1", To="<sip:a@pbx.lan2>"),
        invite("INVITE sip:demo@k8s-node-7:5060 SIP/2.0", Via="SIP/2.0/UDP asterisk01;branch=z9hG4bKx"),
        invite(From="<sip:a@[::1]>;tag=1", Contact="<sip:a@[fe80::1%eth0]:5060>"),
        invite(Via="SIP/2.0/UDP [fe80::1%25eth0]:5060;branch=z9hG4bKx"),
        invite(Contact='"Bob" <sip:a@b.c>;+sip.instance="<urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6>"'),
        invite(From='"Bob" <sip:a@b.c>;x="<;,>";tag=1'),
        invite(From="Jürgen Müller <sip:a@b.c>;tag=1"),
        invite(From="A & B / C @home: (x), y <sip:a@b.c>;tag=1"),
        invite(Contact="Bell, A. (home) <sip:a@b.c>"),
        invite("INVITE sip:*21#@192.0.2.9 SIP/2.0", From="<sip:#31#@b.c>;tag=1"),
        invite("INVITE SIP:demo@192.0.2.9 SIP/2.0", From="<SIPS:a@b.c>;TAG=1"),
        invite("INVITE TEL:+49-30-123 SIP/2.0", From="<TEL:+4930123>;Tag=1"),
        invite("INVITE sip:demo@192.0.2.9;user=phone; SIP/2.0  ", From="<sip:a@b.c>;tag=1;  "),
        invite("INVITE sip:demo@192.0.2.9 sip/2.0\t"),
        invite(Via="SIP / 2.0 / UDP  192.0.2.1 : 5060 ; branch = z9hG4bKx ; rport ;"),
        invite(Contact="<sip:a@b.c;thinfo=VG8+PoI=>"),
        invite(Contact="sip:a@b.c;x=y"),
        invite(Via="SIP/2.0/UDP 192.0.2.1", From="<sip:a@b.c>", Contact=None),
        invite(Via="SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK", From="sip:a@b.c", Contact=None),
        invite(From='"Al" Ice <sip:a@b.c>;tag=1'),
        invite(From="<isbn:2983792873>;tag=1", To="<http://www.example.com>"),
        invite(From='"a \\\0 b" <sip:a@b.c>;tag=1'),
        invite(From='"a\r\n b"\r\n\t<sip:a@b.c>\r\n ;tag=1'),
        invite(Subject=""),
        b"\r\n\r\n" + invite(),
        invite(From='"Müller" <sip:a@b.c>;tag=1').decode().encode("latin-1"),
        invite(Call_ID="word%ZK-!.*_+'@word`~)(><:\\/\"][?}{"),
    ],
)
def test_what_telephones_write_is_taken(data: bytes) -> None:
    message = read(data)
    assert isinstance(message, Request)
    assert message.from_address.parameters["tag"] in ("1", UNTAGGED)


@pytest.mark.parametrize(
    "data",
    [
        invite(From="<sip:a@b.c>;tag=1;tag=2"),
        invite(From="<sip:a@b.c>;TAG=1;tag=1"),
        invite(To="<sip:a@b.c>;tag=1;tag=2"),
        invite(Via="SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKx;branch=z9hG4bKy"),
        invite(To='"Mr. J. User <sip:a@b.c>'),
        invite(To='Mr. J." User <sip:a@b.c>'),
        invite(From='"' + '\\"' * 300 + "<sip:a@b.c>;tag=1"),
        invite(From='"a" <sip:a@b.c>;x="y;tag=1'),
        invite(From="<sip:a@b.c;tag=1"),
        invite(From="sip:a@b.c>;tag=1"),
        invite(From="<<sip:a@b.c>>;tag=1"),
        invite(From="<sip:a@b.c> x;tag=1"),
        invite(Contact="*"),
        invite(Contact="* "),
        invite(Contact="<sip:a@b.c>, *"),
        invite(Contact="<sip:a@b.c>,"),
        invite(Contact=""),
        invite(Contact="<tel:+49>"),
        invite(Contact="<sip:a@b.c?Route=%3Csip:x%3E>"),
        invite(Contact="Bob"),
        invite(From="Bob;tag=1"),
        invite(From="alan@jasomi.com;tag=1"),
        invite(From="<sip:a@b.c>"),
        invite(From="<sip:a@b.c>;tag"),
        invite(From="<sip:a@b.c>;tag="),
        invite(From="<sip:a@b.c>;tag=a b"),
        invite(From='<sip:a@b.c>;tag="a"'),
        invite(To="<sip:a@b.c>;tag="),
        invite(From="<sip:a@b.c>;;tag=1"),
        invite(Contact="<sip:a@b.c>;;"),
        invite(Contact="<sip:a@b.c;;x>"),
        invite(Contact="<sip:a@b.c;=;x>"),
        invite(Contact="<sip:a@b.c;=x>"),
        invite(From="< sip:a@b.c >;tag=1"),
        invite(From="<sip:a b@c>;tag=1"),
        invite(From="<sip:a@b@c>;tag=1"),
        invite(From="<sip:@b.c>;tag=1"),
        invite(From="<sip::secret@b.c>;tag=1"),
        invite(From="<sip:a@>;tag=1"),
        invite(From="<sip:a@b.c:port>;tag=1"),
        invite(From="<sip:a@b.c:99999>;tag=1"),
        invite(From="<sip:a@[::x]>;tag=1"),
        invite(From="<sip:a@::1>;tag=1"),
        invite(From="<sip:>;tag=1"),
        invite(From="<>;tag=1"),
        invite(Via="SIP/2.0/UDP 192.0.2.15;;,;,,"),
        invite(Via="SIP/2.0/UDP 192.0.2.1 x;branch=z9hG4bKx"),
        invite(Via="SIP/2.0/UDP"),
        invite(Via="SIP/3.0/UDP 192.0.2.1;branch=z9hG4bKx"),
        invite(Via=""),
        invite("INVITE  sip:demo@192.0.2.9  SIP/2.0"),
        invite("INVITE sip:demo@192.0.2.9; lr SIP/2.0"),
        invite("INVITE <sip:demo@192.0.2.9> SIP/2.0"),
        invite("INVITE sip:demo@192.0.2.9?Route=%3Csip:example.com%3E SIP/2.0"),
        invite("INVITE http:demo@192.0.2.9 SIP/2.0"),
        invite("INVITE demo@192.0.2.9 SIP/2.0"),
        invite("INV(TE sip:demo@192.0.2.9 SIP/2.0", CSeq="1 INV(TE"),
        invite(CSeq="1"),
        invite(CSeq="1 BYE"),
        invite(CSeq="-1 INVITE"),
        invite(CSeq="2147483648 INVITE"),
        invite(CSeq="٣ INVITE"),
        invite(Content_Length="1_0"),
        invite(Content_Length="+0"),
        invite(Content_Length="1"),
        invite(Max_Forwards="256"),
        invite(Max_Forwards="٣"),
        invite(Call_ID=""),
        invite(Call_ID="a\tb\x07"),
        invite(Call_ID=None),
        invite(From=None),
        invite(Via=None),
        invite(Contact=None),
        invite(Subject="a\rb"),
        invite(Subject="a\nb"),
        invite(Subject="a\0b"),
        invite(From='"a\rb" <sip:a@b.c>;tag=1'),
        invite(Record_Route="<sip:a"),
        invite(Record_Route="<sip:a;lr>,"),
        invite().replace(b"Max-Forwards: 70", b"no colon"),
        invite().replace(b"Max-Forwards: 70", b": no name"),
        invite().replace(b"Max-Forwards: 70", b"F: <sip:a@b.c>;tag=2"),
    ],
)
def test_what_could_mean_two_things_or_nothing_is_refused(data: bytes) -> None:
    with pytest.raises(Unreadable) as refused:
        read(data)
    assert refused.value.status == 400
    answer = bare_answer(data, 400, "Bad Request", Flow("udp", "192.0.2.1", 5060, None), str(refused.value))
    assert answer is None or f'text="{refused.value}"'.encode() in answer


def test_the_sizes_that_are_taken() -> None:
    body = b"x" * (MAX_MESSAGE - len(invite()))
    assert read(invite() + body).body == body
    for large in (invite() + body + b"x", invite(Subject="x" * MAX_HEAD)):
        with pytest.raises(Unreadable) as refused:
            read(large)
        assert refused.value.status == 513


def test_a_via_of_somebody_else_is_not_ours_to_judge() -> None:
    message = read(invite(Via="SIP/2.0/UDP a;branch=z9hG4bKx, SIP/2.0/UDP b, what is this?, SIP/2.0/UDP c"))
    assert [via.host for via in message.via] == ["a", "b"]
    assert message.top_via.host == "a"


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("SIP:%64emo@Host:5060;user=phone", "sip:demo@Host:5060;user=phone"),
        ("sip:bob:secret@host", "sip:bob@host"),
        ("sip:%2B49%23%40@host;", "sip:+49#%40@host"),
        ("sip:j%c3%bcrgen@host", "sip:j%C3%BCrgen@host"),
        ("sip:jürgen@host", "sip:j%C3%BCrgen@host"),
        ("sip:%00@host", "sip:%00@host"),
        ("sip:host", "sip:host"),
        ("TEL:+49-30;ext=1", "tel:+49-30;ext=1"),
        ("tel:1234567;phone-context=%2B4930", "tel:1234567;phone-context=+4930"),
        ("Isbn:2983792873", "isbn:2983792873"),
    ],
)
def test_a_uri_is_told_in_one_way_of_writing(text: str, plain: str) -> None:
    assert URI.read(text).plain == plain
    assert str(URI.read(text)) == text


def test_a_name_is_told_as_it_is_shown() -> None:
    names = {
        '"A \\"B\\" \\\\" <sip:a@b>': 'A "B" \\', "Jürgen <sip:a@b>": "Jürgen", '"a\\\0\a" <sip:a@b>': "a",
        "<sip:a@b>": "", "sip:a@b": "", '"Al" Ice <sip:a@b>': '"Al" Ice',
    }  # fmt: skip
    assert {text: Address.read(text).name for text in names} == names


# ── whatever comes ───────────────────────────────────────────────────────────────────────────────────

TOKEN = st.text("abcXYZ0189-.!%*_+`'~", min_size=1, max_size=12)
QUOTED = st.text(max_size=12).map(
    lambda text: '"' + "".join(f"\\{c}" if c in '"\\' else c for c in text if c not in "\r\n\0") + '"'
)
HOST = st.one_of(
    TOKEN.map(lambda t: "h" + "".join(c for c in t if c.isalnum() or c in "-._")), st.just("[::1]")
)
USER = st.one_of(st.none(), TOKEN, st.just("*21#"), st.just("+49;npdi;rn=1"))
PARAMETER = st.one_of(
    TOKEN, st.tuples(TOKEN, TOKEN).map("=".join), st.tuples(TOKEN, QUOTED).map("=".join)
).filter(lambda text: text.lower().partition("=")[0] not in ("tag", "branch"))
SIP_URI = st.tuples(st.sampled_from(["sip", "SIPS"]), USER, HOST).map(
    lambda parts: f"{parts[0]}:{'' if parts[1] is None else parts[1] + '@'}{parts[2]}"
)
NAME = st.one_of(st.just(""), QUOTED, st.text("abc ÄÖ&/@:()", max_size=12).map(str.strip))
ADDRESS = st.tuples(NAME, SIP_URI, st.lists(PARAMETER, max_size=3)).map(
    lambda parts: f"{parts[0]} <{parts[1]}>".strip() + "".join(f";{one}" for one in parts[2])
)
VALUE = st.text(max_size=40).map(lambda text: "".join(c for c in text if c not in "\r\n\0").strip(" \t"))


@settings(max_examples=300)
@given(
    caller=ADDRESS, called=ADDRESS, contacts=st.lists(ADDRESS, min_size=1, max_size=3), tag=TOKEN,
    more=st.lists(st.tuples(TOKEN.map(lambda t: f"X-{t}"), VALUE), max_size=5), body=st.binary(max_size=40),
)  # fmt: skip
def test_what_is_read_is_written_again_as_it_was(
    caller: str, called: str, contacts: list[str], tag: str, more: list[tuple[str, str]], body: bytes
) -> None:
    lines = [
        "INVITE sip:demo@192.0.2.9;x=VG8= SIP/2.0",
        "Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKx",
        f"From: {caller};tag={tag}",
        f"To: {called}",
        "Call-ID: 1",
        "CSeq: 1 INVITE",
        f"Contact: {', '.join(contacts)}",
        *dict((name.lower(), f"{name}: {value}") for name, value in more).values(),
        f"Content-Length: {len(body)}",
    ]
    data = "\r\n".join([*lines, "", ""]).encode() + body
    message = read(data)
    assert bytes(message) == data
    assert message.from_address.parameters["tag"] == tag
    assert [str(contact.uri) in said for contact, said in zip(message.contact, contacts, strict=True)]


@settings(max_examples=500)
@given(st.one_of(st.binary(max_size=600), st.text('sip:@<>";,=\\ \t[]%a1', max_size=300).map(str.encode)))
def test_nothing_but_our_own_error_comes_out(noise: bytes) -> None:
    flow = Flow("udp", "192.0.2.1", 5060, None)
    text = noise.decode(errors="replace").replace("\r", "").replace("\n", "")
    messages = [noise, invite() + noise, b"INVITE " + noise + b" SIP/2.0\r\n\r\n"]
    messages += [invite(**{name: text}) for name in ("Via", "From", "To", "Contact", "CSeq", "Record_Route")]
    messages += [
        invite(Content_Type=kind) + noise for kind in ("application/sdp", "multipart/mixed;boundary=a")
    ]
    for data in messages:
        bare_answer(data, 400, "Bad Request", flow)
        try:
            message = read(data)
        except Unreadable:
            continue
        assert read(bytes(message))
        session = session_part(message) or b""
        assert sdp.offered_codecs(session) or sdp.why_none(session)
        sdp.lean(session)
    for work in (URI.read, Via.read, Address.read, credentials, parameters, lambda t: addresses([t])):
        with contextlib.suppress(ValueError):
            work(text)  # type: ignore[operator]  # each takes a text


# ── time ─────────────────────────────────────────────────────────────────────────────────────────────


def _message(body: bytes, kind: str) -> Request:
    message = Request("INVITE", URI.read("sip:a@b"), body)
    message.headers.set("Content-Type", kind)
    return message


READERS: dict[str, Callable[[str], Any]] = {
    "split at commas": lambda text: split(text, ","),
    "split at semicolons": lambda text: split(text, ";"),
    "parameters": parameters,
    "an address": Address.read,
    "an address with a name": lambda text: Address.read(text + "<sip:a@b>"),
    "an address in quotes": lambda text: Address.read(f'"{text}" <sip:a@b>'),
    "a user": lambda text: URI.read(f"sip:{text}@b"),
    "a host": lambda text: URI.read(f"sip:a@{text}"),
    "a URI, told": lambda text: URI.read(f"sip:{text}@b").plain,
    "addresses": lambda text: addresses([text]),
    "a Via": lambda text: Via.read("SIP/2.0/UDP a" + text),
    "a Via, stamped": lambda text: stamped(["SIP/2.0/UDP a" + text], Flow("udp", "192.0.2.1", 1, None)),
    "credentials": credentials,
    "a description": lambda text: sdp.lean(text.encode() + b"\r\nm=audio 1 RTP/AVP 0\r\n" + text.encode()),
    "a section": lambda text: sdp.lean(f"m=audio 1 RTP/AVP 0 {text}".encode()),
    "parts": lambda text: session_part(_message(text.encode(), "multipart/mixed;boundary=a")),
    "a boundary": lambda text: session_part(_message(b"x", f"multipart/mixed;boundary={text}")),
    "a message": lambda text: read(invite(Subject=text)),
}
PIECES = {
    "quotes": '"', "escaped quotes": '\\"', "commas": ",", "semicolons": ";", "brackets": "<",
    "pairs": "<>", "closed brackets": ">", "blanks": " ", "parameters": ";a=b", "addresses": "<sip:a@b>,",
    "names": "a ", "escapes": "%41", "dots": "a.", "colons": ":", "at signs": "@", "equals": "=",
    "tokens": "a", "folds": "\r\n ", "lines": "\r\na:b", "boundaries": "\r\n--a", "ends": "\r\n--a--",
    "media": "\r\nm=audio 1 RTP/AVP 0", "formats": " 0", "maps": "\r\na=rtpmap:1 a/8000",
    "rports": ";rport", "received": "; received=", "zones": "[::1%",
}  # fmt: skip
SIZE = 64 * 1024


def _least_s(work: Callable[[str], Any], text: str) -> float:
    """The shortest of some runs, of this thread alone."""
    found = []
    for _ in range(4):
        began = time.thread_time()
        with contextlib.suppress(ValueError):
            work(text)
        found.append(time.thread_time() - began)
    return min(found)


@pytest.mark.parametrize("reader", READERS)
def test_four_times_the_text_takes_no_more_than_four_times_as_long(reader: str) -> None:
    """What is quadratic takes sixteen times as long; what takes no time at all says nothing."""
    work = READERS[reader]
    slow = {}
    for name, piece in PIECES.items():
        short, long = piece * (SIZE // 4 // len(piece)), piece * (SIZE // len(piece))
        if (long_s := _least_s(work, long)) > 0.0005 and long_s > 9 * _least_s(work, short):
            slow[name] = long_s
    assert not slow

"""What strangers and broken clients send: no harm, no memory, no answer worth sending for."""

from __future__ import annotations

import asyncio
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.edge.dialogs import transaction
from gateway.edge.flows import connections, transport
from gateway.edge.grammar.message import MAX_HEAD, Unreadable, read
from gateway.edge.grammar.token import RouteToken
from tests.gateway.edge.conftest import Exchange
from tests.gateway.edge.peers import ANSWER, KEY, OFFER, Caller

HOUSE_TIME = True


async def test_a_forged_bye_ends_no_call(exchange: Exchange) -> None:
    line, victim, villain = await exchange.line(), await exchange.caller(), await exchange.caller()
    await exchange.call(victim, line)
    for name in ("call_id", "own_tag", "to", "cseq"):
        setattr(villain, name, getattr(victim, name))
    word = RouteToken("0" * 16, "n0", line.port, "udp", "127.0.0.1", villain.port).sign(b"another key")
    for target in (
        "sip:demo@127.0.0.1",
        f"sip:127.0.0.1:{line.port}",
        f"sip:127.0.0.1;vg={word}",
        "sip:127.0.0.1;vg=" + "A" * 100,
    ):
        villain.send("BYE", uri=target, routes=[])
        await villain.next(481, "BYE")
    await line.nothing()
    await victim.nothing()
    assert exchange.edges[0].stats()["forged_in_dialog"] == 4
    assert exchange.edges[0].stats()["dialogs"] == 1


async def test_somebody_elses_word_ends_no_call(exchange: Exchange) -> None:
    line, victim, villain = await exchange.line(), await exchange.caller(), await exchange.caller()
    await exchange.call(victim, line)
    await exchange.call(villain, line)
    for name in ("call_id", "own_tag", "to", "cseq"):
        setattr(villain, name, getattr(victim, name))
    villain.send("BYE")  # with the villain's own, rightly signed route
    await villain.next(481, "BYE")
    await line.nothing()
    villain.call_id = "of nobody"
    villain.send("BYE")
    await villain.next(481, "BYE")
    assert exchange.edges[0].stats()["slots_free"] == 2, "no slot is free that is not"


async def test_the_word_of_a_call_that_is_over_ends_no_other(exchange: Exchange) -> None:
    line, victim, villain = await exchange.line(), await exchange.caller(), await exchange.caller()
    await exchange.call(villain, line)
    villain.send("BYE")
    line.reply(await line.next(method="BYE"), 200)
    await villain.next(200, "BYE")
    await exchange.call(victim, line)
    for name in ("call_id", "own_tag", "to", "cseq"):
        setattr(villain, name, getattr(victim, name))
    villain.send("BYE")
    await villain.next(481, "BYE")
    await line.nothing()


@pytest.mark.parametrize(
    "smuggled",
    [
        ("From: ", "From: <sip:victim@x>;tag=victim\r\nFrom: "),
        ("Call-ID: ", "i: victim\r\nCall-ID: "),
        ("CSeq: ", "CSeq: 9 BYE\r\nCSeq: "),
        (";tag=", ";TAG=victim;tag="),
        ("Max-Forwards: 70", "Max-Forwards: 70\nX-VG-Call: forged"),
        ("Max-Forwards: 70", "Max-Forwards: 70\rReplaces: 1"),
        ("Max-Forwards: 70", "Max-Forwards: 70\r\nSubject: \0"),
    ],
)
async def test_nothing_is_smuggled_past_us_to_a_line(exchange: Exchange, smuggled: tuple[str, str]) -> None:
    line, caller = await exchange.line(), await exchange.caller()
    caller.write(caller.text("INVITE", OFFER).replace(*smuggled, 1))
    await line.nothing()
    assert not exchange.desk.calls
    assert exchange.edges[0].stats()["dropped"]["malformed"] == 1


async def test_a_forged_response_goes_nowhere(exchange: Exchange) -> None:
    line, victim, villain = await exchange.line(), await exchange.caller(), await exchange.caller()
    victim.send("INVITE", OFFER)
    invite = await line.invited()
    await victim.next(100)
    line.send("OPTIONS")
    asked = await victim.next(method="OPTIONS")
    other = await exchange.caller(host="127.0.0.2")
    for via in (invite["via"], asked["via"], "SIP/2.0/UDP 127.0.0.1;branch=z9hG4bKguessed"):
        for phone in (villain, other):
            phone.write(
                f"SIP/2.0 200 OK\r\nVia: {via}\r\nFrom: {invite['from']}\r\nTo: {invite['to']};tag=z\r\n"
                f"Call-ID: {invite['call-id']}\r\nCSeq: 1 INVITE\r\nContact: <sip:x@127.0.0.9>\r\n"
                "Content-Length: 0\r\n\r\n"
            )
    stranger = await exchange.line("n9")
    exchange.edges[0].line_down("n9")
    stranger.edge, stranger.invite = line.edge, invite
    stranger.reply(invite, 200, body=ANSWER)
    await victim.nothing()
    assert exchange.edges[0].stats()["dropped"]["stray_response"] >= 5
    assert exchange.edges[0].stats()["dropped"]["not_a_line"] == 1


async def test_nothing_is_sent_to_an_address_that_a_caller_wrote(exchange: Exchange) -> None:
    line, caller, elsewhere = await exchange.line(), await exchange.caller(), await exchange.caller()
    there = f"127.0.0.1:{elsewhere.port}"
    via = f"Via: SIP/2.0/UDP {there};branch=z9hG4bKx;received=127.0.0.1;rport={elsewhere.port}"
    caller.send("INVITE", OFFER, f"Record-Route: <sip:{there};lr>", via=via, contact=f"<sip:x@{there}>")
    line.reply(await line.invited(), 200, body=ANSWER)
    caller.learn(await caller.next(200))
    caller.send("ACK", routes=[*caller.routes[1:]], contact=f"<sip:x@{there}>")
    line.send("BYE")
    await caller.next(method="BYE")
    await elsewhere.nothing()


MALFORMED = [
    b"",
    b"\x00" * 40,
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"INVITE sip:a@b SIP/2.0\r\n\r\n",
    b"INVITE sip:a@b SIP/3.0\r\nVia: x\r\n\r\n",
    b"SIP/2.0 200 OK\r\n\r\n",
    b"INVITE sip:a@b SIP/2.0\r\nno colon here\r\n\r\n",
    b"\xff\xfe\xfd\r\n\r\n",
    b"OPTIONS sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP x;self=1\r\nself: x\r\n\r\n",
]


async def test_garbage_is_counted_and_forgotten(exchange: Exchange) -> None:
    caller = await exchange.caller()
    for data in MALFORMED:
        caller.write(data)
    caller.send("OPTIONS")
    await caller.next(503)  # it lives; there is only no line
    assert exchange.edges[0].stats()["dropped"]["malformed"] == len(MALFORMED) - 2
    assert exchange.edges[0].stats()["transactions"] == 0


@pytest.mark.parametrize(
    "broken",
    [
        ("CSeq: 1 INVITE", "CSeq: 1 BYE"),
        ("CSeq: 1 INVITE", "CSeq: 99999999999 INVITE"),
        ("CSeq: 1 INVITE", "CSeq: x"),
        ("Max-Forwards: 70", "Max-Forwards: many"),
        ("Max-Forwards: 70", "Max-Forwards: -1"),
        ("Contact: <", "Contact: <<"),
        ("Contact: ", "X-Contact: "),
        ("Content-Length: ", "Content-Length: 9"),
        ("Content-Length: ", "Content-Length: -"),
        (";tag=", ";nag="),
        ("INVITE sip:", "INVITE http:"),
    ],
)
async def test_a_malformed_invite_is_told_so(exchange: Exchange, broken: tuple[str, str]) -> None:
    await exchange.line()
    caller = await exchange.caller()
    caller.write(caller.text("INVITE", OFFER).replace(*broken, 1))
    await caller.next(400, caller_method(broken))
    assert not exchange.desk.calls
    assert exchange.edges[0].stats()["transactions"] == 0


def caller_method(broken: tuple[str, str]) -> str:
    return "BYE" if "BYE" in broken[1] else ""


async def test_what_rfc_4475_calls_torture_but_valid_is_read(exchange: Exchange) -> None:
    line, caller = await exchange.line(), await exchange.caller()
    text = caller.text("INVITE", OFFER)
    text = text.replace("Call-ID:", "Call-ID  :").replace("Max-Forwards:", "mAx-fOrWaRdS\t:")
    text = text.replace("From: ", 'f:\r\n  "J Rosenberg \\"" ').replace("CSeq: 1 ", "CSeq: 0001\r\n\t ")
    text = text.replace("Via: SIP/2.0/UDP ", "v:  SIP  / 2.0  / UDP ").replace("branch=", "branch  =  ")
    caller.write(text)
    assert (await line.invited())["call-id"] == caller.call_id
    await caller.next(100)


async def test_display_names_in_latin_1_are_read(exchange: Exchange) -> None:
    line, caller = await exchange.line(), await exchange.caller()
    caller.write(caller.text("INVITE", OFFER).replace("From: ", 'From: "Müller" ').encode("latin-1"))
    assert '"Müller"' in (await line.invited())["from"]


@pytest.mark.parametrize("kind", ["udp", "tcp"])
async def test_a_long_invite_harms_nobody(exchange: Exchange, kind: str) -> None:
    line = await exchange.line()
    padding = "".join(f"a=padding:{n}{'p' * 90}\r\n" for n in range(160))
    for offer, header in ((OFFER, "X-Padding: " + "p" * 6000), (OFFER + padding, "X-Padding: p")):
        caller = await exchange.caller(kind)
        caller.send("INVITE", offer, header)  # a line needs neither the header nor the attributes
        assert len(str(await line.invited())) < 4000
    big = await exchange.caller(kind)
    big.send("INVITE", OFFER + f"a=fmtp:0 {'p' * 16_000}\r\n")
    await big.next(513)
    vast = await exchange.caller(kind)
    vast.send("INVITE", OFFER, *(f"X-{n}: {'p' * 90}" for n in range(160)))
    await vast.next(513)
    await line.nothing()


def _nasty() -> list[bytes]:
    def invite(*lines: str) -> bytes:
        head = [
            "INVITE sip:demo@127.0.0.1 SIP/2.0",
            "Via: SIP/2.0/UDP 127.0.0.1;branch=z9hG4bKx",
            "From: <sip:a@b.c>;tag=1",
            "To: <sip:a@b.c>",
            "Call-ID: 1",
            "CSeq: 1 INVITE",
            "Contact: <sip:a@b.c>",
        ]
        given = {line.partition(":")[0] for line in lines}
        kept = [line for line in head if line.partition(":")[0] not in given]
        return "\r\n".join([*kept, *lines, "", ""]).encode()

    room = MAX_HEAD - 400
    return [
        invite(*(f"{n}:" for n in range(3000))),
        invite(*(f"{n}:" for n in range(110))),
        invite("To: " + "a " * (room // 2)),
        invite("To: " + '"' + '\\"' * (room // 2)),
        invite("From: <sip:a>" + ";a=b" * (room // 4) + "\x01"),
        invite("Contact: " + "<sip:a@b.c>," * (room // 12)),
        invite("Via: " + "SIP/2.0/UDP a.b;branch=z9hG4bKy," * (room // 32)),
        invite("Via: SIP/2.0/UDP " + "a-" * (room // 2)),
        invite("Contact: <sip:" + "a." * (room // 2) + "1>"),
        invite("Contact: <sip:" + "%41" * (room // 3) + "@>"),
        invite("Contact: <sip:[" + "1:" * (room // 2) + "]>"),
        invite("Max-Forwards: " + "9" * room),
        invite("Subject: " + " " * room),
        invite("Subject: x" + "\r\n " * 110),
    ]


@pytest.mark.parametrize("number", range(14))
def test_no_message_takes_long(number: int) -> None:
    data = _nasty()[number]
    began = time.thread_time()
    try:
        message = read(data)
        _ = message.via, message.contact
    except Unreadable:
        pass
    assert time.thread_time() - began < 0.02


@settings(max_examples=300)
@given(st.data())
def test_a_mangled_message_is_read_or_unreadable(data: st.DataObject) -> None:
    """Nothing but `Unreadable` ever comes out, and what is read has what every later step relies on."""
    caller = Caller(5060)
    caller.port = 5061
    raw = bytearray(caller.text("INVITE", OFFER).encode())
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=6))
    try:
        message = read(bytes(raw))
    except Unreadable:
        return
    assert message.via[0] is not None
    assert message.call_id
    assert message.from_address.parameters["tag"]
    assert message.cseq.sequence < 1 << 31


async def test_scanners_and_denied_networks_hear_nothing(bare: Exchange) -> None:
    edge = await bare.edge(deny=("127.0.0.2",), allow=("127.0.0.0/8",))
    caller, denied = await bare.caller(), await bare.caller(host="127.0.0.2")
    caller.send("OPTIONS", "", "User-Agent: friendly-scanner")
    denied.send("OPTIONS")
    denied.write(
        "OPTIONS sip:x SIP/2.0\r\n" + denied.text("OPTIONS").partition("\r\n")[2].replace("CSeq:", "CSeq: x")
    )
    await caller.nothing()
    await denied.nothing()
    assert edge.stats()["dropped"]["scanner"] == 1
    assert edge.stats()["dropped"]["acl"] == 2


async def test_a_flood_from_one_source_is_cut_and_others_are_served(bare: Exchange) -> None:
    edge = await bare.edge(invites_per_s=5.0)
    flood, other = await bare.caller(), await bare.caller(host="127.0.0.2")
    for _ in range(100):
        flood.send("OPTIONS")
    other.send("OPTIONS")
    await other.next(503)
    assert edge.stats()["dropped"]["rate"] >= 85
    assert len(flood.kept) <= 15


async def test_made_up_tags_do_not_pass_the_rate(bare: Exchange) -> None:
    edge = await bare.edge(invites_per_s=5.0)
    flood = await bare.caller()
    flood.to += ";tag=made-up"
    for method in ("BYE", "INVITE", "CANCEL"):
        for _ in range(30):
            flood.cseq += 1
            flood.send(method)
    await asyncio.sleep(0.1)
    assert len(flood.kept) <= 15
    assert edge.stats()["transactions"] == 0


async def test_a_flood_of_invites_finds_bounded_tables(
    bare: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transaction, "MAX_HELD", 50)
    edge = await bare.edge(invites_per_s=1000.0)
    await bare.line()
    bare.desk.hold()
    phones = [await bare.caller(host=f"127.0.1.{n}") for n in range(1, 4)]
    for _ in range(50):
        for phone in phones:
            phone.write(phone.text("INVITE", OFFER).replace(phone.call_id, f"{phone.call_id}-{phone.cseq}"))
    await phones[-1].next(503)
    assert edge.stats()["transactions"] <= 50
    assert len(bare.desk.calls) <= 6, "no source may have more than its share decided"


async def test_refusals_at_the_doors_cost_no_memory(bare: Exchange) -> None:
    edge = await bare.edge(invites_per_s=1000.0, ha1=lambda user, algorithm: None)
    caller = await bare.caller()
    for number in range(200):
        caller.write(caller.text("INVITE", OFFER).replace(caller.call_id, f"x{number}"))
    await caller.next(401)
    await asyncio.sleep(0.1)
    assert edge.stats()["transactions"] == 0


async def test_half_open_connections_are_few_and_short(
    exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "FIRST_WORD_S", 0.3)
    monkeypatch.setattr(connections, "MAX_PER_SOURCE", 5)
    silent = [await exchange.caller("tcp") for _ in range(5)]
    sixth = await exchange.caller("tcp")
    await sixth.gone(0.2)  # type: ignore[attr-defined]
    assert exchange.edges[0].stats()["dropped"]["connection"] == 1
    silent[0].write("OPTIONS sip:x SIP/2.0\r\nVia: ")  # begun, never ended
    for one in silent:
        await one.gone(1.0)  # type: ignore[attr-defined]
    await exchange.caller("tcp")


async def test_a_connection_that_speaks_something_else_is_closed(exchange: Exchange) -> None:
    web = await exchange.caller("tcp")
    web.write("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    await web.gone()  # type: ignore[attr-defined]
    liar = await exchange.caller("tcp")
    liar.write("OPTIONS sip:x SIP/2.0\r\nContent-Length: 1\r\nContent-Length: 99999\r\n\r\n")
    await liar.gone()  # type: ignore[attr-defined]


async def test_keep_alives_are_answered_and_a_message_may_come_in_pieces(exchange: Exchange) -> None:
    await exchange.line()
    caller = await exchange.caller("tcp")
    caller.write("\r\n\r\n")
    for byte in (text := caller.text("OPTIONS")).encode()[:40]:
        caller.write(bytes([byte]))
        await asyncio.sleep(0)
    caller.write(text[40:] + caller.text("OPTIONS"))
    await caller.next(200)
    await caller.next(200)
    assert caller.pongs == 1  # type: ignore[attr-defined]


async def test_a_peer_that_reads_nothing_is_let_go(
    exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "MAX_UNSENT", 1)

    class Full:
        aborted = False

        def is_closing(self) -> bool:
            return self.aborted

        def get_write_buffer_size(self) -> int:
            return 10

        def abort(self) -> None:
            self.aborted = True

    full = Full()
    flow = transport.Flow("tcp", "127.0.0.1", 1, full)
    flow.send(b"one too many")
    assert not flow.open


def test_a_word_is_ours_or_none() -> None:
    token = RouteToken("a" * 16, "n0", 5070, "udp", "192.0.2.1", 5060)
    word = token.sign(KEY)
    assert RouteToken.read(word, KEY) == token
    assert RouteToken.read(word, b"other") is None
    for at in range(len(word) - 1):  # the last character has bits to spare
        changed = word[:at] + ("A" if word[at] != "A" else "B") + word[at + 1 :]
        assert RouteToken.read(changed, KEY) is None

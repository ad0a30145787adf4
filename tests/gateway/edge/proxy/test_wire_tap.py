"""What is seen of each call on the wire: all of it, in order, blanked; nothing of those who place none."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any

import pytest

from gateway.edge.dialogs import wire_tap
from gateway.edge.proxy.lines import LineInfo
from gateway.edge.router import Accept, Refuse
from gateway.ipc.wire_message import Standing, WireMessage
from tests.gateway.edge.conftest import Exchange
from tests.gateway.edge.peers import ANSWER, DTMF, KEY_5, OFFER, WEB_OFFER, Caller, Line
from tests.gateway.edge.trunks.test_forking import Fork

HOUSE_TIME = True
KEY = "d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj"
CRYPTO = f"a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{KEY}\r\n"


class Seen:
    """What a front would be given."""

    def __init__(self) -> None:
        self.messages: dict[str, list[WireMessage]] = defaultdict(list)
        self.standings: dict[str, Standing] = {}

    def __call__(self, call_id: str, message: WireMessage, standing: Standing) -> None:
        self.messages[call_id].append(message)
        self.standings[call_id] = standing

    def ladder(self, call_id: str) -> list[str]:
        """Each message as `caller>us INVITE` or `us>caller 200`."""
        return [f"{one.sender}>{one.receiver} {_word(one.first)}" for one in self.messages[call_id]]

    @property
    def texts(self) -> str:
        return "\n".join(one.text for messages in self.messages.values() for one in messages)


def _word(first: str) -> str:
    start, second, *_ = first.split()
    return second if start == "SIP/2.0" else start


@pytest.fixture
async def seen() -> Seen:
    return Seen()


async def opened(bare: Exchange, seen: Seen, **rules: Any) -> tuple[Caller, Line]:
    await bare.edge(on_wire=seen, **rules)
    bare.desk.verdict = lambda call: Accept("c1")
    return await bare.caller(), await bare.line()


async def hung_up(caller: Caller, line: Line) -> None:
    caller.send("BYE")
    line.reply(await line.next(method="BYE"), 200)
    await caller.next(200, "BYE")


async def test_a_call_is_seen_from_its_invite_to_its_end(bare: Exchange, seen: Seen) -> None:
    caller, line = await opened(bare, seen)
    await bare.call(caller, line)
    await hung_up(caller, line)
    assert list(seen.messages) == ["c1"]
    assert seen.ladder("c1") == [
        "caller>us INVITE", "us>caller 100", "us>caller 200", "caller>us ACK",
        "caller>us BYE", "us>caller 200",
    ]  # fmt: skip
    first = seen.messages["c1"][0]
    assert (first.protocol, first.host, first.port) == ("udp", "127.0.0.1", caller.port)
    assert first.text.splitlines()[0] == first.first
    assert "m=audio 40000 RTP/AVP 0 8 101" in first.text.splitlines()
    assert all(a.at <= b.at for a, b in zip(seen.messages["c1"], seen.messages["c1"][1:], strict=False))


async def test_neither_keys_nor_passwords_nor_our_word_are_seen(bare: Exchange, seen: Seen) -> None:
    caller, line = await opened(bare, seen)
    caller.send("INVITE", OFFER + CRYPTO, 'Authorization: Digest username="a", response="0123456789abcdef"')
    line.reply(await line.invited(), 200, body=ANSWER)
    caller.learn(await caller.next(200))
    caller.send("ACK")
    await line.next(method="ACK")
    caller.send("INFO", KEY_5, DTMF)
    line.reply(await line.next(method="INFO"), 200)
    await caller.next(200, "INFO")
    (dialog,) = bare.edges[0]._board.dialogs
    word = dialog.token.sign(bare.edges[0].config.route_key)
    assert word in caller.target, "the caller has it"
    for secret in (KEY, "0123456789abcdef", word, word[:30], "Signal=5"):
        assert secret not in seen.texts
    assert "a=crypto:1 AES_CM_128_HMAC_SHA1_80 (blanked)" in seen.texts
    assert "(24 bytes of application/dtmf-relay)" in seen.texts


async def test_a_refused_call_shows_its_invite_and_its_refusal(bare: Exchange, seen: Seen) -> None:
    caller, _ = await opened(bare, seen)
    bare.desk.verdict = lambda call: Refuse(404, "no route", call_id="c404")
    caller.send("INVITE", OFFER)
    await caller.next(404)
    caller.send("ACK", branch=caller.branch)
    caller.send("OPTIONS", to="<sip:demo@127.0.0.1>", routes=[])
    await caller.next(200, "OPTIONS")
    assert seen.ladder("c404")[:4] == ["caller>us INVITE", "us>caller 100", "us>caller 404", "caller>us ACK"]
    assert seen.standings == {"c404": "refused"}


async def test_a_call_that_the_doors_refuse_is_seen_too(bare: Exchange, seen: Seen) -> None:
    caller, _ = await opened(bare, seen)
    bare.edges[0].drain()
    caller.send("INVITE", OFFER)
    await caller.next(503)
    assert seen.ladder("refused1") == ["caller>us INVITE", "us>caller 100", "us>caller 503"]


@pytest.mark.parametrize("broken", ["CSeq: x INVITE", "CSeq: 1 INVITE\r\nX: \0"], ids=["in part", "at all"])
async def test_an_invite_that_cannot_be_read_is_seen_as_far_as_it_can(
    bare: Exchange, seen: Seen, broken: str
) -> None:
    caller, _ = await opened(bare, seen)
    text = caller.text("INVITE", OFFER, f"Subject: {KEY}").replace("CSeq: 1 INVITE", broken)
    caller.write(text)
    await caller.next(400)
    invite, refusal = seen.messages["refused1"]
    assert refusal.first == "SIP/2.0 400 Bad Request"
    assert KEY not in invite.text
    if "\0" in broken:
        assert invite.text == f"INVITE, {len(text)} bytes that cannot be read"
    else:
        assert "CSeq: x INVITE" in invite.text.splitlines()


async def test_who_tries_again_after_a_refusal_has_a_ladder_of_its_own(bare: Exchange, seen: Seen) -> None:
    caller, line = await opened(bare, seen)
    bare.desk.verdict = lambda call: Refuse(480, "not now", call_id="c480")
    caller.send("INVITE", OFFER)
    await caller.next(480)
    caller.send("ACK", branch=caller.branch)
    bare.desk.verdict = lambda call: Accept("c2")
    await bare.call(caller, line)
    assert seen.ladder("c2")[:3] == ["caller>us INVITE", "us>caller 100", "us>caller 200"]
    assert "us>caller 200" not in seen.ladder("c480")


async def test_whoever_takes_anothers_call_id_has_a_ladder_of_his_own(bare: Exchange, seen: Seen) -> None:
    """Taken or refused, before the other's end or after: nobody's messages are told under another's call."""
    caller, line = await opened(bare, seen)
    await bare.call(caller, line)
    thief = await bare.caller()
    thief.call_id = caller.call_id
    bare.desk.verdict = lambda call: Refuse(404, "no route", call_id="c404")
    thief.send("INVITE", OFFER)
    await thief.next(404)
    thief.send("ACK", branch=thief.branch)
    bare.desk.verdict = lambda call: Accept("c2")
    await bare.call(thief, line)
    stranger = await bare.caller()
    stranger.call_id = caller.call_id
    stranger.send("OPTIONS", routes=[])
    await stranger.next(200, "OPTIONS")
    await hung_up(caller, line)
    taken = ["caller>us INVITE", "us>caller 100", "us>caller 200", "caller>us ACK"]
    assert seen.ladder("c1") == [*taken, "caller>us BYE", "us>caller 200"]
    assert seen.ladder("c2") == taken
    assert seen.ladder("c404")[:3] == ["caller>us INVITE", "us>caller 100", "us>caller 404"]
    for call, its in (("c1", caller), ("c2", thief), ("c404", thief)):
        assert all(f";tag={its.own_tag}" in one.text for one in seen.messages[call])


async def test_nothing_is_kept_of_who_places_no_call(bare: Exchange, seen: Seen) -> None:
    caller, _ = await opened(bare, seen, ha1=lambda user, algorithm: None)
    for method in ("OPTIONS", "REGISTER", "MESSAGE", "BYE"):
        caller.send(method, routes=[])
    for n in range(3):
        caller.call_id = f"scan{n}"
        caller.send("INVITE", OFFER)
        await caller.next(401)
    assert seen.messages == {}
    assert len(bare.edges[0]._board.tap._waiting) == 3


async def test_an_invite_that_waited_too_long_begins_anew(bare: Exchange, seen: Seen) -> None:
    caller, _ = await opened(bare, seen, ha1=lambda user, algorithm: None)
    tap = bare.edges[0]._board.tap
    caller.send("INVITE", OFFER)
    await caller.next(401)
    await asyncio.sleep(wire_tap.WAITING_S + 1)
    caller.send("INVITE", OFFER)
    await caller.next(401)
    (waiting,) = tap._waiting.values()
    assert len(waiting.messages) == 2, "the INVITE that came now, and its answer"


async def test_who_cannot_keep_what_is_seen_harms_no_call(bare: Exchange) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("no room")

    await bare.edge(on_wire=fails)
    caller, line = await bare.caller(), await bare.line()
    await bare.call(caller, line)
    await hung_up(caller, line)


async def test_what_waits_is_bounded(bare: Exchange, seen: Seen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire_tap, "MAX_WAITING", 5)
    monkeypatch.setattr(wire_tap, "MAX_OF_WAITING", 3)
    caller, _ = await opened(bare, seen, ha1=lambda user, algorithm: None, invites_per_s=1000.0)
    tap = bare.edges[0]._board.tap
    for n in range(20):
        caller.call_id = f"scan{n}"
        caller.send("INVITE", OFFER)
        await caller.next(401)
        for _ in range(4):
            caller.send("ACK", branch=caller.branch)
    caller.send("OPTIONS", routes=[])
    await caller.next(200, "OPTIONS")
    assert [call_id for call_id, _ in tap._waiting] == [f"scan{n}" for n in range(15, 20)]
    assert {len(one.messages) for one in tap._waiting.values()} == {3}
    assert tap._waiting_bytes == sum(len(seen.data) for one in tap._waiting.values() for seen in one.messages)
    monkeypatch.setattr(wire_tap, "MAX_WAITING_BYTES", 2_000)
    caller.call_id = "one more"
    caller.send("INVITE", OFFER)
    await caller.next(401)
    assert ("one more", caller.own_tag) in tap._waiting
    assert 0 < tap._waiting_bytes <= 2_000


async def test_of_very_many_messages_of_a_call_some_are_left_out_and_counted(
    bare: Exchange, seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire_tap, "FREELY", 10)
    caller, line = await opened(bare, seen)
    await bare.call(caller, line)
    for _ in range(10):
        caller.send("OPTIONS")
        await caller.next(200, "OPTIONS")
    ladder = seen.messages["c1"]
    assert 10 <= len(ladder) <= 14, "the rest came within a blink"
    await asyncio.sleep(1.0)
    await hung_up(caller, line)
    assert seen.ladder("c1")[-1] == "caller>us BYE", "a second later there is room again"
    left = bare.edges[0]._board.tap._legs[caller.call_id, caller.own_tag].left_out
    assert len(ladder) + sum(one.left_out for one in ladder) + left == 4 + 20 + 2


async def test_a_trunk_or_telephone_that_is_called_has_its_name(bare: Exchange) -> None:
    seen, fork = Seen(), Fork(bare)
    await fork.open(on_wire=seen)
    phone = await fork.phone()
    fork.dial()
    phone.reply(await phone.next(method="INVITE"), 200, "Contact: <sip:a@127.0.0.1>", body=ANSWER)
    await fork.up()
    await phone.next(method="ACK")
    assert seen.ladder(fork.call_id)[-3:] == [
        "us>user alice INVITE", "user alice>us 200", "us>user alice ACK",
    ]  # fmt: skip


async def test_a_call_that_outlives_its_edge_is_known_again(bare: Exchange, seen: Seen) -> None:
    caller, line = await opened(bare, seen)
    await bare.call(caller, line)
    old = bare.edges[0]
    port = old.port
    await old.stop()
    later = Seen()
    await bare.edge(port=port, on_wire=later)
    bare.edges[-1].line_up(LineInfo("n0", "narrow", line.port, 4, ("c1",), "hall0"))
    await hung_up(caller, line)
    assert later.ladder("c1") == ["caller>us BYE", "us>caller 200"]
    assert later.standings == {"c1": "old"}


async def test_a_browsers_call_by_sip_is_seen_without_its_ice_password(bare: Exchange, seen: Seen) -> None:
    caller, _ = await opened(bare, seen)
    caller.send("INVITE", WEB_OFFER)
    answer = await caller.next(200)
    caller.learn(answer)
    caller.send("ACK")
    caller.send("BYE")
    await caller.next(200, "BYE")
    assert seen.ladder("w1") == [
        "caller>us INVITE", "us>caller 100", "us>caller 200", "caller>us ACK",
        "caller>us BYE", "us>caller 200",
    ]  # fmt: skip
    assert "abcdefghijklmnopqrstuvwx" not in seen.texts
    assert "a=ice-ufrag:abcd" in seen.texts


async def test_by_tcp_it_is_the_same(bare: Exchange, seen: Seen) -> None:
    _, line = await opened(bare, seen)
    caller = await bare.caller("tcp")
    await bare.call(caller, line)
    await hung_up(caller, line)
    assert len(seen.ladder("c1")) == 6
    assert {one.protocol for one in seen.messages["c1"]} == {"tcp"}

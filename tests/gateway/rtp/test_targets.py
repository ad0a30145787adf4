"""A caller is handed to a target behind a trunk: edge and line are real, the trunk is a UDP telephone."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from pylibsrtp import Policy

from gateway.edge.doors.edge_config import EdgeConfig
from gateway.edge.flows.transport import Flow
from gateway.edge.grammar.uri import URI
from gateway.edge.proxy.lines import LineInfo
from gateway.edge.registrar.registrar import Reached
from gateway.edge.sip_proxy import Edge
from gateway.edge.trunks.trunk import Trunk, TrunkHost
from gateway.ipc.binding import Binding
from gateway.ipc.line_messages import (
    AnswerCall,
    CallConfirmed,
    CallStarted,
    CallTarget,
    DropCall,
    TargetRings,
    TransferOutcome,
)
from gateway.ipc.line_signature import target_signature
from tests.gateway.edge.peers import KEY, Desk
from tests.gateway.line.line_harness import TOKEN, is_tone, tone
from tests.gateway.line.rawphone import Message, RawPhone
from tests.gateway.rtp.rtp_exchange import RtpExchange
from tests.gateway.rtp.srtp_phone import CRYPTO, SrtpPhone, session
from tests.needs import HANGS_S

pytestmark = pytest.mark.asyncio(loop_scope="module")
NUMBER, SHOWN = "+4930123456", "+4930777"


@dataclass
class House:
    """An edge with a trunk before the exchange's line, a caller who is up, and the trunk's telephone."""

    exchange: RtpExchange
    edge: Edge
    desk: Desk
    trunk: RawPhone
    line_port: int
    phones: list[RawPhone] = field(default_factory=list)
    tasks: set[asyncio.Task[Any]] = field(default_factory=set)

    @classmethod
    @asynccontextmanager
    async def opened(cls, exchange: RtpExchange, line: str = "n0", **more: Any) -> AsyncIterator[House]:
        trunk = await RawPhone().open()
        hosts = (*more.pop("hosts", ()), TrunkHost("127.0.0.1", trunk.sip_port))
        port_file = more.pop("port_file", None)
        described = {"numbers": (SHOWN,), "prefixes": ("+49",), "ping_s": 0, **more}
        desk, tasks = Desk(), set[asyncio.Task[Any]]()
        desk.targets = {"office": f"trunk:carrier/{NUMBER}"}

        def spawn(work: Any) -> None:
            task = asyncio.ensure_future(work)
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        facts = await exchange.front.hears_hello(line)
        assert facts.sip_port is not None
        config = EdgeConfig(
            host="127.0.0.1", port=0, boot_token=TOKEN, route_key=KEY, loopback_port_file=port_file
        )
        while True:
            edge = Edge(config, desk, spawn, trunks=(Trunk(name="carrier", hosts=hosts, **described),))
            try:
                await edge.start()
                break
            except OSError:  # what is free for UDP is somebody's by TCP
                await edge.stop()
        edge.line_up(LineInfo(line, facts.kind, facts.sip_port, facts.capacity))
        house = cls(exchange, edge, desk, trunk, facts.sip_port, [trunk], tasks)
        try:
            yield house
        finally:
            for dialog in house.edge._board.dialogs:
                await exchange.front.hang_up(dialog.token.call_id, line)
                await exchange.front.hears_end(dialog.token.call_id)
            for phone in house.phones:
                phone.close()
            await house.edge.stop()
            for task in tasks:
                task.cancel()

    async def caller(self, codec: str = "PCMU") -> tuple[RawPhone, CallStarted]:
        """A call that is up, through the edge."""
        phone = await RawPhone(("127.0.0.1", self.edge.port), codec=codec).open()
        self.phones.append(phone)
        phone.invite("")
        started = await self.exchange.hall.hears(CallStarted, within_s=HANGS_S)
        await self.exchange.hall.ask(AnswerCall(started.call_id))
        answer = await phone.final()
        phone.call_id = started.call_id
        phone.send("ACK", "", f"Route: {answer.headers['record-route']}\r\n", same=True)
        await self.exchange.hall.hears(CallConfirmed, started.call_id, HANGS_S)
        return phone, started

    async def calls(self, started: CallStarted, within_s: float = 30.0) -> Message:
        """The INVITE that the trunk gets once the hall wants the target."""
        await self.exchange.hall.ask(CallTarget(started.call_id, "office", within_s))
        return await self.trunk.request("INVITE", HANGS_S)

    async def picks_up(self, invite: Message) -> None:
        """The trunk's telephone answers."""
        port = re.search(r"m=audio (\d+)", invite.body)
        assert port is not None
        self.trunk.media = ("127.0.0.1", int(port[1]))
        self.trunk.answer(invite, body=self.trunk.offer())
        await self.trunk.request("ACK", HANGS_S)

    async def outcome(self, started: CallStarted) -> TransferOutcome:
        return await self.exchange.hall.hears(TransferOutcome, started.call_id, HANGS_S)

    def left(self) -> int:
        return len(self.edge.trunks.calls.left)


def binding(flow: Flow, contact: str) -> Binding:
    """Of alice's telephone."""
    return Binding(
        user="alice", key="k", contact=contact, call_id_hash="c", cseq=1, transport=flow.transport,
        host=flow.host, port=flow.port, source=flow.host, registered_at=0.0, expires_at=0.0,
    )  # fmt: skip


def _uri(contact: str) -> str:
    return contact.strip().removeprefix("<").partition(">")[0]


@pytest.mark.parametrize(("line", "codec", "theirs"), [("n0", "PCMU", "PCMU"), ("w0", "G722", "PCMA")])
async def test_caller_and_target_hear_each_other_and_not_us(
    exchange: RtpExchange, line: str, codec: str, theirs: str
) -> None:
    async with House.opened(exchange, line) as house:
        exchange.hall.sound = tone(1000, rate_hz=8000 if line == "n0" else 16000)
        phone, started = await house.caller(codec)
        house.trunk.use(theirs)
        invite = await house.calls(started)
        assert f"INVITE sip:{NUMBER}@127.0.0.1" in invite.start
        assert invite.headers["from"].startswith(f"<sip:{SHOWN}@127.0.0.1>")
        assert not [name for name in invite.headers if name.startswith("x-vg")]
        await house.picks_up(invite)
        assert (await house.outcome(started)).status == 200
        phone.talk(tone(440, rate_hz=phone.coder.rate_hz))
        house.trunk.talk(tone(660, rate_hz=house.trunk.coder.rate_hz))
        await _comes_to_hear(phone, 660)
        await _comes_to_hear(house.trunk, 440)
        await phone.hang_up()
        await house.trunk.request("BYE", HANGS_S)
        assert house.left() == 0


async def test_a_target_that_hangs_up_ends_the_callers_call(exchange: RtpExchange) -> None:
    async with House.opened(exchange) as house:
        phone, started = await house.caller()
        invite = await house.calls(started)
        await house.picks_up(invite)
        await house.outcome(started)
        _bye(house.trunk, invite)
        await phone.request("BYE", HANGS_S)
        assert (await exchange.front.hears_end(started.call_id))[1].startswith("transferred")
        assert house.left() == 0


async def test_early_sound_of_the_target_is_heard_and_after_a_refusal_ours_again(
    exchange: RtpExchange,
) -> None:
    async with House.opened(exchange) as house:
        exchange.hall.sound = tone(1000, rate_hz=8000)
        phone, started = await house.caller()
        invite = await house.calls(started)
        port = re.search(r"m=audio (\d+)", invite.body)
        assert port is not None
        house.trunk.media = ("127.0.0.1", int(port[1]))
        house.trunk.answer(invite, "183 Session Progress", house.trunk.offer())
        rings = await exchange.hall.hears(TargetRings, started.call_id, HANGS_S)
        assert rings.early
        house.trunk.talk(tone(660, rate_hz=8000))
        await _comes_to_hear(phone, 660)
        house.trunk.answer(invite, "486 Busy Here")
        outcome = await house.outcome(started)
        assert (outcome.status, outcome.reason) == (486, "Busy Here")
        house.trunk.hush()
        await _comes_to_hear(phone, 1000)
        assert house.left() == 0


async def test_a_caller_who_hangs_up_while_it_rings_cancels(exchange: RtpExchange) -> None:
    async with House.opened(exchange) as house:
        phone, started = await house.caller()
        invite = await house.calls(started)
        house.trunk.answer(invite, "180 Ringing")
        await exchange.hall.hears(TargetRings, started.call_id, HANGS_S)
        await phone.hang_up()
        cancel = await house.trunk.request("CANCEL", HANGS_S)
        house.trunk.answer(cancel)
        house.trunk.answer(invite, "487 Request Terminated")
        await house.trunk.request("ACK", HANGS_S)
        assert house.left() == 0


async def test_a_target_that_nobody_answers_is_given_up(exchange: RtpExchange) -> None:
    async with House.opened(exchange) as house:
        _, started = await house.caller()
        invite = await house.calls(started, within_s=0.3)
        house.trunk.answer(invite, "180 Ringing")
        assert (await house.outcome(started)).status == 408
        house.trunk.answer(await house.trunk.request("CANCEL", HANGS_S))


async def test_a_challenge_is_answered_and_later_requests_count_on(exchange: RtpExchange) -> None:
    async with House.opened(exchange, user="u1", password="geheim") as house:
        phone, started = await house.caller()
        invite = await house.calls(started)
        asked = 'Digest realm="t", nonce="n1", qop="auth", algorithm=SHA-256'
        house.trunk.answer(
            invite, "407 Proxy Authentication Required", headers=f"Proxy-Authenticate: {asked}\r\n"
        )
        again = await house.trunk.request("INVITE", HANGS_S)
        assert _is_right(again, "geheim")
        house.trunk.answer(
            invite, "407 Proxy Authentication Required", headers=f"Proxy-Authenticate: {asked}\r\n"
        )  # our ACK was lost: it says nothing of the password
        assert again.headers["cseq"] == "2 INVITE"
        await house.picks_up(again)
        await house.outcome(started)
        await phone.hang_up()
        bye = await house.trunk.request("BYE", HANGS_S)
        assert bye.headers["cseq"] == "3 BYE"


async def test_a_wrong_password_is_tried_once(exchange: RtpExchange) -> None:
    async with House.opened(exchange, user="u1", password="wrong") as house:
        _, started = await house.caller()
        invite = await house.calls(started)
        for nonce in ("n1", "n2"):
            asked = f'WWW-Authenticate: Digest realm="t", nonce="{nonce}", qop="auth"\r\n'
            house.trunk.answer(invite, "401 Unauthorized", headers=asked)
            if nonce == "n1":
                invite = await house.trunk.request("INVITE", HANGS_S)
        outcome = await house.outcome(started)
        assert outcome.status == 401
        assert "password" in outcome.reason
        assert house.left() == 0


async def test_a_dead_first_address_costs_seconds_and_not_the_call(exchange: RtpExchange) -> None:
    dead = await RawPhone().open()
    try:
        async with House.opened(exchange, hosts=(TrunkHost("127.0.0.1", dead.sip_port),)) as house:
            _, started = await house.caller()
            invite = await house.calls(started)
            await house.picks_up(invite)
            assert (await house.outcome(started)).status == 200
            assert invite.headers["cseq"] == "2 INVITE"
            await exchange.hall.ask(DropCall(started.call_id))
            await house.trunk.request("BYE", HANGS_S)
    finally:
        dead.close()


@pytest.mark.parametrize(
    ("status", "to", "comes"),
    [
        ("302 Moved Temporarily", "sip:+49301@127.0.0.1:{port}", True),
        ("302 Moved Temporarily", "sip:+49301@192.0.2.1", False),
        ("302 Moved Temporarily", "sip:+881123@127.0.0.1:{port}", False),
    ],
)
async def test_a_redirection_is_followed_to_the_trunks_own_alone(
    exchange: RtpExchange, status: str, to: str, comes: bool
) -> None:
    async with House.opened(exchange, prefixes=("+",)) as house:
        _, started = await house.caller()
        invite = await house.calls(started)
        contact = to.format(port=house.trunk.sip_port)
        house.trunk.answer(invite, status, contact=f"<{contact}>")
        if comes:
            again = await house.trunk.request("INVITE", HANGS_S)
            assert "sip:+49301@127.0.0.1" in again.start
            house.trunk.answer(again, "486 Busy Here")
        assert (await house.outcome(started)).status == (486 if comes else 302)


@pytest.mark.parametrize(
    ("more", "number", "why"),
    [
        ({"prefixes": ()}, NUMBER, "prefixes"),
        ({"prefixes": ("+1",)}, NUMBER, "prefixes"),
        ({"prefixes": ("+", "0")}, "+88216123", "satellite"),
        ({"prefixes": ("+49",)}, "+49900123", "premium"),
    ],
)
async def test_what_the_trunk_does_not_name_does_not_leave(
    exchange: RtpExchange, more: dict[str, Any], number: str, why: str
) -> None:
    async with House.opened(exchange, **more) as house:
        house.desk.targets["office"] = f"trunk:carrier/{number}"
        _, started = await house.caller()
        await exchange.hall.ask(CallTarget(started.call_id, "office", 5.0))
        outcome = await house.outcome(started)
        assert outcome.status == 403
        assert why in outcome.reason


async def test_a_registered_telephone_is_called_by_its_flow_and_not_by_its_contact(
    exchange: RtpExchange,
) -> None:
    async with House.opened(exchange) as house:
        alice = await RawPhone().open()
        house.phones.append(alice)
        flow = house.edge._board.ports.udp.flow("127.0.0.1", alice.sip_port)
        contact = URI.read("sip:alice@198.51.100.9:5090")
        known = {"alice": [Reached(flow, contact, (), binding(flow, contact.text))]}
        house.edge.trunks.calls._phones = lambda user: known.get(user, [])
        house.desk.targets["office"] = "user:alice"
        phone, started = await house.caller()
        await exchange.hall.ask(CallTarget(started.call_id, "office", 30.0))
        invite = await alice.request("INVITE", HANGS_S)
        assert invite.start.startswith(f"INVITE {contact} ")
        house.trunk = alice
        await house.picks_up(invite)
        assert (await house.outcome(started)).status == 200
        await phone.hang_up()
        await alice.request("BYE", HANGS_S)


async def test_a_user_who_is_not_registered_is_not_there(exchange: RtpExchange) -> None:
    async with House.opened(exchange) as house:
        house.desk.targets["office"] = "user:nobody"
        _, started = await house.caller()
        await exchange.hall.ask(CallTarget(started.call_id, "office", 5.0))
        assert (await house.outcome(started)).status == 480


async def test_a_caller_gets_nothing_out(exchange: RtpExchange) -> None:
    """Whatever it writes: the plan alone names who is called."""
    async with House.opened(exchange) as house:
        phone, started = await house.caller()
        trunk = f"127.0.0.1:{house.trunk.sip_port}"
        phone.send("REFER", "", f"Refer-To: <sip:{NUMBER}@{trunk}>\r\n")
        assert (await phone.final("REFER")).status == 403
        stranger = await RawPhone(("127.0.0.1", house.edge.port)).open()
        house.phones.append(stranger)
        signed = target_signature("guessed", started.call_id, "office", stranger.sip_call_id)
        wishes = (
            f"Route: <sip:{trunk};lr>\r\n"
            f"X-VG-Call: {started.call_id}\r\nX-VG-Target: office\r\nX-VG-Auth: {signed}\r\n"
        )
        stranger.dials = NUMBER
        stranger.send("INVITE", stranger.offer(), wishes)
        asked = await exchange.hall.hears(CallStarted, within_s=HANGS_S)
        assert asked.call_id != started.call_id, "it is a call to us like any other"
        assert house.left() == 0
        with pytest.raises(TimeoutError):
            await house.trunk.request("INVITE", 0.2)


async def test_a_line_gets_out_what_the_plan_names_for_its_own_call_alone(exchange: RtpExchange) -> None:
    async with House.opened(exchange) as house:
        _, started = await house.caller()
        await exchange.hall.ask(CallTarget(started.call_id, "elsewhere", 5.0))
        assert (await house.outcome(started)).status == 403
        board = house.edge._board
        dialog = board.dialogs.of_call(started.call_id)
        assert dialog is not None
        dialog.token = replace(dialog.token, line_port=9)  # the call is another line's
        await exchange.hall.ask(CallTarget(started.call_id, "office", 5.0))
        assert (await house.outcome(started)).status == 403
        dialog.token = replace(dialog.token, line_port=house.line_port)


async def test_who_is_not_the_trunk_does_not_end_its_call(exchange: RtpExchange) -> None:
    async with House.opened(exchange) as house:
        phone, started = await house.caller()
        invite = await house.calls(started)
        await house.picks_up(invite)
        await house.outcome(started)
        call = next(iter(house.edge.trunks.calls.left))
        call.outlet.owns = lambda host: False  # type: ignore[method-assign]  # it came from elsewhere
        _bye(house.trunk, invite)
        assert (await house.trunk.response("BYE")).status == 481
        assert house.left() == 1
        await phone.hang_up()
        await house.trunk.request("BYE", HANGS_S)


async def test_no_more_calls_leave_than_the_trunk_says(exchange: RtpExchange) -> None:
    async with House.opened(exchange, calls=1, per_minute=2) as house:
        first, one = await house.caller()
        await house.picks_up(await house.calls(one))
        await house.outcome(one)
        _, two = await house.caller()
        await exchange.hall.ask(CallTarget(two.call_id, "office", 5.0))
        assert "1 calls already" in (await house.outcome(two)).reason
        await first.hang_up()
        await house.trunk.request("BYE", HANGS_S)
        house.trunk.answer(await house.calls(two), "486 Busy Here")
        assert (await house.outcome(two)).status == 486
        await exchange.hall.ask(CallTarget(two.call_id, "office", 5.0))
        assert "within a minute" in (await house.outcome(two)).reason


async def test_keys_of_one_side_are_heard_by_the_other(exchange: RtpExchange) -> None:
    async with House.opened(exchange) as house:
        phone, started = await house.caller()
        await house.picks_up(await house.calls(started))
        await house.outcome(started)
        phone.press("5")
        assert await house.trunk.hears_keys(1, HANGS_S) == "5"
        house.trunk.press("#")
        assert await phone.hears_keys(1, HANGS_S) == "#"
        await phone.hang_up()
        await house.trunk.request("BYE", HANGS_S)


async def test_a_line_that_dies_leaves_no_call_at_the_trunk(exchange: RtpExchange) -> None:
    async with House.opened(exchange) as house:
        _, started = await house.caller()
        await house.picks_up(await house.calls(started))
        await house.outcome(started)
        house.edge.line_down("n0")
        await house.trunk.request("BYE", HANGS_S)
        assert house.left() == 0


async def test_a_trunk_that_wants_encrypted_sound_gets_it(
    exchange: RtpExchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the line offers twice, it is one call of those that may leave within a minute."""
    monkeypatch.setattr(Trunk, "sound_rule", "required")  # as over TLS
    async with House.opened(exchange, per_minute=1) as house:
        phone, started = await house.caller()
        far = await SrtpPhone().open()
        house.phones.append(far)
        way = next(iter(house.edge.trunks.known.values())).ways
        way._found = {host: (replace(way.all[0], port=far.sip_port),) for host in way._found}
        await exchange.hall.ask(CallTarget(started.call_id, "office", 30.0))
        invite = await far.request("INVITE", HANGS_S)
        assert "RTP/SAVP " in invite.body
        offered = {suite: (int(tag), key) for tag, suite, key in CRYPTO.findall(invite.body)}
        far.number, key = offered[far.suite]
        far.opening = session(far.suite, base64.b64decode(key), Policy.SSRC_ANY_INBOUND)
        far.adopt()
        house.trunk = far
        await house.picks_up(invite)
        assert (await house.outcome(started)).status == 200
        phone.talk(tone(440, rate_hz=8000))
        far.talk(tone(660, rate_hz=8000))
        await _comes_to_hear(phone, 660)
        await _comes_to_hear(far, 440)
        await phone.hang_up()
        await far.request("BYE", HANGS_S)


async def test_a_trunk_that_must_encrypt_and_does_not_gets_no_call(
    exchange: RtpExchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Trunk, "sound_rule", "required")
    async with House.opened(exchange) as house:
        _, started = await house.caller()
        await house.picks_up(await house.calls(started))
        assert (await house.outcome(started)).status == 488
        await house.trunk.request("BYE", HANGS_S)
        assert house.left() == 0


async def test_a_target_holds_and_comes_back(exchange: RtpExchange) -> None:
    async with House.opened(exchange) as house:
        phone, started = await house.caller()
        invite = await house.calls(started)
        await house.picks_up(invite)
        await house.outcome(started)
        phone.talk(tone(440, rate_hz=8000))
        for cseq, direction, answered in ((5, "sendonly", "recvonly"), (6, "sendrecv", "sendrecv")):
            _asks(house.trunk, invite, "INVITE", cseq, house.trunk.offer(direction))
            ok = await house.trunk.response("INVITE", 200, HANGS_S)
            assert f"a={answered}\r\n" in ok.body
            assert "c=IN IP4 127.0.0.1" in ok.body
            _asks(house.trunk, invite, "ACK", cseq)
        await _comes_to_hear(house.trunk, 440)
        _asks(house.trunk, invite, "REFER", 7)
        assert (await house.trunk.response("REFER")).status == 403, "who calls whom is the plan's to say"
        _asks(house.trunk, invite, "OPTIONS", 4)
        assert (await house.trunk.response("OPTIONS")).status == 500, "its CSeq is not new"
        await phone.hang_up()
        await house.trunk.request("BYE", HANGS_S)


async def test_a_goodbye_goes_by_another_connection_when_the_first_one_ended(exchange: RtpExchange) -> None:
    class Ended:
        open = False

    async with House.opened(exchange) as house:
        phone, started = await house.caller()
        await house.picks_up(await house.calls(started))
        await house.outcome(started)
        call = next(iter(house.edge.trunks.calls.left))
        call._peer.flow = Ended()  # type: ignore[assignment]
        await phone.hang_up()
        await house.trunk.request("BYE", HANGS_S)
        assert house.left() == 0


async def test_an_edge_that_knows_nothing_of_the_call_still_brings_the_targets_goodbye(
    exchange: RtpExchange, tmp_path: Path
) -> None:
    async with House.opened(exchange, port_file=tmp_path / "edge-port") as house:
        phone, started = await house.caller()
        invite = await house.calls(started)
        await house.picks_up(invite)
        await house.outcome(started)
        config = replace(house.edge.config, port=house.edge.port)
        await house.edge.stop()
        house.edge = Edge(config, house.desk, house.edge._board.spawn)
        await house.edge.start()
        facts = await exchange.front.hears_hello("n0")
        calls = (started.call_id,)
        house.edge.line_up(LineInfo("n0", "narrow", house.line_port, facts.capacity, calls))
        _bye(house.trunk, invite)
        await phone.request("BYE", HANGS_S)
        assert (await house.trunk.response("BYE", timeout_s=HANGS_S)).status == 200


async def _comes_to_hear(phone: RawPhone, hz: float) -> None:
    """Waits until it hears that tone and nothing else."""
    async with asyncio.timeout(HANGS_S):
        while not is_tone(await phone.hears(0.3, HANGS_S), hz, phone.coder.rate_hz):
            pass


def _bye(trunk: RawPhone, invite: Message) -> None:
    """The trunk's BYE in the dialog that this INVITE opened."""
    _asks(trunk, invite, "BYE", 7)


def _asks(
    trunk: RawPhone, invite: Message, method: str, cseq: int, body: str = "", headers: str = ""
) -> None:
    """A request of the trunk's in the dialog that this INVITE opened."""
    typed = "Content-Type: application/sdp\r\n" if body else ""
    own = f"127.0.0.1:{trunk.sip_port}"
    text = (
        f"{method} {_uri(invite.headers['contact'])} SIP/2.0\r\n"
        f"Via: SIP/2.0/UDP {own};branch=z9hG4bK{method}{cseq};rport\r\n"
        f"Max-Forwards: 70\r\nTo: {invite.headers['from']}\r\n"
        f"From: {invite.headers['to']};tag={trunk.tag}\r\nContact: <sip:raw@{own}>\r\n"
        f"Call-ID: {invite.headers['call-id']}\r\nCSeq: {cseq} {method}\r\n"
        f"{headers}{typed}Content-Length: {len(body)}\r\n\r\n{body}"
    )
    trunk._sip.sendto(text.encode(), trunk.line)


def _is_right(request: Message, password: str, method: str = "INVITE") -> bool:
    """Whether the credentials are those of the challenge above."""
    said = dict(re.findall(r'(\w+)="?([^",]+)"?', request.headers["proxy-authorization"]))

    def h(text: str) -> str:
        return hashlib.sha256(text.encode()).hexdigest()

    ha1, ha2 = h(f"{said['username']}:t:{password}"), h(f"{method}:{said['uri']}")
    return said["response"] == h(f"{ha1}:n1:{said['nc']}:{said['cnonce']}:auth:{ha2}")


@pytest.mark.parametrize("changes", [None, {"hosts": (TrunkHost("192.0.2.1", 5060),)}], ids=["gone", "moved"])
async def test_a_call_that_has_left_keeps_its_way_when_a_reload_takes_its_trunk(
    exchange: RtpExchange, changes: dict[str, Any] | None
) -> None:
    """Its target's goodbye is still its target's."""
    async with House.opened(exchange) as house:
        phone, started = await house.caller()
        invite = await house.calls(started)
        await house.picks_up(invite)
        await house.outcome(started)
        trunk = house.edge.trunks.known["carrier"].trunk
        house.edge.trunks.take([] if changes is None else [replace(trunk, **changes)])
        _bye(house.trunk, invite)
        await phone.request("BYE", HANGS_S)
        assert (await exchange.front.hears_end(started.call_id))[1].startswith("transferred")
        assert house.left() == 0

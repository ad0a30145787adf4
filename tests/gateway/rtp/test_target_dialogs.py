"""What a trunk asks of a call that leaves: PRACK (RFC 3262), and a session's timer (RFC 4028)."""

from __future__ import annotations

import pytest

from gateway.edge.grammar.message import read
from gateway.edge.grammar.sip_message import Response
from gateway.edge.trunks.reliable_answers import ProvisionalKind, ReliableAnswers
from gateway.ipc.line_messages import CallLeft, TargetRings
from gateway.rtp.dialogs import session_timer
from tests.gateway.rtp.rtp_exchange import RtpExchange
from tests.gateway.rtp.test_targets import House, _asks, _is_right
from tests.needs import HANGS_S

pytestmark = pytest.mark.asyncio(loop_scope="module")
CHALLENGE = 'Proxy-Authenticate: Digest realm="t", nonce="n1", qop="auth", algorithm=SHA-256\r\n'
RELIABLY = "Require: 100rel\r\nRSeq: {}\r\n"


async def test_a_provisional_answer_that_wants_it_gets_a_prack_and_its_repeats_none(
    exchange: RtpExchange,
) -> None:
    async with House.opened(exchange, user="u1", password="geheim") as house:
        phone, started = await house.caller()
        trunk, first = house.trunk, await house.calls(started)
        assert "100rel" in first.headers["supported"]
        trunk.answer(first, "407 Who Are You", headers=CHALLENGE)
        assert (await trunk.request("ACK", HANGS_S)).headers["cseq"] == "1 ACK"
        invite = await trunk.request("INVITE", HANGS_S)
        for number, status in ((7, "183 Session Progress"), (8, "180 Ringing")):
            trunk.answer(invite, status, trunk.offer() if number == 7 else "", RELIABLY.format(number))
            prack = await trunk.request("PRACK", HANGS_S)
            assert prack.headers["rack"] == f"{number} 2 INVITE"
            assert prack.headers["cseq"] == f"{number - 4} PRACK"
            assert prack.headers["to"].endswith(f";tag={trunk.tag}")
            assert _is_right(prack, "geheim", "PRACK")
            trunk.answer(prack)
            rings = await exchange.hall.hears(TargetRings, started.call_id, HANGS_S)
            assert rings.status == int(status[:3])
        for number in (7, 8, 10):  # said again, or one before it is missing
            trunk.answer(invite, "180 Ringing", headers=RELIABLY.format(number))
        trunk.answer(invite, body=trunk.offer())
        ack = await trunk.request("ACK", HANGS_S)
        assert ack.headers["cseq"] == "2 ACK", "the INVITE's, whatever has gone since"
        assert (await house.outcome(started)).status == 200
        assert exchange.hall.told_of(started.call_id).count(TargetRings) == 2
        await phone.hang_up()
        assert (await trunk.request("BYE", HANGS_S)).headers["cseq"] == "5 BYE"
        assert not [message for message in trunk._unread if message.start.startswith("PRACK")]


async def test_a_session_that_is_too_short_for_the_trunk_is_asked_for_again(exchange: RtpExchange) -> None:
    async with House.opened(exchange) as house:
        _, started = await house.caller()
        invite = await house.calls(started)
        assert invite.headers["session-expires"] == "1800"
        house.trunk.answer(invite, "422 Session Interval Too Small", headers="Min-SE: 3600\r\n")
        again = await house.trunk.request("INVITE", HANGS_S)
        assert (again.headers["session-expires"], again.headers["min-se"]) == ("3600", "3600")
        house.trunk.answer(again, "422 Session Interval Too Small", headers="Min-SE: 3600\r\n")
        assert (await house.outcome(started)).status == 422
        assert house.left() == 0


async def test_the_line_refreshes_by_the_edge_and_a_target_that_is_gone_ends_the_call(
    exchange: RtpExchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_timer, "LEAST_S", 1)
    async with House.opened(exchange, user="u1", password="geheim") as house:
        phone, started = await house.caller()
        trunk, first = house.trunk, await house.calls(started)
        trunk.answer(first, "407 Who Are You", headers=CHALLENGE)
        assert (await trunk.request("ACK", HANGS_S)).headers["cseq"] == "1 ACK"
        invite = await trunk.request("INVITE", HANGS_S)
        session = "Session-Expires: 2;refresher=uac\r\nRequire: timer\r\n"
        trunk.answer(invite, body=trunk.offer(), headers=session)
        await trunk.request("ACK", HANGS_S)
        again = await trunk.request("INVITE", HANGS_S)
        assert again.headers["cseq"] == "3 INVITE"
        assert again.headers["session-expires"] == "1800;refresher=uac"
        assert "m=audio" in again.body
        assert f";tag={trunk.tag}" in again.headers["to"]
        trunk.answer(again, body=trunk.offer(), headers=session)
        assert (await trunk.request("ACK", HANGS_S)).headers["cseq"] == "3 ACK"
        trunk.answer(again, body=trunk.offer(), headers=session)  # our ACK was lost
        assert (await trunk.request("ACK", HANGS_S)).headers["cseq"] == "3 ACK"
        trunk.answer(await trunk.request("INVITE", HANGS_S), "481 Call/Transaction Does Not Exist")
        await trunk.request("ACK", HANGS_S)
        await phone.request("BYE", HANGS_S)
        left = await exchange.hall.hears(CallLeft, started.call_id, HANGS_S)
        assert left.how == "transferred: the target did not refresh its session"


async def test_a_target_that_refreshes_is_answered_with_the_sessions_time(exchange: RtpExchange) -> None:
    async with House.opened(exchange) as house:
        _, started = await house.caller()
        invite = await house.calls(started)
        await house.picks_up(invite)
        await house.outcome(started)
        timer = "Supported: timer\r\nSession-Expires: 90;refresher=uac\r\n"
        _asks(house.trunk, invite, "UPDATE", 7, headers=timer)
        said = await house.trunk.response("UPDATE", timeout_s=HANGS_S)
        assert (said.status, said.headers["session-expires"]) == (200, "90;refresher=uac")
        assert said.headers["require"] == "timer"


def _said(text: str) -> Response:
    head = "SIP/2.0 183 Session Progress\r\nVia: SIP/2.0/UDP h;branch=z9hG4bKa\r\nFrom: <sip:a@h>;tag=1\r\n"
    answer = read(f"{head}To: <sip:b@h>;tag=2\r\nCall-ID: c\r\nCSeq: 1 INVITE\r\n{text}\r\n".encode())
    assert isinstance(answer, Response)
    return answer


@pytest.mark.parametrize("number", ["", "0", "-1", "x", "2147483648", "9" * 400, "٣"])
async def test_a_number_that_is_none_gets_no_prack(number: str) -> None:
    assert ReliableAnswers().take(_said(f"Require: 100rel\r\nRSeq: {number}\r\n")) is ProvisionalKind.REPEATED

"""Which calls a line takes, and what becomes of them when their hall or the front goes."""

from __future__ import annotations

import asyncio
import re

import pytest

from gateway.ipc.hello import LineCall
from gateway.ipc.line_messages import (
    AnswerCall,
    CallConfirmed,
    CallLeft,
    CallStarted,
    DropCall,
    RingCall,
    StopLine,
)
from gateway.ipc.line_signature import signature
from gateway.line.joined_house import HALL_BACK_WITHIN_S
from gateway.rtp.agreement import Describer
from model.tasks import failures
from tests.gateway.line.line_harness import TOKEN, FakeFront, tone
from tests.gateway.line.rawphone import RawPhone
from tests.gateway.rtp.rtp_exchange import CAPACITY, RtpExchange
from tests.needs import HANGS_S

pytestmark = pytest.mark.asyncio(loop_scope="module")


# ── who gets in ──────────────────────────────────────────────────────────────────────────────────────


async def test_a_call_signed_by_the_edge_waits_for_the_hall_and_is_answered_when_it_says_so(
    exchange: RtpExchange,
) -> None:
    hall = exchange.hall
    phone = await exchange.phone()
    phone.invite()
    started = await hall.hears(CallStarted, phone.call_id)
    assert (started.resumed, started.confirmed, started.codec) == (False, False, None)
    await hall.ask(RingCall(phone.call_id))
    await phone.response(status=180)
    await hall.ask(AnswerCall(phone.call_id))
    answer = await phone.final()
    assert answer.status == 200
    assert re.search(r"^m=audio \d+ RTP/AVP 0 101\r$", answer.body, re.MULTILINE)
    phone.acknowledge()
    assert (await hall.hears(CallConfirmed, phone.call_id)).codec == "PCMU"


@pytest.mark.parametrize("forged", ["unsigned", "unnamed", "another token's", "another call's", "replayed"])
async def test_a_call_the_edge_did_not_sign_is_forbidden(exchange: RtpExchange, forged: str) -> None:
    phone, other = await exchange.phone(), await exchange.phone()
    headers = {
        "unsigned": f"X-VG-Call: {phone.call_id}\r\n",
        "unnamed": f"X-VG-Auth: {signature(TOKEN, '', phone.sip_call_id)}\r\n",
        "another token's": f"X-VG-Call: {phone.call_id}\r\n"
        f"X-VG-Auth: {signature(TOKEN[:-1], phone.call_id, phone.sip_call_id)}\r\n",
        "another call's": f"X-VG-Call: {phone.call_id}\r\n"
        f"X-VG-Auth: {signature(TOKEN, other.call_id, phone.sip_call_id)}\r\n",
        "replayed": other.signed(),  # with a SIP Call-ID of its own
    }
    assert (await phone.invited(headers[forged])).status == 403
    assert (await other.invited("")).status == 403
    assert not exchange.hall.told_of(phone.call_id)
    assert not exchange.hall.told_of(other.call_id)
    await exchange.call()


async def test_the_fifth_call_is_busy_and_a_slot_that_is_free_again_is_taken_again(
    exchange: RtpExchange,
) -> None:
    calls = [await exchange.call() for _ in range(CAPACITY)]
    assert sorted(started.slot for _, started in calls) == list(range(CAPACITY))
    assert len({started.call for _, started in calls}) == CAPACITY
    fifth = await exchange.phone()
    assert (await fifth.invited()).status == 486
    assert not exchange.hall.told_of(fifth.call_id)
    leaver, left = calls[2]
    await leaver.hang_up()
    _, sixth = await exchange.call()
    assert sixth.slot == left.slot
    assert sixth.call not in {started.call for _, started in calls}


@pytest.mark.parametrize(("signed", "status"), [(True, 503), (False, 403)])
async def test_a_second_call_of_a_living_calls_name_is_refused_and_the_living_one_unharmed(
    exchange: RtpExchange, signed: bool, status: int
) -> None:
    hall = exchange.hall
    phone, started = await exchange.call()
    twin = await exchange.phone(call_id=phone.call_id)
    headers = twin.signed() if signed else f"X-VG-Call: {phone.call_id}\r\n"
    assert (await twin.invited(headers)).status == status
    await hall.hears_ticks(started.call, 5)
    assert hall.told_of(phone.call_id) == [CallStarted, CallConfirmed]
    await hall.ask(DropCall(phone.call_id))
    await phone.request("BYE")
    assert (await hall.hears(CallLeft, phone.call_id)).how == "hung up"


async def test_a_codec_the_line_has_not_is_not_acceptable(exchange: RtpExchange) -> None:
    phone = await exchange.phone(codec="G722")
    assert (await phone.invited()).status == 488
    assert not exchange.hall.told_of(phone.call_id)


async def test_an_error_of_ours_refuses_its_call_and_no_other(
    exchange: RtpExchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    going, started = await exchange.call()

    def fails(*_: object) -> None:
        raise RecursionError("what nobody expects")

    with monkeypatch.context() as patch:
        patch.setattr(Describer, "answer", fails)
        for _ in range(CAPACITY):
            phone = await exchange.phone()
            assert (await phone.invited()).status == 500
            assert not exchange.hall.told_of(phone.call_id)
        going.send("INVITE", going.offer())
        assert (await going.final()).status == 500
        going.acknowledge()
    assert failures["rtp.sip"] == CAPACITY + 1
    await exchange.hall.hears_ticks(started.call, 3)
    for _ in range(CAPACITY - 1):
        await exchange.call()


async def test_a_line_that_stops_takes_no_calls_says_bye_and_ends(exchange: RtpExchange) -> None:
    await exchange.line("n1")
    phone, _ = await exchange.call("n1")
    rings = await exchange.phone("n1")
    rings.invite()
    await exchange.hall.hears(CallStarted, rings.call_id)
    late = await exchange.phone("n1")
    phone.deaf = True  # else the line would be gone before it can refuse the next one
    await exchange.front.lines["n1"].ask(StopLine())
    assert (await rings.final()).status == 480
    rings.acknowledge()
    await phone.request("BYE")
    assert (await late.invited()).status == 503
    assert not exchange.hall.told_of(late.call_id)
    await asyncio.wait_for(exchange.tasks["n1"], HANGS_S)
    assert (await exchange.hall.hears(CallLeft, phone.call_id)).how == "failed: the gateway was stopped"


async def test_a_flood_of_forged_calls_harms_no_call_that_is_up(exchange: RtpExchange) -> None:
    phone, started = await exchange.call()
    forgers = [await exchange.phone() for _ in range(60)]

    async def forge(calls: list[RawPhone]) -> None:
        for forger in calls:
            assert (await forger.invited("")).status == 403

    await asyncio.gather(*(forge(forgers[each::3]) for each in range(3)))
    await exchange.hall.hears_ticks(started.call, 5)
    await phone.hang_up()


async def test_who_comes_the_moment_a_caller_goes_is_not_hung_up_with_them(exchange: RtpExchange) -> None:
    """The newcomer has the leaver's slot."""
    callers = [(await exchange.call())[0] for _ in range(CAPACITY)]
    for leaver in callers:
        newcomer = await exchange.phone()
        leaver.send("BYE")
        newcomer.invite()
        started = await exchange.hall.hears(CallStarted, newcomer.call_id)
        await exchange.hall.ask(AnswerCall(newcomer.call_id))
        assert (await newcomer.final()).status == 200
        newcomer.acknowledge()
        await exchange.hall.hears_ticks(started.call, 3)


async def test_a_flood_of_calls_leaves_no_slot_taken(exchange: RtpExchange) -> None:
    """Five times more calls than there are slots: too many, cancelled, refused, hung up by either side."""
    hall, front = exchange.hall, exchange.front
    for _ in range(5):
        calls = [await exchange.phone() for _ in range(CAPACITY)]
        for phone in calls:
            phone.invite()
            await hall.hears(CallStarted, phone.call_id)
        for phone in [await exchange.phone() for _ in range(2)]:
            assert (await phone.invited()).status == 486
        cancelled, refused, caller, ours = calls
        cancelled.send("CANCEL", same=True)
        await hall.ask(DropCall(refused.call_id, 603))
        for phone in (caller, ours):
            await hall.ask(AnswerCall(phone.call_id))
        for phone, status in zip(calls, (487, 603, 200, 200), strict=True):
            assert (await phone.final()).status == status
            phone.acknowledge()
        await caller.hang_up()
        await hall.ask(DropCall(ours.call_id))
        hows = {phone.call_id: "" for phone in calls}
        while not all(hows.values()):
            call_id, how = await front.hears_end()
            if call_id in hows:
                hows[call_id] = how
        assert list(hows.values()) == ["cancelled", "hung up", "caller hung up", "hung up"]
    for _ in range(CAPACITY):
        await exchange.call()


# ── who may go and come back ─────────────────────────────────────────────────────────────────────────


async def test_a_hall_that_comes_back_is_told_its_calls_and_takes_them_up(exchange: RtpExchange) -> None:
    phone, started = await exchange.call()
    rings = await exchange.phone()
    rings.invite()
    await exchange.hall.hears(CallStarted, rings.call_id)
    await exchange.hall.stop()
    late = await exchange.phone()  # comes while nobody is there to take it
    late.invite()
    await late.response(status=100)
    await exchange.new_hall()
    hall = exchange.hall
    hall.sound = tone(440, rate_hz=8000)
    again = await hall.hears(CallStarted, phone.call_id)
    assert (again.call, again.slot, again.codec) == (started.call, started.slot, "PCMU")
    assert (again.resumed, again.confirmed) == (True, True)
    assert hall.told_of(rings.call_id) == [CallStarted]
    phone.talk(tone(1000, rate_hz=8000))
    await hall.hears_bytes(again.call, 1600)
    await phone.hears_loud()
    for waiting in (rings, late):
        await hall.ask(AnswerCall(waiting.call_id))
        assert (await waiting.final()).status == 200
        waiting.acknowledge()
        await hall.hears(CallConfirmed, waiting.call_id)


async def test_a_hall_that_stays_away_loses_its_calls(exchange: RtpExchange) -> None:
    phone, _ = await exchange.call()
    rings = await exchange.phone()
    rings.invite()
    await exchange.hall.hears(CallStarted, rings.call_id)
    loop = asyncio.get_running_loop()
    await exchange.hall.stop()
    lost_at = loop.time()
    ends: dict[str, str] = {}
    while len(ends) < 2:
        call_id, ends[call_id] = await exchange.front.hears_end(within_s=HALL_BACK_WITHIN_S + 2)
    assert HALL_BACK_WITHIN_S - 0.1 < loop.time() - lost_at < HALL_BACK_WITHIN_S + 1
    assert ends == dict.fromkeys((phone.call_id, rings.call_id), "failed: its hall died")
    await phone.request("BYE")
    assert (await rings.final()).status == 503
    rings.acknowledge()
    await exchange.new_hall()
    await exchange.hall.hears_hello("n0")
    assert not exchange.hall.told_of(phone.call_id)
    await exchange.call()


async def test_without_a_front_calls_go_on_and_a_new_one_is_told_of_them(exchange: RtpExchange) -> None:
    phone, started = await exchange.call()
    await exchange.front.stop()
    await exchange.hall.hears_ticks(started.call, 10)
    exchange.front = await FakeFront(exchange.runtime).start()
    hello = await exchange.front.hears_hello("n0")
    assert hello.calls == (LineCall(phone.call_id, started.call, started.slot),)
    assert (hello.kind, hello.rate_hz, hello.capacity) == ("narrow", 8000, CAPACITY)
    await exchange.front.hang_up(phone.call_id, "n0")
    assert (await exchange.hall.hears(CallLeft, phone.call_id)).how == "hung up"

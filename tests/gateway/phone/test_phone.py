"""The test phone's process: what it dials, says and hears, and how it reports what went wrong."""

from __future__ import annotations

from array import array
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from gateway.ipc.line_messages import (
    AnswerCall,
    CallConfirmed,
    CallLeft,
    CallStarted,
    DropCall,
    KeyPressed,
)
from gateway.phone.phone_plan import CallPlan, ScriptStep
from tests.gateway.line.line_harness import is_tone, tone
from tests.gateway.line.rawphone import RawPhone
from tests.gateway.phone.phone_calls import LISTEN, TONE, Caller, dial, phone
from tests.gateway.rtp.rtp_exchange import RtpExchange

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module")
async def callee() -> AsyncIterator[RawPhone]:
    opened = await RawPhone().open()
    yield opened
    opened.close()


@pytest_asyncio.fixture(loop_scope="module")
async def caller(exchange: RtpExchange) -> Caller:
    return Caller(exchange)


# ── calls that are answered ──────────────────────────────────────────────────────────────────────────


def beginning_of(pcm: bytes) -> bytes:
    """0.2 s from its first sound on."""
    start = next(at for at, sample in enumerate(array("h", pcm)) if abs(sample) > 1000)
    return pcm[2 * start : 2 * start + 3200]


def answering(heard: bytearray) -> Callable[[int], bytes]:
    """Greets for 0.3 s; says as much again once it has heard as much and then silence."""
    answer = -1

    def say(n: int) -> bytes:
        nonlocal answer
        samples = array("h", bytes(heard))
        loud = [at for at in range(0, len(samples), 160) if max(samples[at : at + 160]) > 1000]
        if answer < 0 and len(loud) >= 15 and loud[-1] < len(samples) - 10 * 160:
            answer = n
        return TONE(n) if n < 15 or 0 <= n - answer < 15 else b""

    return say


async def test_it_speaks_in_its_turn_then_presses_keys_then_hangs_up(caller: Caller, tmp_path: Path) -> None:
    hall = caller.exchange.hall
    said, heard = tmp_path / "said", tmp_path / "heard"
    said.write_bytes(b"".join(tone(1000, rate_hz=8000)(n) for n in range(20)))
    steps = (LISTEN, ScriptStep("say", str(said)), LISTEN, ScriptStep("press", digits="1#"))
    plan, call_id = await caller.plan(*steps, record=str(heard))
    dialled = dial(plan)
    started = await hall.hears(CallStarted, call_id, 10)
    hall.sounds[started.call] = answering(hall.heard.setdefault(started.call, bytearray()))
    await hall.ask(AnswerCall(call_id))
    assert [(await hall.hears(KeyPressed, call_id, 10)).digit for _ in range(2)] == ["1", "#"]
    [outcome] = await dialled
    assert (outcome.status, outcome.answered, outcome.ended) == (200, True, "we hung up")
    assert outcome.codec == "PCMU"
    assert outcome.answered_after_s is not None
    assert outcome.first_audio_s is not None
    speech, keys = outcome.turns
    assert (speech.kind, keys.kind) == ("speech", "digits")
    assert speech.start_s > outcome.first_audio_s + 0.3, "it lets the other side finish"
    assert speech.end_s - speech.start_s > 0.35, "it says all of it"
    assert speech.latency_s is not None
    assert speech.latency_s > 0.1
    assert keys.start_s > speech.end_s + speech.latency_s + 0.3
    assert keys.latency_s is None, "nobody answers keys here"
    assert outcome.duration_s > keys.end_s + 0.5, "it waits for an answer"
    assert outcome.packets > 0
    assert outcome.lost == 0
    recorded = heard.read_bytes()
    assert len(recorded) / 16_000 == pytest.approx(outcome.duration_s, abs=0.3)
    assert is_tone(beginning_of(recorded), 440, 8000)
    assert is_tone(beginning_of(bytes(hall.heard[started.call])), 1000, 8000)


async def test_calls_of_one_process_have_an_end_each(caller: Caller) -> None:
    hall = caller.exchange.hall
    (first, a), (second, b), (third, c) = [await caller.plan() for _ in range(3)]
    dialled = dial(replace(first, duration_s=0.2), second, replace(third, after_s=1.0))
    assert {(await hall.hears(CallStarted, within_s=10)).call_id for _ in range(2)} == {a, b}
    for call_id in (a, b):
        await hall.ask(AnswerCall(call_id))
    assert {(await hall.hears(CallConfirmed)).call_id for _ in range(2)} == {a, b}
    await hall.ask(DropCall(b))
    assert (await hall.hears(CallLeft, a)).how == "caller hung up"
    await hall.hears(CallStarted, c)
    await hall.ask(DropCall(c, 486))
    one, two, three = await dialled
    assert (one.answered, one.ended, one.ended_by) == (True, "we hung up", "us")
    assert one.duration_s >= 0.2
    assert (two.answered, two.ended, two.ended_by) == (True, "they hung up", "them")
    assert (three.answered, three.status, three.reason) == (False, 486, "Busy Here")
    assert (three.ended, three.ended_by) == ("486 Busy Here", "nobody")


async def test_a_step_with_a_time_waits_for_nobody(caller: Caller, tmp_path: Path) -> None:
    said = tmp_path / "said"
    said.write_bytes(TONE(0) * 50)
    steps = (ScriptStep("at", seconds=0.1), ScriptStep("say", str(said)))
    plan, call_id = await caller.plan(*steps, duration_s=0.4)
    dialled = dial(plan, patience_s=30.0)
    started = await caller.up(call_id)
    caller.exchange.hall.sounds[started.call] = TONE
    [outcome] = await dialled
    assert outcome.turns[0].start_s >= 0.1
    assert outcome.first_audio_s is not None, "the other side was speaking"
    assert outcome.ended == "we hung up"


@pytest.mark.parametrize(
    ("step", "why"),
    [
        (ScriptStep("press", digits="x"), "failed: Invalid DTMF digit"),
        (ScriptStep("say", "/nowhere/said"), "failed: FileNotFoundError"),
    ],
)
async def test_a_step_that_cannot_be_done_ends_the_call(caller: Caller, step: ScriptStep, why: str) -> None:
    plan, call_id = await caller.plan(step)
    dialled = dial(plan)
    await caller.up(call_id)
    [outcome] = await dialled
    assert outcome.answered
    assert outcome.ended.startswith(why)
    assert (await caller.exchange.hall.hears(CallLeft, call_id)).how == "caller hung up"


async def test_keys_for_who_can_hear_none_end_the_call(callee: RawPhone) -> None:
    dialled = dial(CallPlan(f"sip:raw@127.0.0.1:{callee.sip_port}", (ScriptStep("press", digits="1"),)))
    callee.answer(await callee.request("INVITE", 10), body=callee.offer(keys=False))
    await callee.request("BYE")
    [outcome] = await dialled
    assert outcome.answered
    assert outcome.ended.startswith("failed: ")


# ── calls that are not ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("status", ["404 Not Found", "486 Busy Here"])
async def test_a_refusal_is_reported_with_its_status(callee: RawPhone, status: str) -> None:
    steps = (LISTEN, ScriptStep("press", digits="1"))
    dialled = dial(CallPlan(f"sip:raw@127.0.0.1:{callee.sip_port}", steps))
    callee.answer(await callee.request("INVITE", 10), status)
    [outcome] = await dialled
    assert (outcome.answered, outcome.status, outcome.ended) == (False, int(status[:3]), status)
    assert outcome.turns == ()
    assert outcome.first_audio_s is None


async def test_who_lets_it_ring_is_given_up(caller: Caller) -> None:
    plan, call_id = await caller.plan()
    dialled = dial(plan, answer_s=0.3)
    assert (await caller.exchange.hall.hears(CallLeft, call_id, 10)).how == "cancelled"
    [outcome] = await dialled
    assert (outcome.answered, outcome.ended) == (False, "no answer within 0.3 s")


async def test_who_says_nothing_at_all_is_given_up(callee: RawPhone) -> None:
    dialled = dial(CallPlan(f"sip:raw@127.0.0.1:{callee.sip_port}"), answer_s=0.3)
    await callee.request("INVITE", 10)
    [outcome] = await dialled
    assert (outcome.answered, outcome.ended) == (False, "no answer within 0.3 s")


async def test_who_asks_for_a_password_gets_a_digest_of_it(callee: RawPhone) -> None:
    plan = CallPlan(f"sip:raw@127.0.0.1:{callee.sip_port}", user="ann", password="secret")
    dialled = dial(plan)
    challenge = 'WWW-Authenticate: Digest realm="house", nonce="n1", algorithm=MD5\r\n'
    callee.answer(await callee.request("INVITE", 10), "401 Unauthorized", headers=challenge)
    again = await callee.request("INVITE")
    assert 'username="ann", realm="house", nonce="n1"' in again.headers["authorization"]
    assert "secret" not in str(again)
    callee.answer(again, "486 Busy Here")
    assert (await dialled)[0].status == 486


async def test_what_is_no_address_is_not_dialled() -> None:
    [outcome] = await dial(CallPlan("nonsense"))
    assert outcome.ended == "cannot call nonsense: Invalid Request URI (PJSIP_EINVALIDREQURI)"


# ── plans ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("plan", "why"),
    [
        (b"", "not JSON"),
        (b"{}", "the plan, field calls: it is missing"),
        (b'{"calls": [{"uri": "sip:a@b", "colour": "red"}]}', "field calls.0.colour: nobody here knows it"),
        (b'{"calls": [], "codecs": ["opus"]}', "field codecs.0: expected one of 'pcmu', 'pcma', 'g722'"),
        (b'{"calls": [], "address": "192.0.2.1"}', "Cannot assign requested address"),
    ],
)
async def test_a_plan_that_is_none_is_an_error_that_says_so(plan: bytes, why: str) -> None:
    assert why in (await phone(plan))["error"]

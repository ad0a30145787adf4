"""Calls that the test phone's process places, and the plans for them."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import replace
from typing import Any

from gateway.ipc.codec import from_json, packed, to_json
from gateway.ipc.line_messages import AnswerCall, CallConfirmed, CallStarted
from gateway.ipc.line_signature import signature
from gateway.phone.phone_plan import CallPlan, PhoneOutcome, PhonePlan, ScriptStep
from tests.gateway.line.line_harness import TOKEN, tone
from tests.gateway.rtp.rtp_exchange import RtpExchange

TONE = tone(440, rate_hz=8000)
LISTEN = ScriptStep("listen")


async def phone(plan: bytes, within_s: float = 15.0) -> dict[str, Any]:
    """What the process says to that plan."""
    argv = [sys.executable, "-m", "gateway.phone.phone"]
    process = await asyncio.create_subprocess_exec(
        *argv, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(within_s):
            said, _ = await process.communicate(plan)
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0
    report: dict[str, Any] = json.loads(said)
    return report


def dial(*calls: CallPlan, **more: Any) -> asyncio.Task[list[PhoneOutcome]]:
    """Places the calls; what became of them."""
    plan = replace(PhonePlan(calls, pause_s=0.2, patience_s=0.6), **more)

    async def report() -> list[PhoneOutcome]:
        said = await phone(packed(to_json(PhonePlan, plan)))
        return [from_json(PhoneOutcome, outcome, "an outcome") for outcome in said["outcomes"]]

    return asyncio.create_task(report())


class Caller:
    """Plans for calls that the exchange's line takes."""

    def __init__(self, exchange: RtpExchange) -> None:
        self.exchange = exchange
        self.taken = 0

    async def plan(self, *steps: ScriptStep, **more: Any) -> tuple[CallPlan, str]:
        """(plan, call id)"""
        port = (await self.exchange.front.hears_hello("n0")).sip_port
        self.taken += 1
        call_id = f"p{id(self):x}-{self.taken}"
        sip_call_id = f"sip-{call_id}"
        headers = {"X-VG-Call": call_id, "X-VG-Auth": signature(TOKEN, call_id, sip_call_id)}
        uri = f"sip:demo@127.0.0.1:{port}"
        return CallPlan(uri, steps, headers=headers, sip_call_id=sip_call_id, **more), call_id

    async def up(self, call_id: str) -> CallStarted:
        """Answers the call that comes."""
        started = await self.exchange.hall.hears(CallStarted, call_id, 10)
        await self.exchange.hall.ask(AnswerCall(call_id))
        await self.exchange.hall.hears(CallConfirmed, call_id)
        return started

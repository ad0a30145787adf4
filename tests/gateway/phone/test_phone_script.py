"""What a test phone's script does on the wire, and what its report says of the wire."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pytest_asyncio

from gateway.ipc.line_messages import AnswerCall, CallConfirmed, CallStarted
from gateway.phone.phone_plan import CallPlan, ScriptStep
from gateway.phone.rough_line import PacketFates, RoughLine
from tests.gateway.line.line_harness import is_tone, tone
from tests.gateway.line.rawphone import RawPhone
from tests.gateway.phone.phone_calls import TONE, Caller, dial
from tests.gateway.rtp.rtp_exchange import RtpExchange

pytestmark = pytest.mark.asyncio(loop_scope="module")

COUNT = 100
"""Packets that are looked at: those that one draw decides about."""


@dataclass
class Callee(RawPhone):
    """Notes which packets came, in their order."""

    sequences: list[int] = field(default_factory=list)

    def _rtp_came(self, data: bytes, source: tuple[str, int]) -> None:
        self.sequences.append(int.from_bytes(data[2:4], "big"))
        super()._rtp_came(data, source)

    async def hears_packets(self, count: int) -> list[int]:
        """The sequence numbers of the first `count`, and of what follows to fill holes."""
        await self._until(lambda: len(self.sequences) >= count, 20)
        return list(self.sequences)


@contextlib.asynccontextmanager
async def a_callee() -> AsyncIterator[Callee]:
    callee = Callee()
    await callee.open()
    yield callee
    callee.close()


@pytest_asyncio.fixture(loop_scope="module")
async def callee() -> AsyncIterator[Callee]:
    async with a_callee() as one:
        yield one


def plan(callee: RawPhone, *steps: ScriptStep, line: RoughLine | None = None, **more: object) -> CallPlan:
    uri = f"sip:raw@127.0.0.1:{callee.sip_port}"
    return CallPlan(uri, steps, line=line or RoughLine(), **more)  # type: ignore[arg-type]


async def taken(callee: RawPhone) -> None:
    """Answers the call that comes."""
    invite = await callee.request("INVITE", 10)
    callee.answer(invite, body=callee.offer())
    port = invite.body.partition("m=audio ")[2].split()[0]
    callee.media = ("127.0.0.1", int(port))
    callee.sip_call_id = invite.headers["call-id"]
    callee.to_tag = invite.headers["from"].partition("tag=")[2]


async def says(callee: Callee, packets: int) -> None:
    """So many packets of a tone, one every 20 ms or so, from when the other side's stream is there on."""
    await callee.hears_packets(1)
    for _ in range(packets):
        callee.send_rtp(callee.coder.encode(TONE(0)))
        callee.timestamp += 160
        await asyncio.sleep(0.02)


# ── the wire ─────────────────────────────────────────────────────────────────────────────────────────


async def test_the_packets_that_the_seed_names_are_lost_and_no_other(callee: Callee) -> None:
    line = RoughLine(loss_percent=10, seed=4)
    dialled = dial(plan(callee, line=line, number=2))
    await taken(callee)
    fates = PacketFates(line, call=2)
    kept = [n for n in range(2 * COUNT) if not fates.next().lost]
    came = await callee.hears_packets(COUNT)
    first = came[0] - kept[0]
    assert [(each - first) % 65536 for each in came[:COUNT]] == kept[:COUNT]
    callee.send("BYE")
    [outcome] = await dialled
    assert outcome.packets_dropped >= COUNT // 10


async def test_a_packet_that_is_overtaken_comes_after_the_next(callee: Callee) -> None:
    line = RoughLine(reorder_percent=20, seed=2)
    dialled = dial(plan(callee, line=line))
    await taken(callee)
    fates, order = PacketFates(line), []
    overtaken: list[int] = []
    for n in range(2 * COUNT):
        if fates.next().overtaken:
            overtaken = [n]
        else:
            order += [n, *overtaken]
            overtaken = []
    came = await callee.hears_packets(COUNT)
    first = came[0] - order[0]
    assert [(each - first) % 65536 for each in came[:COUNT]] == order[:COUNT]
    callee.send("BYE")
    await dialled


async def test_packets_that_are_held_back_come_all_and_in_their_order(callee: Callee) -> None:
    dialled = dial(plan(callee, line=RoughLine(jitter_ms=80)))
    await taken(callee)
    came = await callee.hears_packets(COUNT)
    assert [(each - came[0]) % 65536 for each in came[:COUNT]] == list(range(COUNT))
    callee.send("BYE")
    [outcome] = await dialled
    assert outcome.packets_dropped == 0


async def test_of_what_comes_so_much_is_lost_as_was_asked(callee: Callee) -> None:
    line = RoughLine(heard_loss_percent=20, seed=3)
    dialled = dial(plan(callee, line=line))
    await taken(callee)
    await says(callee, COUNT // 2)
    callee.send("BYE")
    [outcome] = await dialled
    fates = PacketFates(line.heard)
    kept = [n for n in range(COUNT // 2) if not fates.next().lost]
    assert outcome.packets == len(kept)
    assert outcome.lost == kept[-1] - kept[0] + 1 - len(kept), "between the first and the last that came"
    assert outcome.packets_dropped == 0


async def test_a_hole_in_what_comes_is_reported(callee: Callee) -> None:
    dialled = dial(plan(callee))
    await taken(callee)
    await says(callee, 20)
    await asyncio.sleep(0.5)
    await says(callee, 30)
    callee.send("BYE")
    [outcome] = await dialled
    assert outcome.longest_hole_s >= 0.5
    assert outcome.gaps >= 1
    assert outcome.packets == 50
    assert outcome.ended_by == "them"


# ── the script ───────────────────────────────────────────────────────────────────────────────────────


async def test_a_hold_is_a_question_and_its_end_another(callee: Callee) -> None:
    dialled = dial(plan(callee, ScriptStep("hold", seconds=1.0), ScriptStep("hang up")))
    await taken(callee)
    hold = await callee.request("INVITE", 10)
    began = time.monotonic()
    assert "a=sendonly" in hold.body
    callee.answer(hold, body=callee.offer("recvonly"))
    back = await callee.request("INVITE", 10)
    assert time.monotonic() - began > 0.8
    assert "a=sendrecv" in back.body
    callee.answer(back, body=callee.offer())
    await callee.request("BYE", 10)
    [outcome] = await dialled
    assert (outcome.ended, outcome.ended_by) == ("we hung up", "us")


@pytest_asyncio.fixture(loop_scope="module")
async def caller(exchange: RtpExchange) -> Caller:
    return Caller(exchange)


async def test_it_speaks_over_a_voice_with_its_noise_behind_it(caller: Caller, tmp_path: Path) -> None:
    hall = caller.exchange.hall
    said, noise = tmp_path / "said", tmp_path / "noise"
    said.write_bytes(b"".join(tone(1000, rate_hz=8000)(n) for n in range(20)))
    noise.write_bytes(b"".join(tone(250, peak=2000, rate_hz=8000)(n) for n in range(50)))
    steps = (ScriptStep("interrupt", seconds=0.5), ScriptStep("say", str(said)), ScriptStep("hang up"))
    made, call_id = await caller.plan(*steps, background=str(noise))
    dialled = dial(made, patience_s=30.0)
    started = await hall.hears(CallStarted, call_id, 10)
    hall.sounds[started.call] = TONE
    await hall.ask(AnswerCall(call_id))
    await hall.hears(CallConfirmed, call_id)
    await hall.hears_bytes(started.call, 3200)  # the line's own beginning
    behind = await hall.hears_bytes(started.call, 3200)
    [outcome] = await dialled
    assert is_tone(behind, 250, 8000)
    assert outcome.first_audio_s is not None
    assert outcome.turns[0].start_s >= outcome.first_audio_s + 0.45, "it was speaking for half a second"
    assert outcome.turns[0].start_s < 20, "and did not fall silent"

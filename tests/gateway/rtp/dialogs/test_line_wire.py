"""A line's socket, and its requests until they have their answers: two lines talk with each other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from gateway.edge.flows.transport import Flow
from gateway.edge.grammar.message import transaction_key
from gateway.edge.grammar.responses import response
from gateway.edge.grammar.sip_message import Request, Response
from gateway.edge.grammar.uri import URI
from gateway.errors import LineError
from gateway.rtp.dialogs.dialog_state import DialogState
from gateway.rtp.dialogs.line_wire import LineWire
from model.tasks import failures

AT_MOST_S = 10.0


class WireEnd(LineWire):
    """Answers with `status`; 0: not at all; None: breaks."""

    def __init__(self, port: int = 0) -> None:
        super().__init__(port, self._serve)
        self.status: int | None = 200
        self.came: asyncio.Queue[Request] = asyncio.Queue()
        self.answers: asyncio.Queue[Response | None] = asyncio.Queue()

    def _serve(self, request: Request, flow: Flow) -> None:
        self.came.put_nowait(request)
        if request.method == "ACK":
            return
        served = self.transactions.serve(request, flow, transaction_key(request, flow))
        if self.status is None:
            raise RecursionError("what nobody expects")
        if self.status and served is not None:
            served.answer(response(request, flow, self.status))

    def toward(self, other: WireEnd) -> tuple[DialogState, Flow]:
        uri = URI.read(f"sip:127.0.0.1:{other.port}")
        return DialogState("id", "<sip:a@x>;tag=a", "<sip:b@x>", uri), self.flow_to(uri, self._nowhere)

    @property
    def _nowhere(self) -> Flow:
        return Flow("udp", "192.0.2.1", 5060, None)

    async def next_answer(self) -> Response | None:
        return await asyncio.wait_for(self.answers.get(), AT_MOST_S)


@pytest.fixture
async def ends() -> AsyncIterator[tuple[WireEnd, WireEnd]]:
    near, far = WireEnd(), WireEnd()
    await near.open()
    await far.open()
    yield near, far
    await near.close()
    await far.close()


async def test_a_request_has_its_answer_and_the_wire_falls_quiet(ends: tuple[WireEnd, WireEnd]) -> None:
    near, far = ends
    state, flow = near.toward(far)
    near.send(state.request("BYE"), flow, near.answers.put_nowait)
    quiet = asyncio.create_task(near.falls_quiet(AT_MOST_S))
    answer = await near.next_answer()
    assert answer is not None
    assert answer.code == 200
    await asyncio.wait_for(quiet, AT_MOST_S)
    assert f"127.0.0.1:{near.port};rport" in (await far.came.get()).headers["Via"]
    await near.falls_quiet(AT_MOST_S)  # nothing is asked: it does not wait


async def test_nobody_waits_for_ever_for_an_answer(ends: tuple[WireEnd, WireEnd]) -> None:
    near, far = ends
    far.status = 0
    state, flow = near.toward(far)
    near.send(state.request("BYE"), flow, near.answers.put_nowait)
    await asyncio.wait_for(near.falls_quiet(0.05), AT_MOST_S)
    assert near.answers.empty()


async def test_a_refused_invite_within_a_dialog_is_acknowledged_here(ends: tuple[WireEnd, WireEnd]) -> None:
    near, far = ends
    far.status = 488
    state, flow = near.toward(far)
    near.send(state.request("INVITE"), flow, near.answers.put_nowait)
    answer = await near.next_answer()
    assert answer is not None
    assert answer.code == 488
    methods = [(await asyncio.wait_for(far.came.get(), AT_MOST_S)).method for _ in range(2)]
    assert methods == ["INVITE", "ACK"]


async def test_a_request_that_breaks_us_has_500_and_the_wire_goes_on(ends: tuple[WireEnd, WireEnd]) -> None:
    near, far = ends
    far.status = None
    before = failures["rtp.sip"]
    state, flow = near.toward(far)
    near.send(state.request("INFO"), flow, near.answers.put_nowait)
    answer = await near.next_answer()
    assert answer is not None
    assert (answer.code, failures["rtp.sip"]) == (500, before + 1)
    flow.send(b"\x00 nobody's SIP \r\n\r\n")
    far.status = 200
    near.send(state.request("INFO"), flow, near.answers.put_nowait)
    answer = await near.next_answer()
    assert answer is not None
    assert answer.code == 200


async def test_a_cancel_names_the_invite(ends: tuple[WireEnd, WireEnd]) -> None:
    near, far = ends
    far.status = 180
    state, flow = near.toward(far)
    sent = near.invite(state.request("INVITE"), flow, near.answers.put_nowait)
    assert await near.next_answer() is not None
    near.cancel(sent)
    invite, cancel = [await asyncio.wait_for(far.came.get(), AT_MOST_S) for _ in range(2)]
    assert (invite.method, cancel.method) == ("INVITE", "CANCEL")
    assert invite.headers["Via"] == cancel.headers["Via"]


async def test_only_addresses_of_this_host_are_reached_directly(ends: tuple[WireEnd, WireEnd]) -> None:
    near, _ = ends
    away = Flow("udp", "192.0.2.1", 5060, None)
    for text in ("sip:192.0.2.9:5060", "sip:127.0.0.1", "sip:localhost:5060"):
        assert near.flow_to(URI.read(text), away) is away
    assert near.flow_to(URI.read("sip:127.0.0.1:5060"), away).port == 5060


async def test_a_port_that_is_taken_is_said(ends: tuple[WireEnd, WireEnd]) -> None:
    with pytest.raises(LineError, match=f"cannot listen on UDP 127.0.0.1:{ends[0].port}"):
        await WireEnd(ends[0].port).open()

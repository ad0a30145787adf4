"""Telephones keep their flows open (RFC 5626 §3.5): STUN over UDP, two line breaks over a connection."""

from __future__ import annotations

import asyncio
from typing import Any, Self

import pytest
from aioice import stun
from hypothesis import given
from hypothesis import strategies as st

from gateway.edge.flows.stun import MAX_REQUEST, binding_answer
from gateway.edge.flows.transport import Flow
from tests.gateway.edge.conftest import Exchange
from tests.gateway.edge.registrar.phones import Nowhere


class Socket(asyncio.DatagramProtocol):
    """What comes, as bytes."""

    def __init__(self) -> None:
        self.came: asyncio.Queue[bytes] = asyncio.Queue()

    async def open(self) -> Self:
        loop = asyncio.get_running_loop()
        self.transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=("127.0.0.1", 0))
        return self

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.came.put_nowait(data)


def request() -> stun.Message:
    return stun.Message(stun.Method.BINDING, stun.Class.REQUEST)


async def test_a_stun_keep_alive_is_told_its_own_address(exchange: Exchange) -> None:
    phone = await Socket().open()
    asked = request()
    phone.transport.sendto(bytes(asked), ("127.0.0.1", exchange.edges[-1].port))
    async with asyncio.timeout(5):
        answer = stun.parse_message(await phone.came.get())
    assert answer.message_class is stun.Class.RESPONSE
    assert answer.transaction_id == asked.transaction_id
    own = phone.transport.get_extra_info("sockname")
    assert answer.attributes["XOR-MAPPED-ADDRESS"] == own
    assert exchange.edges[-1].stats()["keep_alives"] == 1
    phone.transport.close()


async def test_who_may_not_call_or_asks_too_often_hears_nothing(bare: Exchange) -> None:
    for rules, heard in (({"deny": ("127.0.0.1",)}, 0), ({"invites_per_s": 1}, 2)):
        edge, socket = await bare.edge(**rules), Nowhere()
        flow = Flow("udp", "127.0.0.1", 5070, socket, ("127.0.0.1", 5070))
        for _ in range(20):
            edge._from_caller(bytes(request()), flow)
        assert len(socket.sent) <= heard


async def test_stun_over_a_connection_ends_it(exchange: Exchange) -> None:
    phone = await exchange.caller("tcp")
    phone.write(bytes(request()) + b"\r\n\r\n\r\n\r\n")
    await phone.gone()


def test_an_address_of_ipv6_is_told_too() -> None:
    asked = request()
    answer = binding_answer(bytes(asked), "2001:db8::7%eth0", 5060)
    assert answer is not None
    assert stun.parse_message(answer).attributes["XOR-MAPPED-ADDRESS"] == ("2001:db8::7", 5060)


@pytest.mark.parametrize(
    "data",
    [
        bytes(stun.Message(stun.Method.BINDING, stun.Class.INDICATION)),
        bytes(stun.Message(stun.Method.BINDING, stun.Class.RESPONSE)),
        bytes(request())[:-1],
        bytes(request()) + b"more",
        bytes(request())[:2] + b"\xff\xfc" + bytes(request())[4:],
        bytes(request())[:2] + (MAX_REQUEST).to_bytes(2, "big") + bytes(request())[4:] + bytes(MAX_REQUEST),
        b"INVITE sip:a@b SIP/2.0\r\n",
    ],
    ids=["indication", "response", "cut short", "longer", "another length", "too long", "SIP"],
)
def test_what_asks_for_no_binding_gets_no_answer(data: bytes) -> None:
    assert binding_answer(data, "192.0.2.1", 5060) is None


@given(st.binary(max_size=700), st.booleans())
def test_whatever_comes_an_answer_is_hardly_longer(data: bytes, whole: bool) -> None:
    if whole:
        data = bytes(request())[:20] + data
    answer = binding_answer(data, "2001:db8::7", 5060)
    assert answer is None or len(answer) <= len(data) + 24

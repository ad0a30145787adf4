"""A trunk's own calls: known by its address, let in without a password, believed where its file says so."""

from __future__ import annotations

import pytest

from gateway.edge.trunks.trunk import Trunk, TrunkHost
from tests.gateway.edge.conftest import Exchange
from tests.gateway.edge.peers import ANSWER, OFFER

PAI = "P-Asserted-Identity: <sip:+4930123@carrier.example.com>"


def nobody(user: str, algorithm: str) -> str | None:
    return None


@pytest.mark.parametrize("trusted", [True, False])
async def test_a_trunk_is_let_in_by_its_address_and_believed_where_it_is_trusted(
    bare: Exchange, trusted: bool
) -> None:
    trunk = Trunk(name="carrier", hosts=(TrunkHost("127.0.0.1", None),), trusted=trusted)
    bare.trunks = (trunk,)
    await bare.edge(ha1=nobody, allow=("198.51.100.0/24",))
    line = await bare.line()
    caller = await bare.caller()
    caller.send("INVITE", OFFER, PAI)
    line.reply(await line.invited(), 200, body=ANSWER)
    await caller.next(200)
    (call,) = bare.desk.calls
    assert call.facts.trunk == "carrier"
    assert ("+4930123" in str(call.facts.headers)) is trusted


async def test_who_is_not_the_trunk_is_asked_for_a_password(bare: Exchange) -> None:
    bare.trunks = (Trunk(name="carrier", hosts=(TrunkHost("192.0.2.1", None),)),)
    await bare.edge(ha1=nobody)
    await bare.line()
    caller = await bare.caller()
    caller.send("INVITE", OFFER)
    await caller.next(401)
    assert not bare.desk.calls


async def test_a_trunk_registers_no_telephone_without_its_password(bare: Exchange) -> None:
    bare.trunks = (Trunk(name="carrier", hosts=(TrunkHost("127.0.0.1", None),)),)
    bare.shelf = object()
    await bare.edge(ha1=nobody, phones=nobody)
    caller = await bare.caller()
    caller.send("REGISTER")
    await caller.next(401)
